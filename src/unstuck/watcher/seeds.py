"""Other random numbers in a script that is not changed: every seed it sets is shifted, and what it doesn't seed is."""

from __future__ import annotations

import contextlib
import functools
import numbers
import random
from collections.abc import Callable, Iterator
from typing import Any

begun = False


def shift(by: int) -> None:
    """Shifts the seeds that the script gives to `random`, numpy and torch from now on, and seeds all three.

    With 0 a script that seeds itself is as ever. Generators of its own, which mostly make or split data, are left alone.

    Args:
        by: Added to every seed.
    """
    import torch

    if not begun:
        shift_without_torch(by)
    torch.manual_seed(by)
    if by == 0:
        return
    both = _shifted(torch.manual_seed, by)
    torch.manual_seed = torch.random.manual_seed = both  # pyright: ignore[reportAttributeAccessIssue]
    torch.cuda.manual_seed = _shifted(torch.cuda.manual_seed, by)
    torch.cuda.manual_seed_all = _shifted(torch.cuda.manual_seed_all, by)


def shift_without_torch(by: int) -> None:
    """Does so for `random` and numpy alone, at once; a later `shift` leaves those as they are then.

    A script may seed them, and draw from them, before it imports torch.

    Args:
        by: Added to every seed.
    """
    global begun
    import numpy as np

    begun = True
    random.seed(by)
    np.random.seed(by % 2**32)
    if by != 0:
        random.seed = _shifted(random.seed, by)
        np.random.seed = _shifted(np.random.seed, by)


@contextlib.contextmanager
def shifted(by: int) -> Iterator[None]:
    """While which seeds are shifted; afterwards they are as they were, and random numbers go on from where they had come.

    Args:
        by: Added to every seed.
    """
    import numpy as np
    import torch

    from unstuck._batches import numbers_kept

    global begun
    cuda = torch.cuda
    names = ("manual_seed", "manual_seed_all")
    places = [
        (random, "seed"),
        (np.random, "seed"),
        (torch, "manual_seed"),
        (torch.random, "manual_seed"),
        *((cuda, n) for n in names),
    ]
    kept, was = [getattr(owner, name) for owner, name in places], begun
    with numbers_kept():
        begun = False
        try:
            shift(by)
            yield
        finally:
            begun = was
            for (owner, name), function in zip(places, kept, strict=True):
                setattr(owner, name, function)


def _shifted(function: Callable[..., Any], by: int) -> Callable[..., Any]:
    """A function whose first argument, when it is a whole number, is another; whatever name it was given by."""

    @functools.wraps(function)
    def shifted(*args: Any, **kwargs: Any) -> Any:
        if args:
            return function(_other(args[0], by), *args[1:], **kwargs)
        return function(**{name: _other(value, by) for name, value in kwargs.items()})

    return shifted


def _other(seed: Any, by: int) -> Any:
    return (int(seed) + by) % 2**32 if isinstance(seed, numbers.Integral) else seed
