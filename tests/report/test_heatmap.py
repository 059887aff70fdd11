"""Maps: rows in forward order, cells that can be read back, what changed most, and no more of it than can be seen."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from unstuck.evidence import Layer, Record, Series
from unstuck.report._heatmap import _middle, heatmap, heatmaps


def _map_record() -> Record:
    names = ["b", "a", "dead"]
    values = {"b": [1e-8, 1e-6, 1e-4], "a": [1.0, np.nan, 1.0], "dead": [0.0, 0.0, 0.0]}
    series = {("back_rms", name): Series.of(values[name], [0, 10, 20]) for name in sorted(names)}
    return Record.of(series, layers=[Layer(name) for name in names])


def test_a_map_has_rows_in_forward_order_and_places_for_zero_and_nan() -> None:
    made = heatmap(_map_record(), "back_rms")
    assert made is not None
    assert [row[0] for row in made.rows] == ["b", "a", "dead"]
    assert made.rows[0] == ("b", "1e-8", "1e-8", "1e-4", "1e-4")
    assert made.rows[1] == ("a", "1.00", "1.00", "1.00", "1.00")
    assert '<path class="broken" d="M1 1h1"/>' in made.svg
    assert '<path class="zero" d="M0 2h3"/>' in made.svg
    assert (made.has_zero, made.has_broken) == (True, True)
    assert made.ticks == ("0", "10", "20")
    told = made.to_json({"b": 0, "a": 1, "dead": 2})
    assert (told["steps"], told["names"], len(told["cells"])) == (["0", "10", "20"], [[0, 3]], 2 * 9)
    assert "NaN or Inf was seen in 1 row" in made.summary
    assert made.unit == "root mean square of the loss's gradient by the layer's output, on a log scale"
    assert made.header[0] == "layer"


def test_a_map_says_its_largest_changes() -> None:
    names = {"same": [1.0, 1.1], "grew": [1e-3, 2.0], "shrank": [1.0, 1e-2], "died": [1.0, 0.0], "broke": [1.0, np.nan]}
    record = Record.of({("back_rms", k): v for k, v in names.items()}, layers=[Layer(name) for name in names])
    made = heatmap(record, "back_rms")
    assert made is not None
    header, rows = made.changes
    assert header == ("layer", "first sample", "last sample", "change")
    assert rows == (
        ("broke", "1.00", "NaN", "broke"),
        ("died", "1.00", "0", "fell to exactly 0"),
        ("grew", "0.00100", "2.00", "× 2000"),
        ("shrank", "1.00", "0.0100", "÷ 100"),
    )
    assert "The largest change is that of broke, from 1.00 to NaN; 4 of 5 rows changed by half or more." in made.summary
    calm = heatmap(Record.of({("dead_share", "a"): [0.5, 0.51]}, layers=[Layer("a")]), "dead_share")
    assert calm is not None
    assert calm.changes[1] == ()
    assert "From the first sample to the last no row changed by two points or more." in calm.summary


def test_cells_can_be_read_back() -> None:
    record = Record.of({("back_rms", "a"): [1e-9, 3.3e-5, 1.0]}, layers=[Layer("a")])
    made = heatmap(record, "back_rms")
    assert made is not None
    facts = made.to_json({"a": 0})
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    code = letters.index(facts["cells"][2]) * 64 + letters.index(facts["cells"][3])
    level = float(facts["low"]) + code / (64**2 - 4) * (float(facts["high"]) - float(facts["low"]))
    # 4092 steps over nine decades: half a step is 0.25%.
    assert 10**level == pytest.approx(3.3e-5, rel=0.004)


def test_shares_are_drawn_from_0_to_1_and_zero_is_a_share() -> None:
    record = Record.of({("dead_share", "a"): [0.0, 0.5, 1.0]}, layers=[Layer("a")])
    made = heatmap(record, "dead_share")
    assert made is not None
    assert made.kind == "share"
    assert made.legend == ("0%", "25%", "50%", "75%", "100%")
    assert not made.has_zero
    assert '<path class="k0" d="M0 0h1"/>' in made.svg
    assert '<path class="k15" d="M2 0h1"/>' in made.svg


@pytest.mark.slow
def test_many_layers_and_steps_are_put_together(cases: SimpleNamespace) -> None:
    first, more = heatmaps(cases.huge[1])
    made = {m.signal: m for m in first}
    assert list(made) == ["back_rms", "update_ratio", "dead_share", "act_saturated", "act_std"]
    assert more == []
    assert all(m.num_rows == 300 for m in made.values())
    layers = [Layer(f"l{i}") for i in range(1000)]
    record = Record.of({("act_std", layer.name): [1.0, 2.0] for layer in layers}, layers=layers)
    ((one,), _more) = heatmaps(record)
    assert one.num_rows == 250
    assert one.note == "1000 places in forward order, one of every 4 is shown; the filter shows any of them."
    told = one.to_json({layer.name: i for i, layer in enumerate(layers)})
    assert (told["names"], told["letters"], len(told["cells"])) == ([[0, 1000]], 1, 2000)
    closed = heatmap(record, "act_std", is_closed=True)
    assert closed is not None
    assert len(closed.to_json({layer.name: i for i, layer in enumerate(layers)})["names"]) == 250
    assert len(closed.rows) <= 100
    assert "path" not in closed.svg


def test_one_sample_or_none_makes_no_map() -> None:
    assert heatmaps(Record()) == ([], [])
    assert heatmaps(Record.of({("back_rms", "a"): [1.0]}, layers=[Layer("a")])) == ([], [])


def test_cells_are_medians_of_what_was_measured() -> None:
    random = np.random.default_rng(0)
    for width in (1, 2, 3, 6):
        part = random.random((40, width))
        part[random.random(part.shape) < 0.4] = np.nan
        slow = [np.median(row[~np.isnan(row)]) if not np.isnan(row).all() else np.nan for row in part]
        np.testing.assert_allclose(_middle(part), slow, rtol=1e-15)


def test_labels_leave_out_what_long_names_have_in_common() -> None:
    def labels(*names: str) -> list[str]:
        made = heatmap(Record.of({("back_rms", name): [1.0, 2.0] for name in names}), "back_rms")
        assert made is not None
        return sorted(short for _row, _name, short in made.labels)

    blocks = [f"encoder.layers.{i}.self_attn.in_proj_weight" for i in range(3)]
    assert labels("head", *blocks) == ["head", *(f"…{i}.self_attn.in_proj_weight" for i in range(3))]
    assert labels("net.0", "net.1") == ["net.0", "net.1"]  # there is room
    assert labels("a" * 40, "b." + "c" * 40) == ["…" + "a" * 27, "…" + "c" * 27]
    assert labels("x." + "y" * 30 + ".z") == ["…" + "y" * 25 + ".z"]
