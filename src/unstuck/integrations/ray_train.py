"""Ray Train: a wrapper for the function that each worker runs.

from ray.train.torch import TorchTrainer
from unstuck.integrations.ray_train import watched

trainer = TorchTrainer(watched(train_loop), scaling_config=...)
result = trainer.fit()
result.return_value["unstuck"]["verdict"]
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from typing import Any, Unpack

from unstuck.errors import MissingError
from unstuck.integrations._watched import Options, Watched

try:
    from ray import train
except ImportError as error:
    raise MissingError(
        f"unstuck.integrations.ray_train needs Ray Train, which isn't installed ({error}): pip install 'ray[train]'"
    ) from None


def watched(train_loop: Callable[..., Any], **options: Unpack[Options]) -> Callable[..., Any]:
    """A `train_loop_per_worker` that is watched in each worker; the first one tells.

    Its report is printed in the worker's output. What it found comes back as `result.return_value["unstuck"]` (Ray Train V2): what
    `unstuck run --json` writes, and `host`, the machine whose file `run.record` is. What the loop returns comes with it: a dict's
    keys beside that one, anything else under `value`.

    Args:
        train_loop: Takes nothing or the config.
        **options: `html`, `json`, `report`, `fail_on`, `stop_on`, `budget`, `probe_budget`, `runs` and `log_to`, see `Watched`; files
            and folders are the worker's. A loop can't be told to stop from outside: `stop_on` has no effect here.

    Returns:
        The function for the trainer, with the signature of `train_loop`.

    Raises:
        MisuseError: An option can't be used as given.
    """  # noqa: DOC502
    here: Any = {key: value for key, value in options.items() if key not in _WORKERS}
    Watched(**here)  # to fail here, not in a worker

    @functools.wraps(train_loop)
    def loop(*args: Any) -> Any:
        context = train.get_context()
        watch = Watched(**options)
        watch.begin(rank=context.get_world_rank(), name=getattr(train_loop, "__name__", ""))
        try:
            returned = train_loop(*args)
        except BaseException as error:
            watch.end(error)
            raise
        verdict = watch.end()
        return returned if verdict is None else _with(returned, verdict)

    return loop


_WORKERS = frozenset({"html", "json", "runs", "log_to"})  # means something on the worker's machine alone


def _with(returned: Any, verdict: Any) -> dict[str, Any]:
    from unstuck.report.json import to_json

    beside = returned if isinstance(returned, Mapping) else {} if returned is None else {"value": returned}
    return {**beside, "unstuck": {**to_json(verdict), "host": os.uname().nodename}}
