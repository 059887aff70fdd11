"""Averages of weights against the mean written out, and models that are swapped, copied, saved, changed, wrapped and shared."""

from __future__ import annotations

import copy
import io
import os
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.optim.swa_utils import AveragedModel

from unstuck.errors import MisuseError
from unstuck.optim.weight_average import WeightAverage, decay_for


def net(*, norm=False, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5) if norm else nn.Tanh(), nn.Linear(5, 2))


def trained(model, average, steps=6, *, seen=None):
    """Trains, with an update behind each step; what parameters and buffers were after each goes to `seen`."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.3, momentum=0.5)
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        optimizer.zero_grad()
        x = torch.randn(16, 3, generator=generator).to(next(model.parameters()).dtype)
        (model(x) - x[:, :2]).square().mean().backward()
        optimizer.step()
        average.update()
        if seen is not None:
            seen.append({k: v.detach().clone() for k, v in model.state_dict(keep_vars=True).items()})
    return optimizer


def mean(seen, name, decay=1.0):
    weights = decay ** torch.arange(len(seen) - 1.0, -1.0, -1.0, dtype=torch.float64)
    return sum(w * s[name].double() for w, s in zip(weights, seen, strict=True)) / weights.sum()


def values(model):
    return [t.detach().clone() for t in (*model.parameters(), *model.buffers())]


def same(one, other):
    return all(map(torch.equal, one, other))


# ---------------------------------------------------------------------- what it is


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99, 1.0])
def test_it_is_the_mean_written_out_of_weights_and_running_statistics(decay):
    model, seen = net(norm=True).double(), []
    given = {"kind": "equal"} if decay == 1 else {"decay": decay}
    average = WeightAverage(model, **given)
    trained(model, average, seen=seen)
    found = average.averages()
    assert set(found) == set(model.state_dict()) - {"1.num_batches_tracked"}
    for name, tensor in found.items():
        assert not tensor.requires_grad
        torch.testing.assert_close(tensor, mean(seen, name, decay), rtol=1e-12, atol=1e-14)  # float64, six steps
    assert average.updates == 6


def test_the_first_average_is_the_first_weights():
    model = net()
    average = WeightAverage(model)
    average.update()
    assert same(average.averages().values(), model.parameters())


@pytest.mark.parametrize("kind", ["equal", "exponential"])
def test_steps_are_counted_from_a_start_and_each_so_many(kind):
    model, seen = net().double(), []
    average = WeightAverage(model, kind=kind, decay=0.5, start=3, every=2)
    trained(model, average, 2)
    assert average.averages() == {}
    trained(model, average, 7, seen=seen)
    taken = [seen[i - 3] for i in (5, 7, 9)]  # of nine steps, three before the start
    expected = mean(taken, "0.weight", 0.5 if kind == "exponential" else 1.0)
    torch.testing.assert_close(average.averages()["0.weight"], expected, rtol=1e-12, atol=1e-14)
    assert (average.calls, average.updates) == (9, 3)


def test_an_equal_average_is_that_of_torch():
    model = net().double()
    average, theirs = WeightAverage(model, kind="equal"), AveragedModel(model)
    for step in range(5):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(step)))
        average.update()
        theirs.update_parameters(model)
    for name, p in theirs.module.named_parameters():
        torch.testing.assert_close(average.averages()[name], p.detach(), rtol=1e-12, atol=1e-14)


def test_statistics_may_be_those_of_the_last_step_and_other_buffers_always_are():
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.norm = nn.Linear(3, 2), nn.BatchNorm1d(2)
            self.register_buffer("scale", torch.ones(()))

        def forward(self, x):
            return self.norm(self.linear(x)) * self.scale

    for buffers, count in (("average", 6), ("copy", 4)):
        model = Table()
        average = WeightAverage(model, decay=0.5, buffers=buffers)
        trained(model, average)
        assert len(average.averages()) == count
        model.scale.fill_(7)
        own = model.norm.running_mean.clone()
        with average.swapped_in():
            assert torch.equal(model.norm.running_mean, own) == (buffers == "copy")
            assert model.scale == 7
            assert model.norm.num_batches_tracked == 6


def test_advice_for_a_run():
    assert decay_for(100) == pytest.approx(0.9)
    assert decay_for(5000) == pytest.approx(0.998)
    assert decay_for(10**6) == 0.999
    assert decay_for(3) == 0
    with pytest.raises(MisuseError, match="give 1 step or more"):
        decay_for(0)


# ---------------------------------------------------------------------- in the model


def test_it_is_put_into_the_model_and_back_to_the_last_bit():
    model = net(norm=True)
    average = WeightAverage(model, decay=0.5)
    optimizer = trained(model, average)
    own, kept = values(model), {k: v.clone() for k, v in average.averages().items()}
    parameters, addresses = list(model.parameters()), [p.data_ptr() for p in model.parameters()]
    for _ in range(2):
        with average.swapped_in():
            inside = dict(model.state_dict())
            assert all(torch.equal(inside[k], v) for k, v in kept.items())
            assert not any(v.grad_fn for v in model.parameters())
            with average.swapped_in():  # nothing more
                assert torch.equal(model[0].weight, kept["0.weight"])
            assert torch.equal(model[0].weight, kept["0.weight"])
        assert same(values(model), own)
    assert all(torch.equal(v, kept[k]) for k, v in average.averages().items())
    assert list(map(id, parameters)) == list(map(id, model.parameters()))
    assert addresses == [p.data_ptr() for p in model.parameters()]
    assert all(p is q for p, q in zip(parameters, optimizer.param_groups[0]["params"], strict=True))


def test_it_is_put_back_after_an_error_also_one_of_the_exchange(monkeypatch):
    model = net()
    average = WeightAverage(model, decay=0.5)
    trained(model, average)
    own, kept = values(model), [v.clone() for v in average.averages().values()]
    with pytest.raises(ZeroDivisionError), average.swapped_in():
        assert not same(values(model), own)
        raise ZeroDivisionError
    assert same(values(model), own)
    import unstuck.optim._averages as module

    exchange, calls = module.exchange, []

    def fails(one, other):
        calls.append(1)
        if len(calls) == 3:
            raise MemoryError
        exchange(one, other)

    monkeypatch.setattr(module, "exchange", fails)
    with pytest.raises(MemoryError), average.swapped_in():
        pytest.fail("it isn't in")
    assert same(values(model), own)
    assert same(average.averages().values(), kept)


def test_what_would_mix_up_weights_and_averages_is_refused():
    model = net()
    average = WeightAverage(model)
    average.update()
    with average.swapped_in():
        for call in (
            average.update, average.averages, average.copy_to, average.state_dict, average.reset, average.synchronize,
            lambda: average.load_state_dict({}), lambda: copy.deepcopy(average),
        ):  # fmt: skip
            with pytest.raises(MisuseError, match="leave `with average.swapped_in"):
                call()
    average.update()


def test_before_there_is_an_average_the_model_is_as_it_is():
    model = net()
    average, own = WeightAverage(model, start=5), values(model)
    average.update()
    with average.swapped_in():
        assert same(values(model), own)
    average.copy_to()
    assert same(values(model), own)


def test_a_graph_that_was_made_before_is_told_of_the_exchange():
    model = net()
    average = WeightAverage(model, decay=0.5)
    trained(model, average)
    loss = model(torch.randn(4, 3)).square().sum()
    with average.swapped_in():
        pass
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_no_large_tensor_is_copied_as_a_whole():
    model = nn.Linear(2**12, 2**10, bias=False)
    average = WeightAverage(model)
    average.update()
    with (
        torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as seen,
        average.swapped_in(),
    ):
        pass
    most = max(e.self_cpu_memory_usage / max(e.count, 1) for e in seen.key_averages())
    assert 0 < most <= 4 * 2**20  # of 16 MiB


def test_shapes_of_all_kinds_are_exchanged():
    model = nn.Module()
    for i, shape in enumerate([(), (0,), (1,), (2**20 + 3,), (3, 2**20), (2, 3, 4, 5)]):
        model.register_parameter(f"p{i}", nn.Parameter(torch.randn(shape)))
    model.p5.data = model.p5.data.to(memory_format=torch.channels_last)
    average = WeightAverage(model, decay=0.5)
    average.update()
    own = values(model)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    with average.swapped_in():
        assert same(values(model), own)
    assert not any(p.any() for p in model.parameters())


def test_evaluation_in_inference_mode():
    model = net()
    average = WeightAverage(model, decay=0.5)
    trained(model, average)
    model.append(nn.Linear(2, 2))
    with torch.inference_mode(), average.swapped_in():
        model(torch.randn(2, 3))
    trained(model, average, 2)


# ---------------------------------------------------------------------- kinds of models


def test_half_precision_is_averaged_in_single():
    model = net().bfloat16()
    average = WeightAverage(model, decay=0.99)
    average.update()
    for _ in range(100):
        with torch.no_grad():
            model[0].bias.copy_(torch.full((5,), 1.0))
        average.update()
    found, own = average.averages()["0.bias"].clone(), values(model)
    assert found.dtype == torch.float32
    for _ in range(3):
        with average.swapped_in():
            assert model[0].bias.dtype == torch.bfloat16
            assert torch.equal(model[0].bias, found.bfloat16())
        assert same(values(model), own)
        assert torch.equal(average.averages()["0.bias"], found), "nothing is lost by evaluations"
    first = net()[0].bias.bfloat16().float().detach()
    weights = torch.tensor([0.99**100, *[0.99**i for i in range(100)]])
    torch.testing.assert_close(found, (first * weights[0] + weights[1:].sum()) / weights.sum(), rtol=1e-4, atol=1e-4)
    double = WeightAverage(model, dtype=torch.float64)
    double.update()
    assert double.averages()["0.bias"].dtype == torch.float64


def test_complex_weights():
    model = nn.Linear(2, 2, dtype=torch.complex64)
    average = WeightAverage(model, decay=0.5, dtype=torch.float64)
    first = model.weight.detach().clone()
    average.update()
    with torch.no_grad():
        model.weight.mul_(1j)
    average.update()
    torch.testing.assert_close(average.averages()["weight"], (0.5 * first + 1j * first) / 1.5)


def test_shared_parameters_count_once():
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    average = WeightAverage(model, decay=0.5)
    for value in (1.0, 4.0):
        nn.init.constant_(model[0].weight, value)
        average.update()
    assert list(average.averages()) == ["0.weight", "0.bias", "2.bias"]
    with average.swapped_in():
        assert (model[2].weight == 3).all()
        assert model[2].weight is model[0].weight
    assert (model[0].weight == 4).all()


def test_parameters_that_are_views_of_one_another_go_back():
    flat = torch.randn(12)
    model = nn.Module()
    model.whole, model.part = nn.Parameter(flat), nn.Parameter(flat[:4])
    average = WeightAverage(model, decay=0.5)
    average.update()
    with torch.no_grad():
        model.whole.add_(1)
    average.update()
    own, kept = values(model), [v.clone() for v in average.averages().values()]
    with average.swapped_in():
        pass
    assert same(values(model), own)
    assert same(average.averages().values(), kept)


def test_what_is_frozen_has_no_average_until_it_is_thawed():
    model = net()
    model[0].requires_grad_(False)
    average = WeightAverage(model, decay=0.5)
    average.update()
    assert list(average.averages()) == ["2.weight", "2.bias"]
    model[0].requires_grad_(True)
    for value in (1.0, 4.0):
        nn.init.constant_(model[0].bias, value)
        average.update()
    assert (average.averages()["0.bias"] == 3).all(), "corrected from its own start"
    model[0].requires_grad_(False)
    average.update()
    assert (average.averages()["0.bias"] > 3).all(), "and goes on when it is frozen again"


def test_parametrized_modules():
    model = net()
    parametrizations.weight_norm(model[0])
    average = WeightAverage(model, decay=0.5)
    trained(model, average)
    assert "0.parametrizations.weight.original1" in average.averages()
    own = model[0].weight.detach().clone()
    with average.swapped_in():
        assert not torch.equal(model[0].weight, own)
    assert torch.equal(model[0].weight, own)
    spectral = parametrizations.spectral_norm(nn.Linear(3, 3))
    average = WeightAverage(spectral)
    average.update()
    assert set(average.averages()) == {"bias", "parametrizations.weight.original"}, "no mean of unit vectors"


def test_modules_may_be_replaced_wrapped_and_taken_out():
    model = net()
    average = WeightAverage(model, decay=0.5)
    trained(model, average)
    kept = {k: v.clone() for k, v in average.averages().items()}
    model[0] = nn.Sequential(model[0], nn.BatchNorm1d(5))
    model[2] = nn.Linear(5, 2)
    found = average.averages()
    assert torch.equal(found["0.0.weight"], kept["0.weight"]), "what is still there keeps its average"
    assert torch.equal(found["2.weight"], model[2].weight), "what is new begins one"
    assert "0.1.running_mean" in found
    first = model[2].weight.detach().clone()
    average.update()
    nn.init.zeros_(model[2].weight)
    average.update()
    torch.testing.assert_close(average.averages()["2.weight"], first * 0.5 / 1.5)
    state = average.state_dict()
    other = WeightAverage(copy.deepcopy(model), decay=0.5)
    other.load_state_dict(state)
    for one in (average, other):
        one.update()
    assert same(average.averages().values(), other.averages().values()), "each knows when it began"


def test_a_buffer_that_is_assigned_anew_and_a_model_that_is_moved_are_followed():
    model = net(norm=True)
    average = WeightAverage(model, decay=0.5)
    average.update()
    for value in (2.0, 5.0):
        model[1].running_mean = torch.full((5,), value)
        average.update()
    assert average.averages()["1.running_mean"].tolist() == pytest.approx([(0.25 * 0 + 0.5 * 2 + 5) / 1.75] * 5)
    model.double()
    average.update()
    found = average.averages()
    assert {v.dtype for v in found.values()} == {torch.float64}
    assert found["1.running_mean"].tolist() == pytest.approx([(0.25 * 2 + 0.5 * 5 + 5) / 1.875] * 5)


def test_another_model_may_be_put_in_its_place():
    model = net()
    average = WeightAverage(model, decay=0.5)
    average.update()
    first = model[0].weight.detach().clone()
    average.model = nn.Sequential(model, nn.Linear(2, 2))
    nn.init.zeros_(model[0].weight)
    average.update()
    torch.testing.assert_close(average.averages()["0.0.weight"], first * 0.5 / 1.5)
    assert "1.weight" in average.averages()


@pytest.mark.slow
def test_a_compiled_model_goes_by_its_own_names():
    model = net()
    model[2] = torch.compile(model[2], backend="eager")
    compiled = torch.compile(model, backend="eager")
    average = WeightAverage(compiled, decay=0.5)
    trained(compiled, average, 2)
    assert set(average.averages()) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    plain = net()
    other = WeightAverage(plain)
    other.load_state_dict(average.state_dict())
    other.copy_to(plain)
    with average.swapped_in():
        torch.testing.assert_close(compiled(torch.ones(2, 3)), plain(torch.ones(2, 3)))


# ---------------------------------------------------------------------- copies and checkpoints


def test_another_model_is_given_averages_and_all_else():
    model = net(norm=True)
    model[0].requires_grad_(False)
    average = WeightAverage(model, decay=0.5)
    trained(model, average)
    other = net(norm=True, seed=5)
    average.copy_to(other)
    assert other[1].num_batches_tracked == 6
    with average.swapped_in():
        assert same(values(model), values(other))
    own = values(model)
    average.copy_to()
    assert not same(own, values(model))
    assert same(values(model), values(other))
    with pytest.raises(MisuseError, match=r"the model has no tensor '1.bias'"):
        average.copy_to(net())
    with pytest.raises(MisuseError, match=r"0.weight has the shape \(5, 4\) in the model, but \(5, 3\)"):
        average.copy_to(nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 2)))


def test_a_checkpoint_goes_on_to_the_last_bit():
    model = net(norm=True)
    average = WeightAverage(model, decay=0.9)
    trained(model, average, 3)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "average": average.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    other = net(norm=True, seed=9)
    other.load_state_dict(saved["model"])
    again = WeightAverage(other, decay=0.9)
    again.load_state_dict(saved["average"])
    for one, its in ((model, average), (other, again)):
        trained(one, its, 4)
    assert same(average.averages().values(), again.averages().values())
    assert (again.calls, again.updates) == (7, 7)
    again.reset()
    assert again.averages() == {}


def test_a_checkpoint_of_another_model_is_refused_and_changes_nothing():
    average, other = WeightAverage(net()), WeightAverage(nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 3)))
    for one in (average, other, normed := WeightAverage(net(norm=True))):
        one.update()
    kept = [v.clone() for v in average.averages().values()]
    with pytest.raises(MisuseError, match=r"2.weight has the shape \(3, 5\) in the state, but \(2, 5\)"):
        average.load_state_dict(other.state_dict())
    with pytest.raises(MisuseError, match="the state has a tensor '1.bias', which the averaged model has not"):
        average.load_state_dict(normed.state_dict())
    with pytest.raises(MisuseError, match="the state has no tensor '1.bias'"):
        normed.load_state_dict(average.state_dict())
    with pytest.raises(MisuseError, match="no state of a WeightAverage"):
        average.load_state_dict(net().state_dict())
    assert same(average.averages().values(), kept)


def test_copies_stand_for_themselves():
    model = net()
    average = WeightAverage(model, decay=0.5)
    trained(model, average)
    both = copy.deepcopy({"model": model, "average": average})
    assert both["average"].model is both["model"]
    kept = [v.clone() for v in average.averages().values()]
    trained(both["model"], both["average"], 2)
    assert same(average.averages().values(), kept)
    trained(model, average, 2)
    assert same(average.averages().values(), both["average"].averages().values())


# ---------------------------------------------------------------------- several processes


def test_alone_there_is_nothing_to_synchronize():
    average = WeightAverage(net(norm=True))
    average.update()
    kept = [v.clone() for v in average.averages().values()]
    average.synchronize()
    assert same(average.averages().values(), kept)


PROCESS = """
import sys, torch
from torch import nn, distributed
from torch.nn.parallel import DistributedDataParallel
from unstuck.optim.weight_average import WeightAverage
rank, folder = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
torch.manual_seed(rank)
model = DistributedDataParallel(nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 2)))
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
average = WeightAverage(model, decay=0.9)
for step in range(20):
    optimizer.zero_grad()
    model(torch.randn(8, 3)).square().mean().backward()
    optimizer.step()
    average.update()
before = {k: v.clone() for k, v in average.averages().items()}
average.synchronize()
with average.swapped_in():
    inside = {k: v.clone() for k, v in model.module.state_dict().items()}
torch.save((before, average.averages(), inside), f"{folder}/{rank}.pt")
distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_processes_have_the_same_averages(tmp_path):
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(rank), str(tmp_path)],
            env={**os.environ, "GLOO_SOCKET_IFNAME": "lo"},
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    ended = [process.communicate(timeout=120)[1].decode() for process in started]
    assert [process.returncode for process in started] == [0, 0], ended
    (before, after, inside), (before2, after2, inside2) = (
        torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)
    )
    statistics = {"1.running_mean", "1.running_var"}
    for name in before:
        assert torch.equal(before[name], before2[name]) == (name not in statistics), "each sees batches of its own"
        assert torch.equal(after[name], after2[name])
        assert torch.equal(inside[name], after[name])
        assert torch.equal(inside2[name], inside[name])
    torch.testing.assert_close(after["1.running_mean"], (before["1.running_mean"] + before2["1.running_mean"]) / 2)


# ---------------------------------------------------------------------- what is given


def test_nothing_waits_for_the_device(monkeypatch):
    model = net(norm=True)
    average = WeightAverage(model)
    for name in ("item", "__bool__", "__float__", "cpu", "tolist"):
        monkeypatch.setattr(torch.Tensor, name, lambda *_: pytest.fail("a sync"))
    for _ in range(3):
        average.update()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"model": net}, "model is a function"),
        ({"kind": "swa"}, "kind is 'swa'"),
        ({"decay": 1.0}, "decay is 1.0, but must be from 0 to less than 1"),
        ({"decay": -0.1}, "decay is -0.1"),
        ({"start": -1}, "start is -1, but must be a whole number from 0 on"),
        ({"every": 0}, "every is 0"),
        ({"every": 2.0}, r"every is 2.0"),
        ({"buffers": "drop"}, "buffers is 'drop'"),
        ({"dtype": torch.int64}, "dtype is torch.int64"),
    ],
)
def test_what_is_given_is_checked(given, words):
    with pytest.raises(MisuseError, match=words):
        WeightAverage(**{"model": net(), **given})
