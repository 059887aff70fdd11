"""A plugin of pytest that watches the trainings in tests, and fails a test whose training is sick.

It is there as soon as `unstuck` is installed, and does nothing unless a test asks for it, by the marker or by the fixture:

    import pytest

    @pytest.mark.unstuck(fail_on="error", budget="2%")
    def test_it_trains():
        train(epochs=2)

    def test_it_learns(unstuck_run):
        train(epochs=2)
        assert unstuck_run.verdict.verdict == "healthy"

What is trained while the test itself runs is watched, in its process, not what a fixture trains before. A finding as severe as
`fail_on` fails the test with the report; a test that fails by itself shows the report beside its own failure. Torch and our own rooms
are imported for the first test that asks.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from unstuck.watching import Watch

_NEVER = "never"
_LIMITS = ("error", "warning", "note", _NEVER)
_MARKER = "unstuck(fail_on='error', budget='2%', probe_budget='15%'): watch the training in this test, and fail it where it is sick"
_COLUMNS = 80
_VERDICT, _RECORD = "unstuck", "unstuck_record"  # names of a test's properties, in a JUnit file too


class UnstuckWarning(pytest.PytestWarning):
    """A test asked for its training to be watched, and nothing could be said of it."""


@dataclass(frozen=True)
class _Asked:
    """What a test asked for.

    Attributes:
        fail_on: The severity that fails it, or "never".
        budget: Share of the training's time that watching may take.
        probe_budget: Share of it that experiments may take.
    """

    fail_on: str
    budget: float
    probe_budget: float


_RUN = pytest.StashKey["Watch"]()
_BEGAN = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds our options and settings."""
    group = parser.getgroup("unstuck", "trainings in tests")
    group.addoption(
        "--unstuck-fail-on",
        metavar="SEVERITY",
        choices=_LIMITS,
        help="Fail a watched test on a finding this severe, where its marker doesn't say: error (the default), warning, note or never.",
    )
    group.addoption(
        "--unstuck-runs",
        metavar="DIR",
        help="Folder for the records of watched tests; by default in pytest's own temporary folder.",
    )
    parser.addini("unstuck_fail_on", "as --unstuck-fail-on", default="error")
    parser.addini("unstuck_runs", "as --unstuck-runs", default="")


def pytest_configure(config: pytest.Config) -> None:
    """Tells of the marker.

    Args:
        config: Of the session.

    Raises:
        pytest.UsageError: A setting makes no sense.
    """
    config.addinivalue_line("markers", _MARKER)
    limit = config.getini("unstuck_fail_on")
    if limit not in _LIMITS:
        raise pytest.UsageError(f"unstuck_fail_on is {limit!r}, but must be one of {', '.join(_LIMITS)}")


@pytest.fixture
def unstuck_run(request: pytest.FixtureRequest) -> Iterator[Watch]:
    """The run that is watched while the test trains: its `verdict`, its `record` and its `path`, up to where it is."""
    run = _watch(request.node)
    yield run
    if not request.node.stash.get(_BEGAN, False):  # another fixture failed
        run.__exit__(None, None, None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Watches the test, where it asked for it.

    Args:
        item: The test.

    Yields:
        While it runs.

    Returns:
        What other plugins return.
    """
    asked = _asked(item)
    if asked is None:
        return (yield)
    run = _watch(item)
    item.stash[_BEGAN] = True
    try:
        with run:
            result = yield
    except Exception:
        _tell(item, run)
        raise
    if getattr(item, "_excinfo", None):  # how a unittest.TestCase failed
        _tell(item, run)
        return result
    _judge(item, run, asked)
    return result


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Lists what was found in watched tests, but for what is healthy."""
    reports = [
        report for kind in ("passed", "failed", "xfailed", "xpassed") for report in terminalreporter.getreports(kind)
    ]
    told = [(r.nodeid, dict(r.user_properties)) for r in reports if getattr(r, "when", "") == "call"]
    watched = [(name, found) for name, found in told if _VERDICT in found]
    if not watched:
        return
    odd = [(name, found) for name, found in watched if found[_VERDICT] != "healthy"]
    terminalreporter.section("unstuck")
    terminalreporter.line(f"{len(watched)} watched, {len(watched) - len(odd)} of them healthy")
    for name, found in odd:
        terminalreporter.line(f"{name}: {found[_VERDICT]}")
        terminalreporter.line(f"  {found[_RECORD]}")


# ---------------------------------------------------------------------- what a test asks for


def _asked(item: pytest.Item) -> _Asked | None:
    """What a test asks for; None where it doesn't. One that asks for what there isn't fails."""
    marker = item.get_closest_marker("unstuck")
    if marker is None and "unstuck_run" not in getattr(item, "fixturenames", ()):
        return None
    given = dict(marker.kwargs) if marker else {}
    if marker and marker.args:
        _refuse("takes its settings by name, such as fail_on='warning'")
    limit = given.pop("fail_on", item.config.getoption("unstuck_fail_on") or item.config.getini("unstuck_fail_on"))
    if limit not in _LIMITS:
        _refuse(f"was given fail_on={limit!r}, but it must be one of {', '.join(_LIMITS)}")
    budgets = {
        name: _share(name, given.pop(name, usual)) for name, usual in (("budget", "2%"), ("probe_budget", "15%"))
    }
    if given:
        _refuse(f"doesn't know {', '.join(given)}: it takes fail_on, budget and probe_budget")
    return _Asked(limit, **budgets)


def _share(name: str, given: object) -> float:
    """A share from 0 to 1: "2%" and 0.02 are the same."""
    text = str(given)
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        _refuse(f"was given {name}={given!r}, but it must be a share of the training's time, such as '2%' or 0.02")
    return value


def _refuse(why: str) -> None:
    pytest.fail(f"the marker `unstuck` {why}", pytrace=False)


# ---------------------------------------------------------------------- the run


def _watch(item: pytest.Item) -> Watch:
    """The one run of a test."""
    if _RUN not in item.stash:
        import unstuck

        asked = _asked(item)
        assert asked is not None
        item.stash[_RUN] = unstuck.watch(budget=asked.budget, probe_budget=asked.probe_budget, runs=_folder(item))
    return item.stash[_RUN]


def _folder(item: pytest.Item) -> Path:
    """Where records go: pytest's own folder keeps those of the last three sessions."""
    given = item.config.getoption("unstuck_runs") or item.config.getini("unstuck_runs")
    if given:
        return item.config.invocation_params.dir / given
    factory: pytest.TempPathFactory = item.config._tmp_path_factory  # pyright: ignore[reportAttributeAccessIssue]
    return factory.getbasetemp() / "unstuck"


def _judge(item: pytest.Item, run: Watch, asked: _Asked) -> None:
    """Fails the test where what was found is severe enough."""
    verdict = _noted(item, run)
    if asked.fail_on != _NEVER and verdict.reaches(asked.fail_on):
        pytest.fail(_text(run), pytrace=False)
    if verdict.verdict == "unknown":
        item.warn(UnstuckWarning(f"unstuck can't judge the training in this test: {verdict.why_unknown}"))


def _tell(item: pytest.Item, run: Watch) -> None:
    """Shows the report beside the test's own failure."""
    if _noted(item, run).verdict != "healthy":
        item.add_report_section("call", "unstuck", _text(run))


def _noted(item: pytest.Item, run: Watch) -> Any:
    """The verdict, once it stands in the record and among the test's properties which test it is about."""
    from unstuck.store import annotate

    annotate(run.path, script=item.nodeid)
    verdict = run.verdict
    annotate(run.path, verdict=verdict.verdict)
    causes = ", ".join(f"{f.cause} ({f.severity})" for f in verdict.loud)
    item.user_properties += [
        (_VERDICT, f"{verdict.verdict}: {causes}" if causes else verdict.verdict),
        (_RECORD, str(run.path)),
    ]
    return verdict


def _text(run: Watch) -> str:
    from unstuck.report.text import plain

    return plain(run.verdict, run.record, width=_COLUMNS).rstrip("\n")
