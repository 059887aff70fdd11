"""What curvature costs, beside other tools: one product with a Hessian, and the products that questions take.

    python benchmarks/curvature.py [--data DIR] [--only cost,mlp-150,mlp-2000,cnn-150,signs] [--json FILE]

Every tool answers the same questions about the same networks with the same data: the five largest eigenvalues, the most negative one
and the trace, each to 1%. The truth is another program's, in float64: for eigenvalues scipy's ARPACK, for the trace the exact sum over
samples and classes, for signs the dense Hessian. Other tools are measured where they are installed (PyHessian,
hessian-eigenthings, curvlinops-for-pytorch, which wants linear_operator, einops and einconv); they need not be. Our own needs
scipy for the truth. All of it takes a quarter of an hour; `--only cnn-150-trained` is one part.

How the settings of the others are found: each is given several, from cheap to dear, and the cheapest whose true error is at most 1%
counts (`cheapest right`). That is knowledge its user hasn't got. Where a tool tells itself whether it has converged, a second row
goes by that: more and more products until it says so, all of them counted (`by its own word`). Ours has no setting: it stops by
itself. Products are those of the question; what `Hessian` spends on choosing its way and checking itself is in the times.

DIR holds MNIST's test files, `t10k-images-idx3-ubyte.gz` and `t10k-labels-idx1-ubyte.gz`; without it scikit-learn's digits stand in.
One thread. Each time is the best of some, taken in turn; on a shared machine only ratios within one run mean anything.
"""

from __future__ import annotations

import argparse
import copy
import gc
import gzip
import importlib
import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn

from measure import machine, machine_line, table, write_json
from unstuck.curvature.density import counted, counts, matrix
from unstuck.curvature.objective import Objective
from unstuck.curvature.products import Hessian
from unstuck.curvature.spectrum import extremes
from unstuck.curvature.trace import trace

GOAL = 0.01  # relative error
SEEDS = (1, 2, 3)  # of traces: by chance one of them may be right
QUESTIONS = ("top 5", "most negative", "trace")


@dataclass(frozen=True)
class Problem:
    """A network at some time of its training, with data."""

    name: str
    module: nn.Module
    x: Tensor
    y: Tensor

    def objective(self) -> Objective:
        return Objective(lambda b: F.cross_entropy(self.module(b[0]), b[1]), self.module, [(self.x, self.y)])


@dataclass(frozen=True)
class Answer:
    """What a tool said, and what it took."""

    values: list[float]
    products: int
    seconds: float
    note: str = ""


@dataclass(frozen=True)
class Row:
    problem: str
    question: str
    tool: str
    error: float
    products: int
    seconds: float
    note: str


# ---------------------------------------------------------------------- networks and data


def images(folder: Path | None, count: int) -> tuple[Tensor, Tensor, str]:
    """Images of 28 x 28 in float32 with zero mean, and labels."""
    if folder is None:
        from sklearn.datasets import load_digits

        data = load_digits()
        x = F.interpolate(torch.tensor(data.images, dtype=torch.float32)[:, None] / 16, size=28)
        y, name = torch.tensor(data.target), "digits, enlarged"
    else:
        raw = gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes())
        x = torch.frombuffer(bytearray(raw), dtype=torch.uint8, offset=16).reshape(-1, 1, 28, 28).float() / 255
        labels = gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes())
        y, name = torch.frombuffer(bytearray(labels), dtype=torch.uint8, offset=8).long(), "MNIST's test images"
    pick = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:count]
    return (x[pick] - x.mean()) / x.std(), y[pick], name


def mlp() -> nn.Module:
    """235,146 parameters."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)
    )


def cnn() -> nn.Module:
    """99,550 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1568, 60), nn.ReLU(), nn.Linear(60, 10),
    )  # fmt: skip


class Transformer(nn.Module):
    """Two layers over 64 tokens of 128 numbers, 397,834 parameters."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(128, 4, 512, dropout=0.0, batch_first=True)
        self.layers, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x).mean(1))


class Recurrent(nn.Module):
    """An LSTM of 128 units over 32 steps, read at the last."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.LSTM(64, 128, batch_first=True), nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x)[0][:, -1])


def trained(module: nn.Module, x: Tensor, y: Tensor, *, steps: int, seed: int = 0) -> nn.Module:
    """The module after some steps of Adam in batches of 64."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(module.parameters(), 1e-3)
    for _ in range(steps):
        pick = torch.randint(len(x), (64,), generator=generator)
        optimizer.zero_grad()
        F.cross_entropy(module(x[pick]), y[pick]).backward()
        optimizer.step()
    return module


def problems(name: str, folder: Path | None) -> Iterator[Problem]:
    """The network of a name like `mlp-150`, untrained and trained; of `mlp-150-trained` or `-untrained`, that alone."""
    kind, count, *only = name.split("-")
    x, y, _ = images(folder, int(count))
    for stage, steps in (("untrained", 0), ("trained", 150)):
        if stage in (only or [stage]):
            torch.manual_seed(0)
            module = trained({"mlp": mlp, "cnn": cnn}[kind](), x, y, steps=steps)
            yield Problem(f"{kind}-{count}, {stage}", module, x, y)


# ---------------------------------------------------------------------- what one product costs


@dataclass(frozen=True)
class Cost:
    """Of one product, in gradients."""

    network: str
    parameters: int
    way: str
    time: float
    memory: float
    memory_above: float
    milliseconds: float


def cost(name: str, module: nn.Module, x: Tensor, y: Tensor, *, rounds: int) -> Cost:
    objective = Objective(lambda b: F.cross_entropy(module(b[0]), b[1]), module, [(x, y)])
    params = list(module.parameters())
    hessian, vector = Hessian(objective), torch.randn(objective.size)

    def gradient() -> Any:
        return torch.autograd.grad(F.cross_entropy(module(x), y), params)

    best = [math.inf, math.inf]
    for _ in range(rounds):
        for i, one in enumerate((gradient, lambda: hessian @ vector)):
            began = time.perf_counter()
            one()
            best[i] = min(best[i], time.perf_counter() - began)
    ours, plain = peak(lambda: several(hessian, vector)), peak(gradient)
    there = sum(t.nbytes for t in (*params, x, y))
    return Cost(
        name,
        objective.size,
        hessian.way,
        best[1] / best[0],
        (ours + there) / (plain + there),
        ours / plain,
        best[0] * 1e3,
    )


def several(hessian: Hessian, vector: Tensor) -> Tensor:
    """Two products, one after the other: with a kept graph, the first makes it."""
    hessian._graph = None
    hessian @ vector  # pyright: ignore[reportUnusedExpression]
    return hessian @ vector


def peak(run: Callable[[], Any]) -> int:
    """The most bytes that something held at one time, above what was there before."""
    run(), gc.collect()
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        made = run()
    del made
    held, most = 0, 0
    assert profile.kineto_results is not None
    for event in sorted(profile.kineto_results.events(), key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


def costs(rounds: int) -> list[Cost]:
    torch.manual_seed(0)
    networks = {
        "MLP, batch 150": (mlp(), torch.randn(150, 784)),
        "CNN, batch 96": (cnn(), torch.randn(96, 1, 28, 28)),
        "transformer, batch 8": (Transformer(), torch.randn(8, 64, 128)),
        "LSTM, batch 32": (Recurrent(), torch.randn(32, 32, 64)),
    }
    return [cost(n, m, x, torch.randint(10, (len(x),)), rounds=rounds) for n, (m, x) in networks.items()]


# ---------------------------------------------------------------------- the truth


def truth(problem: Problem) -> dict[str, list[float]]:
    """Answers of another program, in float64."""
    module = copy.deepcopy(problem.module).double()
    params = list(module.parameters())
    loss = F.cross_entropy(module(problem.x.double()), problem.y)
    grads = torch.autograd.grad(loss, params, create_graph=True)
    size = sum(p.numel() for p in params)

    def product(vector: np.ndarray) -> np.ndarray:
        parts = torch.tensor(vector.reshape(-1)).split([p.numel() for p in params])
        vectors = [v.view_as(p) for v, p in zip(parts, params, strict=True)]
        made = torch.autograd.grad(grads, params, vectors, retain_graph=True)
        return torch.cat([m.reshape(-1) for m in made]).numpy()

    operator = LinearOperator((size, size), matvec=product, dtype=np.float64)  # pyright: ignore
    start = np.random.default_rng(1).standard_normal(size)
    top = eigsh(operator, 5, which="LA", tol=1e-5, ncv=30, v0=start, return_eigenvectors=False)
    low = eigsh(operator, 1, which="SA", tol=1e-3, ncv=60, v0=start, return_eigenvectors=False)
    return {
        "top 5": sorted(map(float, top), reverse=True), "most negative": [float(low[0])],
        "trace": [exact_trace(module, problem.x.double())],
    }  # fmt: skip


def exact_trace(module: nn.Module, x: Tensor) -> float:
    """The trace of the Hessian of a network of ReLU and pooling with cross-entropy, a sample and a class at a time.

    Along each single weight such a network is a straight line almost everywhere, so that the diagonal is that of the Gauss-Newton
    matrix: of J' (diag p - p p') J, with the factor S = diag sqrt(p) - p sqrt(p)'.
    """
    params = dict(module.named_parameters())

    def squares(sample: Tensor, column: Tensor) -> Tensor:
        def along(params: dict[str, Tensor]) -> Tensor:
            return torch.func.functional_call(module, params, sample[None])[0] @ column

        return sum((g.square().sum() for g in torch.func.grad(along)(params).values()), torch.zeros(()))

    share = module(x).detach().softmax(1)
    factors = share.sqrt().diag_embed() - share[:, :, None] * share.sqrt()[:, None, :]
    chunks = range(0, len(x), 50)
    total = sum(
        float(torch.func.vmap(squares)(x[i : i + 50], factors[i : i + 50, :, c]).sum())
        for i in chunks
        for c in range(10)
    )
    return total / len(x)


def off(values: list[float], true: list[float]) -> float:
    """Largest relative error."""
    if len(values) < len(true):
        return math.inf
    pairs = zip(sorted(values, reverse=True), sorted(len(values) // len(true) * true, reverse=True), strict=False)
    return max(abs(v - t) / abs(t) for v, t in pairs)


# ---------------------------------------------------------------------- tools

Tool = Callable[[Problem, str], Iterator[Answer]]


def averaged(answers: Iterator[Answer]) -> Answer:
    """Answers with several seeds as one: all their values, and the mean of what they took."""
    found = list(answers)
    values = [v for a in found for v in a.values]
    mean = sum(a.products for a in found) / len(found), sum(a.seconds for a in found) / len(found)
    return Answer(values, round(mean[0]), mean[1], found[-1].note)


def ours(problem: Problem, question: str) -> Iterator[Answer]:
    """One answer: it stops by itself."""
    began = time.perf_counter()
    hessian = Hessian(problem.objective())
    if question == "trace":
        found = trace(hessian)
        yield Answer(
            [found.value], found.products, time.perf_counter() - began, f"says ± {found.error / abs(found.value):.1%}"
        )
        return
    top = 5 if question == "top 5" else 0
    found = extremes(hessian, top=top, bottom=1 - min(top, 1), most=200)
    end = found.top if top else found.bottom
    yield Answer(
        end.values, found.products, time.perf_counter() - began, "" if end.converged else "not called converged"
    )


def pyhessian(problem: Problem, question: str) -> Iterator[Answer]:
    tool = importlib.import_module("pyhessian.hessian")

    if question == "most negative":
        return
    for tol in (1e-2, 1e-3, 1e-4) if question == "top 5" else (None,):
        made, plain = [0], tool.hessian_vector_product

        def counted_product(*arguments: Any, made: list[int] = made, plain: Any = plain) -> Any:
            made[0] += 1
            return plain(*arguments)

        tool.hessian_vector_product = counted_product
        try:
            began = time.perf_counter()
            run = tool.hessian(problem.module.eval(), F.cross_entropy, data=(problem.x, problem.y), cuda=False)
            if tol is None:
                values = [float(np.mean(run.trace(maxIter=100, tol=1e-3)))]
            else:
                values = [float(v) for v in run.eigenvalues(top_n=5, maxIter=200, tol=tol)[0]]
            yield Answer(
                values, made[0], time.perf_counter() - began, "its stop rule" if tol is None else f"tol {tol:g}"
            )
        finally:
            tool.hessian_vector_product = plain
            problem.module.zero_grad()


def eigenthings(problem: Problem, question: str) -> Iterator[Answer]:
    import hessian_eigenthings as tool

    for budget in (10, 12, 15, 20, 30, 40, 60, 80, 120):
        began = time.perf_counter()
        operator = tool.HessianOperator(problem.module, [(problem.x, problem.y)], tool.supervised_loss(F.cross_entropy))
        if question == "trace":
            values = [float(tool.trace(operator, num_matvecs=budget, seed=seed).estimate) for seed in SEEDS]
            yield Answer(values, budget, (time.perf_counter() - began) / len(SEEDS), f"Hutch++ of {budget}")
            continue
        k, which = (5, "LA") if question == "top 5" else (1, "SA")
        found = tool.lanczos(
            operator,
            k=k,
            max_iter=budget,
            tol=GOAL,
            which=which,
            seed=0,
            reorthogonalize=True,  # pyright: ignore
        )
        note = "converged" if bool(torch.as_tensor(found.converged).all()) else "not converged"
        values = [float(v) for v in found.eigenvalues]
        yield Answer(values, int(found.iterations), time.perf_counter() - began, f"{budget} steps, {note}")


def curvlinops(problem: Problem, question: str) -> Iterator[Answer]:
    import curvlinops as tool

    settings = (20, 40, 60, 80, 100) if question == "trace" else (0.1, 1e-2, 1e-3, 1e-4)
    for setting in settings:
        began = time.perf_counter()
        params = {n: p for n, p in problem.module.named_parameters() if p.requires_grad}
        operator = tool.HessianLinearOperator(
            problem.module,
            nn.CrossEntropyLoss(),
            list(params.values()),
            [(problem.x, problem.y)],
            check_deterministic=False,
        )
        if question == "trace":
            torch.manual_seed(0)
            values = [float(tool.xtrace(operator, int(setting))) for _ in SEEDS]
            seconds = (time.perf_counter() - began) / len(SEEDS)
            yield Answer(values, int(setting), seconds, f"XTrace of {setting}")
            continue
        made = [0]
        inner = operator.to_scipy()

        def product(vector: np.ndarray, made: list[int] = made, inner: Any = inner) -> np.ndarray:
            made[0] += 1
            return inner @ vector

        plain = LinearOperator(inner.shape, matvec=product, dtype=inner.dtype)  # pyright: ignore
        k, which = (5, "LA") if question == "top 5" else (1, "SA")
        start = np.random.default_rng(0).standard_normal(inner.shape[0]).astype(np.float32)
        values = eigsh(plain, k, which=which, tol=setting, v0=start, maxiter=50, return_eigenvectors=False)
        yield Answer([float(v) for v in values], made[0], time.perf_counter() - began, f"eigsh, tol {setting:g}")


TOOLS: dict[str, tuple[str, Tool]] = {
    "PyHessian": ("PyHessian", pyhessian),
    "hessian-eigenthings": ("hessian-eigenthings", eigenthings),
    "curvlinops": ("curvlinops-for-pytorch", curvlinops),
}


def installed() -> dict[str, Tool]:
    found = {}
    for name, (package, tool) in TOOLS.items():
        try:
            found[f"{name} {version(package)}"] = tool
        except PackageNotFoundError:
            continue
    return found


def compared(problem: Problem, peers: dict[str, Tool], repeats: int) -> tuple[list[Row], dict[str, list[float]]]:
    """All tools on all questions."""
    true, rows = truth(problem), []
    for question in QUESTIONS:
        best = min((next(ours(problem, question)) for _ in range(repeats)), key=lambda a: a.seconds)
        error = off(best.values, true[question])
        rows.append(Row(problem.name, question, "unstuck", error, best.products, best.seconds, best.note))
        for name, tool in peers.items():
            rows += judged(problem, question, name, tool, true[question])
    return rows, true


def judged(problem: Problem, question: str, name: str, tool: Tool, true: list[float]) -> Iterator[Row]:
    """The cheapest setting that is right, and what a tool takes by its own word."""
    spent, seconds, last, right = 0, 0.0, None, False
    said = question == "trace"
    for answer in tool(problem, question):
        error = off(answer.values, true)
        spent, seconds, last = spent + answer.products, seconds + answer.seconds, answer
        if error <= GOAL and not right:
            right = True
            yield Row(
                problem.name, question, name, error, answer.products, answer.seconds, f"cheapest right: {answer.note}"
            )
        if not said and answer.note.endswith(", converged"):
            said = True
            yield Row(problem.name, question, name, error, spent, seconds, f"by its own word: {answer.note}")
        if right and (said or "eigenthings" not in name):
            return
    if last is not None and not right:
        note = f"never right: {last.note}"
        yield Row(problem.name, question, name, off(last.values, true), last.products, last.seconds, note)


# ---------------------------------------------------------------------- signs


def small(activation: type[nn.Module]) -> nn.Module:
    return nn.Sequential(nn.Linear(64, 17), activation(), nn.Linear(17, 10), activation(), nn.Linear(10, 10))


def signs(steps: int) -> list[tuple[str, str, str, float]]:
    """Shares of positive, vanishing and negative eigenvalues, dense and by quadrature."""
    from sklearn.datasets import load_digits

    data = load_digits()
    x, y = torch.tensor(data.data[:300], dtype=torch.float64) / 8 - 1, torch.tensor(data.target[:300])
    rows = []
    for activation in (nn.Tanh, nn.ReLU):
        for count in (0, 100, 1000):
            torch.manual_seed(0)
            problem = Problem("", trained(small(activation).double(), x, y, steps=count), x, y)
            dense = counted(torch.linalg.eigvalsh(matrix(Hessian(problem.objective(), check=False))))
            single = Problem("", problem.module.float(), x.float(), y)
            found = counts(Hessian(single.objective(), check=False), dense=0, steps=steps)
            error = max(abs(a - b) for a, b in zip(shares(found), shares(dense), strict=True))
            told = f"{text(shares(found))} ± {found.error:.3f}"
            rows.append((f"{activation.__name__}, {count} steps", text(shares(dense)), told, error))
    return rows


def shares(found: Any) -> tuple[float, float, float]:
    return found.positive, found.zero, found.negative


def text(numbers: tuple[float, ...]) -> str:
    return " / ".join(f"{n:.3f}" for n in numbers)


# ---------------------------------------------------------------------- all


def main() -> None:
    parser = argparse.ArgumentParser(description="What curvature costs, beside other tools.")
    parser.add_argument("--data", type=Path, help="folder with MNIST's test files")
    parser.add_argument("--only", default="cost,mlp-150,mlp-2000,cnn-150,signs", help="by commas")
    parser.add_argument("--rounds", type=int, default=20, help="of timing one product")
    parser.add_argument("--repeats", type=int, default=2, help="of our answers, of which the fastest counts")
    parser.add_argument("--peers", default="all", help="`none` leaves other tools out")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    facts = machine("cpu")
    print(machine_line(facts), "\n")
    kept: dict[str, Any] = {"machine": facts, "rows": [], "costs": []}
    for part in options.only.split(","):
        if part == "cost":
            found = costs(options.rounds)
            kept["costs"] = [asdict(c) for c in found]
            head = ("network", "parameters", "way", "time", "peak memory", "without weights and data")
            print(table(head, [told_cost(c) for c in found]), "\n")
        elif part == "signs":
            rows = signs(80)
            print(table(("network, 1,455 parameters", "dense, float64: + / 0 / -", "10 x 80 products", "off by"),
                        [(a, b, c, f"{d:.3f}") for a, b, c, d in rows]), "\n")  # fmt: skip
        else:
            peers = {} if options.peers == "none" else installed()
            for problem in problems(part, options.data):
                rows, true = compared(problem, peers, options.repeats)
                kept["rows"] += [asdict(r) for r in rows]
                print(f"#### {problem.name}\n\n{told(true)}\n")
                print(
                    table(("question", "tool", "true error", "products", "time", "how"), lines(rows)), "\n", flush=True
                )
    write_json(options.json, kept)


def told_cost(cost: Cost) -> tuple[str, ...]:
    return (
        cost.network, f"{cost.parameters:,}", cost.way, f"{cost.time:.2f}", f"{cost.memory:.2f}", f"{cost.memory_above:.2f}"
    )  # fmt: skip


def told(true: dict[str, list[float]]) -> str:
    top = ", ".join(f"{v:.4g}" for v in true["top 5"])
    return f"Truth: top {top}; most negative {true['most negative'][0]:.4g}; trace {true['trace'][0]:.5g}."


def lines(rows: list[Row]) -> list[tuple[str, ...]]:
    """Times as multiples of ours."""
    first = {r.question: r for r in rows if r.tool == "unstuck"}
    return [
        (r.question, r.tool, f"{r.error:.2%}", str(r.products), f"{r.seconds / first[r.question].seconds:.1f}", r.note)
        for r in rows
    ]


if __name__ == "__main__":
    main()
