"""What is kept of a training for experiments, and when it is let go."""

import gc
import math
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unstuck.evidence import Record
from unstuck.probes.tape import Tape
from unstuck.watcher import capture
from unstuck.watcher.probing import probe
from unstuck.watcher.session import Session


@pytest.fixture
def watching(tmp_path):
    """A session that samples every step and is attached until the test is over."""
    sessions = []

    def attach(probe_budget=0.15):
        torch.manual_seed(0)
        session = Session(tmp_path / f"record-{len(sessions)}.sqlite", budget=1.0, probe_budget=probe_budget)
        session.cadence.wants = lambda step: True
        session.attach()
        sessions.append(session)
        return session

    yield attach
    for session in sessions:
        assert not session._errors, session._errors
        session.probe_budget = 0.0
        session.close()


def network():
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def batch(seed=0, samples=12):
    x = torch.randn(samples, 4, generator=torch.Generator().manual_seed(seed))
    return x, x[:, :3].argmax(1)


def train(model, optimizer, steps=5, batches=None):
    for i in range(steps):
        x, y = batch(i) if batches is None else batches[i % len(batches)]
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()


def sgd(model, **given):
    return torch.optim.SGD(model.parameters(), **{"lr": 0.1, **given})


def why_none(session):
    made = list(probe(session, 1.0))
    assert [name for name, _ in made] == ["none"], made
    return made[0][1]["why"]


# ---------------------------------------------------------------------- what is kept


def test_the_last_losses_are_kept(watching):
    session, model = watching(), network()
    optimizer = sgd(model)
    train(model, optimizer)
    training = session.capture.training(session)
    assert len(training.tapes) == 5
    for i, tape in enumerate(training.tapes):
        x, y = batch(i)
        assert torch.equal(tape.data[tape.inputs[0]], x)
        assert torch.equal(tape.data[tape.targets[0]], y)
        assert tape.modules == [model]
        assert tape.output is not None
    assert training.optimizer is optimizer
    assert (training.rate, training.first_rate, training.steps) == (0.1, 0.1, 5)
    assert (training.score_name, training.batch_size, training.num_classes) == ("accuracy", 12, 3)
    assert training.score(torch.eye(3), torch.tensor([0, 1, 0])) == pytest.approx(2 / 3)


def test_the_first_values_are_those_before_the_first_update(watching):
    session, model = watching(), network()
    first = [p.detach().clone() for p in model.parameters()]
    train(model, sgd(model))
    initial = session.capture.training(session).initial
    assert all(torch.equal(a, b) for a, b in zip(initial, first, strict=False))
    assert len(initial) == len(first) + 3, "buffers, too"
    assert not torch.equal(initial[0], model[0].weight)


def test_a_rate_that_was_scheduled_is_known_at_both_ends(watching):
    session, model = watching(), network()
    optimizer = sgd(model)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    for i in range(3):
        train(model, optimizer, 1, [batch(i)])
        schedule.step()
    training = session.capture.training(session)
    assert (training.rate, training.first_rate) == (0.0125, 0.1)


def test_clipping_is_known(watching):
    session, model = watching(), network()
    optimizer = sgd(model)
    for i in range(3):
        F.cross_entropy(model(batch(i)[0]), batch(i)[1]).backward()
        nn.utils.clip_grad_value_(model.parameters(), 0.5)
        optimizer.step()
    assert session.capture.training(session).clipping == "value 0.5"


def test_updates_by_hand(watching):
    session = watching()
    w = torch.zeros(4, 3, requires_grad=True)
    for i in range(4):
        x, y = batch(i)
        F.cross_entropy(x @ w, y).backward()
        with torch.no_grad():
            w -= 0.1 * w.grad
            w.grad.zero_()
    session._finish()
    training = session.capture.training(session)
    assert len(training.tapes) >= 3
    assert training.optimizer is None
    assert all(tape.trained == [w] for tape in training.tapes)


def test_tensors_that_are_made_anew_each_step_are_one_network():
    """`w = (w - rate * gradient).detach().requires_grad_()`; an optimizer's tensors stay the same."""
    one, other, larger = (Tape(trained=[torch.zeros(n)]) for n in (3, 3, 4))
    assert not capture._other_network(one, other, remade=True)
    assert capture._other_network(one, larger, remade=True)
    assert capture._other_network(one, other, remade=False)
    assert not capture._other_network(one, Tape(trained=[*one.trained, torch.zeros(5)]), remade=False), (
        "an input with gradient"
    )


def test_the_loss_of_mixed_precision_is_the_unscaled_one(watching):
    session, model = watching(), network()
    optimizer, scaler = sgd(model), torch.amp.GradScaler("cpu", init_scale=1024.0)
    x, y = batch()
    for _ in range(2):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    training = session.capture.training(session)
    tape = training.tapes[-1]
    with torch.no_grad():
        again, _ = tape.replay(tape.modules, tape.trained, tape.data)
    assert again < 10


def test_without_a_budget_nothing_is_kept(watching):
    session, model = watching(probe_budget=0.0), network()
    optimizer = sgd(model)
    train(model, optimizer)
    kept = session.capture
    assert not kept.tapes and not kept.initial and kept.optimizer is None
    assert kept.training(session) is None
    assert kept._collecting not in gc.callbacks


# ---------------------------------------------------------------------- how much


@pytest.mark.slow
def test_early_losses_are_thinned_out(watching, monkeypatch):
    monkeypatch.setattr(capture, "MOST_TAPES", 8)
    session, model = watching(), network()
    train(model, sgd(model), 40)
    tapes = session.capture.tapes
    seeds = [next(i for i in range(40) if torch.equal(batch(i)[0], t.data[t.inputs[0]])) for t in tapes]
    assert len(tapes) == 8
    assert seeds == [0, 1, *range(34, 40)], "the first quarter stays, the rest are the last ones"


def test_batches_have_a_limit_together(watching, monkeypatch):
    session, model = watching(), network()
    size = sum(t.numel() * t.element_size() for t in batch())
    monkeypatch.setattr(capture, "MOST_BATCH_BYTES", 3 * size)
    train(model, sgd(model), 10)
    assert len(session.capture.tapes) == 3


def test_a_batch_that_is_too_large_is_not_kept(watching, monkeypatch):
    session, model = watching(), network()
    monkeypatch.setattr(capture, "MOST_BATCH_BYTES", 100)
    train(model, sgd(model))
    assert (session.capture.tapes, session.capture.initial, session.capture.optimizer) == ([], [], None)
    assert why_none(session) == "a batch is too large to be kept"


def test_a_network_that_is_too_large_is_not_kept(watching, monkeypatch):
    session, model = watching(), network()
    numbers = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
    monkeypatch.setattr(capture, "MOST_BYTES", 4 * numbers - 4)
    train(model, sgd(model))
    assert (session.capture.tapes, session.capture.wanted) == ([], False)
    assert not session.tracer.records
    assert why_none(session) == "the network is too large to be copied"


def test_a_network_that_is_just_small_enough_is(watching, monkeypatch):
    session, model = watching(), network()
    numbers = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
    monkeypatch.setattr(capture, "MOST_BYTES", 4 * numbers)
    monkeypatch.setattr(capture, "MOST_INITIAL_BYTES", numbers - 1)
    train(model, sgd(model))
    assert len(session.capture.tapes) == 5
    assert not session.capture.initial, "first values have a limit of their own"


def test_slices_of_a_data_set_do_not_keep_it(watching):
    session, model = watching(), network()
    optimizer = sgd(model)

    def pass_over_a_shard():
        x = torch.randn(200_000, 4)
        train(model, optimizer, 3, [(x[i : i + 12], batch()[1]) for i in (0, 12, 24)])
        return weakref.ref(x)

    assert pass_over_a_shard()() is None
    assert len(session.capture.tapes) == 3
    assert not any(tape.pools for tape in session.capture.tapes[:-1]), "one is held, of which more batches are drawn"
    assert all(t.untyped_storage().nbytes() < 1 << 20 for tape in session.capture.tapes for t in tape.data)


# ---------------------------------------------------------------------- full batches


def test_full_batch_training_keeps_one(watching):
    session, model = watching(), network()
    train(model, sgd(model), 6, [batch()])
    assert len(session.capture.tapes) == 1
    assert session.capture.initial


def test_full_batches_that_are_sliced_anew_each_step_keep_one(watching):
    session, model = watching(), network()
    optimizer, (x, y) = sgd(model), batch()
    for _ in range(4):
        train(model, optimizer, 1, [(x[:10], y[:10])])
    assert len(session.capture.tapes) == 1


def test_batches_in_one_place_keep_the_last(watching):
    """A buffer that is overwritten by each batch: the tapes before it are of no use."""
    session, model = watching(), network()
    optimizer, (x, y) = sgd(model), batch()
    for i in range(4):
        x.copy_(batch(i)[0])
        y.copy_(batch(i)[1])
        train(model, optimizer, 1, [(x, y)])
    (tape,) = session.capture.tapes
    assert tape.fresh
    assert torch.equal(tape.data[tape.inputs[0]], batch(3)[0])


# ---------------------------------------------------------------------- let go


def released(*refs):
    return [ref() is None for ref in refs]


def kept_by(model, optimizer):
    return weakref.ref(model), weakref.ref(next(model.parameters())), weakref.ref(optimizer)


def modules(**given):
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    train(model, optimizer, **given)
    return kept_by(model, optimizer)


def parts(**given):
    """Modules that are called one by one."""
    model = network()
    optimizer = sgd(model, momentum=0.9)

    class Parts:
        def __call__(self, x):
            for part in model:
                x = part(x)
            return x

    train(Parts(), optimizer, **given)
    return kept_by(model, optimizer)


def plain_tensors(optimizer):
    def make(**given):
        w = torch.zeros(4, 3, requires_grad=True)
        made = optimizer([w])
        train(lambda x: x @ w, made, **given)
        return weakref.ref(w), weakref.ref(made)

    return make


MAKERS = {
    "modules": modules,
    "parts": parts,
    "plain tensors": plain_tensors(lambda p: torch.optim.SGD(p, lr=0.1)),
    "plain tensors with moments": plain_tensors(lambda p: torch.optim.Adam(p)),
    "one batch": lambda: modules(batches=[batch()]),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", MAKERS)
def test_a_network_that_nobody_else_holds_goes_when_garbage_is_collected(watching, kind):
    session = watching()
    refs = MAKERS[kind]()
    gc.collect()
    assert all(released(*refs))
    assert not session.capture.tapes and not session.capture.initial
    assert session.capture.training(session) is None
    assert why_none(session) == "the script let go of the network"


def test_a_network_that_the_script_holds_stays(watching):
    session, model = watching(), network()
    train(model, sgd(model))
    gc.collect()
    assert len(session.capture.tapes) == 5
    assert session.capture.optimizer is not None, "the script may have let go of the optimizer alone"


def test_tensors_that_the_optimizer_of_the_script_holds_stay(watching):
    session = watching()

    def only_the_optimizer():
        w = torch.zeros(4, 3, requires_grad=True)
        optimizer = torch.optim.Adam([w])
        train(lambda x: x @ w, optimizer)
        return optimizer

    optimizer = only_the_optimizer()
    gc.collect()
    assert len(session.capture.tapes) == 5
    del optimizer


def test_young_garbage_is_no_occasion(watching):
    session = watching()
    refs = modules()
    gc.collect(0)
    assert not any(released(*refs))
    assert session.capture.tapes


def carrying(model, optimizer):
    """Steps whose loss is made of what was computed before them."""
    carried = torch.ones(3, requires_grad=True).mul(2)
    yield
    for i in range(3):
        optimizer.zero_grad()
        F.cross_entropy(model(batch(i)[0]) + carried, batch(i)[1]).backward(retain_graph=True)
        optimizer.step()
    yield


@pytest.mark.slow
@pytest.mark.parametrize("reason", ["a batch is too large", "before this step"])
def test_what_cannot_be_kept_is_not_held_either(watching, monkeypatch, reason):
    """Not even the optimizer, which holds all weights."""
    if "large" in reason:
        monkeypatch.setattr(capture, "MOST_BATCH_BYTES", 10)
    session = watching()

    def make():
        model = network()
        optimizer = sgd(model)
        steps = carrying(model, optimizer)
        if "large" in reason:
            train(model, optimizer)
        else:
            next(steps)
            session.tracer.restart(measure=True)
            next(steps)
        return kept_by(model, optimizer)

    refs = make()
    assert reason in session.capture.why_not
    assert session.capture.optimizer is None
    gc.collect()
    assert all(released(*refs))


def test_another_network_takes_its_place(watching):
    session, one, other = watching(), network(), network()
    train(one, sgd(one))
    assert session.capture.initial
    train(other, sgd(other), 8)
    assert {id(t.modules[0]) for t in session.capture.tapes} == {id(other)}
    assert not session.capture.initial, "its first step was not the script's first"


def test_another_network_of_plain_tensors_takes_its_place(watching):
    session = watching()
    for _ in range(2):
        w = torch.zeros(4, 3, requires_grad=True)
        train(lambda x: x @ w, torch.optim.SGD([w], 0.1), 8)  # noqa: B023 - called in this turn
    assert {id(t.trained[0]) for t in session.capture.tapes} == {id(w)}
    assert not session.capture.initial


def test_closing_lets_go_of_everything(watching):
    session, model = watching(), network()
    train(model, sgd(model))
    session.capture.close()
    assert not session.capture.tapes
    assert session.capture._collecting not in gc.callbacks
    train(model, sgd(model))
    assert not session.capture.tapes


def test_a_session_that_ends_lets_go_of_everything(tmp_path):
    session, model = Session(tmp_path / "record.sqlite", probe_budget=0.15), network()
    session.attach()
    train(model, sgd(model))
    session.ended_by(RuntimeError, RuntimeError("so that no experiments are made"))
    session.close()
    assert not session.capture.tapes
    assert session.capture._collecting not in gc.callbacks
    assert not Record.read(tmp_path / "record.sqlite").happened("probe")


# ---------------------------------------------------------------------- why there are no experiments


def test_nothing_seen(watching):
    session = watching()
    assert why_none(session) == "no sampled step led to a loss"


def test_losses_that_cannot_be_computed_again(watching):
    session, model = watching(), network()
    steps = carrying(model, sgd(model))
    next(steps)
    session.tracer.restart(measure=True)
    next(steps)
    assert "before this step" in why_none(session)


def test_optimizers_that_take_turns(watching):
    """As in a GAN."""
    session, one, other = watching(), network(), network()
    optimizers = sgd(one), sgd(other)
    for i in range(8):
        for model, optimizer in zip((one, other), optimizers, strict=True):
            x, y = batch(i)
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    assert why_none(session) == "several losses or optimizers take turns"


def test_losses_that_take_turns(watching):
    session, model = watching(), network()
    optimizer = sgd(model)
    for i in range(4):
        x, y = batch(i)
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        model(x).pow(2).mean().backward()
        optimizer.step()
    assert why_none(session) == "several losses or optimizers take turns"


def test_wrappers_are_named(watching):
    session, model = watching(), network()
    wrapped = nn.DataParallel(model)
    train(wrapped, sgd(model))
    session.registry.models[0].wrapped_by = ("DataParallel",)
    assert why_none(session) == "the network is wrapped by DataParallel"


@pytest.mark.slow
def test_trainings_one_after_another_are_no_turns(watching):
    session, one, other = watching(), network(), network()
    train(one, sgd(one), 8)
    train(other, sgd(other), 8)
    names = [name for name, _ in probe(session, 0.5)]
    assert names and "none" not in names


def test_batches_that_were_overwritten(watching):
    session, model = watching(), network()
    batches = [batch(i) for i in range(3)]
    train(model, sgd(model), 3, batches)
    for x, _ in batches:
        x.zero_()
    assert why_none(session) == "the script overwrote the batches"


def test_an_impatient_user_gets_what_there_is(watching, monkeypatch):
    from unstuck.probes import schedule

    def interrupted(bench, clock):
        raise KeyboardInterrupt

    monkeypatch.setattr(schedule, "ORDER", (("one", lambda b, c: {"loss": b.loss()}, 0.5), ("two", interrupted, 0.5)))
    session, model = watching(), network()
    train(model, sgd(model))
    made = dict(probe(session, 1.0))
    assert list(made) == ["one"]
    assert math.isfinite(made["one"]["loss"])


@pytest.mark.slow
def test_experiments_are_in_the_record(tmp_path):
    session, model = Session(tmp_path / "record.sqlite", budget=1.0, probe_budget=0.15), network()
    session.attach()
    train(model, sgd(model), 30)
    session.close()
    record = Record.read(tmp_path / "record.sqlite")
    events = {e.data["name"]: e.data for e in record.happened("probe")}
    assert {"critical-rate", "from-start"} <= set(events), "the first ones, however busy the machine is"
    assert not [e for e in events.values() if "error" in e]
    assert not record.happened("watcher-error")
    assert 0 < record.meta["probe_seconds"] < 20
