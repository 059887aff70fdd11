"""Ray that isn't there, and what it may not change."""

import os
import signal
import sys

import pytest

from unstuck.errors import ClusterError, MissingError
from unstuck.trials import connection as module
from unstuck.trials.executor import Log
from unstuck.trials.ray import Ray


def test_without_ray_it_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingError, match=r"pip install 'unstuck\[ray\]'") as caught:
        Ray(Log(tmp_path))
    assert isinstance(caught.value, ImportError)


def test_the_signals_are_given_back():
    before = signal.getsignal(signal.SIGTERM)
    with module._signals_kept():
        signal.signal(signal.SIGTERM, lambda *_: None)
    assert signal.getsignal(signal.SIGTERM) is before


def test_variables_for_ray_do_not_stay(monkeypatch):
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "mine")
    before = dict(os.environ)
    with module._quiet(uv=False):
        assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert dict(os.environ) == before


@pytest.mark.slow
@pytest.mark.parametrize("address", ["localhost:1", "ray://localhost:1", "nonsense://"])
def test_a_cluster_that_is_not_there_is_told(tmp_path, monkeypatch, address):
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with pytest.raises(ClusterError, match=f"at {address!r} can't be reached"):
        Ray(Log(tmp_path), address=address)
