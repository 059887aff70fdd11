"""What a checkpoint holds, and where in it the state dict is."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unstuck.errors import MissingError, MisuseError

Names = dict[str, Tensor]
HOLDERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "weights", "params")
SHOWN = 4


def state_dict_of(checkpoint: Any, key: str | None, *, trusted: bool) -> Names:
    """The tensors of a checkpoint by their names there.

    Args:
        checkpoint: A file, a mapping, or a model.
        key: Where in it, with dots between keys; None to look for it.
        trusted: Whether code in a file may run.

    Returns:
        What is no tensor is left out.

    Raises:
        MisuseError: There is no such file or key, or no state dict.
        MissingError: The file is one of safetensors, which isn't installed.
    """  # noqa: DOC502
    content = _read(Path(checkpoint), trusted=trusted) if isinstance(checkpoint, (str, Path)) else checkpoint
    for part in key.split(".") if key else ():
        content = _unwrapped(content)
        if not isinstance(content, Mapping) or part not in content:
            known = listed(map(str, content)) if isinstance(content, Mapping) else f"a {type(content).__name__}"
            raise MisuseError(f"the checkpoint has no key '{part}'; there is {known}")
        content = content[part]
    found = _searched(content)
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def _read(file: Path, *, trusted: bool) -> Any:
    if not file.is_file():
        raise MisuseError(f"there is no file {file}")
    if file.suffix == ".safetensors":
        return _read_safetensors(file)
    try:
        return torch.load(file, map_location="cpu", weights_only=not trusted)
    except pickle.UnpicklingError as error:
        if trusted:
            raise MisuseError(f"{file} can't be read: {error}") from error
        raise MisuseError(
            f"{file} is no checkpoint, or holds objects beside tensors, which can run code when they are read: if you know where "
            "it comes from and trust it, say trusted=True"
        ) from error
    except Exception as error:  # of what isn't a checkpoint anything may come
        raise MisuseError(f"{file} can't be read as a checkpoint ({type(error).__name__}: {error})") from error


def _read_safetensors(file: Path) -> Any:
    try:
        from safetensors import SafetensorError  # pyright: ignore[reportMissingImports] - needn't be installed
        from safetensors.torch import load_file  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        raise MissingError(
            f"{file.name} is read by safetensors, which isn't installed: pip install safetensors"
        ) from None
    try:
        return load_file(file)
    except SafetensorError as error:
        raise MisuseError(f"{file} can't be read: {error}") from error


def _searched(content: Any) -> Mapping[str, Any]:
    """The state dict in what was read.

    Raises:
        MisuseError: There is none, or several and no saying which is meant.
    """
    content = _unwrapped(content)
    if not isinstance(content, Mapping):
        raise MisuseError(f"the checkpoint is a {type(content).__name__}, but must be a file, a state dict or a model")
    inner = {str(k): _unwrapped(v) for k, v in content.items() if _holds(v)}
    usual = [k for k in HOLDERS if k in inner]
    if usual:
        return _searched(inner[usual[0]])
    if any(isinstance(v, Tensor) for v in content.values()):
        return content
    if len(inner) == 1:
        return _searched(next(iter(inner.values())))
    if inner:
        raise MisuseError(f"the checkpoint holds several state dicts, {listed(inner)}: say by key=... which one")
    if any(isinstance(v, np.ndarray) for v in content.values()):
        raise MisuseError(
            "the checkpoint holds arrays of numpy: give tensors, {name: torch.from_numpy(array) for name, array in checkpoint.items()}"
        )
    known = f"; there is {listed(map(str, content))}" if content else ""
    raise MisuseError(f"there is no state dict in the checkpoint{known}: say by key=... where it is")


def _unwrapped(value: Any) -> Any:
    return value.state_dict() if isinstance(value, nn.Module) else value


def _holds(value: Any) -> bool:
    """Whether there are named tensors in it, at any depth."""
    value = _unwrapped(value)
    if not isinstance(value, Mapping) or not all(isinstance(k, str) for k in value):
        return False
    return any(isinstance(v, Tensor) or _holds(v) for v in value.values())


def listed(names: Iterable[str]) -> str:
    """The first of them, and how many more there are.

    Args:
        names: Any number.

    Returns:
        One line.
    """
    names = list(names)
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
