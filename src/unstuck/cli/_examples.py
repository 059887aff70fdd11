"""Examples that end each command's help: lines to copy, each with what it does."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[tuple[str, str], ...]] = {
    "": (
        ("unstuck run train.py", "what is wrong with the training"),
        ("unstuck cure train.py", "what helps, proved"),
        ("unstuck explain vanishing-gradient", "what a finding means"),
    ),
    "run": (
        ("unstuck run train.py --epochs 5", "any script with its arguments"),
        ("unstuck run -m package.train --epochs 5", "or a module"),
        ("unstuck run --html report.html train.py", "and a page to look at"),
        ("unstuck run --fail-on error train.py", "in CI: exit code 3 when it is sick"),
    ),
    "cure": (
        ("unstuck cure train.py", "try, and prove what helps"),
        ("unstuck cure --diff --write better.py train.py", "show the change, write it"),
        ("unstuck cure --budget 10m --workers 4 train.py", "longer, four runs at a time"),
    ),
    "curvature": (
        ("unstuck curvature train.py", "what lies under it"),
        ("unstuck curvature --budget 2m --html c.html train.py", "longer, as a page"),
    ),
    "batch": (
        ("unstuck batch train.py", "the batch size, and the rate with it"),
        ("unstuck batch --prove train.py", "and train with both, to be sure"),
    ),
    "search": (
        ("unstuck search train.py", "rate, optimizer, ..."),
        ("unstuck search --vary=--hidden=16..512:log train.py", "one of its arguments"),
        ("unstuck search --evaluations 100 space.py", "a space of your own"),
        ("unstuck search --resume train.py", "go on with the last one"),
    ),
    "diagnose": (
        ("unstuck diagnose .unstuck/20250304-102231-train", "a run's folder"),
        ("unstuck diagnose 20250304-102231-train --html r.html", "or its name; as a page"),
        ("unstuck diagnose RUN --set dead-units.fraction=0.8", "with another threshold"),
        ("unstuck diagnose RUN --format markdown", "for a pull request"),
    ),
    "runs": (
        ("unstuck runs", "those in .unstuck"),
        ("unstuck runs --runs results", "those in another folder"),
    ),
    "view": (
        ("unstuck view", "the runs in .unstuck, as they grow"),
        ("unstuck view 20250304-102231-train", "beginning with one of them"),
        ("unstuck view --runs /mnt/shared/runs", "those another machine writes"),
    ),
    "explain": (
        ("unstuck explain vanishing-gradient", "a cause"),
        ("unstuck explain overfitting | less", "a long page by pages"),
    ),
    "schema": (
        ("unstuck schema > verdict.schema.json", "keep it beside your code"),
        ("unstuck schema cure", "of what `unstuck cure --json` writes"),
    ),
    "rules": (
        ("unstuck rules", "a line or two each"),
        ("unstuck rules --json", "with all thresholds"),
    ),
}


def epilog(command: str) -> str:
    """The examples of a command, as typer takes them: a paragraph that is shown as it is.

    Args:
        command: Its name; "" for the program itself.
    """
    examples = EXAMPLES[command]
    width = max(len(line) for line, _ in examples)
    told = [f"  {line:{width}}  {means}" for line, means in examples]
    return "\n".join(["\b", "Examples:", *told])
