"""Tables: the powers of a number, and how far along a list of boundaries an epoch is."""

import functools
import math
import operator
from types import ModuleType

import numpy as np
from jaxtyping import Float, Int

from brainsched.checks import LARGEST_RATE
from brainsched.types import Array, largest_epoch

# So large that the product with any rate still is a float64.
_LARGEST = math.log(np.finfo(np.float64).max / LARGEST_RATE)
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
