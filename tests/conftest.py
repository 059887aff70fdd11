"""For all tests: a process works in one thread, can be interrupted, and never looks through what is there before the first for garbage."""

import gc
import os
import shutil
import signal
import threading

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; the processes that tests start take it over
os.environ.setdefault("KERAS_BACKEND", "torch")  # before Keras is, whichever test does that first
os.environ.setdefault(
    "RAY_TQDM_PATCH_PRINT", "0"
)  # else Ray replaces `print`, and who keeps the old one can't be pickled

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    # A shell leaves it so to what it starts in the background; what tests start is to be interrupted all the same.
    signal.signal(signal.SIGINT, signal.default_int_handler)


LONG = (
    "/gallery/",
    "test_faithful",
    "test_tutorials",
    "/integrations/",
    "/trials/",
    "test_on_ray",
    "/examples/",
    "test_cli.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take minutes come first, so that no process is left alone with one at the end.

    What starts processes or a browser can lose a race with all else this machine does: it runs once more, and the summary says RERUN.
    """
    items.sort(key=lambda item: not any(part in item.nodeid for part in LONG))
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.flaky(reruns=1))


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()


@pytest.fixture
def session_of(tmp_path):
    """Runs a script under a session that samples every step, and gives the session, what it kept included; no experiments are made."""
    import torch

    from unstuck.watcher.session import Session

    sessions = []

    def run(script, *, every=True, **settings):
        torch.manual_seed(0)
        session = Session(
            tmp_path / f"session-{len(sessions)}.sqlite", **{"budget": 1.0, "probe_budget": 0.15} | settings
        )
        session.cadence.wants = (lambda step: True) if every else session.cadence.wants
        sessions.append(session)
        session.attach()
        try:
            script()
        finally:
            session.closed = True
            session._finish()
            session.detach()
        assert not session._errors, session._errors
        return session

    yield run
    for session in sessions:
        session.capture.close()
        session.writer.close(status="finished")


@pytest.fixture(scope="module")
def cluster():
    """A Ray of this machine, to which this process is connected."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    kept = signal.getsignal(signal.SIGTERM)
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
    signal.signal(signal.SIGTERM, kept)
    yield made
    ray.shutdown()
    made.shutdown()


# A canvas keeps no text: what is written on it is noted down as it is written.
NOTE_TEXTS = """
window.written = [];
const write = CanvasRenderingContext2D.prototype.fillText;
CanvasRenderingContext2D.prototype.fillText = function (text, ...rest) {
  window.written.push([this.canvas.closest("figure")?.id ?? "", String(text)]);
  return write.call(this, text, ...rest);
};
"""


@pytest.fixture(scope="module")
def browser():
    """A Chromium, where there is one."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium was found on the PATH")
    arguments = [
        "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync",
    ]  # fmt: skip
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=chromium, args=arguments)
        yield started
        started.close()


@pytest.fixture
def browsed(browser):
    """Opens an address as a page, whose `written` are texts on its canvases; afterwards nothing may have been said, nor asked of others."""
    troubles = []
    contexts = []

    def open_page(url, width, scheme, *, own="file:", patience=None, **settings):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **settings)
        contexts.append(context)
        page = context.new_page()
        if patience is not None:
            page.set_default_timeout(patience)
        page.add_init_script(NOTE_TEXTS)
        page.on("console", lambda message: troubles.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: troubles.append(f"error: {error}"))
        page.on("request", lambda r: None if r.url.startswith((own, "data:")) else troubles.append(r.url))
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert troubles == []
