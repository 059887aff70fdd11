import copy
import pickle

import pytest
import torch
from torch import nn

from unstuck.errors import MisuseError
from unstuck.optim.sam import Sam, statistics_kept
from unstuck.optim.sgd import Sgd


def quadratic():
    generator = torch.Generator().manual_seed(0)
    draw = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    start = torch.randn(6, generator=generator, dtype=torch.float64)
    return draw @ draw.T / 6, start


def closure_of(optimizer, loss):
    def closure():
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    return closure


@pytest.mark.parametrize("adaptive", [False, True])
def test_it_descends_by_the_gradient_of_the_worst_point_near_by(adaptive):
    matrix, at = quadratic()
    params = [nn.Parameter(at[:4].clone().reshape(2, 2)), nn.Parameter(at[4:].clone())]
    optimizer = Sam(torch.optim.SGD(params, 0.05), rho=0.3, adaptive=adaptive, eta=0.02)

    def loss():
        x = torch.cat([p.flatten() for p in params])
        return x @ matrix @ x / 2

    for _ in range(20):
        value = optimizer.step(closure_of(optimizer, loss))
        torch.testing.assert_close(value.detach(), at @ matrix @ at / 2, rtol=1e-12, atol=0)
        size = at.abs() + 0.02 if adaptive else torch.ones(6, dtype=torch.float64)
        gradient = matrix @ at
        worst = at + 0.3 * size**2 * gradient / (size * gradient).norm()
        at = at - 0.05 * matrix @ worst
    torch.testing.assert_close(torch.cat([p.detach().flatten() for p in params]), at, rtol=1e-12, atol=1e-12)


def test_maximizing_it_looks_down():
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = Sam(Sgd([weight], 0.1, maximize=True), rho=0.5)
    seen = []

    def loss():
        seen.append(weight.detach().clone())
        return -weight.square().sum() / 2

    optimizer.step(closure_of(optimizer, loss))
    way = torch.tensor([1.0, 2.0]) / 5**0.5
    assert torch.allclose(seen[1], seen[0] + 0.5 * way)  # gradient is -w: the loss is lower outside


def test_weights_come_back_to_the_last_bit():
    torch.manual_seed(0)
    weights = [nn.Parameter(torch.randn(50, 3) * 10.0 ** torch.randint(-20, 20, (50, 3))) for _ in range(3)]
    before = [w.detach().clone() for w in weights]
    optimizer = Sam(torch.optim.SGD(weights, 0.0), rho=0.7)
    for w in weights:
        w.grad = torch.randn(50, 3)
    optimizer.first_step()
    assert any(not torch.equal(w, b) for w, b in zip(weights, before, strict=True))
    optimizer.second_step()
    assert all(torch.equal(w, b) for w, b in zip(weights, before, strict=True))


def test_weights_come_back_after_an_error_in_the_second_pass():
    weight = nn.Parameter(torch.tensor([0.1, 0.2]))
    before = weight.detach().clone()
    optimizer = Sam(torch.optim.SGD([weight], 0.1))
    calls = []

    def closure():
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        weight.grad = torch.ones(2)

    with pytest.raises(KeyboardInterrupt):
        optimizer.step(closure)
    assert torch.equal(weight, before)
    optimizer.first_step()  # can be used again


def test_a_gradient_of_zero_moves_nothing():
    weight = nn.Parameter(torch.ones(2))
    optimizer = Sam(torch.optim.SGD([weight], 0.1))
    weight.grad = torch.zeros(2)
    optimizer.first_step()
    assert torch.equal(weight, torch.ones(2))
    optimizer.second_step()
    assert torch.equal(weight, torch.ones(2))


@pytest.mark.parametrize("kind, size", [(nn.BatchNorm1d, (5, 3)), (nn.InstanceNorm1d, (5, 3, 4))])
def test_running_statistics_are_those_of_the_first_pass_alone(kind, size):
    torch.manual_seed(0)
    x = torch.randn(size)
    models = [nn.Sequential(kind(3, affine=True, track_running_stats=True), nn.Flatten()) for _ in range(2)]
    models[0](x)
    optimizer = Sam(torch.optim.SGD(models[1].parameters(), 0.1), rho=1.0, model=models[1])
    optimizer.step(closure_of(optimizer, lambda: models[1](x).square().mean()))
    for once, sam in zip(models[0].buffers(), models[1].buffers(), strict=True):
        assert torch.equal(once, sam)


def test_statistics_come_back_after_an_error():
    layer = nn.BatchNorm1d(2)
    with pytest.raises(ZeroDivisionError), statistics_kept(layer):
        layer(torch.randn(4, 2))
        raise ZeroDivisionError
    assert torch.equal(layer.running_mean, torch.zeros(2))
    assert layer.num_batches_tracked == 0


def test_groups_and_state_are_those_of_the_base():
    first, second = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    base = Sgd([first], 0.1, 0.9)
    optimizer = Sam(base, rho=0.2)
    optimizer.add_param_group({"params": [second], "rho": 0.0, "momentum": 0.0})
    assert optimizer.param_groups is base.param_groups
    assert [group["rho"] for group in base.param_groups] == [0.2, 0.0]
    seen = []

    def loss():
        seen.append(second.detach().clone())
        return (first + second).square().sum()

    optimizer.step(closure_of(optimizer, loss))
    assert torch.equal(seen[0], seen[1])
    assert set(optimizer.state) == set(base.state) == {first}


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_a_copy_has_a_base_of_its_own(copied):
    weight = nn.Parameter(torch.ones(2))
    other = copied(Sam(Sgd([weight], 0.1, 0.9), rho=0.2))
    assert other.base.param_groups is other.param_groups
    assert other.base.state is other.state
    (theirs,) = other.param_groups[0]["params"]
    other.step(closure_of(other, lambda: theirs.square().sum()))
    assert not torch.equal(theirs, weight)
    assert torch.equal(weight, torch.ones(2))


def test_what_cannot_be_is_refused():
    weight = nn.Parameter(torch.ones(2))
    base = torch.optim.SGD([weight], 0.1)
    with pytest.raises(MisuseError, match="base is a list; it is an optimizer"):
        Sam([weight])
    with pytest.raises(MisuseError, match="rho is -1"):
        Sam(base, rho=-1)
    with pytest.raises(MisuseError, match="needs a closure"):
        Sam(base).step()
    weight.grad = torch.ones(2)
    optimizer = Sam(base)
    optimizer.first_step()
    with pytest.raises(MisuseError, match="moved already"):
        optimizer.first_step()
