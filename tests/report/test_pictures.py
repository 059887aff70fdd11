"""Pictures show what they are given, also where it is broken, and need matplotlib only when something is drawn."""

from __future__ import annotations

import math
import subprocess
import sys
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from unstuck.errors import MissingError, MisuseError
from unstuck.report import pictures
from unstuck.report.animation import Race, animate
from unstuck.report.pictures import axis_label, draw_line, draw_plane, draw_spectrum, save

pytestmark = pytest.mark.slow

matplotlib = pytest.importorskip("matplotlib")
X = np.linspace(-1, 1, 9)


# The dataclasses of unstuck.curvature bring torch; pictures need only their numbers.
def axis(made: str = "along", length: float = 2.0, share: float = math.nan):
    return SimpleNamespace(made=made, length=length, share=share)


def a_line(losses) -> SimpleNamespace:
    losses = np.asarray(losses, float)
    return SimpleNamespace(coordinates=X, losses=losses, centre=float(losses[4]), along=axis(), stopped="")


def a_plane(losses, path=None, stopped="") -> SimpleNamespace:
    losses = np.asarray(losses, float)
    return SimpleNamespace(
        x=X, y=2 * X, losses=losses, first=axis("one"), second=axis("two", 1.0), path=path, stopped=stopped
    )


def a_path() -> SimpleNamespace:
    points = np.array([[0.5, 1.0], [0.2, 0.3], [0.0, 0.0]])
    return SimpleNamespace(points=points, steps=np.array([0, 8, 13]), inside=np.ones(3), share=0.8734)


def bowl() -> np.ndarray:
    return X[None] ** 2 + X[:, None] ** 2 + 1


def texts(figure) -> str:
    from matplotlib.text import Text

    figure.canvas.draw()
    return "\n".join(t.get_text() for t in figure.findobj(Text) if t.get_visible())


def test_a_line_is_drawn_with_its_centre_and_unit():
    figure = draw_line(a_line(X**2 + 1), title="Along")
    drawn = figure.axes[0].lines[0]
    assert np.array_equal(drawn.get_ydata(), X**2 + 1) and np.array_equal(drawn.get_xdata(), X)
    for words in ("Along", "along, 1 is a distance of 2", "where the parameters stand: 1", "loss"):
        assert words in texts(figure)


def test_a_line_over_decades_is_logarithmic_and_a_negative_one_is_not():
    assert draw_line(a_line(10 ** (8 * X**2))).axes[0].get_yscale() == "log"
    assert draw_line(a_line(10 ** (8 * X**2) - 5)).axes[0].get_yscale() == "linear"
    assert draw_line(a_line(X**2 + 1)).axes[0].get_yscale() == "linear"


def test_gaps_in_a_line_are_grey_half_way_to_their_neighbours():
    losses = X**2
    losses[[0, 6]] = math.inf, math.nan
    figure = draw_line(a_line(losses))
    spans = [(p.get_x(), p.get_x() + p.get_width()) for p in figure.axes[0].patches]
    assert spans == [pytest.approx((-1, -0.875)), pytest.approx((0.375, 0.625))]
    assert texts(figure).count("NaN or infinite") == 1


def test_a_plane_shows_the_path_and_what_it_leaves_out():
    figure = draw_plane(a_plane(bowl(), a_path(), "9 of 81 points"), marks={"saddle": [(0.5, 0.5)]}, title="Plane")
    shown = texts(figure)
    for words in (
        "one, 1 is a distance of 2",
        "two, in distance",
        "step 0",
        "step 13; 87% of the path lies in this plane",
    ):
        assert words in shown
    assert "saddle" in shown and "9 of 81 points" in shown


def test_the_scale_of_a_plane_is_logarithmic_where_losses_are_spread():
    assert "loss (log scale)" in texts(draw_plane(a_plane(10 ** (6 * (bowl() - 1)))))
    assert "log" not in texts(draw_plane(a_plane(bowl())))


def test_contours_are_round_numbers_that_hold_the_losses():
    levels = pictures._levels(bowl(), False)
    assert levels[0] <= 1 and levels[-1] >= 3 and 8 <= len(levels) <= 20
    levels = pictures._levels(np.geomspace(0.001, 100, 1000), True)
    assert {0.01, 0.1, 1.0, 10.0, 100.0} <= set(levels.round(9)) and len(levels) <= 20
    assert levels[0] == pytest.approx(0.001)


@pytest.mark.parametrize(
    "losses",
    [
        np.full((9, 9), math.nan),
        np.full((9, 9), math.inf),
        np.zeros((9, 9)),
        np.where(bowl() > 2, math.nan, bowl()),
        np.where(bowl() > 2, 1e300, bowl()),
        -bowl() * 1e-300,
        np.where(bowl() > 1.1, math.inf, -math.inf),
    ],
    ids=["nan", "inf", "flat", "some nan", "huge", "tiny", "both infinities"],
)
def test_no_losses_keep_a_picture_from_being_drawn(losses, tmp_path):
    save(draw_plane(a_plane(losses, a_path())), tmp_path / "plane.png", dpi=40)
    save(draw_line(a_line(losses[4])), tmp_path / "line.png", dpi=40)
    assert (tmp_path / "plane.png").stat().st_size > 1000


def test_a_spectrum_marks_its_ends():
    density = SimpleNamespace(low=-1.0, high=5.0, size=1000)
    density.curve = lambda num: (np.linspace(-1.3, 5.3, num), np.exp(-(np.linspace(-1.3, 5.3, num) ** 2)))
    top = SimpleNamespace(values=[5.0, 3.21], converged=True)
    bottom = SimpleNamespace(values=[-1.0], converged=False)
    figure = draw_spectrum(density, SimpleNamespace(top=top, bottom=bottom))  # pyright: ignore
    shown = texts(figure)
    assert "largest: 5, 3.21" in shown and "smallest: -1 (not converged)" in shown
    assert "eigenvalue of the Hessian" in shown and "1,000 eigenvalues" in shown
    assert figure.axes[0].get_yscale() == "log"


def test_labels_tell_the_share_and_the_unit():
    assert axis_label(axis("principal component 1", 1.0, 0.944)) == "principal component 1, 94% of it, in distance"
    assert axis_label(axis("random", 13.04)) == "random, 1 is a distance of 13"
    assert axis_label(axis("x", math.nan)) == "x"


def test_settings_of_matplotlib_are_left_alone():
    before = dict(matplotlib.rcParams)
    draw_plane(a_plane(bowl(), a_path()))
    assert dict(matplotlib.rcParams) == before
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_an_animation_shows_paths_growing(tmp_path):
    image = pytest.importorskip("PIL.Image")
    path = np.stack([np.linspace(-0.8, 0, 21), np.linspace(1.5, 0, 21)], axis=1)
    broken = np.where(np.arange(21)[:, None] > 5, math.nan, 1e30 * path)
    race = Race("Bowl", a_plane(bowl()), {"SGD": path, "Adam": path[:5], "lost": broken}, [(0.0, 0.0)])  # pyright: ignore
    animate([race] * 3, tmp_path / "race.gif", frames=4)
    with image.open(tmp_path / "race.gif") as gif:
        pictures = []
        for i in range(gif.n_frames):
            gif.seek(i)
            pictures.append(np.asarray(gif.convert("RGB")).astype(int))
    assert (pictures[0][:, 0] == 255).all()
    assert len(pictures) == 4 and all(np.abs(a - b).max() > 50 for a, b in pairwise(pictures))


@pytest.mark.parametrize("races, frames", [([], 60), ([None], 1)])
def test_an_animation_of_nothing_is_misuse(races, frames, tmp_path):
    with pytest.raises(MisuseError, match="a race and two frames at least"):
        animate(races, tmp_path / "race.gif", frames=frames)


def test_a_folder_that_is_not_there_is_told_before_drawing(tmp_path):
    with pytest.raises(MisuseError, match="there is no folder"):
        save(draw_line(a_line(X**2)), tmp_path / "none" / "line.png")


def test_without_matplotlib_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingError, match=r"pip install 'unstuck\[pictures\]'"):
        draw_line(a_line(X**2))


def test_importing_it_leaves_matplotlib_and_torch_alone():
    code = "import sys, unstuck.report.animation; print('matplotlib' in sys.modules, 'torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False False"
