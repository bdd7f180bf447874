"""The States of a scheduler, which keep one dtype and one placement whoever writes to them.

A State whose dtype, weak type or committed sharding changes between two calls makes JAX trace or
compile the user's training step again. So whatever is written is converted first.
"""

from typing import Any

import jax
import numpy as np

from brainsched import checks
from brainsched.link.states import TrackedState
from brainsched.types import Array, epoch_dtype, placed_like, strongly_typed


class CountState(TrackedState):
    """A count: a scalar integer, on the host or on a device."""

    what = "a count of epochs"

    @staticmethod
    def check(name: str, value: Any) -> np.ndarray:
        """Return a value of a checkpoint in the epoch's dtype; below 0 is an error."""
        return np.asarray(checks.epoch_number(name, value), epoch_dtype())

    def form(self, value: Any, former: Any) -> Array:
        """Return ``value`` in the epoch's dtype; below 0 on the host is an error."""
        on_host = type(value) is type(former) is np.ndarray and value.dtype == former.dtype
        if on_host and value.ndim == 0 and value.item() >= 0:
            return value
        if isinstance(value, jax.Array):
            if not np.issubdtype(value.dtype, np.integer):
                raise TypeError(f"{self.what} must hold an integer, got an array of {value.dtype}")
            return strongly_typed(value, epoch_dtype())
        return placed_like(self.check(self.what, value), former)


class EpochState(CountState):
    """``last_epoch``."""

    what = "last_epoch"


class MetricState(TrackedState):
    """A metric: a scalar float32, on the host or on a device."""

    @staticmethod
    def check(name: str, value: Any) -> Array:
        """Return a value of a checkpoint as a float32 scalar; NaN is an error."""
        value = checks.metric(name, value)
        if isinstance(value, np.ndarray) and np.isnan(value):
            raise ValueError(f"{name} must not be NaN, since no metric is better than NaN")
        return value

    def form(self, value: Any, former: Any) -> Array:
        """Return ``value`` as a float32 scalar."""
        return placed_like(checks.metric("a metric", value), former)
