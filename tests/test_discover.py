"""Discovery of plug-ins: files of a room, other packages' entry points, and what is said of what is amiss."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import unstuck
from unstuck import _discover
from unstuck.errors import NotFoundError, UnstuckError

Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes files of a made-up room `unstuck.gadgets` and of an outside module."""
    room = tmp_path / "unstuck" / "gadgets"
    room.mkdir(parents=True)
    (room / "__init__.py").touch()
    monkeypatch.setattr(unstuck, "__path__", [*unstuck.__path__, str(tmp_path / "unstuck")])
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    _discover._load.cache_clear()

    def write(name: str, text: str, folder: Path = room) -> None:
        (folder / f"{name}.py").write_text(textwrap.dedent(text))

    yield write
    _discover._load.cache_clear()
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes entry points of other packages, by name."""

    def offer(**values: str) -> None:
        entries = [EntryPoint(name, value, "unstuck.gadgets") for name, value in values.items()]
        monkeypatch.setattr(_discover, "entry_points", lambda group: entries if group == "unstuck.gadgets" else [])

    return offer


def test_finds_the_function_named_like_its_file(write: Write):
    write("dead_units", "def dead_units(): return 'dead'\ndef other(): ...")
    write("broken_sum", "def broken_sum(): return 'sum'")
    found = _discover.find("gadgets")
    assert list(found) == ["broken-sum", "dead-units"]
    assert found["dead-units"]() == "dead"
    assert _discover.problems("gadgets") == []


def test_leaves_out_underscore_files(write: Write):
    write("_shared", "raise RuntimeError('imported')")
    assert _discover.find("gadgets") == {}


def test_own_file_without_its_function_is_our_mistake(write: Write):
    write("empty", "")
    with pytest.raises(AssertionError, match="unstuck.gadgets.empty must hold a function named empty"):
        _discover.find("gadgets")


def test_what_find_gives_can_be_changed_without_harm(write: Write):
    write("one", "def one(): ...")
    _discover.find("gadgets").clear()
    assert list(_discover.find("gadgets")) == ["one"]


def test_own_come_before_those_of_other_packages(write: Write, offer: Write, tmp_path: Path):
    write("zebra", "def zebra(): ...")
    write("outside", "def a(): ...\ndef b_c(): return 'bc'", tmp_path)
    offer(b_c="outside:b_c", a="outside:a")
    assert list(_discover.find("gadgets")) == ["zebra", "a", "b-c"]
    assert _discover.get("gadgets", "b-c")() == "bc"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("nowhere_at_all:f", "it could not be loaded (ModuleNotFoundError: No module named 'nowhere_at_all')"),
        ("broken:f", "it could not be loaded (ZeroDivisionError: division by zero)"),
        ("outside:missing", "it could not be loaded (AttributeError: module 'outside' has no attribute 'missing')"),
        ("outside:number", "outside:number is not a function"),
        ("outside:zebra", None),
    ],
)
def test_broken_outside_plugin_is_left_out_with_a_word(
    write: Write, offer: Write, tmp_path: Path, value: str, words: str | None
):
    write("one", "def one(): ...")
    write("broken", "1 / 0", tmp_path)
    write("outside", "number = 3\ndef zebra(): ...", tmp_path)
    offer(theirs=value)
    assert list(_discover.find("gadgets")) == (["one"] if words else ["one", "theirs"])
    assert _discover.problems("gadgets") == ([f"the gadget 'theirs' of {value} is left out: {words}"] if words else [])


def test_outside_plugin_does_not_replace_ours(write: Write, offer: Write, tmp_path: Path):
    write("one", "def one(): return 'ours'")
    write("outside", "def one(): return 'theirs'", tmp_path)
    offer(one="outside:one")
    assert _discover.get("gadgets", "one")() == "ours"
    assert _discover.problems("gadgets") == [
        "the gadget 'one' of outside:one is left out: there is one of that name already"
    ]


def test_get_suggests_the_nearest_name(write: Write):
    write("dead_relu", "def dead_relu(): ...")
    write("exploding", "def exploding(): ...")
    with pytest.raises(NotFoundError) as caught:
        _discover.get("gadgets", "ded-relu")
    assert str(caught.value) == "no gadget 'ded-relu'; did you mean 'dead-relu'?"
    assert isinstance(caught.value, LookupError)
    assert isinstance(caught.value, UnstuckError)


@pytest.mark.parametrize("name", ["dead_relu", "Dead-ReLU"])
def test_get_suggests_the_name_as_the_command_line_has_it(write: Write, name: str):
    write("dead_relu", "def dead_relu(): ...")
    with pytest.raises(NotFoundError, match="did you mean 'dead-relu'"):
        _discover.get("gadgets", name)


def test_get_lists_all_when_none_is_near(write: Write):
    write("two", "def two(): ...")
    write("one", "def one(): ...")
    with pytest.raises(NotFoundError, match="^no gadget 'xyz'; there are one, two$"):
        _discover.get("gadgets", "xyz")


def test_get_says_so_when_there_are_none(write: Write):
    with pytest.raises(NotFoundError, match="^no gadget 'xyz'; there are none$"):
        _discover.get("gadgets", "xyz")


@pytest.mark.parametrize(("room", "one"), [("rules", "rule"), ("remedies", "remedy"), ("optim", "optim")])
def test_rooms_are_spoken_of_in_the_singular(room: str, one: str):
    assert _discover._singular(room) == one
