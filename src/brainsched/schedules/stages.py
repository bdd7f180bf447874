"""Stages: lengths and boundaries in epochs, how many were passed, and powers by that number.

A boundary between whole epochs, such as 2.4, is seldom exact in float64. It counts as reached
from a share of 2**-48 before it, so that the update that is exactly there reaches it, however both
sides were rounded. The update before is further away: by one part in the number of updates. A
whole boundary is exact.
"""

import functools
import itertools
import math
import operator
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

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


# So large that the product with any rate still is a float64.
_LARGEST = math.log(np.finfo(np.float64).max / checks.LARGEST_RATE)
_SMALLEST = math.log(np.finfo(np.float64).tiny)
_BITS = 12
_MASK = (1 << _BITS) - 1
DEPTH = 3


class Powers:
    """The powers of ``base``, a float above 0, with exponents that are not negative.

    A power is one entry of a table of 4,096, so that the host and compiled code have the same bits.
    For a base so near 1 that there are more, each digit of the exponent in base 4,096 is looked up.
    They stop at the limits of float64.
    """

    def __init__(self, base: float) -> None:
        if base > 1:
            last = math.floor(_LARGEST / math.log(base))
        else:
            last = math.ceil(_SMALLEST / math.log(base)) if base < 1 else 0
        self.last = min(last, largest_epoch())
        self._tables: list[np.ndarray] = []
        digits = self.last
        while digits or not self._tables:
            unit = 1 << (_BITS * len(self._tables))
            powers = [base ** (digit * unit) for digit in range(min(digits, _MASK) + 1)]
            self._tables.append(np.asarray(powers, np.float64))
            digits >>= _BITS

    def __call__(self, exponent: Int[Array, "*shape"], xp: ModuleType) -> Float[Array, "*shape"]:
        """Look up the powers with these exponents."""
        digits = xp.minimum(exponent, self.last)
        factors = []
        for table in self._tables:
            digit = digits & _MASK if len(self._tables) > 1 else digits
            factors.append(xp.asarray(table).take(digit, mode="clip"))
            digits = digits >> _BITS
        return functools.reduce(operator.mul, factors)


class Search:
    """Counts how many of its boundaries, which ascend, are at or before an epoch.

    In compiled code it is a search tree of three levels, however many boundaries there are: the
    same small program for 3 and for 10,000 of them, and without a loop. (``jnp.searchsorted`` is a
    loop, which a compiled training loop on a CPU stops for, or a program that grows: benchmarks/.)
    """

    def __init__(self, boundaries: Float[np.ndarray, " boundaries"]) -> None:
        self._boundaries = boundaries
        count = len(boundaries)
        width = next(w for w in range(3, count + 4) if w**DEPTH > count)
        padded = np.full(width**DEPTH, np.inf)
        padded[:count] = boundaries
        # The node with index n on a level is followed by the nodes n * width + i on the next one,
        # where i is how many of its boundaries, a row of the level's table, have been reached.
        self._tables = []
        for level in range(DEPTH):
            below = width ** (DEPTH - 1 - level)
            last_of_each = padded.reshape(-1, width, below)[:, :-1, -1]
            self._tables.append(np.ascontiguousarray(last_of_each))

    def __call__(self, epoch: Float[Array, "*epoch"], xp: ModuleType) -> Int[Array, "*epoch"]:
        """Return how many boundaries are at or before each epoch."""
        if xp is np:
            return np.asarray(self._boundaries.searchsorted(epoch, side="right"))
        node = xp.zeros_like(epoch, np.int32)
        for table in self._tables:
            row = xp.asarray(table).take(node, axis=0, mode="clip")
            reached = (row <= epoch[..., None]).sum(axis=-1, dtype=np.int32)
            node = node * (table.shape[1] + 1) + reached
        return node
