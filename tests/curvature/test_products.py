from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from unstuck.curvature import products
from unstuck.curvature.critical import critical_point
from unstuck.curvature.objective import Objective
from unstuck.curvature.products import Dense, Hessian
from unstuck.curvature.spectrum import extremes
from unstuck.curvature.trace import trace
from unstuck.errors import MisuseError

EXACT = ("reused", "fresh", "forward-over-reverse")
LONG = tuple(pytest.param(name, marks=pytest.mark.slow) for name in ("transformer", "lstm", "gru"))
SMOOTH = ("mlp", "cnn", *LONG)


def probe(size: int, seed: int = 5) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def relative(found: Tensor, truth: Tensor) -> float:
    return float((found.double() - truth).norm() / truth.norm())


@pytest.mark.slow
@pytest.mark.parametrize("way", ["reused", "fresh"])
@pytest.mark.parametrize("name", [*SMOOTH, "pooled"])
def test_products_are_those_of_the_dense_hessian(name, way, build, truth):
    objective, _ = build(name)
    hessian = Hessian(objective, way=way, check=False)
    vector = probe(objective.size)
    # float32 keeps seven digits; BatchNorm of one sample of 16 places, and attention, lose one or two
    assert relative(hessian @ vector, truth(name) @ vector.double()) < 2e-5
    assert hessian.way == way and hessian.products == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mlp", "cnn", "pooled", LONG[0]])
def test_forward_over_reverse_is_exact_too(name, build, truth):
    objective, _ = build(name)
    hessian = Hessian(objective, way="forward-over-reverse", check=False)
    vector = probe(objective.size)
    assert relative(hessian @ vector, truth(name) @ vector.double()) < 2e-5  # as above


@pytest.mark.slow
@pytest.mark.parametrize("name", SMOOTH)
def test_finite_differences_come_near(name, build, truth):
    objective, _ = build(name)
    vector = probe(objective.size)
    # the best that central differences can do: eps^(2/3), 2e-5 in float32 and 4e-11 in float64, times a few units
    assert relative(Hessian(objective, way="difference") @ vector, truth(name) @ vector.double()) < 1e-3
    objective, _ = build(name, dtype=torch.float64)
    assert relative(Hessian(objective, way="difference") @ vector.double(), truth(name) @ vector.double()) < 1e-7


@pytest.mark.parametrize("name", ["mlp", LONG[1]])
def test_in_double_precision_products_are_exact(name, build, truth):
    objective, _ = build(name, dtype=torch.float64)
    for way in ("reused", "fresh"):
        hessian = Hessian(objective, way=way)
        assert relative(hessian @ probe(objective.size), truth(name) @ probe(objective.size).double()) < 1e-12
        assert hessian.error < 1e-6  # what finite differences leave


def test_the_gradient_comes_with_the_graph(build):
    objective, _ = build("mlp")
    hessian = Hessian(objective, way="reused", check=False)
    hessian @ probe(objective.size)
    expected, objective.loss = objective.gradient(), None  # no further loss is computed
    torch.testing.assert_close(hessian.gradient(), expected)


@pytest.mark.slow
@pytest.mark.parametrize("way", products.get_args(products.Way))
def test_products_follow_the_tensors(way, build, hessian_of):
    objective, module = build("mlp", dtype=torch.float64)
    hessian, vector = Hessian(objective, way=way, check=False), probe(objective.size).double()
    changes = [
        lambda p: p.add_(0.1 * torch.ones_like(p)),
        lambda p: p.data.mul_(0.9),  # leaves no trace in the version
        lambda p: setattr(p, "data", p.data * 1.2),
    ]
    before = hessian @ vector
    for change in changes:
        with torch.no_grad():
            for param in module.parameters():
                change(param)
        assert relative(hessian @ vector, before) > 0.01
        before = hessian @ vector
        assert relative(before, hessian_of(objective) @ vector) < 1e-7


@pytest.mark.slow
def test_products_follow_modes_and_running_statistics(build, hessian_of):
    objective, module = build("cnn", dtype=torch.float64)
    hessian, vector = Hessian(objective, way="reused", check=False), probe(objective.size).double()
    training = hessian @ vector
    module.eval()
    evaluating = hessian @ vector
    module[1].running_var.mul_(4)
    assert relative(evaluating, training) > 0.01 and relative(hessian @ vector, evaluating) > 0.01
    assert relative(hessian @ vector, hessian_of(objective) @ vector) < 1e-12


def test_what_cannot_be_differentiated_twice_is_gone_round(build):
    objective, _ = build("transformer")
    hessian = Hessian(objective)
    assert hessian.way == "reused"  # with attention written out
    assert hessian.error < 1e-2


@pytest.mark.parametrize("name", LONG[1:])
def test_forward_over_reverse_is_never_silently_wrong(name, build, truth):
    objective, _ = build(name)
    vector = probe(objective.size)
    try:
        hessian = Hessian(objective, way="forward-over-reverse", check=False)
    except MisuseError as error:
        assert "forward-over-reverse" in str(error)
    else:
        assert relative(hessian @ vector, truth(name) @ vector.double()) < 2e-5  # float32


def test_a_parameter_that_is_reached_past_its_module_is_noticed():
    module, x = nn.Linear(3, 1), torch.randn(4, 3)
    held = list(module.parameters())
    objective = Objective(lambda b: module(b).square().mean() + sum(p.pow(4).sum() for p in held), module, [x])
    with pytest.raises(MisuseError, match="past its module|another way than through its module"):
        Hessian(objective, way="forward-over-reverse")
    assert Hessian(objective, way="fresh").error < 1e-2


class Once(torch.autograd.Function):
    """A square whose backward can't be differentiated, like a fused kernel's."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        return 2 * ctx.saved_tensors[0] * grad


def test_finite_differences_are_the_last_resort():
    x = torch.tensor([1.0, 2.0])
    hessian = Hessian(Objective(lambda: Once.apply(x).sum(), [x]))
    assert hessian.way == "difference" and set(hessian.passed_over) == {"reused", "fresh"}
    torch.testing.assert_close(hessian @ torch.tensor([1.0, -1.0]), torch.tensor([2.0, -2.0]), rtol=1e-3, atol=0)
    with pytest.raises(MisuseError, match="by way of 'fresh'"):
        Hessian(Objective(lambda: Once.apply(x).sum(), [x]), way="fresh")


def test_slow_products_give_way_to_finite_differences(build, monkeypatch):
    objective, _ = build("mlp")
    monkeypatch.setattr(products, "SLOW", -1.0)
    monkeypatch.setattr(products, "_ratio", lambda *_, **__: 2.0)  # four gradients
    hessian = Hessian(objective)
    assert hessian.way == "difference" and hessian.passed_over == {"reused": "a product took 4.0 gradients"}
    assert Hessian(objective, way="fresh").way == "fresh"  # what is asked for is kept


def test_a_graph_too_large_is_not_kept(build):
    hessian = Hessian(build("mlp")[0], memory=100, check=False)
    assert hessian.way == "fresh" and "MiB" in hessian.passed_over["reused"]


def test_a_loss_that_fails_says_why_itself():
    def loss() -> Tensor:
        raise RuntimeError("shapes don't fit")

    with pytest.raises(RuntimeError, match="shapes don't fit"):
        Hessian(Objective(loss, [torch.ones(2)]))


def test_ways_that_there_are_not(unchecked):
    with pytest.raises(MisuseError, match="no way 'compiled'"):
        Hessian(Objective(lambda: torch.zeros(()), [torch.ones(2)]), way="compiled")  # pyright: ignore


def test_linear_and_constant_losses_have_no_curvature():
    x, y = torch.ones(3), torch.ones(2)
    for loss in (lambda: x.sum(), lambda: torch.tensor(1.0), lambda: x.sum() + y.detach().square().sum()):
        for way in products.get_args(products.Way):
            if way == "forward-over-reverse":
                continue  # of modules only
            hessian = Hessian(Objective(loss, [x, y]), way=way)
            assert float((hessian @ torch.ones(5)).norm()) < 1e-3  # rounding of differences: eps / step


def test_kinks_are_seen_by_finite_differences_and_said():
    generator = torch.Generator().manual_seed(0)
    x, w = torch.randn(4000, 20, generator=generator), torch.randn(20, 20, generator=generator)
    kinked = Objective(lambda b: ((b @ w).relu().sum(1) - 1).square().mean(), [w], [x])
    # each of 80,000 places has a kink; a step bends the loss where it crosses one, which the Hessian leaves out
    assert 0.01 < Hessian(kinked, way="reused").error < 0.5
    smooth = Objective(lambda b: (b @ w).relu().square().mean(), [w], [x])
    assert Hessian(smooth, way="reused").error < 0.01  # the square of ReLU has a first derivative without jumps


def test_the_step_of_finite_differences_is_found(build, truth):
    objective, _ = build("pooled")  # with kinks, of which a long step crosses many
    vector = probe(objective.size)
    hessian = Hessian(objective, way="difference")
    assert hessian._shorter < 1 and hessian.error < 0.05
    assert relative(hessian @ vector, truth("pooled") @ vector.double()) < 0.05  # as it says itself


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["train", "eval", "no-dropout"])
def test_nothing_is_changed(mode, build):
    objective, module = build("cnn", mode=mode)
    state, seen = torch.get_rng_state(), {k: (v.clone(), v._version) for k, v in module.state_dict().items()}
    for way in products.get_args(products.Way):
        Hessian(objective, way=way) @ probe(objective.size)
    for name, tensor in module.named_buffers():
        assert torch.equal(tensor, seen[name][0]) and tensor._version == seen[name][1]
    for name, tensor in module.named_parameters():
        assert torch.equal(tensor, seen[name][0]) and tensor.grad is None and type(tensor) is nn.Parameter
    assert module.training and torch.equal(torch.get_rng_state(), state)


def test_a_matrix_is_an_operator():
    matrix = torch.tensor([[2.0, 1.0], [1.0, 0.0]])
    operator = Dense(matrix)
    assert (operator @ torch.tensor([1.0, 0.0])).tolist() == [2.0, 1.0] and operator.products == 1
    assert operator.dot(matrix, torch.tensor([1.0, 1.0])).tolist() == [3.0, 1.0]


# ---------------------------------------------------------------------- several ranks


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 3))


def data() -> list[tuple[Tensor, Tensor]]:
    """Three batches of unequal sizes."""
    generator = torch.Generator().manual_seed(2)
    return [(torch.randn(n, 6, generator=generator), torch.randint(3, (n,), generator=generator)) for n in (5, 9, 2)]


def whole() -> tuple[Objective, Tensor]:
    module = network()
    objective = Objective(lambda b: F.cross_entropy(module(b[0]), b[1]), module, data())
    return objective, Hessian(objective, way="fresh", check=False) @ probe(objective.size)


def run_ranks(worker: str, folder: Path) -> None:
    """Runs this file as two processes that know each other."""
    command = [sys.executable, __file__, worker, str(folder / "store")]
    with contextlib.ExitStack() as stack:
        ranks = [
            stack.enter_context(
                subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            )
            for rank in range(2)
        ]
        stack.callback(lambda: [rank.kill() for rank in ranks])
        for rank in ranks:
            said, _ = rank.communicate(timeout=200)
            assert rank.returncode == 0, said


def replicated(rank: int) -> None:
    module = DistributedDataParallel(nn.Sequential(network(), nn.BatchNorm1d(3)))
    module.module[1].eval()
    batches = data()[:2] if rank == 0 else data()[2:]  # ranks have unequal numbers of batches, too
    objective = Objective(lambda b: F.cross_entropy(module(b[0]), b[1]), list(module.module[0].parameters()), batches,
                          modules=[module])  # fmt: skip
    plain, product = whole()
    plain_module = nn.Sequential(plain.modules[0], nn.BatchNorm1d(3)).eval()
    plain = Objective(lambda b: F.cross_entropy(plain_module(b[0]), b[1]), plain.params, data())
    vector = probe(plain.size)
    product = Hessian(plain, way="fresh", check=False) @ vector
    buffers = [b._version for b in module.buffers()]
    assert objective.distributed and abs(objective.value() - plain.value()) < 1e-6
    torch.testing.assert_close(objective.gradient(), plain.gradient())
    for way in ("auto", "reused", "fresh"):
        hessian = Hessian(objective, way=way)
        assert relative(hessian @ vector, product.double()) < (1e-3 if hessian.way == "difference" else 1e-5)
        torch.testing.assert_close(hessian.gradient(), plain.gradient())
    assert relative(Hessian(objective, way="difference") @ vector, product.double()) < 1e-3
    assert [b._version for b in module.buffers()] == buffers
    assert all(p.grad is None for p in module.parameters())
    # one rank alone has too large a graph, or a slow product: all go the same way
    assert Hessian(objective, way="auto", memory=0 if rank else 2**30, check=False).way == "fresh"
    products.SLOW = -1.0 if rank else 1e9
    assert Hessian(objective).way == "difference"
    ours, theirs = (extremes(Hessian(o, way="fresh", check=False), top=2) for o in (objective, plain))
    assert torch.allclose(torch.tensor(ours.top.values), torch.tensor(theirs.top.values), rtol=1e-4)
    assert critical_point(objective).kind == critical_point(plain).kind == "not critical"
    x, y = data()[0]
    F.cross_entropy(module(x), y).backward()  # training goes on as it was: gradients are shared again
    mine = torch.cat([p.grad.reshape(-1) for p in module.parameters() if p.grad is not None])
    both = [torch.zeros_like(mine) for _ in range(2)]
    dist.all_gather(both, mine)
    assert torch.equal(*both)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="gloo by a file")
def test_replicas_multiply_by_the_hessian_of_the_whole(tmp_path):
    run_ranks("replicated", tmp_path)


def sharded(rank: int) -> None:
    from torch.distributed.fsdp import fully_shard

    module = network()
    for layer in (module[0], module[2], module[4], module):
        fully_shard(layer, mesh=dist.device_mesh.init_device_mesh("cpu", (2,)))
    batches = data()[:1] if rank == 0 else data()[1:2]
    objective = Objective(lambda b: F.cross_entropy(module(b[0]), b[1]), module, batches)
    plain_module = network()
    plain = Objective(lambda b: F.cross_entropy(plain_module(b[0]), b[1]), plain_module, data()[:2])
    vector, places = probe(plain.size), shares(module, rank)
    assert objective.distributed and objective.sharded and objective.size == len(places) < plain.size
    assert abs(objective.value() - plain.value()) < 1e-6
    torch.testing.assert_close(objective.gradient(), plain.gradient()[places], rtol=1e-4, atol=1e-7)
    hessian = Hessian(objective)
    assert hessian.way == "difference"
    exact = Hessian(plain, way="fresh", check=False)
    assert relative(hessian @ vector[places], (exact @ vector)[places].double()) < 2e-3
    ours, theirs = extremes(hessian, top=2), extremes(exact, top=2)
    # the eigenvalues are those of the whole: differences in float32 leave 1e-3
    assert torch.allclose(torch.tensor(ours.top.values), torch.tensor(theirs.top.values), rtol=1e-2)
    ours, theirs = trace(hessian), trace(exact)
    assert abs(ours.value - theirs.value) < 1.5 * (ours.error + theirs.error)
    assert critical_point(objective).kind == "not critical"
    assert all(p.grad is None for p in module.parameters())


def shares(module: nn.Module, rank: int) -> list[int]:
    """Where this rank's part of each parameter is in the vector of all."""
    places, at = [], 0
    for param in module.parameters():
        rows, per = len(param), param.numel() // len(param)
        half = -(-rows // 2)
        first, last = (0, half) if rank == 0 else (half, rows)
        places += range(at + first * per, at + last * per)
        at += param.numel()
    return places


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="gloo by a file")
def test_sharded_weights_multiply_by_the_hessian_of_the_whole(tmp_path):
    run_ranks("sharded", tmp_path)


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=int(sys.argv[3]), world_size=2)
    {"replicated": replicated, "sharded": sharded}[sys.argv[1]](dist.get_rank())
    dist.barrier()
    os._exit(0)  # all that was to be shown has been: gloo's threads abort now and then when they are taken down
