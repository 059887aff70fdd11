"""Examples that end each command's help: lines to copy, each with what it does."""

from __future__ import annotations

from unstuck._language import _, marked

EXAMPLES: dict[str, tuple[tuple[str, str], ...]] = {
    "": (
        ("unstuck run train.py", marked("what is wrong with the training")),
        ("unstuck cure train.py", marked("what helps, proved")),
        ("unstuck explain vanishing-gradient", marked("what a finding means")),
    ),
    "run": (
        ("unstuck run train.py --epochs 5", marked("any script with its arguments")),
        ("unstuck run -m package.train --epochs 5", marked("or a module")),
        ("unstuck run --html report.html train.py", marked("and a page to look at")),
        ("unstuck run --fail-on error train.py", marked("in CI: exit code 3 when it is sick")),
    ),
    "cure": (
        ("unstuck cure train.py", marked("try, and prove what helps")),
        ("unstuck cure --diff --write better.py train.py", marked("show the change, write it")),
        ("unstuck cure --budget 10m --workers 4 train.py", marked("longer, four runs at a time")),
    ),
    "curvature": (
        ("unstuck curvature train.py", marked("what lies under it")),
        ("unstuck curvature --budget 2m --html c.html train.py", marked("longer, as a page")),
    ),
    "batch": (
        ("unstuck batch train.py", marked("the batch size, and the rate with it")),
        ("unstuck batch --prove train.py", marked("and train with both, to be sure")),
    ),
    "search": (
        ("unstuck search train.py", marked("rate, optimizer, ...")),
        ("unstuck search --vary=--hidden=16..512:log train.py", marked("one of its arguments")),
        ("unstuck search --evaluations 100 space.py", marked("a space of your own")),
        ("unstuck search --resume train.py", marked("go on with the last one")),
    ),
    "diagnose": (
        ("unstuck diagnose .unstuck/20250304-102231-train", marked("a run's folder")),
        ("unstuck diagnose 20250304-102231-train --html r.html", marked("or its name; as a page")),
        ("unstuck diagnose RUN --set dead-units.fraction=0.8", marked("with another threshold")),
        ("unstuck diagnose RUN --format markdown", marked("for a pull request")),
    ),
    "runs": (
        ("unstuck runs", marked("those in .unstuck")),
        ("unstuck runs --runs results", marked("those in another folder")),
    ),
    "view": (
        ("unstuck view", marked("the runs in .unstuck, as they grow")),
        ("unstuck view 20250304-102231-train", marked("beginning with one of them")),
        ("unstuck view --runs /mnt/shared/runs", marked("those another machine writes")),
    ),
    "explain": (
        ("unstuck explain vanishing-gradient", marked("a cause")),
        ("unstuck explain overfitting | less", marked("a long page by pages")),
    ),
    "schema": (
        ("unstuck schema > verdict.schema.json", marked("keep it beside your code")),
        ("unstuck schema cure", marked("of what `unstuck cure --json` writes")),
    ),
    "rules": (
        ("unstuck rules", marked("a line or two each")),
        ("unstuck rules --json", marked("with all thresholds")),
    ),
}


def epilog(command: str) -> str:
    """The examples of a command in the language that is spoken, as typer takes them: a paragraph that is shown as it is.

    Args:
        command: Its name; "" for the program itself.
    """
    examples = EXAMPLES[command]
    width = max(len(line) for line, _ in examples)
    told = [f"  {line:{width}}  {_(means)}" for line, means in examples]
    return "\n".join(["\b", _("Examples:"), *told])
