from __future__ import annotations

from unstuck.remedies.warm_up import propose, warm_up


def test_behind_the_optimizer_and_its_step(script):
    assert script().diff(warm_up, steps=50) == [
        "+warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.01, total_iters=50)",
        "+    warm_up.step()",
    ]


def test_what_is_tried(script, found):
    assert propose(script(meta={"steps": 500}), found()) == [{"steps": 50}]
    assert propose(script(meta={"steps": 10}), found()) == [{"steps": 5}]
