from __future__ import annotations

import pytest

from unstuck.remedies.standardize_input import propose, standardize_input
from unstuck.source import EditError


def hook(mean, std):
    return f"net.register_forward_pre_hook(lambda module, args: ((args[0] - {mean}) / {std}, *args[1:]))"


def test_by_feature_of_a_variable(script):
    assert script(inputs={}).diff(standardize_input, by="feature") == [
        "+mean, std = x.mean(0), x.std(0)",
        "+std[std == 0] = 1",
        f"+{hook('mean', 'std')}",
    ]


def test_by_all(script):
    assert script(inputs={}).diff(standardize_input, by="all") == [f"+{hook('1.5', '2')}"]


def test_names_that_the_script_uses(script):
    made = script(data="mean, std = 0, 1\nx, y = load()", inputs={})
    assert made.added(standardize_input)[0] == "input_mean, input_std = x.mean(0), x.std(0)"


def test_numbers_where_no_variable_holds_them(script):
    made = script(inputs={"variable": ""})
    assert made.added(standardize_input) == [
        "mean, std = torch.tensor([1, 2]), torch.tensor([3, 1])",
        hook("mean", "std"),
    ]
    with pytest.raises(EditError, match="33 features"):
        standardize_input(script(inputs={"variable": "", "mean": [0.0] * 33, "std": [1.0] * 33}))


@pytest.mark.parametrize(
    ("data", "net", "device"),
    [
        ("device = 'cpu'\nx, y = load()", "net = nn.Linear(2, 1).to(device)", "device"),
        ("x, y = load()", "net = nn.Linear(2, 1).to('cuda')", '"cuda"'),
        ("x, y = load()", "net = nn.Linear(2, 1).cuda()", '"cuda"'),
        (
            "x, y = load()\ncuda = torch.cuda.is_available()",
            "net = nn.Linear(2, 1).cuda() if cuda else nn.Linear(2, 1)",
            "next(net.parameters()).device",
        ),
        ("args = parse()\nx, y = load()", "net = nn.Linear(2, 1).to(args.device)", "args.device"),
    ],
)
def test_on_the_device_of_the_network(script, data, net, device):
    made = script(data=data, net=net, inputs={})
    assert made.added(standardize_input)[0] == f"mean, std = x.mean(0).to({device}), x.std(0).to({device})"
    made = script(data=data, net=net, inputs={"variable": ""})
    assert (
        made.added(standardize_input)[0]
        == f"mean, std = torch.tensor([1, 2], device={device}), torch.tensor([3, 1], device={device})"
    )


def test_numbers_in_a_function(script):
    made = script("""
        import torch
        x = torch.randn(64, 2)

        def main(net):
            opt = torch.optim.Adam(net.parameters())

        main(torch.nn.Linear(2, 1))
    """, inputs={})  # fmt: skip
    assert made.added(standardize_input)[0].startswith("    mean, std = torch.tensor([1, 2]), ")


def test_a_network_of_tensors(script, by_hand):
    made = script("""
        import torch
        x_train, x_test = load()
        for step in range(10):
            loss = (x_train @ w1).mean()
            loss.backward()
    """, inputs={"variable": "x_train"}, **by_hand)  # fmt: skip
    assert made.diff(standardize_input, by="feature") == [
        "+mean, std = x_train.mean(0), x_train.std(0)",
        "+std[std == 0] = 1",
        "+x_train = (x_train - mean) / std",
        "+x_test = (x_test - mean) / std",
    ]
    assert made.added(standardize_input, by="all")[0] == "mean, std = x_train.mean(), x_train.std()"


def test_a_network_of_tensors_that_a_function_trains(script):
    made = script("""
        x = load()

        def main():
            for step in range(10):
                f(x).backward()

        main()
    """, inputs={})  # fmt: skip
    (edit,) = standardize_input(made, by="all")
    assert made.main.text[: edit.start] == "x = load()\n", "not in the function, where x would be another"


@pytest.mark.parametrize(
    ("text", "inputs"), [("", None), ("for i in range(3):\n    f(x).backward()\n", {"variable": ""})]
)
def test_inputs_that_are_not_known(script, text, inputs):
    with pytest.raises(EditError, match="known"):
        standardize_input(script(text, inputs=inputs))


def test_what_is_tried(script, found):
    assert propose(script(inputs={}), found()) == [{"by": "feature"}, {"by": "all"}]
    assert propose(script(inputs={"shape": [64, 1, 8, 8]}), found()) == [{"by": "all"}]
    assert propose(script(), found()) == []
