"""Rates on the host, evaluated for some epochs at once."""

from collections.abc import Callable
from typing import Any

import numpy as np

from brainsched._types import Array, epoch_dtype, largest_epoch, rate_dtype

AHEAD = 64


class Lookahead:
    """Gives the rates at one epoch after another.

    NumPy takes about as long to evaluate a formula for 64 epochs as for one, so that a step costs
    little more than to look its rates up.

    Parameters
    ----------
    evaluate : callable
        From an array of epochs of shape ``(n,)`` to their rates, of shape ``(n, groups)``.
    """

    def __init__(self, evaluate: Callable[[np.ndarray], Any]) -> None:
        self._evaluate = evaluate
        self._start = 0
        self._rates = np.empty((0, 0))
        self._content = b""
        self._latest: list[Array] = []

    def __call__(self, epoch: int) -> list[Array]:
        """Return the rates at ``epoch``: the very same list as long as they stay the same."""
        ahead = epoch - self._start
        if not 0 <= ahead < len(self._rates) or self._rates.dtype != rate_dtype():
            stop = min(epoch + AHEAD, largest_epoch() + 1)
            with np.errstate(all="ignore"):  # these epochs may never come
                self._rates = self._evaluate(np.arange(epoch, stop, dtype=epoch_dtype()))
            self._rates.flags.writeable = False
            self._start, ahead = epoch, 0
        row = self._rates[ahead]
        content = row.tobytes()
        if content != self._content:
            self._content = content
            self._latest = [row[group, ...] for group in range(len(row))]
        return self._latest
