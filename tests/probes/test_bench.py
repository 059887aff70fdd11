"""The bench holds copies: what is done with them leaves no trace in the script."""

import copy
import functools
import io
import math
import random
import sys
import time

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unstuck.probes.bench import Bench, Clock, no_trace, tensors_of
from unstuck.probes.schedule import ORDER, experiments


def batches(count=6, samples=16, inputs=6, classes=3):
    generator = torch.Generator().manual_seed(1)
    found = []
    for _ in range(count):
        x = torch.randn(samples, inputs, generator=generator)
        found.append((x, x[:, :classes].argmax(1)))
    return found


class Script:
    """A training with everything that has a state: batch norm, dropout, momentum, a schedule."""

    def __init__(self, model=None, optimizer=None, count=6):
        torch.manual_seed(3)
        self.model = model or nn.Sequential(
            nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 3)
        )
        self.optimizer = (
            optimizer(self.model.parameters()) if optimizer else torch.optim.Adam(self.model.parameters(), 0.01)
        )
        self.batches = batches(count)

    def step(self, x, y):
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(x), y)
        loss.backward()
        self.optimizer.step()
        return loss

    def __call__(self):
        for x, y in self.batches:
            self.step(x, y)


def state(script):
    """Copies of all numbers a script has."""
    module = [t.detach().clone() for t in (*script.model.parameters(), *script.model.buffers())]
    grads = [None if p.grad is None else p.grad.clone() for p in script.model.parameters()]
    return (
        module,
        grads,
        copy.deepcopy(script.optimizer.state_dict()),
        [x.clone() for pair in script.batches for x in pair],
    )


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def values(bench):
    return [t.detach().clone() for t in bench.tensors]


# ---------------------------------------------------------------------- the script is only read


LBFGS_STEPS = {"lr": 0.1, "max_iter": 3}


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", [None, lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=1e-3)])
def test_the_script_is_bit_identical_after_all_experiments(trained, optimizer):
    script = Script(optimizer=optimizer, count=20)
    training = trained(script)
    before = state(script)
    modes = [m.training for m in script.model.modules()]
    versions = [t._version for t in tensors_of([script.model], [])]
    numbers = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    made = dict(experiments(training, 10.0))  # as long as a slow machine may need for all of them
    assert set(made) == {name for name, _, _ in ORDER}
    assert not [f["error"] for f in made.values() if "error" in f]
    assert equal(state(script), before)
    assert [m.training for m in script.model.modules()] == modes
    assert [t._version for t in tensors_of([script.model], [])] == versions
    assert torch.equal(torch.get_rng_state(), numbers[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == numbers[1:]


def test_the_script_is_bit_identical_after_training_on_the_bench(trained):
    script = Script()
    training = trained(script)
    before = state(script)
    bench = Bench(training)
    bench.train(bench.optimizer(10.0), bench.batches, 20)
    bench.gradients(0)
    assert equal(state(script), before)
    assert not equal([t.detach() for t in bench.tensors], before[0])


@pytest.mark.parametrize("cut", [True, False])
def test_running_statistics_outside_of_modules_are_only_read(trained, cut):
    w, (every, labels) = torch.randn(6, 3, requires_grad=True), batches(1, samples=64)[0]
    mean, var, optimizer = torch.zeros(3), torch.ones(3), torch.optim.SGD([w], 0.1)

    def script():
        for i in range(2):
            x, y = (every[:16], labels[:16]) if cut else batches(2)[i]
            F.cross_entropy(F.batch_norm(x @ w, mean, var, training=True), y).backward()
            optimizer.step()

    bench = Bench(trained(script))
    before = mean.clone(), var.clone()
    bench.loss()
    assert torch.equal(mean, before[0]) and torch.equal(var, before[1])


def test_a_network_that_overwrites_its_inputs_is_refused_and_the_script_keeps_them(trained):
    class Scaling(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Linear(6, 3)

        def forward(self, x):
            return self.one(x.div_(2.0))

    script = Script(Scaling())
    training = trained(script)
    before = state(script)
    with pytest.raises(ValueError, match="overwrites its inputs"):
        Bench(training)
    assert equal(state(script), before)


def test_batches_that_the_script_wrote_into_are_left_out(trained):
    script = Script()
    training = trained(script)
    script.batches[1][0].zero_()
    assert len(Bench(training).tapes) == len(training.tapes) - 1
    for x, _ in script.batches:
        x.zero_()
    with pytest.raises(ValueError, match="the script overwrote the batches"):
        Bench(training)


def test_an_optimizer_of_another_network_is_refused(trained):
    script, other = Script(), nn.Linear(2, 2)
    aside = torch.optim.SGD(other.parameters(), 0.1)
    script.optimizer.step = lambda: aside.step()
    other.weight.grad = torch.zeros(2, 2)
    with pytest.raises(ValueError, match="another network"):
        Bench(trained(script))


# ---------------------------------------------------------------------- copies that take care


def test_hooks_of_the_script_are_not_copied(trained):
    seen = []

    class Logger:
        def hook(self, module, args, output):
            seen.append(1)

        def __deepcopy__(self, memo):
            raise AssertionError

    script = Script()
    script.model.register_forward_hook(Logger().hook)
    script.model[2].register_full_backward_hook(lambda *_: seen.append(2))
    training = trained(script)
    seen.clear()
    bench = Bench(training)
    bench.step(bench.optimizer(), 0)
    assert not seen
    script.model(script.batches[0][0])
    assert seen == [1]


def scaled(module, args, output):
    return output * SCALE


SCALE = torch.tensor(3.0)


class Shift:
    def __init__(self, by):
        self.by = by

    def __call__(self, module, args, output):
        return output + self.by

    def before(self, module, args):
        return (args[0] + self.by,)


@pytest.mark.slow
@pytest.mark.parametrize(
    "register",
    [
        lambda m: m.register_forward_hook(lambda module, args, output: output * 3 + 1),
        lambda m: m.register_forward_hook(scaled),
        lambda m: m.register_forward_hook(Shift(2.0)),
        lambda m: m.register_forward_pre_hook(Shift(2.0).before),
        lambda m: m.register_forward_hook(functools.partial(lambda by, m, args, output: output * by, 3.0)),
        lambda m: m.register_forward_hook(lambda m, args, kwargs, output: output * 3, with_kwargs=True),
        lambda m: m.register_forward_hook(lambda module, args, output: output * m[0].weight.mean()),
    ],
)
def test_what_a_hook_changes_is_changed_on_the_copies(trained, register):
    script = Script(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)))
    register(script.model)
    bench = Bench(trained(script))
    loss, grads = bench.gradients(len(bench.batches) - 1)
    x, y = script.batches[-1]
    script.model.zero_grad()
    expected = nn.functional.cross_entropy(script.model(x), y)
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-6)
    assert all(torch.allclose(a, p.grad, atol=1e-6) for a, p in zip(grads, script.model.parameters(), strict=True))


def test_what_a_hook_keeps_is_as_it_was(trained):
    seen = []
    script = Script()
    script.model.register_forward_hook(lambda module, args, output: seen.append(output))  # gives nothing, but could
    training = trained(script)
    before = list(seen)
    bench = Bench(training)
    bench.step(bench.optimizer(), 0)
    assert len(seen) == len(before)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_hooks_of_torch_stay(trained):
    model = nn.Sequential(nn.utils.weight_norm(nn.Linear(6, 8)), nn.utils.spectral_norm(nn.Linear(8, 3)))
    script = Script(model)
    bench = Bench(trained(script))
    loss, grads = bench.gradients(0)
    assert math.isfinite(loss)
    assert len(grads) == len(list(model.parameters()))
    assert all(bool(g.any()) for g in grads)


def test_parametrizations_are_copied(trained):
    script = Script(nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 3))))
    bench = Bench(trained(script))
    assert all(bool(g.any()) for g in bench.gradients(0)[1])


def test_what_a_module_remembers_of_its_last_pass_is_no_hindrance(trained):
    class Remembering(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Linear(6, 3)
            self.seen = []

        def forward(self, x):
            self.hidden = {"last": self.one(x)}
            self.seen.append(self.hidden["last"])
            return self.hidden["last"].tanh()

    bench = Bench(trained(Script(Remembering())))
    assert math.isfinite(bench.step(bench.optimizer(), 0))


def test_shared_weights_stay_shared(trained):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False)
            self.two.weight = self.one.weight

        def forward(self, x):
            return self.two(self.one(x).tanh())[:, :3]

    script = Script(Tied())
    bench = Bench(trained(script))
    assert len(bench.tensors) == len(bench.learned) == 1
    assert bench.modules[0].one.weight is bench.modules[0].two.weight is bench.learned[0]


def test_inputs_with_gradients_belong_to_their_batch(trained):
    script, given = Script(nn.Linear(6, 3)), []

    def with_input_gradients():
        for x, y in script.batches:
            x = x.requires_grad_()
            script.optimizer.zero_grad()
            (F.cross_entropy(script.model(x), y) + 0.1 * x.pow(2).mean()).backward()
            script.optimizer.step()
            given.append((x, y))

    bench = Bench(trained(with_input_gradients))
    assert len(bench.learned) == 2
    wanted = [(F.cross_entropy(script.model(x), y) + 0.1 * x.pow(2).mean()).item() for x, y in given]
    assert [bench.loss([b]) for b in bench.batches] == wanted
    grads = [x.grad.clone() for x, _ in given]
    bench.step(bench.optimizer(), 0)
    assert equal([x.grad for x, _ in given], grads)


# ---------------------------------------------------------------------- state


def test_it_is_restored_to_the_end_and_to_the_start(trained):
    script = Script()
    first = [t.detach().clone() for t in tensors_of([script.model], [])]
    bench = Bench(trained(script))
    last = [t.detach() for t in tensors_of([script.model], [])]
    assert equal(values(bench), last)
    bench.step(bench.optimizer(), 0)
    assert not equal(values(bench), last)
    bench.restore()
    assert equal(values(bench), last)
    assert bench.starts
    bench.restore(start=True)
    weights = [i for i, t in enumerate(bench.tensors) if t.requires_grad]
    assert equal([values(bench)[i] for i in weights], [first[i] for i in weights])
    assert all(t.grad is None for t in bench.tensors)


def test_buffers_that_a_forward_pass_replaces_are_restored(trained):
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Linear(6, 3)
            self.register_buffer("count", torch.zeros(()))

        def forward(self, x):
            self.count = self.count + 1
            return self.one(x)

    script = Script(Counting())
    bench = Bench(trained(script))
    assert bench.modules[0].count == script.model.count == 6
    bench.loss([0, 0])
    assert bench.modules[0].count == 8
    bench.restore()
    assert bench.modules[0].count == 6
    assert bench.modules[0].count is bench.tensors[-1]


def test_modes_are_those_of_training_or_evaluation(trained):
    script = Script()
    script.model[1].eval()
    bench = Bench(trained(script))
    parts = list(bench.modules[0].modules())
    bench.modes(bench.tapes[0], train=True)
    assert [p.training for p in parts] == [m.training for m in script.model.modules()] != [False] * 6
    bench.modes(bench.tapes[0], train=False)
    assert [p.training for p in parts] == [False] * 6


def test_losses_are_those_of_the_script(trained):
    script = Script()
    bench = Bench(trained(script))
    script.model.eval()
    with torch.no_grad():
        wanted = [float(F.cross_entropy(script.model(x), y)) for x, y in script.batches]
        right = [float((script.model(x).argmax(1) == y).float().mean()) for x, y in script.batches]
    assert bench.loss(train=False) == sum(wanted) / len(wanted)
    loss, score = bench.measured([2], train=False)
    assert (loss, score) == (wanted[2], right[2])


def test_dropout_is_the_same_for_the_same_batch(trained):
    bench = Bench(trained(Script()))
    assert bench.loss([1]) == bench.loss([1])
    assert bench.forward(1, seed=5)[0].item() != bench.forward(1, seed=6)[0].item()


def test_gradients_are_those_of_autograd(trained):
    script = Script(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)))
    bench = Bench(trained(script))
    loss = F.cross_entropy(script.model(script.batches[3][0]), script.batches[3][1])
    wanted = torch.autograd.grad(loss, list(script.model.parameters()))
    found = bench.gradients(3)
    assert found[0] == loss.item()
    assert equal(found[1], list(wanted))


# ---------------------------------------------------------------------- steps


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
    "adamw": lambda p: torch.optim.AdamW(p, 0.01, amsgrad=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01, centered=True),
    "adadelta": lambda p: torch.optim.Adadelta(p),
    "asgd": lambda p: torch.optim.ASGD(p, 0.1),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_step_is_the_one_that_the_script_would_make(trained, kind):
    """The oracle is the script: its own next step, with the moments it had."""
    script = Script(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)), OPTIMIZERS[kind])
    bench = Bench(trained(script))
    found = bench.step(bench.optimizer(), 2)
    assert found == script.step(*script.batches[2]).item()
    assert equal(values(bench), [p.detach() for p in script.model.parameters()])


def test_lbfgs_steps_by_its_closure(trained):
    class WithClosure(Script):
        def step(self, x, y):
            def closure():
                self.optimizer.zero_grad()
                loss = F.cross_entropy(self.model(x), y)
                loss.backward()
                return loss

            return self.optimizer.step(closure)

    script = WithClosure(nn.Linear(6, 3), lambda p: torch.optim.LBFGS(p, **LBFGS_STEPS), count=2)
    bench = Bench(trained(script))
    found = bench.step(bench.optimizer(), 1)
    assert found == script.step(*script.batches[1]).item()
    assert equal(values(bench), [p.detach() for p in script.model.parameters()])


def test_an_optimizer_of_the_script_keeps_its_own_attributes(trained):
    class Slowed(torch.optim.SGD):
        def __init__(self, params):
            super().__init__(params, 0.1)
            self.slow = {"by": 0.5}

        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    p.data.add_(p.grad, alpha=-group["lr"] * self.slow["by"])

    script = Script(nn.Linear(6, 3), Slowed)
    bench = Bench(trained(script))
    bench.step(bench.optimizer(), 1)
    script.step(*script.batches[1])
    assert equal(values(bench), [p.detach() for p in script.model.parameters()])


def test_a_schedule_does_not_lead_back_to_the_script(trained):
    """Schedulers replace `step` of the optimizer by a function that holds it: a copy of that would train the script."""
    script = Script()
    torch.optim.lr_scheduler.StepLR(script.optimizer, 3)
    training = trained(script)
    before = state(script)
    bench = Bench(training)
    bench.step(bench.optimizer(), 0)
    assert equal(state(script), before)


def test_copies_of_the_optimizer_are_independent(trained):
    script = Script(optimizer=lambda p: torch.optim.SGD(p, 0.1, momentum=0.9))
    bench = Bench(trained(script))
    one, other = bench.optimizer(), bench.optimizer()
    moments = [one.state[p]["momentum_buffer"].clone() for p in bench.learned]
    assert all(bool(m.any()) for m in moments)
    bench.step(one, 0)
    assert equal([other.state[p]["momentum_buffer"] for p in bench.learned], moments)
    assert equal([bench.optimizer().state[p]["momentum_buffer"] for p in bench.learned], moments)
    assert not equal([one.state[p]["momentum_buffer"] for p in bench.learned], moments)


def test_a_factor_goes_to_the_rate_of_every_group(trained):
    script = Script()
    ends = script.model[:2].parameters(), script.model[2:].parameters()
    script.optimizer = torch.optim.SGD([{"params": list(ends[0])}, {"params": list(ends[1]), "lr": 0.02}], 0.1)
    bench = Bench(trained(script))
    assert [g["lr"] for g in bench.optimizer(10.0).param_groups] == pytest.approx([1.0, 0.2])


def test_rates_at_the_start_and_after_a_schedule(trained):
    script = Script()
    training = trained(script)
    for rate, wanted in ((0.01, 0.01), (0.0005, 0.001), (0.0, 0.001)):  # never below a tenth of the first
        script.optimizer.param_groups[0]["lr"] = rate
        changed = Bench(type(training)(**{**vars(training), "rate": rate}))
        assert changed.optimizer().param_groups[0]["lr"] == pytest.approx(wanted)
        assert changed.optimizer(start=True).param_groups[0]["lr"] == pytest.approx(0.01)
        assert not changed.optimizer(start=True).state


def test_updates_by_hand_are_plain_steps(trained):
    w = torch.zeros(6, 3, requires_grad=True)
    data = batches(3)

    def script():
        for x, y in data:
            F.cross_entropy(x @ w, y).backward()
            with torch.no_grad():
                w.sub_(0.1 * w.grad)
                w.grad = None

    training = trained(script)
    bench = Bench(type(training)(**{**vars(training), "rate": 0.1, "first_rate": 0.1}))
    assert equal([t.detach() for t in bench.learned], [w.detach()])
    bench.step(bench.optimizer(), 0)
    F.cross_entropy(data[0][0] @ w, data[0][1]).backward()
    assert torch.allclose(bench.learned[0], w - 0.1 * w.grad)


def test_clipping_is_that_of_the_script(trained):
    class Clipped(Script):
        def step(self, x, y):
            self.optimizer.zero_grad()
            F.cross_entropy(100 * self.model(x), y).backward()
            nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimizer.step()

    script = Clipped(nn.Linear(6, 3), lambda p: torch.optim.SGD(p, 1.0))
    bench = Bench(trained(script))
    assert bench.training.clipping == "norm 1.0"
    before = values(bench)
    bench.step(bench.optimizer(), 0)
    moved = math.sqrt(sum(float((a - b).square().sum()) for a, b in zip(values(bench), before, strict=True)))
    assert moved == pytest.approx(1.0, rel=1e-4)


def test_training_ends_with_the_time_and_with_the_loss(trained):
    bench = Bench(trained(Script(nn.Linear(6, 3), lambda p: torch.optim.SGD(p, 0.1))))
    assert len(bench.train(bench.optimizer(), bench.batches, 7)) == 7
    assert len(bench.train(bench.optimizer(), bench.batches, 7, Clock(0.0))) == 1
    bench.modules[0].weight.data.fill_(math.nan)
    assert len(bench.train(bench.optimizer(), bench.batches, 7)) == 1


# ---------------------------------------------------------------------- no trace


def disturb():
    torch.manual_seed(99)
    torch.rand(3)
    random.random()
    np.random.rand()
    torch.set_num_threads(torch.get_num_threads() + 1)
    torch.set_grad_enabled(False)
    print("seen by nobody")
    print("nor this", file=sys.stderr)


def surroundings():
    return (
        torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist(), torch.get_num_threads(),
        torch.is_grad_enabled(), sys.stdout, sys.stderr,
    )  # fmt: skip


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_all_is_as_it_was(capsys, grad, fails):
    with torch.set_grad_enabled(grad):
        before = surroundings()
        try:
            with no_trace(threads=1):
                assert torch.is_grad_enabled() and torch.get_num_threads() == 1
                disturb()
                if fails:
                    raise RuntimeError
        except RuntimeError:
            assert fails
        assert surroundings() == before
    assert capsys.readouterr() == ("", "")


def test_all_is_as_it_was_when_experiments_are_left_early(trained):
    training = trained(Script())
    before = surroundings()
    made = experiments(training, 1.0)
    next(made)
    assert isinstance(sys.stdout, io.StringIO)
    made.close()
    assert surroundings() == before


# ---------------------------------------------------------------------- time


def test_a_clock_counts_the_processor_or_the_wall():
    wall, processor = Clock(10.0, processor=False), Clock(10.0)
    time.sleep(0.05)
    assert wall.left < 9.96
    assert processor.left > 9.96
    assert Clock(0.0).left == 0.0
    assert Clock(math.inf).left == math.inf
    assert 0.9 < wall.part(0.1).left < 1.0
    assert not wall.part(0.5).processor


def test_a_clock_waits_for_the_processor_as_patiently_as_it_is_told(monkeypatch):
    now = [0.0, 0.0]  # by the wall, by the processor
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(time, "thread_time", lambda: now[1])
    usual, patient = Clock(10.0), Clock(10.0, patience=5.0)
    now[:] = 16.0, 4.0  # four things to do for each core
    assert (usual.left, patient.left) == (4.0, 6.0)
    half = patient.part(0.5)
    now[:] = 26.0, 5.0
    assert (usual.left, patient.left, half.left) == (0.0, 5.0, 2.0)
    now[:] = 31.0, 5.5
    assert half.left == 0.0


@pytest.mark.parametrize(("threads", "set_to"), [(3, []), (1, [1, 3])])
def test_threads_are_set_where_they_change_only(threads, set_to, monkeypatch):
    now, told = [3], []

    def set_num_threads(count):
        told.append(count)
        now[0] = count

    monkeypatch.setattr(torch, "get_num_threads", lambda: now[0])
    monkeypatch.setattr(torch, "set_num_threads", set_num_threads)  # that it is called at all slows small products down
    with no_trace(threads=threads):
        assert now == [threads]
    assert (told, now) == (set_to, [3])
