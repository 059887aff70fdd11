from __future__ import annotations

import pytest

from unstuck.rules.unnormalized_input import unnormalized_input


def features(mean, std, low=None, high=None, batches=4):
    low = [m - 2 * s for m, s in zip(mean, std, strict=True)] if low is None else low
    high = [m + 2 * s for m, s in zip(mean, std, strict=True)] if high is None else high
    columns = {"mean": mean, "std": std, "min": low, "max": high}
    return {"vectors": {(f"input_{name}", "input"): [values] * batches for name, values in columns.items()}}


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ([0, 0], [1, 1]),
        ([0.13], [0.31]),
        ([0.02] * 5, [0.14] * 5),
        ([4.9, 0.0], [6.0, 0.0]),
        ([0.5] * 3, [0.2] * 3),
        ([], []),
    ],
)
def test_usual_inputs_are_silent(runs, mean, std):
    assert unnormalized_input(runs.stuck(**features(mean, std), **runs.chain("linear"))) == []


@pytest.mark.parametrize(("mean", "std", "found"), [([6.0], [7.9], 0), ([6.1], [8.0], 1)])
def test_the_size_of_the_input(runs, mean, std, found):
    findings = unnormalized_input(runs.stuck(**features(mean, std), **runs.chain("linear")))
    assert len(findings) == found
    assert all(f.layers == ("linear0",) and f.severity == "error" for f in findings)


@pytest.mark.parametrize(("mean", "found"), [(4.9, 0), (5.1, 1)])
def test_how_far_off_centre_it_lies(runs, mean, found):
    assert len(unnormalized_input(runs.stuck(**features([mean], [1.0]), **runs.chain("linear")))) == found


def test_features_that_hardly_vary_are_silent(runs):
    assert (
        unnormalized_input(runs.stuck(**features([-0.4] * 8 + [0] * 20, [1e-4] * 8 + [1] * 20), **runs.chain("linear")))
        == []
    )


def test_batches_of_one_sample_vary_from_batch_to_batch(runs):
    rows = [[65.0], [68.0], [65.0], [68.0]]
    vectors = {(f"input_{name}", "input"): rows for name in ("mean", "min", "max")}
    vectors["input_std", "input"] = [[0.0]] * 4
    [finding] = unnormalized_input(runs.stuck(vectors=vectors, **runs.chain("linear")))
    assert "from 65.0 to 68.0" in finding.says


@pytest.mark.parametrize(("op", "found"), [("batch_norm", 0), ("layer_norm", 0), ("linear", 1)])
def test_what_is_normalised_first_is_silent(runs, op, found):
    assert len(unnormalized_input(runs.stuck(**features([30], [70]), **runs.chain(op, "linear")))) == found


@pytest.mark.parametrize(
    ("state", "severity"), [("stuck", "error"), ("learns", "warning"), ("well", "note"), ("diverges", "error")]
)
def test_how_severe_it_is(runs, state, severity):
    record = getattr(runs, state)(**features([30], [70]), **runs.chain("linear"))
    assert [f.severity for f in unnormalized_input(record)] == [severity]


@pytest.mark.parametrize(
    ("ops", "found"),
    [
        (("conv", "batch_norm", "relu", "linear"), 0),
        (("conv", "relu", "batch_norm", "linear"), 1),
        (("conv", "layer_norm", "relu", "linear"), 1),
        (("lstm", "batch_norm", "relu", "linear"), 1),
    ],
)
def test_batch_norm_behind_the_first_layer_undoes_one_scale(runs, ops, found):
    assert len(unnormalized_input(runs.learns(**features([30] * 3, [70] * 3), **runs.chain(*ops)))) == found


def test_batch_norm_behind_the_first_layer_does_not_undo_a_scale_for_each_feature(runs):
    unlike = features([40, 50_000], [10, 20_000])
    assert len(unnormalized_input(runs.learns(**unlike, **runs.chain("linear", "batch_norm", "relu", "linear")))) == 1
