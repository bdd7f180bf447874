"""Whether a class keeps its arguments such that what is built from them again is the same.

A config, and so ``from_config``, and the comparison of a checkpoint with the code all rest on it.
"""

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from brainsched import checks
from brainsched.core import arguments
from brainsched.core import config as configuring

if TYPE_CHECKING:
    from brainsched.core.scheduler import LRScheduler

# The classes whose twins are being built, which have no twin themselves.
_twins: "set[type[LRScheduler]]" = set()


def check(scheduler: "LRScheduler") -> None:
    """Build a twin from what ``scheduler`` keeps, and raise a TypeError if it is another one.

    A twin for each scheduler of a user's class, as what its constructor does may depend on the
    arguments. Those that are on a device or traced cannot be compared, and ours are tested.
    """
    cls = type(scheduler)
    on_device = any(isinstance(leaf, jax.Array) for leaf in arguments.numbers(scheduler))
    if configuring.is_ours(cls) or cls in _twins or on_device:
        return
    _twins.add(cls)
    try:
        _compare(scheduler)
    finally:
        _twins.discard(cls)


def _compare(scheduler: "LRScheduler") -> None:
    cls = type(scheduler)
    kept = {name: getattr(scheduler, name) for name in arguments.parameters(cls)}
    kept["last_epoch"] = 0 if scheduler._first_epoch else 1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the scheduler itself has warned, or will
            twin = cls(**kept)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{cls.__name__} cannot be built again from the arguments that it keeps ({error}). "
            f"{_CURE}"
        ) from error
    for name, value in kept.items():
        again = getattr(twin, name)
        if name == "last_epoch":
            if twin._first_epoch != value:
                raise TypeError(
                    f"{cls.__name__}.__init__ does not pass last_epoch on: with "
                    f"last_epoch={value} it begins at {twin._first_epoch}. End it with "
                    f"super().__init__(base_lr, last_epoch)"
                )
        elif not _equal(value, again):
            raise TypeError(
                f"{cls.__name__}.__init__ changes {name} before it keeps it: built again from "
                f"{checks.shown(value)}, it has {checks.shown(again)}. {_CURE}"
            )
    rates = [each._evaluation.sample() for each in (scheduler, twin) if each._evaluation.on_host]
    if len(rates) == 2 and not np.array_equal(rates[0], rates[1], equal_nan=True):
        raise TypeError(
            f"{cls.__name__} has other rates when it is built again from the same arguments, as "
            f"by a config or after a resume: draw random numbers from a seed that is an argument, "
            f"and read what changes, such as a file, before the call"
        )


_CURE = (
    "Keep each argument as it was given, and pass it on as it is, since a config and a checkpoint "
    "build the scheduler from them; what is calculated from one goes under another name"
)


def _equal(value: Any, other: Any) -> bool:
    """Whether two arguments are the same; of functions and objects, whether they are identical."""
    if value is other:
        return True
    if isinstance(value, Mapping) and isinstance(other, Mapping):
        return list(value) == list(other) and all(map(_equal, value.values(), other.values()))
    if isinstance(value, list | tuple) and isinstance(other, list | tuple):
        return len(value) == len(other) and all(map(_equal, value, other))
    return bool(np.array_equal(value, other))
