"""Where in a script a training is made of what, on records written by hand."""

from __future__ import annotations

import textwrap

import pytest

from unstuck.evidence import Event, Layer, LossCall, Model, Optimizer, Record
from unstuck.program import Script, edits_of
from unstuck.source import Edit, EditError, edited

TRAINING = """
import torch
from torch import nn

criterion = nn.MSELoss()
net = nn.Sequential(
    nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(),
    nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 3)),
).to("cpu")
optimizer = torch.optim.SGD(net[0].parameters(), lr=0.1)
for epoch in range(3):
    for x, y in torch.utils.data.DataLoader(data):
        optimizer.zero_grad(); loss = criterion(net(x), y); loss.backward(); optimizer.step()
"""
SITES = [
    {"what": "module", "line": 4, "path": "", "root": "MSELoss", "name": "MSELoss"},
    {"what": "module", "line": 5, "path": "", "root": "Sequential", "name": "Sequential"},
    {"what": "module", "line": 6, "path": "0", "root": "Sequential", "name": "Linear"},
    {"what": "module", "line": 6, "path": "1", "root": "Sequential", "name": "ReLU"},
    {"what": "module", "line": 6, "path": "2", "root": "Sequential", "name": "Linear"},
    {"what": "module", "line": 6, "path": "3", "root": "Sequential", "name": "ReLU"},
    {"what": "module", "line": 7, "path": "4", "root": "Sequential", "name": "Sequential"},
    {"what": "module", "line": 7, "path": "4.0", "root": "Sequential", "name": "Linear"},
    {"what": "module", "line": 7, "path": "4.1", "root": "Sequential", "name": "Linear"},
    {"what": "optimizer", "line": 9, "name": "SGD", "index": 0},
    {"what": "loader", "line": 11, "name": "DataLoader", "trained": True},
    *({"what": what, "line": 12} for what in ("zero_grad", "backward", "step")),
]


@pytest.fixture
def script(tmp_path):
    """Makes scripts: `script(text, sites, losses=[...])`."""

    def make(text=TRAINING, sites=SITES, **program):
        path = tmp_path / "train.py"
        path.write_text(textwrap.dedent(text).lstrip("\n"))
        events = [Event(0, "site", "", {"file": str(path), **site}) for site in sites]
        return Script(path, Record.of(events=events, **program))

    return make


def of(made):
    """The text of a call."""
    return made.source.of(made.call)


# ---------------------------------------------------------------------- what is made


def test_the_optimizer(script):
    made = script().optimizer()
    assert (made.callee, made.target, made.statement.lineno) == ("torch.optim.SGD", "optimizer", 9)


def test_one_of_several_optimizers_on_a_line(script):
    sites = [{"what": "optimizer", "line": 1, "name": "Adam", "index": i} for i in (0, 1)]
    made = script("a, b = Adam(p), Adam(q)\n", sites)
    assert [of(made.optimizer(i)) for i in (0, 1)] == ["Adam(p)", "Adam(q)"]


def test_no_optimizer(script):
    with pytest.raises(EditError, match="makes no optimizer"):
        script(sites=[]).optimizer()
    with pytest.raises(EditError, match="isn't known where the optimizer is made"):
        script(sites=[], optimizers=[Optimizer()]).optimizer()
    with pytest.raises(EditError, match="isn't known"):
        script().optimizer(1)


@pytest.mark.parametrize(
    ("line", "target"),
    [
        ("net = Net()", "net"),
        ("self.net = Net()", "self.net"),
        ("net: Net = Net()", "net"),
        ("net = Net().to(device).train()", "net"),
        ("a = b = Net()", ""),
        ("train(Net())", ""),
        ("net = wrap(Net())", ""),
        ("return_ = [Net()]", ""),
    ],
)
def test_what_it_is_assigned_to(script, line, target):
    made = script(f"{line}\n", [{"what": "module", "line": 1, "path": "", "root": "Net", "name": "Net"}]).root()
    assert (of(made), made.target) == ("Net()", target)


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        ("net.0", "nn.Linear(4, 8)"),
        ("net.2", "nn.Linear(8, 8)"),
        ("net.4.0", "nn.Linear(8, 8)"),
        ("net.4.1", "nn.Linear(8, 3)"),
        ("4", "nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 3))"),
    ],
)
def test_the_module_of_a_layer(script, layer, text):
    assert of(script().module(layer)) == text


def test_layers_that_are_no_modules(script):
    with pytest.raises(EditError, match="'train.py:12 relu' is made"):
        script().module("train.py:12 relu")


def test_the_module_of_one_of_two_networks(script):
    sites = [
        {"what": "module", "line": i, "path": "0", "root": kind, "name": "Linear"} for i, kind in ((1, "A"), (2, "B"))
    ]
    made = script(
        "a = A(Linear(1, 2))\nb = B(Linear(3, 4))\n", sites,
        models=[Model("a", "A"), Model("b", "B")], layers=[Layer("a.0", model="a"), Layer("b.0", model="b")],
    )  # fmt: skip
    assert [of(made.module(layer)) for layer in ("a.0", "b.0")] == ["Linear(1, 2)", "Linear(3, 4)"]


def test_modules_of_a_loop_are_made_by_one_call(script):
    sites = [{"what": "module", "line": 1, "path": str(i), "root": "Sequential", "name": "Linear"} for i in range(3)]
    made = script("layers = [nn.Linear(8, 8) for _ in range(3)]\n", sites)
    assert len(made.modules("Linear")) == 1
    assert of(made.module("net.2")) == "nn.Linear(8, 8)"


def test_modules_of_some_classes(script):
    assert [of(m) for m in script().modules("Linear")] == [
        "nn.Linear(4, 8)",
        "nn.Linear(8, 8)",
        "nn.Linear(8, 8)",
        "nn.Linear(8, 3)",
    ]
    assert script().modules("Dropout") == []


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("net = Sequential(act(), Linear(4, 3))", "act()"),
        ("x = make(kind)", "make(kind)"),
        ("f(g(), h())", None),
        ("x = act", None),
    ],
)
def test_what_goes_by_another_name(script, line, text):
    sites = [
        {"what": "module", "line": 1, "path": str(i), "root": "Sequential", "name": n}
        for i, n in enumerate(["Tanh", "Linear", "Sequential"])
    ]
    made = script(f"{line}\n", sites)
    if text is None:
        with pytest.raises(EditError, match=r"line 1 of train.py makes Tanh, but not by a plain call"):
            made.module("net.0")
    else:
        assert of(made.module("net.0")) == text


def test_the_loader_that_is_trained_on(script):
    assert of(script().loader()) == "torch.utils.data.DataLoader(data)"
    with pytest.raises(EditError, match="trains on no DataLoader"):
        script(sites=[{"what": "loader", "line": 11, "name": "DataLoader", "trained": False}]).loader()


def test_criteria_are_no_networks(script):
    assert script().root().target == "net"
    only = script(sites=SITES[:1])
    assert not only.is_module
    with pytest.raises(EditError, match="no module"):
        only.root()


def test_the_network_that_is_trained(script):
    sites = [
        {"what": "module", "line": i, "path": "", "root": k, "name": k} for i, k in ((1, "Teacher"), (2, "Student"))
    ]
    models = [Model("teacher", "Teacher", trained=False), Model("student", "Student")]
    assert script("teacher = Teacher()\nstudent = Student()\n", sites, models=models).root().target == "student"


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("net.parameters()", "net"),
        ("net[0].parameters()", "net"),
        ("net[4][0].parameters()", "net"),
        ("self.net.parameters()", "self.net"),
        ("trainer.net[0].parameters()", "trainer.net"),
        ("[{'params': model.parameters()}]", "model"),
        ("weights", "net"),
        ("(p for n, p in model.named_parameters())", "model"),
    ],
)
def test_the_networks_name_where_the_optimizer_is_made(script, given, name):
    assert script(TRAINING.replace("net[0].parameters()", given)).model == name


def test_a_network_without_a_name(script):
    with pytest.raises(EditError, match="isn't given a name"):
        _ = script("train(Net())\n", [{"what": "module", "line": 1, "path": "", "root": "Net", "name": "Net"}]).model


def test_lines_before_the_optimizer(script):
    made = script()
    assert "\nNEW\noptimizer = " in edited(made.main, made.before_optimizer(["NEW"]))
    assert made.place is made.main
    by_hand = script(sites=[s for s in SITES if s["what"] != "optimizer"])
    assert '.to("cpu")\nNEW\noptimizer = ' in edited(by_hand.main, by_hand.before_optimizer(["NEW"]))


def test_files_beside_the_script(script, tmp_path):
    other = tmp_path / "model.py"
    other.write_text("def make():\n    return Net()\n")
    made = script(sites=[{"what": "module", "file": str(other), "line": 2, "path": "", "root": "Net", "name": "Net"}])
    assert made.root().source.file == str(other)
    assert made.source(str(other)) is made.root().source
    other.unlink()
    with pytest.raises(EditError, match="can't be read"):
        script(sites=[{"what": "optimizer", "file": str(other), "line": 2, "name": "SGD", "index": 0}]).optimizer()


# ---------------------------------------------------------------------- the loop


@pytest.mark.parametrize(
    ("what", "text"),
    [("backward", "loss.backward()"), ("step", "optimizer.step()"), ("zero_grad", "optimizer.zero_grad()")],
)
def test_statements_of_the_loop(script, what, text):
    source, statement = script().statement(what)
    assert source.of(statement) == text


def test_statements_that_are_not_there(script):
    with pytest.raises(EditError, match="where backward is called"):
        script(sites=[]).statement("backward")


@pytest.mark.parametrize(
    ("step", "name"),
    [
        ("opt.step()", "opt"),
        ("self.opt.step()", "self.opt"),
        ("scaler.step(opt)", "opt"),
        ("opt.step(closure)", "opt"),
        ("update()", "made"),
    ],
)
def test_the_optimizers_name_where_it_steps(script, step, name):
    sites = [{"what": "optimizer", "line": 1, "name": "SGD", "index": 0}, {"what": "step", "line": 2}]
    assert script(f"made = SGD(p)\n{step}\n", sites).stepping == name


def test_loops_around_backward(script):
    _, loops = script().loops()
    assert [loop.lineno for loop in loops] == [11, 10]
    with pytest.raises(EditError, match="no loop"):
        script("loss.backward()\n", [{"what": "backward", "line": 1}]).loops()


def test_lines_before_training(script):
    made = script()
    assert "NEW\nfor epoch" in edited(made.main, made.before_training(["x"], ["NEW"]))
    text = "x = load()\ny = x + 1\ndef main():\n    for i in x:\n        loss.backward()\n"
    within = script(text, [{"what": "backward", "line": 5}])
    assert edited(within.main, within.before_training(["x", "y"], ["NEW"])).splitlines()[1:3] == ["y = x + 1", "NEW"]
    with pytest.raises(EditError, match="u and v are given no value"):
        within.before_training(["u", "v"], ["NEW"])


# ---------------------------------------------------------------------- the loss


def with_loss(script, line, name="mse_loss", sites=SITES, **told):
    text = f"out = net(x)\n{line}\n"
    return script(
        text, sites, losses=[LossCall("l1_loss", "train.py:1", trains=False), LossCall(name, "train.py:2", **told)]
    )


def test_the_loss_that_is_trained(script):
    assert with_loss(script, "loss = f(a, b)").loss.name == "mse_loss"
    with pytest.raises(EditError, match="no loss"):
        _ = script(losses=[LossCall("mse_loss", trains=False)]).loss


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("loss = F.mse_loss(out, y)", "F.mse_loss(out, y)"),
        ("loss = criterion(net(x, h), y)", "criterion(net(x, h), y)"),
        ("loss = self.loss_fn(net(x, h), y)", "self.loss_fn(net(x, h), y)"),
        ("loss = nn.MSELoss()(out, y)", "nn.MSELoss()(out, y)"),
        ("loss = F.mse_loss(input=out, target=y) + pow(w, 2)", "F.mse_loss(input=out, target=y)"),
    ],
)
def test_the_call_of_a_loss(script, line, text):
    source, call = with_loss(script, line).loss_call()
    assert source.of(call) == text


@pytest.mark.parametrize(
    ("line", "name"), [("loss = (out - y).abs()", "mse_loss"), ("loss = f(out, y)", "hand-written")]
)
def test_losses_without_a_call(script, line, name):
    with pytest.raises(EditError, match="a call of a loss function"):
        with_loss(script, line, name).loss_call()


def test_the_name_of_a_loss(script):
    beside = "zero(); loss = f(out, y); loss.backward()"
    for line, target in (("loss = f(out, y)", "loss"), ("self.loss = f(out, y)", "self.loss"), (beside, "loss")):
        source, statement = with_loss(script, line).loss_statement()
        assert source.of(statement.targets[0]) == target
    for line in ("f(out, y).backward()", "losses[0] = f(out, y)"):
        with pytest.raises(EditError, match="isn't given a name"):
            with_loss(script, line).loss_statement()


@pytest.mark.parametrize(
    ("line", "output", "target"),
    [
        ("loss = ((out - y) ** 2).mean()", "out", "y"),
        ("loss = ((y - out) ** 2).mean()", "out", "y"),
        ("loss = torch.mean((y_true - y_pred) ** 2)", "y_pred", "y_true"),
        ("loss = -(targets * out.log()).sum()", "out", "targets"),
        ("loss = (net(x) - yb).abs().mean()", "net(x)", "yb"),
        ("loss = rmse(a, b)", "a", "b"),
    ],
)
def test_losses_by_hand(script, line, output, target):
    made = with_loss(
        script, line, "hand-written", [{"what": "module", "line": 1, "path": "", "root": "Net", "name": "Net"}]
    )
    made = script(
        made.main.text.replace("out = net(x)", "net = Net(); out = net(x)"),
        [{"what": "module", "line": 1, "path": "", "root": "Net", "name": "Net"}],
        losses=[made.loss],
    )
    source, whole, *found = made.loss_by_hand()
    assert f"loss = {source.of(whole)}" == line
    assert [source.of(f) for f in found] == [output, target]


def test_losses_by_hand_of_nothing_known(script):
    with pytest.raises(EditError, match="computed from"):
        with_loss(script, "loss = (a - b).sum()", "hand-written").loss_by_hand()


def test_a_loss_that_is_divided(script):
    for line, becomes in (
        ("loss = f(out, y)", "loss = f(out, y)\nloss = loss / 4"),
        ("self.loss = f(out, y)", "self.loss = f(out, y)\nself.loss = self.loss / 4"),
        ("f(out, y).backward()", "(f(out, y) / 4).backward()"),
        ("loss = f(out, y); loss.backward()", "loss = f(out, y); loss = loss / 4; loss.backward()"),
    ):
        made = with_loss(script, line)
        assert edited(made.main, made.loss_over("4")) == f"out = net(x)\n{becomes}\n"


def test_sites_of_the_record(script, tmp_path):
    made = script()
    assert made.at("train.py:31 relu") == (made.main, 31)
    assert made.at("train.py:31") == (made.main, 31)
    for site in ("other.py:3", "", "train.py"):
        with pytest.raises(EditError, match="in no file of yours"):
            made.at(site)


# ---------------------------------------------------------------------- several changes


def test_changes_at_one_place_are_in_order():
    first, second = Edit("a.py", 0, 0, "b\n", 3), Edit("a.py", 0, 0, "c\n", 1)
    imports = Edit("a.py", 0, 0, "import torch\n", -9)
    assert [e.rank for e in edits_of([[first, imports], [second, imports]])] == [3, -9, 11]
