"""What holds of every optimizer of the family: it learns, goes on from where it was saved, and keeps what it says it keeps."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from unstuck.errors import MisuseError
from unstuck.optim.family import kinds, optimizer
from unstuck.optim.lamb import Lamb
from unstuck.optim.lars import Lars
from unstuck.optim.sgd import Sgd

NAMES = list(kinds())
RATES = {"sgd": 0.1, "momentum": 0.02, "nesterov": 0.02, "sam": 0.02, "lars": 0.2}
SETTINGS = {"lars": {"trust": 0.05}}
OWN = {
    "lamb": lambda params, **s: Lamb(params, weight_decay=0.1, **s),
    "lars": lambda params, **s: Lars(params, s.pop("lr", 0.1), weight_decay=0.1, **s),
    "momentum": lambda params, **s: Sgd(
        params, s.pop("lr", 0.1), 0.9, "mean", True, 0.1, True, bias_correction=True, **s
    ),
    "decayed": lambda params, **s: Sgd(params, s.pop("lr", 0.1), 0.9, weight_decay=0.1, **s),
}


class Net(nn.Sequential):
    def __init__(self):
        torch.manual_seed(0)
        super().__init__(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1))


def made(name, net):
    return optimizer(name, net, learning_rate=RATES.get(name, 0.01), **SETTINGS.get(name, {}))


def batch():
    x = torch.randn(32, 4, generator=torch.Generator().manual_seed(1))
    return x, x.prod(dim=1, keepdim=True) + x[:, :1]


def train(net, opt, steps, schedule=None):
    x, y = batch()

    def closure():
        opt.zero_grad()
        loss = (net(x) - y).square().mean()
        loss.backward()
        return loss

    losses = []
    for _ in range(steps):
        losses.append(float(opt.step(closure).detach()))
        if schedule is not None:
            schedule.step()
    return losses


def same(a, b):
    return all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_learns_and_a_closure_gives_its_loss(name):
    net = Net()
    losses = train(net, made(name, net), 60)
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("name", NAMES)
def test_it_goes_on_from_its_state_dict_to_the_last_bit(name, tmp_path):
    net, other = Net(), Net()
    opt, later = made(name, net), made(name, other)
    train(net, opt, 3)
    other.load_state_dict(net.state_dict())
    torch.save(opt.state_dict(), tmp_path / "state.pt")
    later.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert train(net, opt, 4) == train(other, later, 4)
    assert same(net, other)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_a_copy_goes_the_same_way_by_itself(name, copied):
    net = Net()
    opt = made(name, net)
    train(net, opt, 3)
    other, later = copied((net, opt))
    losses = train(net, opt, 4)
    assert not same(net, other)
    assert losses == train(other, later, 4)
    assert same(net, other)


@pytest.mark.parametrize("name", NAMES)
def test_a_schedule_of_torch_drives_it(name):
    net, other = Net(), Net()
    opt, plain = made(name, net), made(name, other)
    train(net, opt, 4, torch.optim.lr_scheduler.LambdaLR(opt, lambda done: 1 / (1 + done)))
    for done in range(4):
        plain.param_groups[0]["lr"] = RATES.get(name, 0.01) / (1 + done)
        train(other, plain, 1)
    assert same(net, other)


@pytest.mark.parametrize("name", NAMES)
def test_what_has_no_gradient_stays_and_nothing_is_kept_for_it(name):
    net = Net()
    opt = made(name, net)
    net[3].weight.requires_grad_(False)
    before = net[3].weight.detach().clone()
    train(net, opt, 3)
    assert torch.equal(net[3].weight, before)
    assert net[3].weight not in opt.state
    net[3].weight.requires_grad_()  # steps are counted for each parameter by itself
    train(net, opt, 3)
    assert not torch.equal(net[3].weight, before)


@pytest.mark.parametrize("name", NAMES)
def test_it_keeps_as_many_numbers_as_it_says(name):
    net = Net()
    opt = made(name, net)
    train(net, opt, 2)
    for param in net.parameters():
        kept = [v for v in opt.state[param].values() if isinstance(v, torch.Tensor) and v.dim()]
        assert sum(v.numel() for v in kept) == kinds()[name].kept * param.numel()


@pytest.mark.parametrize("name", NAMES)
def test_groups_added_later_have_rates_of_their_own(name):
    net, more = Net(), nn.Parameter(torch.ones(3))
    opt = made(name, net)
    opt.add_param_group({"params": [more], "lr": 0.0, "weight_decay": 0.0})

    def closure():
        opt.zero_grad()
        loss = net(batch()[0]).square().mean() + more.sum()
        loss.backward()
        return loss

    before = net[0].weight.detach().clone()
    opt.step(closure)
    assert torch.equal(more, torch.ones(3))
    assert not torch.equal(net[0].weight, before)


@pytest.mark.parametrize("name", NAMES)
def test_its_first_line_says_what_it_is(name):
    kind = kinds()[name]
    assert kind.says.endswith(".")
    assert len(kind.says) < 130
    assert "learning_rate" not in kind.settings


@pytest.mark.parametrize("name", OWN)
def test_ours_refuse_sparse_gradients(name):
    table = nn.Embedding(5, 2, sparse=True)
    table(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(MisuseError, match=r"sparse gradients, and got one of shape \(5, 2\); make the layer dense"):
        OWN[name](table.parameters()).step()


@pytest.mark.parametrize("name", OWN)
def test_ours_take_types_mixed_and_frozen_at_different_steps(name):
    """Each parameter goes as if it were alone."""
    shapes = [((3, 2), torch.float32), ((4, 4), torch.float64), ((5,), torch.float32), ((2, 2), torch.bfloat16)]
    torch.manual_seed(0)
    together = [nn.Parameter(torch.randn(shape).to(dtype)) for shape, dtype in shapes]
    alone = [nn.Parameter(p.detach().clone()) for p in together]
    one, many = OWN[name](together), [OWN[name]([p]) for p in alone]
    for step in range(6):
        for i, (p, q) in enumerate(zip(together, alone, strict=True)):
            p.grad = None if (step + i) % 3 == 0 else torch.randn(p.shape).to(p.dtype)
            q.grad = p.grad
        one.step()
        for opt in many:
            opt.step()
    assert all(torch.equal(p, q) for p, q in zip(together, alone, strict=True))


class NoWaiting(TorchDispatchMode):
    """Raises where a number is read from a tensor, for which a device would be waited for."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func not in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default), func
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("capturable", [False, True])
@pytest.mark.parametrize("name", OWN)
def test_ours_never_wait_for_the_device(name, capturable):
    net = Net()
    settings = {"lr": torch.tensor(0.1), "capturable": True} if capturable else {}
    opt = OWN[name](net.parameters(), **settings)
    for _ in range(3):
        for param in net.parameters():
            param.grad = torch.ones_like(param)
        with NoWaiting():
            opt.step()
    with pytest.raises(AssertionError), NoWaiting():
        float(torch.ones(1))


@pytest.mark.parametrize("name", OWN)
def test_ours_take_a_rate_in_a_tensor_where_a_graph_can_be_captured(name):
    net, other = Net(), Net()
    rate = torch.tensor(0.1)
    opt = OWN[name](net.parameters(), lr=rate, capturable=True)
    plain = OWN[name](other.parameters(), lr=0.1)
    for now in (0.1, 0.05, 0.2):
        rate.fill_(now)
        plain.param_groups[0]["lr"] = now
        for p, q in zip(net.parameters(), other.parameters(), strict=True):
            p.grad = q.grad = torch.randn(p.shape)
        opt.step()
        plain.step()
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)
    saved = opt.state_dict()
    later = OWN[name](Net().parameters(), lr=torch.tensor(0.3), capturable=True)
    later.load_state_dict(saved)
    assert float(later.param_groups[0]["lr"]) == pytest.approx(0.2)
