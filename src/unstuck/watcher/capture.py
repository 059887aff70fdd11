"""Keeps the last few losses of a training as tapes, so that experiments can compute them again when the script has ended.

What is kept is small: the data of some batches, the network's first values, and references to modules and optimizer. These
references keep a network alive that the script has let go of; when the garbage is collected and nobody but us holds it,
we let go of it too. A network too large for copies is not kept at all.
"""

from __future__ import annotations

import gc
import math
import sys
from typing import Any

import torch
from torch import Tensor

from unstuck._language import marked
from unstuck.probes.bench import Training, tensors_of
from unstuck.probes.pool import from_loader
from unstuck.probes.tape import Recording, Tape
from unstuck.watcher.labels import label_counts
from unstuck.watcher.scores import score_of

MOST_TAPES = 32
MOST_BATCH_BYTES = 64 << 20  # of all kept batches
MOST_BYTES = 256 << 20  # of a network and what its optimizer keeps, to be copied
MOST_INITIAL_BYTES = 32 << 20


class Capture:
    """What is kept of a training for experiments on copies.

    Args:
        wanted: Whether there will be any.
        most_bytes: Of a network, above which nothing is kept; 0 for what other experiments bear.

    Attributes:
        large: The network is too large for all experiments but those that this capture was made for.
        step: At which the last loss was kept.
    """

    def __init__(self, *, wanted: bool, most_bytes: int = 0) -> None:
        self.wanted, self.most_bytes = wanted, most_bytes
        self.large = False
        self.step = -1
        self.tapes: list[Tape] = []
        self.initial: list[Tensor] = []
        self.optimizer: Any = None
        self.why_not = marked("no sampled step led to a loss")
        self.first_rate = math.nan
        if wanted:
            gc.callbacks.append(self._collecting)

    def keep(
        self, recording: Recording, root: Tensor, output: Tensor | None, target: Tensor | None, session: Any
    ) -> None:
        """Keeps a loss whose backward begins.

        Args:
            recording: The calls that led to it.
            root: The loss.
            output: What the loss function took, None when unknown.
            target: What it was compared with.
            session: Knows optimizer and step.
        """
        if not self.wanted:
            return
        try:
            tape = recording.seal(root, output=output, target=target)
        except ValueError as error:
            self.why_not = str(error)
            return
        loader = session.data.last_loader
        if loader is not None:
            from_loader(tape, loader, [t for t in (ref() for ref in session.data.batch) if t is not None])
        whole = tape.pool(tape.inputs[0]) if tape.inputs else None
        session.data.cut_from = len(whole) if whole is not None else 0
        tensors = tensors_of(tape.modules, tape.trained)
        size = sum(_bytes(t) for t in tensors)
        self.large = size > MOST_BYTES / 4
        if size > max(self.most_bytes, MOST_BYTES / 4):
            self.wanted, self.why_not = False, marked("the network is too large to be copied")
            self.release()
            return
        lead = session.optimizers.lead
        if self.tapes and _other_network(self.tapes[-1], tape, remade=lead is None):
            self.release()
        if not self.tapes:
            self._keep_start(tensors, session)
        self.optimizer = lead.ref() if lead is not None else None
        tape.leave_large_memory()
        self.step = session.step
        if self.tapes and _same_data(self.tapes[-1], tape):
            self.tapes[-1] = tape
        else:
            for earlier in self.tapes:
                earlier.pools.clear()  # of which only the last one's are drawn from: a script may load one after another
            self.tapes.append(tape)
        while len(self.tapes) > 1 and (
            len(self.tapes) > MOST_TAPES or sum(t.num_bytes for t in self.tapes) > MOST_BATCH_BYTES
        ):
            del self.tapes[len(self.tapes) // 4]  # thins out the early ones, the first few stay longest
        if self.tapes[-1].num_bytes > MOST_BATCH_BYTES:
            self.release()
            self.why_not = marked("a batch is too large to be kept")

    def _keep_start(self, tensors: list[Tensor], session: Any) -> None:
        self.initial = []
        if session.step == 0 and sum(_bytes(t) for t in tensors) <= max(MOST_INITIAL_BYTES, self.most_bytes // 4):
            with torch.no_grad():
                self.initial = [t.detach().clone() for t in tensors]

    def release(self) -> None:
        """Lets go of everything."""
        self.tapes.clear()
        self.initial = []
        self.optimizer = None

    def close(self) -> None:
        """Lets go of everything for good."""
        self.wanted = False
        self.release()
        if self._collecting in gc.callbacks:
            gc.callbacks.remove(self._collecting)

    def training(self, session: Any) -> Training | None:
        """What experiments need; None when there is nothing to experiment with."""
        if not self.tapes:
            return None
        losses, lead = session.losses, session.optimizers.lead
        main = losses.main
        optimizer = self.optimizer
        if optimizer is None and lead is not None:  # it had not yet stepped when the last loss was kept
            optimizer = lead.ref()
        rates = session.optimizers.rate() if lead is not None else session.optimizers.hand_rate

        def score(output: Tensor, target: Tensor) -> float:
            return score_of(losses.main, output.detach(), target)

        def counts(output: Tensor, target: Tensor) -> list[list[float]] | None:
            if main is None or main.kind not in ("class index", "one-hot", "binary", "multi-label"):
                return None
            output = output.detach().exp() if main.logged else output.detach()
            found = label_counts(main, output, target)
            return None if found is None else found.tolist()

        return Training(
            tapes=list(self.tapes), initial=self.initial, optimizer=optimizer, rate=rates,
            first_rate=lead.first_rate if lead is not None else rates,
            clipping=lead.clipping if lead is not None else "",
            score=score if main is not None and main.score and main.score != "perplexity" else None,
            score_name=main.score if main is not None else "", batch_size=max(1, session.data.batch_size),
            num_classes=main.num_classes if main is not None else 0, steps=session.step,
            counts=counts, names=_names(self.tapes[-1], session.registry),
            snapshots=session.snapshots.kept if session.snapshots is not None else (),
            kind=main.kind if main is not None and not (main.logged and main.kind in ("binary", "multi-label")) else "",
            ignored=int(main.settings.get("ignore_index", -100)) if main is not None else -100,
        )  # fmt: skip

    def _collecting(self, phase: str, info: dict[str, int]) -> None:
        """Lets go of a network that nobody else holds."""
        if info.get("generation") != 2 or not self.tapes:  # before, and after what held it is gone
            return
        held = self.tapes[-1].modules or self.tapes[-1].trained
        if held and sys.getrefcount(held[0]) - 1 <= self._references(held[0]):
            self.release()
            self.why_not = marked("the script let go of the network")

    def _references(self, one: Any) -> int:
        """How often a module or tensor is held by us, and by an optimizer that nobody but us holds."""
        ours = sum(1 for tape in self.tapes for m in (tape.modules or tape.trained) if m is one)
        if self.optimizer is None or not isinstance(one, Tensor) or sys.getrefcount(self.optimizer) - 1 > 1:
            return ours
        groups = self.optimizer.param_groups
        return ours + sum(p is one for group in groups for p in group["params"]) + (one in self.optimizer.state)


def _names(tape: Tape, registry: Any) -> list[str]:
    """Names of all tensors of a tape's network, "" for those that the record has none for."""
    known = {id(tensor): state.name for state, tensor in registry.live_parameters()}
    return [known.get(id(t), "") for t in tensors_of(tape.modules, tape.trained)]


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _other_network(one: Tape, other: Tape, *, remade: bool) -> bool:
    """Whether two tapes are of different networks; updates written by hand may make tensors anew."""
    if one.modules or other.modules:
        return [id(m) for m in one.modules] != [id(m) for m in other.modules]
    if remade:
        return [t.shape for t in one.trained] != [t.shape for t in other.trained]
    return not {id(t) for t in one.trained} & {id(t) for t in other.trained}


def _same_data(one: Tape, other: Tape) -> bool:
    """Whether two tapes are of the same batch: full-batch training."""
    return len(one.data) == len(other.data) and all(
        a.data_ptr() == b.data_ptr() and a.shape == b.shape for a, b in zip(one.data, other.data, strict=True)
    )
