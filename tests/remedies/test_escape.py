from __future__ import annotations

import pytest

from unstuck.remedies.escape import escape, propose
from unstuck.source import EditError

SADDLE = """
    import torch

    torch.manual_seed(0)
    w = torch.tensor([[1.0, 0.0]], requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=0.05)
    for step in range(400):
        optimizer.zero_grad()
        loss = (w[0, 0] ** 2 + (w[0, 1] ** 2 - 1) ** 2).mean()
        loss.backward()
        optimizer.step()
"""


def test_at_a_time_of_the_run(script):
    made = script(SADDLE)
    assert made.added(escape, share=0.25, size=0.1) == [
        "    if step == 100:",
        "        with torch.no_grad():",
        "            for parameter in [w]:",
        "                parameter += 0.1 * torch.randn_like(parameter)",
    ]


@pytest.mark.slow
def test_it_leaves_a_saddle(script):
    made = script(SADDLE)
    assert made.run(escape, share=0.25, size=0.0)["loss"].item() == pytest.approx(1, abs=1e-6), "where it rests without"
    assert made.run(escape, share=0.25, size=0.01)["loss"].item() < 1e-6


def test_along_the_curvature_it_leaves_a_saddle_on_the_way_that_leads_down(script):
    made = script(SADDLE)
    assert made.run(escape, share=0.25, size=0.01, along="curvature")["loss"].item() < 1e-6
    text = SADDLE.replace(
        "range(400)", "range(101)"
    )  # pushed in the last step but one: by 0.01 in the mean over two weights
    w = script(text).run(escape, share=0.99, size=0.01, along="curvature")["w"]
    first, second = (abs(v) for v in w.tolist()[0])
    assert first < 1e-3 and second == pytest.approx(0.01 * 2**0.5, rel=0.5)


def test_once_where_the_counted_loop_is_not_the_one_around_backward(script):
    made = script("""
        import torch
        torch.manual_seed(0)
        net = torch.nn.Linear(4, 3)
        batches = [(torch.randn(8, 4), torch.randn(8, 3))] * 3
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for epoch in range(4):
            for x, y in batches:
                loss = (net(x) - y).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    """)
    lines = made.added(escape, share=0.5, along="curvature")
    assert "pushed = False" in lines and "        if epoch == 2 and not pushed:" in lines
    assert made.run(escape, share=0.5, along="curvature")["pushed"] is True


def test_a_loss_without_a_name_has_no_curvature_to_be_taken(script):
    made = script("""
        import torch
        net = torch.nn.Linear(4, 3)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for i in range(10):
            net(x).mean().backward()
    """)
    with pytest.raises(EditError, match="no name"):
        made.added(escape, share=0.5, along="curvature")


def test_before_training(script):
    assert script().added(escape, share=0.0, size=0.5) == [
        "with torch.no_grad():",
        "    for parameter in net.parameters():",
        "        parameter += 0.5 * torch.randn_like(parameter)",
    ]
    script().run(escape, share=0.0, size=0.5)


@pytest.mark.parametrize(
    ("counts", "when"),
    [
        ("range(40)", "if i == 20:"),
        ("range(1, 41)", "if i == 21:"),
        ("tqdm(range(40))", "if i == 20:"),
        ("range(epochs)", "if i == epochs // 2:"),
    ],
)
def test_what_counts(script, counts, when):
    made = script(f"""
        import torch
        epochs = 40
        net = torch.nn.Linear(4, 3)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for i in {counts}:
            for x, y in batches:
                net(x).mean().backward()
    """)
    assert made.added(escape, share=0.5)[0].strip() == when


@pytest.mark.parametrize(
    "counts", ["for x, y in batches:", "while True:", "for i in range(len(data)):", "for i, x in enumerate(data):"]
)
def test_what_does_not_count(script, counts):
    made = script(f"""
        import torch
        net = torch.nn.Linear(4, 3)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        {counts}
            net(x).mean().backward()
    """)
    with pytest.raises(EditError):
        escape(made, share=0.5)


def test_what_is_tried(script, found):
    series = {("grad_norm", ""): [1.0, 0.5, 0.01, 0.01], ("weight_rms", "w"): [0.2, 0.2]}
    made = script(SADDLE, series=series, meta={"steps": 10})
    assert propose(made, found()) == [
        {"share": 0.2, "size": 0.06}, {"share": 0.2, "size": 0.2}, {"share": 0.2, "size": 0.02, "along": "curvature"},
    ]  # fmt: skip
    assert propose(script(), found()) == [
        {"share": 0.0, "size": 0.03},
        {"share": 0.0, "size": 0.1},
        {"share": 0.0, "size": 0.01, "along": "curvature"},
    ]
