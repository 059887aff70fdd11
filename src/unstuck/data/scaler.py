"""What scales: `(values - center) / scale + start` for each feature, back again, and into a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from unstuck.data._axes import Axis, shape_of

Values = TypeVar("Values", np.ndarray, Tensor)


class Scaler:
    """`(values - center) / scale + start`, for each feature.

    The one that is made without arguments changes nothing, until it is given a state.

    Args:
        center: Of each feature, what is subtracted.
        scale: Of each feature, what is divided by.
        start: What is added in the end.
        axis: Which numbers have their own center and scale, see `unstuck.data.scaling`.
    """

    def __init__(
        self, center: Tensor | float = 0.0, scale: Tensor | float = 1.0, start: float = 0.0, *, axis: Axis = None
    ):
        self.center = torch.as_tensor(center, dtype=torch.float64)
        self.scale = torch.as_tensor(scale, dtype=torch.float64)
        self.start = float(start)
        self.axis = axis
        self._last: tuple[Any, list[Tensor]] | None = None

    def __call__(self, values: Values) -> Values:
        """Values, scaled.

        Args:
            values: A batch: its first axis goes over samples. Can be differentiated through.

        Returns:
            What was given, of the same shape, type and precision; whole numbers become floating-point ones.

        Raises:
            MisuseError: There are other features than it was fitted on.
        """  # noqa: DOC502
        values, kind, center, rest, scale = self._prepared(values)
        scaled = values - center
        scaled -= rest
        scaled /= scale
        scaled += self.start
        return _as_kind(scaled, kind)

    def inverse(self, values: Values) -> Values:
        """Scaled values, as they were before.

        Args:
            values: A batch of them, such as predictions of targets that were scaled.

        Returns:
            What was given, of the same shape, type and precision.

        Raises:
            MisuseError: There are other features than it was fitted on.
        """  # noqa: DOC502
        values, kind, center, rest, scale = self._prepared(values)
        whole = values - self.start
        whole *= scale
        whole += rest
        whole += center
        return _as_kind(whole, kind)

    def _prepared(self, values: Any) -> tuple[Any, ...]:
        """Values in the precision to compute in, the type to return, and center, its rounding error and scale, made to fit.

        A center in float32 is off by up to 6e-8 of itself, which may be much of the scale; so what rounding took is subtracted too.
        """
        if isinstance(values, Tensor):
            kind = values.dtype if values.is_floating_point() else torch.get_default_dtype()
            double = values.dtype == torch.float64 or not values.is_floating_point()
            precision = torch.float64 if double and values.device.type != "mps" else torch.float32
            return values.to(precision), kind, *self._parts(tuple(values.shape), precision, values.device)
        values = np.asarray(values)
        kind = values.dtype if values.dtype.kind == "f" else np.dtype(np.float64)
        single = kind.itemsize <= 4
        parts = self._parts(values.shape, torch.float32 if single else torch.float64, torch.device("cpu"))
        values = values.astype(np.float32 if single else np.float64, copy=False)
        return values, kind, *(each.numpy() for each in parts)

    def _parts(self, shape: tuple[int, ...], precision: torch.dtype, device: torch.device) -> list[Tensor]:
        """Those of the last batch, if it was like this one: they took longer than a sample does, and a copy to the device."""
        key = (len(shape), shape[1:], precision, device)
        if self._last is None or self._last[0] != key:
            shape = shape_of(self.center, shape, self.axis)
            center = self.center.reshape(shape)
            rounded = center.to(precision)
            parts = [each.to(device, precision) for each in (rounded, center - rounded, self.scale.reshape(shape))]
            self._last = key, parts
        return self._last[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_last": None}  # which may lie on a device that another process doesn't have

    def state_dict(self) -> dict[str, Any]:
        """What to save with the model; `torch.load` needs no trust in it (`weights_only=True`)."""
        return {
            "center": self.center.clone(),
            "scale": self.scale.clone(),
            "start": self.start,
            "axis": self.axis,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Scales as another did.

        Args:
            state: Of its `state_dict`.
        """
        self.center, self.scale = state["center"].clone(), state["scale"].clone()
        self.start, self.axis = state["start"], state["axis"]
        self._last = None

    def __repr__(self) -> str:
        return (
            f"Scaler(center={self.center.tolist()}, scale={self.scale.tolist()}, start={self.start}, axis={self.axis})"
        )


def _as_kind(values: Any, kind: Any) -> Any:
    return values.to(kind) if isinstance(values, Tensor) else values.astype(kind, copy=False)
