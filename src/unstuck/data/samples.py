"""The inputs of samples, wherever they come from: arrays, tensors, datasets, streams of batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, IterableDataset, Subset, TensorDataset

from unstuck.errors import MisuseError

STACKED = 256  # samples of a dataset that become one batch


def as_array(values: Any) -> np.ndarray:
    """Values as an array of numpy, without a copy where there need be none."""
    if not isinstance(values, Tensor):
        return np.asarray(values)
    values = values.detach().cpu()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()  # which numpy doesn't have


def inputs_of(sample: Any, inputs: int | str = 0) -> Any:
    """The inputs of a sample or a batch, which may have others beside it: `(x, y)`, `{"image": x, "label": y}`.

    Args:
        sample: Inputs alone, or a sequence or mapping that holds them.
        inputs: Where they are.

    Returns:
        A tensor, an array, or what else is there.

    Raises:
        MisuseError: There is nothing at that place.
    """
    if not isinstance(sample, Sequence | Mapping) or isinstance(sample, str | bytes):
        return sample
    try:
        return sample[inputs]  # pyright: ignore[reportArgumentType, reportCallIssue]
    except (IndexError, KeyError, TypeError):
        there = list(sample) if isinstance(sample, Mapping) else f"places 0 to {len(sample) - 1}"
        raise MisuseError(f"no inputs at {inputs!r} of a sample, which has {there}; say where by inputs=") from None


def input_at(inputs: Any, number: int) -> Any:
    """The inputs of one sample by its number, as an array or as text; None where there are none.

    Args:
        inputs: Of all samples: an array, a list, or a dataset, whose samples may have others beside them.
        number: Of the sample.
    """
    if inputs is None:
        return None
    found = inputs[number]
    if not (isinstance(inputs, Sequence | Mapping) or hasattr(inputs, "__array__")):
        found = inputs_of(found)
    return found if isinstance(found, str) else as_array(found)


def in_memory(data: Any, inputs: int | str = 0) -> np.ndarray | Tensor | None:
    """The inputs of all samples as one array, where that is what the data are; None of other datasets and of streams."""
    if isinstance(data, TensorDataset):
        return inputs_of(data.tensors, inputs)
    if isinstance(data, Subset):
        whole = in_memory(data.dataset, inputs)
        return None if whole is None else whole[np.asarray(data.indices, dtype=np.int64)]
    if isinstance(data, ConcatDataset):
        wholes = [in_memory(part, inputs) for part in data.datasets]
        return None if any(whole is None for whole in wholes) else np.concatenate([as_array(whole) for whole in wholes])
    if isinstance(data, Tensor):
        return data
    return np.asarray(data) if hasattr(data, "__array__") else None


def is_dataset(data: Any) -> bool:
    """Whether it is no array, and samples can be asked for by their number; it need not be a `Dataset` of torch's."""
    numbered = hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, IterableDataset)
    return numbered and not hasattr(data, "__array__") and not isinstance(data, str | bytes | list | tuple | Mapping)


def samples_of(dataset: Any, inputs: int | str = 0) -> Iterator[np.ndarray | Tensor]:
    """Inputs of one sample after the other.

    Args:
        dataset: A dataset, with numbered samples or without.
        inputs: Where they are in a sample.

    Yields:
        Inputs of a sample, without an axis of the batch.
    """
    samples = (dataset[i] for i in range(len(dataset))) if is_dataset(dataset) else iter(dataset)
    for sample in samples:
        found = inputs_of(sample, inputs)
        yield found if isinstance(found, Tensor) else np.asarray(found)


def batches_of(data: Any, inputs: int | str = 0) -> Iterator[np.ndarray | Tensor]:
    """Inputs of all samples in batches, the first axis of which goes over samples.

    Args:
        data: An array or tensor, which is one batch; a dataset; or an iterable of batches.
        inputs: Where inputs are in a sample or a batch.

    Yields:
        Inputs of a batch. Samples of a dataset of different shapes come in different batches.

    Raises:
        MisuseError: The data are none of these.
    """
    whole = in_memory(data, inputs)
    if whole is not None:
        yield whole
    elif isinstance(data, Dataset) or is_dataset(data):
        yield from _stacked(samples_of(data, inputs))
    elif isinstance(data, Iterable) and not isinstance(data, str | Mapping | tuple):
        for batch in data:
            found = inputs_of(batch, inputs)
            yield found if isinstance(found, Tensor) else np.asarray(found)
    else:
        raise MisuseError(f"{type(data).__name__} is no array, tensor, dataset or iterable of batches")


def _stacked(samples: Iterable[np.ndarray | Tensor]) -> Iterator[np.ndarray | Tensor]:
    """Samples that follow each other and have one shape, as batches."""
    group: list[Any] = []
    for sample in samples:
        if group and (len(group) == STACKED or sample.shape != group[0].shape or type(sample) is not type(group[0])):
            yield _stack(group)
            group = []
        group.append(sample)
    if group:
        yield _stack(group)


def _stack(group: list[Any]) -> np.ndarray | Tensor:
    return torch.stack(group) if isinstance(group[0], Tensor) else np.stack(group)
