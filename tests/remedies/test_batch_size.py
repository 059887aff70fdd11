from __future__ import annotations

import pytest

from unstuck.remedies.batch_size import batch_size, propose
from unstuck.source import EditError

LOADER = """
    from torch.utils.data import DataLoader
    BATCH = 512
    loader = {loader}
    test_loader = DataLoader(test, 512)
    for x, y in loader:
        loss.backward()
"""
LOOP = """
    import torch
    {before}
    for epoch in range(512):
        for {loop}:
            loss = f(x[rows])
            loss.backward()
"""


@pytest.mark.parametrize(
    ("loader", "becomes"),
    [
        ("DataLoader(data, 512, shuffle=True)", "loader = DataLoader(data, 32, shuffle=True)"),
        ("DataLoader(data, batch_size=512)", "loader = DataLoader(data, batch_size=32)"),
        ("DataLoader(data, batch_size=args.batch)", "loader = DataLoader(data, batch_size=32)"),
        ("DataLoader(data)", "loader = DataLoader(data, batch_size=32)"),
        ("DataLoader(data, batch_size=BATCH)", "BATCH = 32"),
    ],
)
def test_a_loader(script, loader, becomes):
    assert script(LOADER.format(loader=loader)).added(batch_size, size=32) == [becomes]


def test_a_sampler_of_batches(script):
    with pytest.raises(EditError, match="sampler"):
        batch_size(script(LOADER.format(loader="DataLoader(data, batch_sampler=sampler)")))


@pytest.mark.parametrize("name", ["batch_size", "bs", "BATCH_SIZE"])
def test_a_variable(script, name):
    made = script(LOOP.format(before=f"{name} = 512", loop=f"i in range(0, len(x), {name})"), batch=512)
    assert made.added(batch_size, size=64) == [f"{name} = 64"]


@pytest.mark.parametrize(
    ("before", "becomes"),
    [
        (
            'p.add_argument("--batch-size", type=int, default=512)',
            'p.add_argument("--batch-size", type=int, default=32)',
        ),
        ("def batches(x, batch_size=512): ...", "def batches(x, batch_size=32): ..."),
        ("config = {'rate': 0.1, 'batchsize': 512}", "config = {'rate': 0.1, 'batchsize': 32}"),
        ("config = Namespace(rate=0.1, train_batch=512)", "config = Namespace(rate=0.1, train_batch=32)"),
        ("batch_size: int = 512", "batch_size: int = 32"),
        ("def batches(x, *, size_of_batch=512): ...", "def batches(x, *, size_of_batch=32): ..."),
    ],
)
def test_what_it_is_by_default(script, before, becomes):
    made = script(LOOP.format(before=before, loop="rows in batches(x)"), batch=512)
    assert made.added(batch_size, size=32) == [becomes]


def test_a_default_that_is_not_in_force_is_left_alone(script):
    option = 'p.add_argument("--batch-size", type=int, default=64)'
    with pytest.raises(EditError, match="batch size"):
        batch_size(
            script(LOOP.format(before=option, loop="rows in batches(x)").replace("range(512)", "range(5)"), batch=512)
        )


@pytest.mark.parametrize(
    ("loop", "becomes"),
    [
        ("rows in torch.randperm(len(x)).split(512)", "rows in torch.randperm(len(x)).split(32)"),
        ("i in range(0, len(x), 512)", "i in range(0, len(x), 32)"),
        ("rows in [torch.randint(0, 999, (512,))]", "rows in [torch.randint(0, 999, (32,))]"),
    ],
)
def test_a_number(script, loop, becomes):
    made = script(LOOP.format(before="", loop=loop).replace("range(512)", "range(5)"), batch=512)
    assert made.added(batch_size, size=32) == [f"    for {becomes}:"]


def test_a_number_in_slices(script):
    made = script("""
        for i in range(0, 1024, 512):
            xb, yb = x[i : i + 512], y[i : i + 512]
            loss.backward()
    """, batch=512)  # fmt: skip
    assert made.added(batch_size) == ["for i in range(0, 1024, 32):", "    xb, yb = x[i : i + 32], y[i : i + 32]"]


def test_with_the_rate_that_goes_with_it(script):
    made = script("""
        import torch
        from torch.utils.data import DataLoader
        batches = DataLoader(data, batch_size=512)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    """, batch=512)  # fmt: skip
    assert made.added(batch_size, size=32, rate=0.01) == [
        "batches = DataLoader(data, batch_size=32)",
        "optimizer = torch.optim.SGD(net.parameters(), lr=0.01)",
    ]


def test_all_samples_at_once(script):
    with pytest.raises(EditError, match="batch size"):
        batch_size(script(batch=512))


def test_what_is_tried(script, found):
    assert propose(script(batch=2), found("batch-too-small")) == [{"size": 32}, {"size": 32, "rate": 1.6}]
    assert propose(script(batch=6), found("batch-too-small"))[0] == {"size": 48}
    assert propose(script(batch=512), found("batch-too-large")) == [{"size": 32}, {"size": 32, "rate": 0.00625}]
    adam = script(batch=512, optimizer="torch.optim.Adam(net.parameters(), lr=0.1)")
    assert propose(adam, found("batch-too-large"))[1] == {"size": 32, "rate": 0.025}, "by the root"
    assert propose(script(batch=512, series={("lr", ""): [], ("batch_size", ""): [512]}), found()) == [{"size": 32}]
    assert propose(script(batch=64), found("undertrained")) == []
