"""Lightning: a callback that watches `Trainer.fit`.

import lightning.pytorch as pl
from unstuck.integrations.lightning import UnstuckCallback

trainer = pl.Trainer(callbacks=[UnstuckCallback(html="report.html")])
trainer.fit(model, loader)
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Unpack

from unstuck.errors import MissingError
from unstuck.integrations._watched import Options, Watched
from unstuck.verdict import SEVERITIES, flatten

if TYPE_CHECKING:
    from lightning.pytorch import Callback

    from unstuck.verdict import Verdict
    from unstuck.watching import Watch
else:
    try:  # the callbacks of one package are none of the other's
        if "pytorch_lightning" in sys.modules and "lightning.pytorch" not in sys.modules:
            from pytorch_lightning import Callback
        else:
            from lightning.pytorch import Callback
    except ImportError:
        try:
            from pytorch_lightning import Callback
        except ImportError:
            raise MissingError(
                "unstuck.integrations.lightning needs Lightning, which isn't installed: pip install 'unstuck[lightning]'"
            ) from None

_AGREES_EVERY = 16  # steps after which processes agree on stopping
_EACH_BATCH = (
    "on_train_batch_start", "on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step",
    "on_validation_batch_start", "on_validation_batch_end",
)  # fmt: skip


class UnstuckCallback(Callback):
    """Watches a training, says when it has ended what is wrong with it, where, and how that is known.

    Recorded is what `fit` does after the sanity check. Experiments are made when the last step has been taken.

    Args:
        log: Give the verdict to the trainer's loggers when the training has ended, as metrics `unstuck/errors`,
            `unstuck/warnings`, `unstuck/notes` (counts of findings) and `unstuck/overhead` (the watcher's share of the time).
        **options: `html`, `json`, `report`, `fail_on`, `stop_on`, `budget`, `probe_budget` and `runs`, see `Watched`.

    Raises:
        MisuseError: An option can't be used as given.

    Attributes:
        run: The watch, from the training's start; None before.
        verdict: The verdict over what was recorded; None before.
    """

    def __init__(self, *, log: bool = False, **options: Unpack[Options]) -> None:
        super().__init__()
        self._watched, self._log = Watched(**options), log
        self._pass_over(stops=options.get("stop_on") is not None)

    def _pass_over(self, *, stops: bool) -> None:
        """Takes away the hooks that would be called at each batch for nothing: Lightning passes over what can't be called.

        It calls every hook in a context of its profiler, which costs more than all else that the callback does in a step. What
        a subclass has of its own stays.
        """
        unused = [name for name in _EACH_BATCH if getattr(type(self), name) is getattr(Callback, name)]
        if not stops and type(self).on_train_batch_end is UnstuckCallback.on_train_batch_end:
            unused.append("on_train_batch_end")
        for name in unused:
            setattr(self, name, None)

    @property
    def run(self) -> Watch | None:
        """The watch, from the training's start; None before."""
        return self._watched.run

    @property
    def verdict(self) -> Verdict | None:
        """The verdict over what was recorded; None before."""
        return self._watched.verdict

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """The model is where it will be trained; loaders are asked for batches after the sanity check."""
        if not _checks_first(trainer):
            self._begin(trainer)

    def on_sanity_check_end(self, trainer: Any, pl_module: Any) -> None:
        """The check of a few validation batches, which is no evaluation, is over."""
        self._begin(trainer)

    def _begin(self, trainer: Any) -> None:
        schedules = [known.scheduler for known in trainer.lr_scheduler_configs]
        self._watched.begin(*schedules, rank=trainer.global_rank)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Asks the trainer to stop, where that is asked for."""
        if not self._watched.may_stop:
            return
        stop = self._watched.stops()
        if trainer.world_size > 1:
            if trainer.global_step % _AGREES_EVERY:
                return
            stop = trainer.strategy.reduce_boolean_decision(stop, all=False)
        trainer.should_stop = trainer.should_stop or stop

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Ends the watch while the model is still where it was trained."""
        self._watched.close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Ends the watch and tells what was found until then."""
        self._watched.end(exception)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Tells what was found, after progress bars are closed and before loggers are."""
        verdict = self._watched.verdict if self._log and self._watched.untold else None
        if verdict is not None:
            scalars = _scalars(verdict)
            for logger in trainer.loggers:
                logger.log_metrics(scalars, step=trainer.global_step)
        self._watched.tell()


def _checks_first(trainer: Any) -> bool:
    """Whether the trainer evaluates a few batches before it trains."""
    loop = trainer.fit_loop.epoch_loop.val_loop
    return trainer.enable_validation and trainer.num_sanity_val_steps > 0 and not loop.restarting


def _scalars(verdict: Verdict) -> dict[str, float]:
    """A verdict in numbers."""
    found = flatten(verdict.findings)
    counts = {f"unstuck/{s}s": float(sum(f.severity == s for f in found)) for s in SEVERITIES}
    return {**counts, "unstuck/overhead": float(verdict.run.get("overhead") or 0.0)}
