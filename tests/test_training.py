"""A training as objects: it trains as the loop that people write, copies stand for themselves, and what can't be is refused."""

from __future__ import annotations

import contextlib
import copy
import math

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

import unstuck
from unstuck.errors import MisuseError
from unstuck.optim.sam import Sam
from unstuck.optim.weight_average import WeightAverage
from unstuck.training import Epoch, Training
from unstuck.trials.job import score_of

cross_entropy = nn.functional.cross_entropy


def data(count=96):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, 4, generator=generator)
    return x, (x @ torch.randn(4, 3, generator=generator)).argmax(1)


def net(*, dropout=0.0):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 3))


def in_batches(x, y, size=32):
    return list(zip(x.split(size), y.split(size), strict=True))


def make(*, model=None, loss=cross_entropy, optimizer=None, batches=None, **given):
    model = model or net()
    optimizer = optimizer(model) if optimizer else torch.optim.SGD(model.parameters(), lr=0.1)
    return Training(model, loss, optimizer, in_batches(*data()) if batches is None else batches, **given)


def weights(training):
    return [p.detach().clone() for p in training.model.parameters()]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# ---------------------------------------------------------------------- it trains


def test_batches_that_are_accumulated_are_one_large_batch():
    x, y = data()
    ways = [
        make(batches=in_batches(x, y, 48), epochs=3, penalty=lambda m: 0.01 * m[0].weight.square().sum()),
        make(batches=in_batches(x, y, 12), epochs=3, penalty=lambda m: 0.01 * m[0].weight.square().sum(), accumulate=4),
    ]
    large, small = (way.run() for way in ways)
    assert ways[0].steps == ways[1].steps == 6
    for one, other in zip(large, small, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-5)
    for one, other in zip(*map(weights, ways), strict=True):
        assert torch.allclose(one, other, atol=1e-6)  # sums in another order


def test_what_is_left_of_an_epoch_makes_a_step_of_its_own():
    steps = []
    training = make(batches=in_batches(*data(), 32), epochs=2, accumulate=2)
    training.on_step.append(lambda t: steps.append(1))
    training.run()
    assert len(steps) == training.steps == 4


def test_a_hook_ends_it():
    training = make(epochs=5)
    training.on_epoch.append(lambda t, e: setattr(t, "ended", len(seen.append(e) or seen) == 2))
    seen, ended = [], []
    training.on_end.append(ended.append)
    assert training.run() == seen[:2]
    assert ended == [training]
    seen.clear()
    assert len(training.run()) == 2  # as often as one likes


def test_it_trains_as_the_loop_that_people_write():
    model, x_y = net(dropout=0.5), data()
    loader = DataLoader(TensorDataset(*x_y), 32, shuffle=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    schedule = lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    torch.manual_seed(3)
    for _ in range(3):
        for x, y in loader:
            optimizer.zero_grad()
            loss = cross_entropy(model(x), y) + 0.1 * model[0].weight.square().sum()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
        schedule.step()

    other = net(dropout=0.5)
    adam = torch.optim.Adam(other.parameters(), lr=0.01)
    training = Training(
        other, cross_entropy, adam, loader, epochs=3, schedule=lr_scheduler.StepLR(adam, 1, gamma=0.5), clip=0.5,
        penalty=lambda model: 0.1 * model[0].weight.square().sum(),
    )  # fmt: skip
    torch.manual_seed(3)
    assert len(training.run()) == 3
    assert same(model.parameters(), other.parameters())
    assert adam.param_groups[0]["lr"] == pytest.approx(0.01 / 8)


def test_it_evaluates_after_every_epoch_and_leaves_no_trace():
    x, y = data()
    model = net(dropout=0.5)
    model[0].eval()
    modes = [m.training for m in model.modules()]
    seen = []
    model.register_forward_hook(lambda m, *_: seen.append((m.training, m[2].training, torch.is_grad_enabled())))
    training = make(model=model, evaluation=[(x, y)], epochs=2)
    found = training.run()
    assert [m.training for m in model.modules()] == modes
    assert seen == ([(True, True, True)] * 3 + [(False, False, False)]) * 2
    with torch.no_grad():
        expected = cross_entropy(model.eval()(x), y)
    assert found[-1].evaluation == pytest.approx(float(expected))
    assert math.isnan(make().run()[0].evaluation)


def test_modes_are_as_before_when_an_evaluation_fails():
    def fails(outputs, targets):
        if not torch.is_grad_enabled():
            raise RuntimeError("no")
        return cross_entropy(outputs, targets)

    training = make(loss=fails, evaluation=in_batches(*data()))
    with pytest.raises(RuntimeError, match="no"):
        training.run()
    assert all(m.training for m in training.model.modules())


def test_treatments_take_hold_in_their_order():
    told = []
    training = make(batches=in_batches(*data(32)), evaluation=in_batches(*data(32)))
    training.on_loss.append(lambda training, loss: told.append("loss") or loss / 2)
    training.on_gradients.append(lambda t: told.append(("gradients", t.model[0].weight.grad is not None)))
    training.on_step.append(lambda training: told.append("step"))
    training.on_eval.append(lambda training, outputs, targets: told.append(tuple(outputs.shape)))
    (epoch,) = training.run()
    assert told == ["loss", ("gradients", True), "step", (32, 3)]
    x, y = data(32)
    assert epoch.loss == pytest.approx(float(cross_entropy(net()(x), y).detach()) / 2)


def test_treatments_take_hold_around_evaluations_epochs_and_runs():
    told = []

    @contextlib.contextmanager
    def doubled(training):
        with torch.no_grad():
            training.model[0].bias.add_(1)
            told.append(training.model.training)
            try:
                yield
            finally:
                training.model[0].bias.sub_(1)

    x_y = in_batches(*data(32))
    training = make(batches=x_y, evaluation=x_y, epochs=2)
    training.around_eval.append(doubled)
    training.on_epoch.append(lambda training, epoch: told.append(epoch))
    training.on_end.append(lambda training: told.append("end"))
    other = training.copy()
    one, two = training.run()
    assert told == [False, one, False, two, "end"]
    weight = training.model[0].bias.detach().clone()
    training.on_eval.append(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        training.evaluate()
    torch.testing.assert_close(training.model[0].bias.detach(), weight)
    assert training.model.training
    assert [epoch.evaluation for epoch in other.run()] == pytest.approx([one.evaluation, two.evaluation])


def test_a_batch_that_is_a_dict_is_computed_by_forward():
    batches = [{"image": x, "label": y} for x, y in in_batches(*data())]
    training = make(batches=batches, forward=lambda model, batch: (model(batch["image"]), batch["label"]))
    training.run()
    usual = make()
    usual.run()
    assert same(weights(training), weights(usual))


def test_lbfgs_asks_as_often_as_it_likes():
    training = make(optimizer=lambda m: torch.optim.LBFGS(m.parameters(), max_iter=5), epochs=8, batches=[data()])
    other = training.copy()
    assert training.run()[-1].loss < 0.2
    assert same(weights(training), weights(other)) is False
    other.run()
    assert same(weights(training), weights(other))


def test_sam_asks_twice():
    """Its two passes are those of a loop by hand, with accumulation, clipping and a schedule of the optimizer that it is around."""
    x, y = data()
    model, hand = net(), net()
    base = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    rates = lr_scheduler.StepLR(base, 1, 0.5)
    batches = in_batches(x, y, 16)
    training = Training(
        model,
        cross_entropy,
        Sam(base, rho=0.1),
        batches,
        epochs=2,
        accumulate=2,
        clip=1.0,
        schedule=rates,
        schedule_each="step",
    )
    copied = training.copy()
    training.run()

    optimizer = Sam(torch.optim.SGD(hand.parameters(), lr=0.5, momentum=0.9), rho=0.1)
    for step in range(6):
        optimizer.param_groups[0]["lr"] = 0.5 * 0.5**step
        two = slice(step % 3 * 32, step % 3 * 32 + 32)
        for act in (optimizer.first_step, optimizer.second_step):
            optimizer.zero_grad()
            cross_entropy(hand(x[two]), y[two]).backward()
            nn.utils.clip_grad_norm_(hand.parameters(), 1.0)
            act()
    torch.testing.assert_close(weights(training), [p.detach() for p in hand.parameters()])
    copied.run()
    assert same(weights(copied), weights(training))


def test_a_plateau_goes_by_the_evaluation():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    plateau = lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
    Training(model, cross_entropy, optimizer, [data()], evaluation=[data()], epochs=3, schedule=plateau).run()
    assert plateau.num_bad_epochs == 0
    assert plateau.best == pytest.approx(float(cross_entropy(net()(data()[0]), data()[1]).detach()))


def test_a_schedule_of_steps():
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.8)
    schedule = lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    training = Training(model, cross_entropy, optimizer, in_batches(*data()), schedule=schedule, schedule_each="step")
    training.run()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1)
    assert training.steps == 3


# ---------------------------------------------------------------------- what the watcher sees


def by_hand(outputs, targets):
    return -outputs.log_softmax(1)[torch.arange(len(targets)), targets].mean()


@pytest.mark.slow
@pytest.mark.parametrize(
    "loss", [cross_entropy, nn.CrossEntropyLoss(), by_hand], ids=["function", "criterion", "by hand"]
)
@pytest.mark.parametrize("loader", [True, False], ids=["loader", "list"])
def test_a_watched_training_is_scored_by_its_evaluation(loss, loader, tmp_path):
    x, y = data(256)
    batches, held_out = in_batches(x[:192], y[:192]), in_batches(x[192:], y[192:])
    if loader:
        batches = DataLoader(TensorDataset(x[:192], y[:192]), 32, shuffle=True)
        held_out = DataLoader(TensorDataset(x[192:], y[192:]), 32)
    training = make(loss=loss, batches=batches, evaluation=held_out, epochs=8)
    with unstuck.watch(training.model, training.optimizer, probe_budget=0, runs=tmp_path) as run:
        training.run()
    record = run.record
    assert (record.program.task.score, record.steps) == ("accuracy", 48)
    assert not [e for e in record.happened("watcher-error")]
    assert record.program.losses[0].site.startswith("test_training.py:"), "and not a line of ours"
    if loss is by_hand and not loader:  # what is compared isn't known: a loader's batches are
        assert not len(record.series("eval_score"))
        return
    name, value, _ = score_of(record)
    assert (name, value) == ("accuracy", record.series("eval_score").last), "though not every evaluation is measured"
    assert 0.5 < value <= 1


# ---------------------------------------------------------------------- copies


def test_a_copy_stands_for_itself():
    x, y = data()
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    dataset = TensorDataset(x, y)
    loader = DataLoader(dataset, 32, shuffle=True, generator=torch.Generator().manual_seed(5))
    schedule = lr_scheduler.CosineAnnealingLR(optimizer, 6)
    training = Training(
        model, nn.CrossEntropyLoss(), optimizer, loader, schedule=schedule, schedule_each="step", epochs=2
    )
    before = weights(training)
    one, other = training.copy(), training.copy()
    one.run()
    assert same(weights(training), before)
    assert (optimizer.param_groups[0]["lr"], schedule.last_epoch) == (0.1, 0)
    assert one.optimizer.param_groups[0]["lr"] < 1e-9
    assert {id(p) for p in one.model.parameters()} == {id(p) for p in one.optimizer.param_groups[0]["params"]}
    assert one.schedules[0].scheduler.optimizer is one.optimizer
    assert one.batches.dataset is dataset
    assert one.places["0"] is one.model[0]
    other.run()
    training.run()
    assert same(weights(one), weights(other)), "each draws by a generator of its own, from the same state"
    assert same(weights(one), weights(training))


def test_a_copy_goes_on_from_the_state_of_the_optimizer():
    training = make(optimizer=lambda m: torch.optim.Adam(m.parameters(), lr=0.01))
    training.run()
    other = training.copy()
    training.run()
    other.run()
    assert same(weights(training), weights(other))


def test_a_criterion_that_learns_is_copied_with_the_model():
    class Contrast(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.scale, self.model = nn.Parameter(torch.ones(())), model

        def forward(self, outputs, targets):
            return cross_entropy(self.scale * outputs, targets) + 0 * self.model[0].weight.sum()

    model = net()
    loss = Contrast(model)
    training = Training(model, loss, torch.optim.SGD(loss.parameters(), lr=0.1), [data()])
    other = training.copy()
    assert other.loss.model is other.model
    assert any(other.loss.scale is p for p in other.optimizer.param_groups[0]["params"])


def test_functions_that_use_the_model_from_outside_are_refused():
    model = net()
    training = make(model=model, loss=lambda o, t: cross_entropy(o, t) + model[0].weight.sum())
    training.run()
    with pytest.raises(MisuseError, match="loss uses a model or an optimizer from outside"):
        training.copy()
    training = make(model=model, forward=lambda _, batch: (model(batch[0]), batch[1]))
    with pytest.raises(MisuseError, match="forward uses"):
        training.copy()


def test_what_batches_are_drawn_by_is_found_once():
    x_y = TensorDataset(*data())
    one, two = torch.Generator(), torch.Generator()
    loader = DataLoader(x_y, 32, sampler=RandomSampler(x_y, generator=one), generator=two)
    assert {id(g) for g in make(batches=loader).generators()} == {id(one), id(two)}
    assert make().generators() == []


class Drawn:
    """Batches that people draw themselves."""

    def __init__(self):
        self.generator, self.data = torch.Generator().manual_seed(0), data()

    def __iter__(self):
        for _ in range(3):
            rows = torch.randint(96, (32,), generator=self.generator)
            yield self.data[0][rows], self.data[1][rows]


def test_batches_of_a_class_of_ones_own():
    training = make(batches=Drawn())
    other = training.copy()
    assert other.batches.data is training.batches.data
    training.run()
    other.run()
    assert same(weights(training), weights(other))
    assert training.steps == 0, "nobody knows"


# ---------------------------------------------------------------------- what the model is given


def test_the_inputs_are_gone_through_and_nothing_is_drawn():
    x, y = data()
    loader = DataLoader(TensorDataset(x, y), 32, shuffle=True, generator=torch.Generator().manual_seed(2))
    training = make(batches=loader, forward=lambda model, batch: (model(2 * batch[0]), batch[1]))
    states = torch.get_rng_state(), loader.generator.get_state()
    found = training.inputs()
    assert torch.equal(found.sort(0).values, (2 * x).sort(0).values)
    assert all(map(torch.equal, states, (torch.get_rng_state(), loader.generator.get_state())))
    assert not training.model._forward_pre_hooks
    assert training.inputs(most=50).shape == (50, 4)


# ---------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"loss": None}, "loss is a NoneType, but must be a function"),
        ({"loss": nn.CrossEntropyLoss}, r"give CrossEntropyLoss\(\)"),
        ({"optimizer": lambda m: torch.optim.SGD(net().parameters(), lr=0.1)}, "the optimizer has none of the model's parameters"),
        ({"optimizer": lambda m: torch.optim.SGD}, "optimizer is a type"),
        ({"model": nn.ReLU(), "optimizer": lambda m: torch.optim.SGD(net().parameters())}, "no parameters"),
        ({"batches": iter([1])}, "batches can be gone through once only"),
        ({"batches": []}, "batches is empty"),
        ({"batches": torch.zeros(3)}, "batches is a Tensor"),
        ({"batches": 3}, "batches is a int"),
        ({"evaluation": (pair for pair in [1])}, "evaluation can be gone through once only"),
        ({"accumulate": 0}, "accumulate is 0, but must be a whole number from 1 on"),
        ({"epochs": 0}, "epochs is 0"),
        ({"epochs": 1.5}, "epochs is 1.5"),
        ({"clip": 0}, "clip is 0"),
        ({"schedule": 3}, "schedule is a int"),
        ({"schedule_each": "batch"}, "schedule_each is 'batch'"),
        ({"schedule": lr_scheduler.StepLR(torch.optim.SGD(net().parameters(), lr=1.0), 1)}, "one of another optimizer"),
    ],
)  # fmt: skip
def test_what_is_given_is_checked(given, words):
    with pytest.raises(MisuseError, match=words):
        make(**given)


def test_a_model_must_be_a_module():
    with pytest.raises(MisuseError, match="model is a function, but must be an nn.Module"):
        Training(lambda x: x, cross_entropy, torch.optim.SGD(net().parameters()), [data()])


def test_a_plateau_steps_by_epochs():
    optimizer = torch.optim.SGD((model := net()).parameters(), lr=1.0)
    plateau = lr_scheduler.ReduceLROnPlateau(optimizer)
    with pytest.raises(MisuseError, match="ReduceLROnPlateau goes by the loss of an epoch"):
        Training(model, cross_entropy, optimizer, [data()], schedule=plateau, schedule_each="step")


def test_batches_of_another_kind_say_what_to_do():
    with pytest.raises(
        MisuseError, match="a batch is a dict of 2, but must be inputs and targets: else say by forward"
    ):
        make(batches=[{"x": 1, "y": 2}]).run()
    with pytest.raises(MisuseError, match="no batches to train on"):
        make(batches=DataLoader(TensorDataset(*data(8)), 32, drop_last=True)).run()


def test_a_model_that_cannot_be_copied_says_so():
    model = net()
    model.cache = model[0].weight * 2
    with pytest.raises(MisuseError, match="the model can't be copied"):
        make(model=model).copy()


def test_it_is_exported():
    assert unstuck.Training is Training
    assert copy.copy(Epoch(1.0)).loss == 1.0


# ---------------------------------------------------------------------- averages and early stopping


class Best:
    """As `unstuck.regularization.early_stopping` has it: ends after an epoch that is no better, and puts the best weights back."""

    def __init__(self):
        self.reset()

    def reset(self):
        self.seen, self.best, self.state = [], math.inf, None

    def look(self, training, epoch):
        self.seen.append(epoch.evaluation)
        training.ended = epoch.evaluation >= self.best
        if epoch.evaluation < self.best:
            with training.as_evaluated():
                self.best, self.state = epoch.evaluation, copy.deepcopy(training.model.state_dict())

    def put_back(self, training):
        training.model.load_state_dict(self.state)

    def state_dict(self):
        return dict(vars(self))

    def load_state_dict(self, state):
        vars(self).update(state)


def averaged(decay=0.8, *, stopping=None, **given):
    model, x_y = net(), data()
    average = WeightAverage(model, decay=decay)
    return make(model=model, average=average, evaluation=[x_y], stopping=stopping, **given)


def test_the_average_is_what_is_evaluated_and_what_the_model_is_left_with():
    seen = []
    training, plain = averaged(epochs=3), make(epochs=3)
    x, y = data()
    plain.on_step.append(lambda t: seen.append(weights(t)))
    plain.run()
    found = training.run()
    shares = [0.8 ** (len(seen) - 1 - i) for i in range(len(seen))]
    expected = [sum(s * w for s, w in zip(shares, each, strict=True)) / sum(shares) for each in zip(*seen, strict=True)]
    for one, other in zip(weights(training), expected, strict=True):
        torch.testing.assert_close(one, other)
    assert found[-1].evaluation == pytest.approx(float(cross_entropy(training.model(x), y).detach()), rel=1e-5)
    assert training.evaluate() == found[-1].evaluation
    assert training.average.updates == 0, "the next run begins another"


def test_between_epochs_the_weights_are_those_that_are_trained():
    training, plain = averaged(epochs=2), make(epochs=2)
    seen, expected = [], []
    training.on_epoch.append(lambda t, e: seen.append(weights(t)))
    plain.on_epoch.append(lambda t, e: expected.append(weights(t)))
    training.run()
    plain.run()
    assert all(same(a, b) for a, b in zip(seen, expected, strict=True))


def test_an_average_takes_in_what_hooks_do_to_the_weights():
    training = averaged(decay=0.0)
    training.on_step.append(lambda t: nn.init.zeros_(t.model[0].weight))
    training.run()
    assert not training.model[0].weight.any()


def test_a_copy_has_an_average_of_its_own():
    training = averaged(epochs=2, stopping=Best())
    training.on_epoch.append(lambda t, e: setattr(t, "ended", True))
    training._epoch()
    other = training.copy()
    assert other.average.model is other.model
    assert other.stopping is not training.stopping
    kept = {k: v.clone() for k, v in training.average.averages().items()}
    assert other.run() == training.copy().run()
    assert all(torch.equal(v, kept[k]) for k, v in training.average.averages().items())


def test_modules_may_be_replaced_and_the_model_wrapped_with_an_average_attached():
    training = averaged(epochs=2)
    training._epoch()
    training.model[2] = nn.BatchNorm1d(8)
    training.model = nn.Sequential(training.model, nn.Linear(3, 3))
    training.run()
    assert training.average.model is training.model
    training.evaluate()


@pytest.mark.parametrize("average", [False, True])
def test_stopping_ends_it_and_leaves_the_best_that_was_evaluated(average):
    training = averaged(stopping=Best(), epochs=40, optimizer=lambda m: torch.optim.SGD(m.parameters(), lr=12.0))
    training.average = training.average if average else None
    for _ in range(2):  # the second run looks for another best
        told = []
        training.on_eval[:] = [lambda *_, told=told: told.append(1)]
        found = training.run()
        losses = [epoch.evaluation for epoch in found]
        assert 1 < len(found) < 40
        assert losses[-1] > min(losses)
        assert training.stopping.seen == losses
        assert len(told) == len(found) + 1, "evaluated again, as it is left"
        assert training.evaluate() == pytest.approx(min(losses), rel=1e-5)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"average": 0.99}, r"average is a float, but must be a WeightAverage\(model\)"),
        ({"average": WeightAverage(net())}, "average is one of another model"),
        ({"stopping": 3}, "stopping is a int without look, but must be such as"),
        ({"stopping": Best}, "stopping is a type"),
    ],
)
def test_averages_and_stopping_are_checked(given, words):
    with pytest.raises(MisuseError, match=words):
        make(**given)
