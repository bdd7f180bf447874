"""Whole powers of a number, looked up, so that the host and compiled code have the same bits."""

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


class Powers:
    """The powers of ``base``, a float above 0, with exponents that are not negative.

    They stop at the limits of float64. A power is one entry of a table of 4,096. For a base so near
    1 that there are more, each digit of the exponent in base 4,096 is looked up.
    """

    def __init__(self, base: float) -> None:
        logarithm = math.log(base)
        if logarithm > 0:
            last = math.floor(_LARGEST / logarithm)
        elif logarithm < 0:
            last = math.ceil(_SMALLEST / logarithm)
        else:
            last = 0
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
