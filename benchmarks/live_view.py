"""Does a training notice that it is watched in a browser? The same training with and without `unstuck view` and an open page.

Each pair trains twice with the same seed, in turns, under `unstuck run`: once alone, and once while a server shows it to a client that
does what the page's script does (listen, fetch what is new, rest). Prints the ratio of wall times and of the processor time that the
training took (which other programs on the machine disturb less), and what the server itself took.

    python benchmarks/live_view.py [--pairs 5] [--steps 4000] [--clients 1]
"""

from __future__ import annotations

import argparse
import http.client
import os
import re
import statistics
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

TRAINING = """
    import sys, time
    import torch
    from torch import nn

    torch.manual_seed(0)
    x, y = torch.randn(2048, 1, 16, 16), torch.randint(0, 10, (2048,))
    net = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2304, 10))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    steps, began, worked = int(sys.argv[1]), 0.0, 0.0
    for step in range(steps):
        if step == 100:
            began, worked = time.perf_counter(), time.process_time()
        pick = torch.randint(0, 2048, (32,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x[pick]), y[pick]).backward()
        optimizer.step()
    print(time.perf_counter() - began, time.process_time() - worked)
"""


def main() -> None:
    """Prints one line a pair, then the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--clients", type=int, default=1)
    given = parser.parse_args()
    walls, works, shares = [], [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "train.py").write_text(textwrap.dedent(TRAINING))
        for pair in range(given.pairs):
            order = ("alone", "watched") if pair % 2 == 0 else ("watched", "alone")
            times, share, fetched = {}, 0.0, 0
            for how in order:
                if how == "alone":
                    times[how] = trained(folder, given.steps)
                else:
                    times[how], share, fetched = watched(folder, given.steps, given.clients)
            (wall, work), (watched_wall, watched_work) = times["alone"], times["watched"]
            walls.append(watched_wall / wall)
            works.append(watched_work / work)
            shares.append(share)
            print(f"pair {pair}: wall {wall:.2f} -> {watched_wall:.2f} s ({walls[-1]:.3f}), processor {work:.2f} -> {watched_work:.2f} s "
                  f"({works[-1]:.3f}); server {share:.1%} of a core, {fetched} pages", flush=True)  # fmt: skip
    wall, work, share = map(statistics.median, (walls, works, shares))
    print(f"median ratio: wall {wall:.3f}, processor {work:.3f}; server {share:.1%} of a core")


def trained(folder: Path, steps: int) -> tuple[float, float]:
    """Seconds of one training: wall, and processor."""
    command = [
        sys.executable,
        "-m",
        "unstuck",
        "run",
        "--quiet",
        "--probe-budget",
        "0",
        "--runs",
        "runs",
        "train.py",
        str(steps),
    ]
    said = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout
    wall, work = map(float, said.split())
    return wall, work


def watched(folder: Path, steps: int, clients: int) -> tuple[tuple[float, float], float, int]:
    """Seconds of one training that is watched, the server's share of a core meanwhile, and how many pages were fetched."""
    command = [sys.executable, "-m", "unstuck", "view", "--no-open", "--port", "0", "--runs", "runs"]
    server = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    found = re.search(r":(\d+)/", server.stdout.readline())
    assert found is not None
    port, fetched, over = int(found[1]), [0], threading.Event()
    before = {p.name for p in (folder / "runs").glob("*")} if (folder / "runs").exists() else set()

    def watch() -> None:
        while not (new := {p.name for p in (folder / "runs").glob("2*")} - before):
            time.sleep(0.05)
        name = new.pop()
        stream = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        stream.request("GET", f"/changes?run={name}")
        for line in stream.getresponse():
            if over.is_set():
                break
            if line.startswith(b"data: "):
                began = time.perf_counter()
                page = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                page.request("GET", f"/runs/{name}?part=main")
                page.getresponse().read()
                page.close()
                fetched[0] += 1
                time.sleep(max(1.0, 5 * (time.perf_counter() - began)))

    for _ in range(clients):
        threading.Thread(target=watch, daemon=True).start()
    cpu, began = cpu_of(server.pid), time.perf_counter()
    seconds = trained(folder, steps)
    share = (cpu_of(server.pid) - cpu) / (time.perf_counter() - began)
    over.set()
    server.terminate()
    server.wait()
    return seconds, share, fetched[0]


def cpu_of(pid: int) -> float:
    """Seconds a process has worked (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
