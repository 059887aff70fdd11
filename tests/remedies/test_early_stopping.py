from __future__ import annotations

import pytest
import torch

from unstuck.remedies.early_stopping import early_stopping
from unstuck.source import EditError

TRAINING = """
    import torch
    import torch.nn.functional as F
    from torch import nn
    torch.manual_seed(0)
    x, y = torch.randn(64, 4), torch.randint(3, (64,))
    test_x, test_y = torch.randn(64, 4), torch.randint(3, (64,))
    net = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 3))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    curve = []

    def evaluate(model):
        model.eval()
        with torch.no_grad():
            out = model(test_x)
        curve.append(F.cross_entropy(out, test_y).item())
        return curve[-1]

    for epoch in range(40):
        net.train()
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        {evaluation}
    {after}
"""


def training(evaluation, after="print(epoch)"):
    return TRAINING.format(evaluation=evaluation, after=after)


def test_by_a_function(script):
    made = script(training("test_loss = evaluate(net)\n        print(epoch, test_loss)"))
    assert made.added(early_stopping) == [
        "import copy",
        'best, best_state = float("inf"), copy.deepcopy(net.state_dict())',
        "    if test_loss < best:",
        "        best, best_state = test_loss, copy.deepcopy(net.state_dict())",
        "net.load_state_dict(best_state)",
        "test_loss = evaluate(net)",
    ]
    ran = made.run(early_stopping)
    assert ran["curve"][-2] > min(ran["curve"]) + 0.01, "it overfits"
    assert ran["test_loss"] == ran["curve"][-1] == min(ran["curve"])


def test_what_is_evaluated_after_training_is_not_again(script):
    made = script(training("val_loss, val_acc = evaluate(net), 0", "final = evaluate(net)"))
    assert made.added(early_stopping)[-1] == "net.load_state_dict(best_state)"
    ran = made.run(early_stopping)
    assert ran["final"] == min(ran["curve"])


def test_in_place_and_the_higher_the_better(script):
    evaluation = """net.eval()
        with torch.no_grad():
            out = net(test_x)
            accuracy = (out.argmax(1) == test_y).float().mean().item()
        curve.append(accuracy)"""
    made = script(training(evaluation))
    assert made.added(early_stopping)[1:] == [
        'best, best_state = float("-inf"), copy.deepcopy(net.state_dict())',
        "    if accuracy > best:",
        "        best, best_state = accuracy, copy.deepcopy(net.state_dict())",
        "net.load_state_dict(best_state)",
        "net.eval()",
        "with torch.no_grad():",
        "    out = net(test_x)",
        "    accuracy = (out.argmax(1) == test_y).float().mean().item()",
    ]
    ran = made.run(early_stopping)
    assert ran["accuracy"] == max(ran["curve"])


def test_the_number_after_its_last_change(script):
    evaluation = """val_loss = 0.0
        with torch.no_grad():
            for i in range(4):
                val_loss += F.cross_entropy(net(test_x[i::4]), test_y[i::4]).item()
        val_loss /= 4"""
    made = script(training(evaluation, "net.eval(); print(net(x).shape)"))
    (edit,) = [e for e in early_stopping(made) if "if val_loss" in e.text]
    assert made.main.text[: edit.start].endswith("val_loss /= 4\n")


def test_an_evaluation_now_and_then(script):
    evaluation = "if epoch % 5 == 4:\n            test_loss = evaluate(net)\n            print(test_loss)"
    made = script(training(evaluation, "evaluate(net)"))
    assert made.added(early_stopping)[2:4] == [
        "        if test_loss < best:",
        "            best, best_state = test_loss, copy.deepcopy(net.state_dict())",
    ]
    ran = made.run(early_stopping)
    assert ran["curve"][-1] == min(ran["curve"])


def test_what_is_counted_up(script):
    evaluation = """net.eval()
        correct = 0
        with torch.no_grad():
            for i in range(4):
                correct += (net(test_x[i::4]).argmax(1) == test_y[i::4]).sum().item()
        curve.append(correct)"""
    made = script(training(evaluation))
    assert made.added(early_stopping)[2] == "    if correct > best:"
    ran = made.run(early_stopping)
    assert ran["correct"] == max(ran["curve"]), "counted anew at the end"


@pytest.mark.parametrize(
    ("evaluation", "name"),
    [
        ("accuracy = -evaluate(net)\n        average_loss = loss.item() / 2", "accuracy"),
        ("train_loss, test_acc = 1.0, -evaluate(net)", "test_acc"),
        ("loss_all, val_loss = 1.0, evaluate(net)", "val_loss"),
        ("out = evaluate(net)\n        error = 2 * out", "error"),
    ],
)
def test_the_number_that_comes_of_the_evaluation(script, evaluation, name):
    made = script(training(evaluation, "evaluate(net)"))
    assert made.added(early_stopping)[2].split()[1] == name
    made.run(early_stopping)


@pytest.mark.parametrize(
    "evaluation",
    ["print(evaluate(net))", "number = evaluate(net)", "pass", "losses = []\n        losses.append(evaluate(net))"],
)
def test_no_number_that_is_known_by_its_name(script, evaluation):
    with pytest.raises(EditError):
        early_stopping(script(training(evaluation)))


def test_only_after_training(script):
    with pytest.raises(EditError, match="within the training"):
        early_stopping(script(training("pass", "test_loss = evaluate(net)")))


def test_an_evaluation_that_is_too_long(script):
    evaluation = "with torch.no_grad():\n            out = net(test_x)\n" + 6 * "            print(out)\n"
    with pytest.raises(EditError, match="too long"):
        early_stopping(script(training(f"{evaluation}            test_loss = F.cross_entropy(out, test_y).item()")))


def test_weights_are_copied(script):
    ran = script(training("test_loss = evaluate(net)")).run(early_stopping)
    assert all(
        torch.equal(a, b) for a, b in zip(ran["best_state"].values(), ran["net"].state_dict().values(), strict=True)
    )
