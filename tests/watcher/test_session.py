"""What the watcher finds in trainings of different making."""

import copy
import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from unstuck.evidence import Record
from unstuck.watcher.session import Session


def batch(n=16, inputs=8, classes=3):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, inputs, generator=generator)
    return x, (x[:, :classes].argmax(1))


def mlp():
    return nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 3))


def train(model, optimizer, loss, steps=5, x=None, y=None):
    if x is None:
        x, y = batch()
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss(model(x), y)
        value.backward()
        optimizer.step()
    return value


def test_layers_losses_and_optimizer_of_a_plain_training(watched):
    def training():
        model = mlp()
        train(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), nn.CrossEntropyLoss())

    record = watched(training)
    assert record.steps == 5
    assert [(layer.name, layer.op, layer.role) for layer in record.program.layers] == [
        ("model.0", "linear", "hidden"), ("model.1", "relu", "hidden"), ("model.2", "linear", "output"),
        (record.program.layers[-1].name, "loss", "loss"),
    ]  # fmt: skip
    assert record.layers["model.1"].inputs == ("model.0",)
    assert record.layers["model.2"].parameters == ("model.2.weight", "model.2.bias")
    optimizer = record.program.optimizers[0]
    assert (optimizer.kind, optimizer.settings["lr"], optimizer.settings["momentum"], optimizer.steps) == (
        "SGD",
        0.1,
        0.9,
        5,
    )
    assert optimizer.cleared
    loss = record.program.losses[0]
    assert (loss.name, loss.chain, loss.target_kind, loss.num_classes) == (
        "cross_entropy",
        ("linear",),
        "class index",
        3,
    )
    assert record.program.task.score == "accuracy"
    assert record.program.data.batch_size == 16
    assert len(record.series("loss")) == 5


def test_numbers_agree_with_what_torch_says(watched):
    seen = {}

    def training():
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        x, y = batch()
        hidden = model[1](model[0](x)).detach()
        seen["std"] = hidden.std(correction=0).item()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        seen["loss"] = loss.item()
        seen["grad"] = model[0].weight.grad.square().mean().sqrt().item()
        seen["ratio"] = 0.1 * seen["grad"] / model[0].weight.detach().square().mean().sqrt().item()
        seen["norm"] = math.sqrt(sum(p.grad.square().sum().item() for p in model.parameters()))
        optimizer.step()

    record = watched(training)
    assert record.series("loss").first == pytest.approx(seen["loss"], rel=1e-6)
    assert record.series("grad_norm").first == pytest.approx(seen["norm"], rel=1e-5)
    assert record.series("grad_rms", "model.0.weight").first == pytest.approx(seen["grad"], rel=1e-5)
    assert record.series("update_ratio", "model.0.weight").first == pytest.approx(seen["ratio"], rel=1e-4)
    assert record.series("act_std", "model.1").last == pytest.approx(seen["std"], rel=1e-5)


def test_results_are_the_same_to_the_last_bit(tmp_path):
    def training():
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(8, 12), nn.Dropout(0.3), nn.ReLU(), nn.Linear(12, 3))
        value = train(model, torch.optim.Adam(model.parameters()), F.cross_entropy, steps=8)
        return value.detach(), [p.detach() for p in model.parameters()], torch.get_rng_state()

    plain = training()
    session = Session(tmp_path / "record.sqlite")
    session.attach()
    seen = training()
    session.close()
    assert torch.equal(plain[0], seen[0])
    assert all(torch.equal(a, b) for a, b in zip(plain[1], seen[1], strict=True))
    assert torch.equal(plain[2], seen[2])


def test_torch_is_as_before_when_the_session_is_closed(tmp_path):
    from torch.overrides import _get_current_function_mode_stack

    kept = (
        torch.Tensor.backward,
        torch.autograd.backward,
        nn.Module.__call__,
        nn.utils.clip_grad_norm_,
        DataLoader.__iter__,
    )
    session = Session(tmp_path / "record.sqlite")
    session.attach()
    assert torch.Tensor.backward is not kept[0]
    session.close()
    now = (
        torch.Tensor.backward,
        torch.autograd.backward,
        nn.Module.__call__,
        nn.utils.clip_grad_norm_,
        DataLoader.__iter__,
    )
    assert now == kept
    assert not _get_current_function_mode_stack()


def test_a_failure_of_our_own_never_reaches_the_script(tmp_path, monkeypatch):
    monkeypatch.setattr("unstuck.watcher.tracer.describe", lambda *_: 1 / 0)
    monkeypatch.setattr("unstuck.watcher.losses.LossBook.analyze", lambda *_, **__: 1 / 0)
    session = Session(tmp_path / "record.sqlite")
    session.attach()
    model = mlp()
    train(model, torch.optim.SGD(model.parameters(), lr=0.1), F.cross_entropy)
    session.close()
    record = Record.read(tmp_path / "record.sqlite")
    assert record.steps == 5
    assert {e.data["error"] for e in record.happened("watcher-error")} == {"ZeroDivisionError('division by zero')"}


def test_functional_calls_are_layers_named_by_line(watched):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(3))
            self.head = nn.Linear(8, 3)

        def forward(self, x):
            for layer in self.layers:
                x = torch.sigmoid(layer(x))
            return self.head(x)

    def training():
        model = Net()
        train(model, torch.optim.SGD(model.parameters(), lr=0.1), F.cross_entropy)

    record = watched(training)
    sigmoids = [layer for layer in record.program.layers if layer.op == "sigmoid"]
    assert [layer.inputs for layer in sigmoids] == [("layers.0",), ("layers.1",), ("layers.2",)]
    assert sigmoids[0].name.startswith("test_session.py:")
    assert all(layer.calls == 1 for layer in sigmoids)
    assert len(record.series("act_saturated", sigmoids[1].name)) == 5


def test_a_cell_called_for_each_time_step_is_one_layer_with_lags(watched):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.Linear(8 + 4, 4)
            self.head = nn.Linear(4, 3)

        def forward(self, x):
            h = torch.zeros(x.shape[0], 4)
            for _ in range(20):
                h = torch.tanh(self.cell(torch.cat([x, h], 1)))
            return self.head(h)

    def training():
        model = Recurrent()
        train(model, torch.optim.SGD(model.parameters(), lr=0.1), F.cross_entropy)

    record = watched(training)
    assert record.layers["cell"].calls == 20
    lags = record.vectors("lag_grad", "cell")[0].values
    assert len(lags) == 20
    assert lags[0] == pytest.approx(1.0)
    assert lags[-1] < 0.1


def test_one_module_called_in_two_places_is_two_layers(watched):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.relu = nn.Linear(8, 12), nn.Linear(12, 3), nn.ReLU()

        def forward(self, x):
            return self.relu(self.b(self.relu(self.a(x))))

    def training():
        model = Net()
        train(model, torch.optim.SGD(model.parameters(), lr=0.1), F.cross_entropy)

    record = watched(training)
    relus = [layer for layer in record.program.layers if layer.op == "relu"]
    assert [layer.inputs for layer in relus] == [("a",), ("b",)]
    assert [layer.role for layer in relus] == ["hidden", "output"]


def test_plain_tensors_updated_by_hand_are_a_model(watched):
    def training():
        torch.manual_seed(0)
        x, y = batch()
        w1, b1 = (torch.randn(8, 12) * 0.3).requires_grad_(), torch.zeros(12, requires_grad=True)
        w2 = (torch.randn(12, 3) * 0.3).requires_grad_()
        for _ in range(6):
            logp = (torch.relu(x @ w1 + b1) @ w2).log_softmax(1)
            loss = -logp[range(len(y)), y].mean()
            loss.backward()
            with torch.no_grad():
                for p in (w1, b1, w2):
                    p -= 0.1 * p.grad
                    p.grad = None

    record = watched(training)
    assert record.steps == 6
    optimizer = record.program.optimizers[0]
    assert optimizer.kind == "hand-written"
    assert optimizer.settings["lr"] == pytest.approx(0.1, rel=1e-4)
    assert record.program.models[0].kind == "tensors"
    assert {p.name for p in record.program.parameters} == {"w1", "b1", "w2"}
    loss = record.program.losses[0]
    assert (loss.name, loss.target_kind, loss.chain) == ("hand-written", "class index", ("matmul", "log_softmax"))
    assert record.program.task.score == "accuracy"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "kind", "output_op"),
    [
        (lambda z, y: (z.squeeze(1) - y.float()).pow(2).mean(), "real", "linear"),
        (lambda z, y: -(F.one_hot(y, 3).float() * z.softmax(1).log()).sum(), "one-hot", "softmax"),
        (lambda z, y: -z.log_softmax(1).gather(1, y[:, None]).mean(), "class index", "log_softmax"),
        (lambda z, y: -z.log_softmax(1)[torch.arange(len(y)), y].mean(), "class index", "log_softmax"),
        (lambda z, y: (1 - (2.0 * F.one_hot(y, 3) - 1) * z).clamp(min=0).mean(), "one-hot", "linear"),
    ],
)
def test_losses_written_by_hand_tell_output_and_target(watched, make, kind, output_op):
    def training():
        model = nn.Linear(8, 1 if kind == "real" else 3)
        train(model, torch.optim.SGD(model.parameters(), lr=0.1), make)

    record = watched(training)
    loss = record.program.losses[0]
    assert (loss.name, loss.target_kind, loss.chain[-1]) == ("hand-written", kind, output_op)
    assert kind == "real" or loss.target["max"] < 3, "classes, and not the numbers of the samples"


def test_sampled_actions_are_no_targets(watched):
    def training():
        policy = mlp()
        optimizer = torch.optim.Adam(policy.parameters())
        x, _ = batch()
        for _ in range(5):
            policy_now = torch.distributions.Categorical(logits=policy(x))
            action = policy_now.sample()
            loss = -(torch.rand(16) * policy_now.log_prob(action)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    record = watched(training)
    assert record.program.task.kind == "unknown"
    assert record.program.task.score == ""


@pytest.mark.slow
def test_evaluation_is_scored_and_told_from_training(watched):
    def training():
        model, (x, y) = mlp(), batch(64)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        for _ in range(3):
            train(model, optimizer, F.cross_entropy, x=x, y=y, steps=10)
            model.eval()
            with torch.no_grad():
                scores.append((model(x).argmax(1) == y).float().mean().item())
            model.train()

    scores = []
    record = watched(training)
    assert record.series("eval_score").values.tolist() == pytest.approx(scores)
    assert record.series("eval_score").steps.tolist() == [9, 19, 29]
    assert [e.data["train_mode"] for e in record.happened("eval")] == [False] * 3
    assert record.program.data.eval_passes == 3


def test_epochs_batch_size_and_shuffling_come_from_the_loader(watched):
    def training():
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(2):
            for xb, yb in loader:
                optimizer.zero_grad()
                F.cross_entropy(model(xb), yb).backward()
                optimizer.step()

    loader = DataLoader(TensorDataset(*batch(64)), batch_size=20, shuffle=True)
    data = watched(training).program.data
    assert (data.batch_size, data.batch_from, data.epochs, data.batches_per_epoch) == (20, "loader", 2, 4)
    assert data.shuffled is True
    assert data.num_samples == 64


def test_accumulation_and_clipping(watched):
    def training():
        model, (x, y) = mlp(), batch(64)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(5):
            optimizer.zero_grad()
            for part in range(4):
                rows = slice(part * 16, part * 16 + 16)
                (F.cross_entropy(model(x[rows]), y[rows]) / 4).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

    record = watched(training)
    assert record.steps == 5
    assert record.program.optimizers[0].backwards_per_step == 4
    assert record.program.optimizers[0].clipping == "norm 1.0"
    assert record.program.optimizers[0].cleared


def test_missing_zero_grad_shows_as_stale_gradients(watched):
    def training():
        model, (x, y) = mlp(), batch()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(8):
            F.cross_entropy(model(x), y).backward()
            optimizer.step()

    record = watched(training)
    assert not record.program.optimizers[0].cleared
    assert record.series("stale_rms", "model.0.weight").after(1).median() > 0.3


def test_closures_run_inside_the_step(watched):
    def training():
        model, (x, y) = mlp(), batch()
        optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=5)

        def closure():
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            return loss

        for _ in range(4):
            optimizer.step(closure)

    record = watched(training)
    optimizer = record.program.optimizers[0]
    assert (optimizer.kind, optimizer.closure, optimizer.steps) == ("LBFGS", True, 4)
    assert record.steps == 4
    assert record.series("grad_rms", "model.0.weight").first > 0


def by_closure(
    model, steps, *, within=True, loss=lambda output, y, step: F.cross_entropy(output, y), backwarded=None, stepped=None
):
    """Trains by a closure, or with the same calls before the step; both callbacks are given the step."""
    optimizer, (x, y) = torch.optim.SGD(model.parameters(), lr=0.1), batch()
    for step in range(steps):

        def closure(step=step):
            optimizer.zero_grad()
            value = loss(model(x), y, step)
            value.backward()
            if backwarded is not None:
                backwarded(step)
            return value

        if within:
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()
        if stepped is not None:
            stepped(step)


@pytest.mark.slow
@pytest.mark.parametrize("clips", [False, True])
def test_the_norm_of_a_closure_is_seen_on_plain_steps(watched, monkeypatch, clips):
    monkeypatch.setattr("unstuck.watcher.cadence.Cadence.norm_stride", lambda self, cost: 1)
    norms = []

    def training():
        model = mlp()

        def note(step):
            norms.append(math.sqrt(sum(p.grad.double().square().sum().item() for p in model.parameters())))
            if clips:
                nn.utils.clip_grad_norm_(model.parameters(), 0.01)

        by_closure(model, 40, backwarded=note)

    record = watched(training, budget=0.0)
    found, sampled = record.series("grad_norm"), set(record.series("grad_rms", "model.0.weight").steps)
    plain = {s: v for s, v in zip(found.steps, found.values, strict=True) if s not in sampled}
    assert set(plain) == set(range(40)) - sampled
    assert list(plain.values()) == pytest.approx([norms[s] for s in plain], rel=1e-5)  # float32, summed otherwise


def test_a_bad_gradient_of_a_closure_is_told_at_its_step(watched, monkeypatch):
    monkeypatch.setattr("unstuck.watcher.cadence.Cadence.norm_stride", lambda self, cost: 1)

    def steep(output, y, step):
        loss = F.cross_entropy(output, y)
        return loss + ((output - output.detach()) ** 2).sum().sqrt() * 0 if step == 25 else loss

    (event,) = watched(lambda: by_closure(mlp(), 30, loss=steep), budget=0.0).happened("non-finite")
    assert (event.step, event.data["what"]) == (25, "gradient")


@pytest.mark.slow
def test_a_plain_step_costs_no_more_with_a_closure(watched, monkeypatch):
    """Counted are calls of our functions in the cheapest step: those at which a stretch ends have more."""
    monkeypatch.setattr("unstuck.watcher.stretch.MOST_SECONDS", math.inf)  # stretches are as long on a slow machine

    def calls(within):
        total, after = [0], []

        def see(frame, event, _):
            total[0] += event == "call" and "unstuck" in frame.f_code.co_filename

        def training():
            sys.setprofile(see)
            try:
                by_closure(mlp(), 60, within=within, stepped=lambda step: after.append(total[0]))
            finally:
                sys.setprofile(None)

        watched(training, budget=0.0)
        return min(np.diff(after[32:]))

    assert 0 < calls(within=True) <= calls(within=False)


def test_an_optimizer_that_begins_on_a_plain_step_is_known_to_hold_its_parameters(watched):
    def training():
        first, second = mlp(), mlp()
        main, late = (torch.optim.SGD(m.parameters(), lr=0.1) for m in (first, second))
        x, y = batch()
        for step in range(40):
            main.zero_grad()
            late.zero_grad()
            (F.cross_entropy(first(x), y) + F.cross_entropy(second(x), y)).backward()
            if step == 20 or step == 36:
                late.step()
            main.step()

    record = watched(training, budget=0.0)
    assert record.parameters["first.0.weight"].optimizers == (0,)
    assert record.parameters["second.0.weight"].optimizers == (1,)


def test_gan_with_two_models_and_two_optimizers(watched):
    def training():
        generator, critic = nn.Sequential(nn.Linear(4, 8), nn.Tanh()), nn.Sequential(nn.Linear(8, 1))
        opt_c, opt_g = torch.optim.Adam(critic.parameters()), torch.optim.Adam(generator.parameters(), lr=1e-4)
        x, _ = batch()
        one, zero = torch.ones(16, 1), torch.zeros(16, 1)
        for _ in range(6):
            opt_c.zero_grad()
            fake = generator(torch.randn(16, 4))
            F.binary_cross_entropy_with_logits(critic(x), one).backward()
            F.binary_cross_entropy_with_logits(critic(fake.detach()), zero).backward()
            opt_c.step()
            opt_g.zero_grad()
            F.binary_cross_entropy_with_logits(critic(fake), one).backward()
            opt_g.step()

    record = watched(training)
    assert record.steps == 6
    assert {m.name for m in record.program.models} == {"generator", "critic"}
    assert [(o.kind, o.settings["lr"], o.steps) for o in record.program.optimizers] == [
        ("Adam", 1e-3, 6),
        ("Adam", 1e-4, 6),
    ]
    assert {layer.name for layer in record.program.layers if layer.op != "loss"} == {
        "generator.0",
        "generator.1",
        "critic.0",
    }
    assert len(record.series("grad_rms", "generator.0.weight")) >= 5


def test_second_training_takes_the_lead(watched):
    def training():
        first, second = mlp(), mlp()
        train(first, torch.optim.SGD(first.parameters(), lr=0.1), F.cross_entropy, steps=4)
        train(second, torch.optim.Adam(second.parameters(), lr=0.01), F.cross_entropy, steps=6)

    record = watched(training)
    assert record.program.optimizers[0].kind == "Adam"
    assert record.series("lr").last == pytest.approx(0.01)
    assert record.steps == 9  # the first step of the second training shows only at its second that it leads


def test_schedules_and_several_groups(watched):
    def training():
        model = mlp()
        optimizer = torch.optim.SGD(
            [{"params": model[0].parameters(), "lr": 0.5}, {"params": model[2].parameters()}], lr=0.1
        )
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.1)
        x, y = batch()
        for _ in range(6):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            scheduler.step()

    record = watched(training)
    assert record.program.optimizers[0].schedule == "StepLR"
    assert record.program.optimizers[0].groups == 2
    assert record.series("lr").values.tolist() == pytest.approx([0.5, 0.5, 0.05, 0.05, 0.005, 0.005])


def test_parameters_the_optimizer_does_not_hold(watched):
    def training():
        model = mlp()
        train(model, torch.optim.SGD(model[2].parameters(), lr=0.1), F.cross_entropy)

    record = watched(training)
    assert record.parameters["model.0.weight"].optimizers == ()
    assert record.parameters["model.2.weight"].optimizers == (0,)
    assert record.parameters["model.2.weight"].changed


def test_nan_is_traced_to_its_layer(watched):
    def training():
        model, (x, y) = mlp(), batch()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(30):
            optimizer.zero_grad()
            hidden = model[1](model[0](x))
            logits = model[2](hidden.log() if step > 20 else (hidden + 1.0).log())
            F.cross_entropy(logits, y).backward()
            optimizer.step()

    record = watched(training, budget=0.0)
    (event,) = record.happened("non-finite")
    assert event.step == 21
    assert event.data["op"] == "log"


def test_bad_gradient_with_a_finite_loss_is_told(watched):
    def training():
        model, (x, y) = mlp(), batch()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(12):
            optimizer.zero_grad()
            out = model(x)
            loss = F.cross_entropy(out, y)
            if step == 9:
                loss = loss + ((out - out.detach()) ** 2).sum().sqrt() * 0
            loss.backward()
            optimizer.step()

    (event,) = watched(training).happened("non-finite")
    assert (event.step, event.data["what"]) == (9, "gradient")


def test_wrappers_and_copies_are_seen_through(watched):
    def training():
        model = mlp()
        averaged = torch.optim.swa_utils.AveragedModel(model)
        twin = copy.deepcopy(model)
        wrapped = nn.DataParallel(model)
        train(wrapped, torch.optim.SGD(model.parameters(), lr=0.1), F.cross_entropy)
        averaged.update_parameters(model)
        with torch.no_grad():
            twin(batch()[0])

    record = watched(training)
    assert record.program.models[0].wrapped_by == ("DataParallel",)
    assert "model.0" in record.layers


def test_a_part_of_a_model_called_alone_belongs_to_the_whole(watched):
    class Auto(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder = nn.Linear(8, 2), nn.Linear(2, 8)

        def encode(self, x):
            return torch.tanh(self.encoder(x))

    def training():
        auto = Auto()
        optimizer = torch.optim.Adam(auto.parameters())
        x, _ = batch()
        for _ in range(3):
            optimizer.zero_grad()
            F.mse_loss(auto.decoder(auto.encode(x)), x).backward()
            optimizer.step()

    record = watched(training, budget=0.0)
    assert record.program.models[0].kind == "Auto"
    assert {"encoder", "decoder"} <= set(record.layers)
    assert record.program.task.score == "r2"


def test_a_process_that_never_trains_makes_no_record(tmp_path):
    session = Session(tmp_path / "record.sqlite", lazy=True)
    session.attach()
    with torch.no_grad():
        mlp()(batch()[0])
    session.close()
    assert not list(tmp_path.iterdir())


def test_a_process_that_begins_to_train_makes_its_record_then(tmp_path):
    session = Session(tmp_path / "record.sqlite", lazy=True)
    session.attach()
    model = mlp()
    train(model, torch.optim.SGD(model.parameters(), lr=0.1), F.cross_entropy)
    session.close()
    record = Record.read(tmp_path / "record.sqlite")
    assert record.steps == 5
    assert "model.0" in record.layers
    assert len(record.series("act_std", "model.0")) > 0


@pytest.mark.slow
def test_every_step_is_in_the_record_however_long_the_run(watched):
    """Most steps are noted in stretches: rows, epochs, rates and accumulation are as if each had been seen to alone."""
    losses, rates = [], []

    def training():
        torch.manual_seed(0)
        model = mlp()
        groups = [{"params": model[0].parameters()}, {"params": model[2].parameters(), "lr": 0.01}]
        optimizer = torch.optim.SGD(groups, lr=0.1)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 50, 0.5)
        x, y = batch(64)
        loader = DataLoader(TensorDataset(x, y), batch_size=8)
        for _ in range(40):  # of 8 batches, two to a step
            for number, (some, labels) in enumerate(loader):
                loss = F.cross_entropy(model(some), labels)
                loss.backward()
                losses.append(loss.item())
                if number % 2:
                    rates.append(optimizer.param_groups[0]["lr"])
                    optimizer.step()
                    optimizer.zero_grad()
                    schedule.step()

    record = watched(training, budget=0.0)
    series = record.series("loss")
    assert list(series.steps) == list(range(160))
    expected = [(a + b) / 2 for a, b in zip(losses[::2], losses[1::2], strict=True)]
    assert series.values == pytest.approx(expected, rel=1e-6)
    assert record.series("lr").values == pytest.approx(rates, rel=1e-6)
    second = record.series("lr", "0.1").finite  # of sampled steps only, as it is when they are over
    assert second.values == pytest.approx(0.01 * 0.5 ** ((second.steps + 1) // 50), rel=1e-6)
    assert record.program.data.epochs == 40
    assert record.program.optimizers[0].steps == 160
    assert record.program.optimizers[0].backwards_per_step == 2
    assert len([e for e in record.events if e.kind == "epoch"]) == 40


@pytest.mark.slow
@pytest.mark.parametrize("step", [100, 101, 110, 127])
def test_what_goes_wrong_within_a_stretch_is_seen_at_its_step(watched, step):
    def training():
        torch.manual_seed(0)
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        x, y = batch()
        for number in range(140):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x if number != step else x * math.nan), y)
            loss.backward()
            if number != step:
                optimizer.step()
            else:
                with torch.no_grad():
                    optimizer.zero_grad()
                    optimizer.step()

    record = watched(training, budget=0.0)
    found = [e for e in record.events if e.kind == "non-finite"]
    assert [e.step for e in found] == [step]
    losses = record.series("loss")
    assert list(losses.steps) == list(range(140))
    assert [s for s, v in zip(losses.steps, losses.values, strict=True) if not math.isfinite(v)] == [step]


def test_an_optimizer_that_only_wraps_another_is_not_told_of(watched):
    class Wrapper(torch.optim.Optimizer):
        def __init__(self, optimizer):
            self.optimizer = optimizer

        param_groups = property(lambda self: self.optimizer.param_groups)
        defaults = property(lambda self: self.optimizer.defaults)
        state = property(lambda self: self.optimizer.state)

        def step(self, closure=None):
            return self.optimizer.step(closure)

        def zero_grad(self, set_to_none=True):
            self.optimizer.zero_grad(set_to_none)

    def training():
        model = mlp()
        optimizer = Wrapper(torch.optim.SGD(model.parameters(), lr=0.1))
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2)
        x, y = batch()
        for _ in range(5):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            schedule.step()

    record = watched(training)
    assert [(o.kind, o.steps, o.schedule) for o in record.program.optimizers] == [("SGD", 5, "StepLR")]
    assert all(p.optimizers == (0,) for p in record.program.parameters)


def test_calls_that_do_not_follow_from_one_another_have_no_lags(watched):
    def training():
        policy = mlp()
        optimizer = torch.optim.SGD(policy.parameters(), lr=0.1)
        for _ in range(2):
            choices = [policy(torch.randn(1, 8)).log_softmax(1)[0, 0] for _ in range(12)]
            optimizer.zero_grad()
            (-torch.stack(choices).sum()).backward()
            optimizer.step()

    record = watched(training)
    assert not [v for layer in record.program.layers for v in record.vectors("lag_grad", layer.name)]


def test_gradients_that_are_asked_for_are_a_backward(watched):
    def training():
        model = mlp()
        x, y = batch()
        for _ in range(6):
            loss = F.cross_entropy(model(x), y)
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            with torch.no_grad():
                for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                    parameter -= 0.1 * gradient

    record = watched(training)
    assert record.steps == 6
    assert record.program.optimizers[0].kind == "hand-written"
    assert record.program.optimizers[0].settings["lr"] == pytest.approx(0.1, rel=1e-3)
    assert len(record.series("grad_rms", "model.0.weight").finite) >= 5
    assert record.program.losses[0].name == "cross_entropy"


def test_gradients_of_inputs_and_of_gradients_are_no_training(watched):
    def training():
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        x, y = batch()
        for _ in range(4):
            given = x.clone().requires_grad_()
            F.cross_entropy(model(given), y)
            [slope] = torch.autograd.grad(model(given).sum(), given, create_graph=True)
            [attack] = torch.autograd.grad(F.cross_entropy(model(given), y), given)
            optimizer.zero_grad()
            (F.cross_entropy(model(x + 0.01 * attack.sign()), y) + slope.pow(2).mean()).backward()
            optimizer.step()

    record = watched(training)
    assert record.steps == 4
    assert [(o.kind, o.steps, o.backwards_per_step) for o in record.program.optimizers] == [("SGD", 4, 1.0)]


def evaluated(test_x, test_y, *, loop=None, epochs=2, model=None):
    """A training whose loader brings standard normal inputs, with an evaluation after each epoch."""

    def training():
        net = model() if model is not None else mlp()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        train_loader = DataLoader(TensorDataset(*batch(64)), batch_size=16, shuffle=True)
        test_loader = DataLoader(TensorDataset(test_x, test_y), batch_size=16)
        for _ in range(epochs):
            net.train()
            for xb, yb in train_loader:
                optimizer.zero_grad()
                F.cross_entropy(net(xb), yb).backward()
                optimizer.step()
            if loop is None or loop != "train mode":
                net.eval()
            with torch.no_grad():
                for xb, yb in test_loader:
                    out = net(xb)
                    if not isinstance(out, torch.Tensor):
                        (out,) = vars(out).values()
                    if loop == "compare":
                        (out.argmax(1) == yb).sum()
                    else:
                        F.cross_entropy(out, yb)

    return training


def test_sound_evaluation_is_told_nothing_of(watched):
    assert not watched(evaluated(*batch(48))).happened("eval-non-finite")


def test_nan_in_evaluation_is_told_once(watched):
    x, y = batch(48)
    x[20, 3] = math.nan
    record = watched(evaluated(x, y))
    [event] = record.happened("eval-non-finite")
    assert (event.step, event.data) == (3, {"what": "input", "passes": 1, "bad": 1, "batches": 3})


def test_nan_in_evaluation_that_the_network_makes(watched):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = mlp()

        def forward(self, x):
            return self.body(x) if self.training else {"mask": torch.ones(1), "out": self.body(x).sqrt()}["out"]

    record = watched(evaluated(*batch(48), model=Net))
    [event] = record.happened("eval-non-finite")
    assert event.data["what"] == "output"
    assert not record.happened("non-finite")


def test_nan_in_evaluation_is_found_within_an_object_that_the_network_gives(watched):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = mlp()

        def forward(self, x):
            return self.body(x) if self.training else SimpleNamespace(out=self.body(x).sqrt())

    [event] = watched(evaluated(*batch(48), model=Net)).happened("eval-non-finite")
    assert event.data["what"] == "output"


@pytest.mark.slow
@pytest.mark.parametrize("held", [48, 40])
def test_evaluation_without_a_loss_is_scored_against_the_labels_of_its_own_batch(watched, held):
    """The loader has brought the next batch when the last one is scored."""
    scores = []

    def training():
        net = mlp()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        train_loader = DataLoader(TensorDataset(*batch(64)), batch_size=16)
        test_x, test_y = batch(held)
        for _ in range(3):
            net.train()
            for xb, yb in train_loader:
                optimizer.zero_grad()
                F.cross_entropy(net(xb), yb).backward()
                optimizer.step()
            net.eval()
            right = 0
            with torch.no_grad():
                for xb, yb in DataLoader(TensorDataset(test_x, test_y), batch_size=16):
                    right += sum(int(a) == int(b) for a, b in zip(net(xb).argmax(1), yb, strict=True))
            scores.append(right / held)

    record = watched(training)
    assert record.series("eval_score").values.tolist() == pytest.approx(scores)


@pytest.mark.parametrize("loop", ["loss", "compare"])
def test_inputs_and_labels_of_evaluation_are_measured(watched, loop):
    x, y = batch(48)
    record = watched(evaluated(5 * x + 3, y, loop=loop))
    means, spreads = (record.vectors(f"eval_input_{name}", "input") for name in ("mean", "std"))
    looked = torch.cat([5 * x + 3])[:32]  # the first and the second batch
    assert [v.values.tolist() for v in means] == [pytest.approx(looked.mean(0).tolist(), rel=1e-4)] * 2
    assert spreads[0].values == pytest.approx(looked.std(0, correction=0).numpy(), rel=1e-4)
    low, high = (record.vectors(f"eval_input_{name}", "input")[0].values for name in ("min", "max"))
    assert low == pytest.approx(looked.amin(0).numpy())
    assert high == pytest.approx(looked.amax(0).numpy())
    [counts, _] = record.vectors("eval_label_count")
    assert counts.values.tolist() == torch.bincount(y, minlength=3).tolist()
    assert record.vectors("eval_prediction_count")[0].values.sum() == 48
    assert [e.data["samples"] for e in record.happened("eval")] == [32, 32]


def test_evaluation_is_measured_where_training_is(watched):
    """What the network does to its input itself is done to both."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x):
            return self.second(torch.relu(self.first((x - 3) / 5)))

    x, y = batch(32)
    record = watched(evaluated(5 * x + 3, y, model=Net))
    assert record.vectors("eval_input_mean", "input")[-1].values == pytest.approx(x.mean(0).numpy(), abs=1e-5)


@pytest.mark.parametrize(("loop", "in_train"), [("loss", 0), ("train mode", 3)])
def test_batches_evaluated_in_train_mode_are_counted(watched, loop, in_train):
    def dropping():
        return nn.Sequential(nn.Linear(8, 12), nn.Dropout(0.5), nn.Linear(12, 3))

    record = watched(evaluated(*batch(48), loop=loop, model=dropping))
    assert [e.data["in_train_mode"] for e in record.happened("eval")] == [in_train] * 2
    assert [e.data["train_mode"] for e in record.happened("eval")] == [in_train > 0] * 2


@pytest.mark.parametrize(("trained", "norms"), [(True, 1), (False, 0)])
def test_training_in_evaluation_mode_is_told(watched, trained, norms):
    def training():
        model = nn.Sequential(nn.Linear(8, 12), nn.BatchNorm1d(12), nn.Dropout(0.5), nn.Linear(12, 3))
        model[1].requires_grad_(trained)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        train(model, optimizer, F.cross_entropy, steps=3)
        model.eval()
        train(model, optimizer, F.cross_entropy, steps=4)
        model.train()
        train(model, optimizer, F.cross_entropy, steps=2)

    events = watched(training).happened("mode")
    assert [(e.step, e.data["training"]) for e in events] == [(3, False), (7, True)]
    assert events[0].data == {"model": "model", "training": False, "dropout": 1, "batch_norm": norms}


def test_labels_of_single_bits_are_counted(watched):
    def training():
        model = nn.Linear(8, 1)
        x, _ = batch(20)
        y = (torch.arange(20) < 5).float()[:, None]
        train(model, torch.optim.SGD(model.parameters(), lr=0.1), F.binary_cross_entropy_with_logits, x=x, y=y)

    record = watched(training)
    assert record.program.task.kind == "binary"
    assert {tuple(v.values) for v in record.vectors("label_count")} == {(15.0, 5.0)}
    assert {v.values.sum() for v in record.vectors("prediction_count")} == {20.0}


@pytest.mark.slow
@pytest.mark.parametrize("order", ["before", "after"])
def test_a_teacher_asked_without_gradients_is_no_evaluation(watched, order):
    def training():
        teacher, student = nn.Sequential(nn.Linear(8, 3), nn.BatchNorm1d(3)).eval(), mlp()
        optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
        for x, y in DataLoader(TensorDataset(*batch(160)), batch_size=16):
            if order == "after":
                out = student(x)
            with torch.no_grad():
                soft = teacher(x)
            if order == "before":
                out = student(x)
            loss = F.cross_entropy(out, y) + F.mse_loss(out, soft)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    for budget in (1.0, 0.0):
        record = watched(training, budget=budget)
        assert record.program.losses[0].name == "cross_entropy"
        assert record.program.task.score == "accuracy"
        assert record.program.layers[0].name == "student.0"
        assert len(record.series("eval_loss")) == len(record.series("eval_score")) == 0
        assert record.happened("eval") == record.happened("mode") == []


@pytest.mark.parametrize(
    "act",
    [lambda: nn.ReLU(inplace=True), lambda: nn.LeakyReLU(0.1, inplace=True), lambda: nn.Dropout(0.5, inplace=True)],
)
def test_what_changes_its_input_in_place_hides_nothing_before_it(watched, act):
    def training():
        model = nn.Sequential(nn.Linear(8, 12), act(), nn.Linear(12, 12), act(), nn.Linear(12, 3))
        train(model, torch.optim.SGD(model.parameters(), lr=0.1), F.cross_entropy)

    layers = watched(training).program.layers[:-1]
    assert [layer.name for layer in layers] == [f"model.{i}" for i in range(5)]
    assert [layer.inputs for layer in layers] == [(), *((f"model.{i}",) for i in range(4))]


@pytest.mark.parametrize("steps", [2, 50])
def test_an_average_of_the_weights_is_evaluated_in_their_stead(watched, steps):
    """However it comes that the steps before it are sampled or not."""

    def training():
        model = mlp()
        averaged = torch.optim.swa_utils.AveragedModel(model)
        for _ in range(3):
            train(model, torch.optim.SGD(model.parameters(), lr=0.1), F.cross_entropy, steps=steps)
            averaged.update_parameters(model)
            x, y = batch()
            with torch.no_grad():
                F.cross_entropy(averaged(x), y)

    assert len(watched(training, budget=1.0 if steps == 2 else 0.0).series("eval_loss")) == 3


@pytest.mark.slow
@pytest.mark.parametrize("graph", [True, False])
@pytest.mark.parametrize(("copied", "told"), [(True, True), (False, False)])
def test_a_network_that_makes_its_own_targets_is_told(watched, copied, told, graph):
    """As in Q-learning: what a copy says of the next state is what the network is to say of this one."""

    def training():
        net, other = mlp(), mlp() if copied else nn.Sequential(nn.Linear(8, 3))
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(8):
            x, _ = batch()
            out = net(x)
            with torch.set_grad_enabled(graph and copied):
                goal = 0.9 * other(x)
            optimizer.zero_grad()
            F.smooth_l1_loss(out, goal).backward()
            optimizer.step()

    assert ("targets of its own" in watched(training).program.features) is told


def scaled_loss(loss, output, target, factors):
    """Trains on a loss that is multiplied before backward."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(256, 4, generator=generator)
    y = target(x, generator)
    model = nn.Linear(4, output)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def script():
        for i in range(64):
            part = slice(16 * (i % 16), 16 * (i % 16 + 1))
            optimizer.zero_grad()
            (loss(model(x[part]), y[part]) * factors[i % len(factors)]).backward()
            optimizer.step()

    return script


def labels(x, generator):
    return torch.randint(0, 3, (len(x),), generator=generator)


def numbers(x, generator):
    return 5 + x[:, :1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "output", "target"),
    [(nn.CrossEntropyLoss(), 3, labels), (nn.MSELoss(), 1, numbers)],
    ids=["labels", "numbers"],
)
def test_chance_is_of_the_loss_that_backward_starts_from(watched, loss, output, target):
    plain, quarter, uneven = (
        watched(scaled_loss(loss, output, target, factors)).program.task.chance_loss
        for factors in ([1.0], [0.25], [1.0, 0.1])
    )
    assert quarter == pytest.approx(0.25 * plain, rel=1e-5) and uneven == pytest.approx(plain, rel=1e-5)


def test_perplexity_is_of_the_loss_and_not_of_a_part_of_it(watched):
    def training(factor):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(20, 8), nn.Linear(8, 20))
        optimizer, tokens = torch.optim.SGD(model.parameters(), lr=0.1), torch.randint(0, 20, (8, 17))

        def script():
            for _ in range(6):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(tokens[:, :-1]).reshape(-1, 20), tokens[:, 1:].reshape(-1))
                (loss * factor).backward()
                optimizer.step()

        return script

    plain, part = (watched(training(factor)) for factor in (1.0, 0.125))
    assert plain.program.task.score == part.program.task.score == "perplexity"
    assert part.series("score").first == pytest.approx(plain.series("score").first, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("batches", [1, 4])
def test_a_sum_that_is_divided_by_what_it_runs_over_is_a_mean(watched, batches):
    """As a trainer makes it, which divides by the tokens of all batches of a step; 16 of 128 tokens don't count."""

    def training(loss):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(20, 8), nn.Linear(8, 20))
        optimizer, tokens = torch.optim.SGD(model.parameters(), lr=0.1), torch.randint(0, 20, (8, 17))
        tokens[:, 1:3] = -100

        def script():
            for _ in range(6):
                optimizer.zero_grad()
                for _ in range(batches):
                    loss(model(tokens[:, :-1].clamp(min=0)).reshape(-1, 20), tokens[:, 1:].reshape(-1)).backward()
                optimizer.step()
            with torch.no_grad():
                loss(model(tokens[:, :-1].clamp(min=0)).reshape(-1, 20), tokens[:, 1:].reshape(-1))

        return script

    entropy = nn.functional.cross_entropy
    mean = watched(training(lambda output, target: entropy(output, target) / batches))
    parts = watched(training(lambda output, target: entropy(output, target, reduction="sum") / (112 * batches)))
    assert [record.program.losses[0].reduction for record in (mean, parts)] == ["mean", "mean"]
    assert parts.program.task.chance_loss == pytest.approx(mean.program.task.chance_loss, rel=1e-5)
    for signal in ("loss", "score", "eval_loss", "eval_score"):
        np.testing.assert_allclose(parts.series(signal).values, mean.series(signal).values, rtol=1e-4)
    assert len(parts.series("eval_score")) == 1


def test_a_sum_that_is_not_divided_is_a_sum_and_its_perplexity_that_of_the_mean(watched):
    def script():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(20, 8), nn.Linear(8, 20))
        optimizer, tokens = torch.optim.SGD(model.parameters(), lr=1e-4), torch.randint(0, 20, (8, 17))
        for _ in range(6):
            optimizer.zero_grad()
            output = model(tokens[:, :-1]).reshape(-1, 20)
            nn.functional.cross_entropy(output, tokens[:, 1:].reshape(-1), reduction="sum").backward()
            optimizer.step()

    record = watched(script)
    assert record.program.losses[0].reduction == "sum"
    assert record.series("score").first == pytest.approx(math.exp(record.series("loss").first / 128), rel=1e-5)


def test_asking_for_the_norm_without_a_limit_is_no_clipping(watched):
    def script(limit):
        model = nn.Linear(3, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(4):
            optimizer.zero_grad()
            model(torch.ones(4, 3)).square().mean().backward()
            nn.utils.clip_grad_norm_(model.parameters(), limit)
            optimizer.step()

    clipped = [watched(lambda limit=limit: script(limit)).program.optimizers[0].clipping for limit in (math.inf, 1.0)]
    assert clipped == ["", "norm 1.0"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "apart",
    [
        lambda p, y: p - y,
        lambda p, y: y.squeeze() - p.squeeze(),
        lambda p, y: torch.sub(p.flatten(), y.flatten()).abs(),
    ],
)
def test_numbers_that_are_evaluated_by_hand_have_a_score(watched, apart):
    def training():
        torch.manual_seed(0)
        x, held = torch.randn(64, 3), torch.randn(40, 3)
        model = nn.Linear(3, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(100):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), 3 * x[:, :1] + 5).backward()
            optimizer.step()
        with torch.no_grad():
            apart(model(held), 3 * held[:, :1] + 5)

    assert watched(training).series("eval_score").last == pytest.approx(1.0, abs=1e-3)


def test_a_part_of_a_parameter_that_is_changed_without_gradients_is_left_alone(watched):
    """To ask such a view for its autograd node is an error, which a program that only fills it never meets."""
    values = []

    def training():
        model = mlp()
        with torch.no_grad():
            part = model[0].weight[:4]
            part.fill_(0.5)
            part.mul_(2.0)
            values.append((part + 1.0).sum().item())
        train(model, torch.optim.SGD(model.parameters(), lr=0.1), nn.CrossEntropyLoss())

    assert watched(training).steps == 5
    assert values == [64.0]
