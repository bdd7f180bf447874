"""Lengths and boundaries in epochs, which may lie between whole ones.

A boundary between whole epochs, such as 2.4, is seldom exact in float64. It counts as reached
from a share of 2**-48 before it, so that the update that is exactly there reaches it, however both
sides were rounded. The update before is further away: by one part in the number of updates. A
whole boundary is exact.
"""

import itertools
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import jax
import numpy as np

from brainsched import checks
from brainsched.types import Array, largest_epoch

_NEARLY = 2.0**-48


def length(name: str, value: Any, *, or_zero: bool = False) -> float:
    """Return a number of epochs above 0, whole or not: an int where it is whole."""
    result = checks.number(name, value, largest=largest_epoch())
    if result == 0 and not or_zero:
        raise ValueError(f"{name} must be above 0, got {value!r}")
    return int(result) if result.is_integer() else result


def boundaries(name: str, value: Any) -> list[float]:
    """Return epochs in strictly ascending order."""
    entries = list(np.asarray(value)) if isinstance(value, jax.Array) else value
    entries = checks.sequence(name, entries, "numbers")
    result = [length(f"{name}[{i}]", entry, or_zero=True) for i, entry in enumerate(entries)]
    for i, (left, right) in enumerate(itertools.pairwise(result), start=1):
        if right <= left:
            raise ValueError(
                f"{name} must be in ascending order without repeats, "
                f"got {name}[{i}] = {right} after {left}"
            )
    return result


def reached(boundaries: float | Sequence[float]) -> np.ndarray:
    """Return the epochs from which boundaries count as reached."""
    exact = np.asarray(boundaries, np.float64)
    return np.where(exact == np.round(exact), exact, exact * (1 - _NEARLY))


def periods(epoch: Array, length: float, xp: ModuleType) -> tuple[Any, Any]:
    """Return how many times ``length`` has passed at each epoch, and the time since."""
    if length != int(length):
        epoch = epoch * (1 + _NEARLY)
    since = xp.fmod(epoch, length)
    return xp.round((epoch - since) * (1 / length)).astype(int), since


def quotient(dividend: Array, divisor: float) -> Array:
    """Return ``dividend / divisor``, rounded once, in compiled code too.

    XLA turns a division by a constant into a product with its reciprocal, and ``49 * (1 / 49)`` is
    below 1: a stage would begin an update late (jax 0.10.2). So the divisor is made to depend on
    the dividend; XLA keeps ``0 * x``, which may be NaN.
    """
    return dividend / (divisor + 0.0 * dividend)
