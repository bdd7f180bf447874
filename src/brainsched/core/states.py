"""The States of a scheduler, which keep one dtype and one placement whoever writes into them.

A State whose dtype, weak type or committed sharding changes between two calls makes JAX trace
or compile the user's training step again. So what is written is brought into one form first.
"""

import math
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from brainstate import TreefyState

from brainsched import checks
from brainsched.core.arguments import FixedList
from brainsched.link.upstream import NormalisedState
from brainsched.types import Array, epoch_dtype, rate_dtype


def _is_host_scalar(value: Any, dtype: np.dtype) -> bool:
    return type(value) is np.ndarray and value.dtype == dtype and value.ndim == 0


def _strongly_typed(value: jax.Array, dtype: Any) -> jax.Array:
    if value.dtype == dtype and not value.weak_type:
        return value
    return jax.lax.convert_element_type(value, dtype)


def _placed_like(value: np.ndarray, former: Any) -> Array:
    """Put a host value where the former one was committed to, if it was."""
    if type(former) is np.ndarray or not isinstance(former, jax.Array):
        return value
    if isinstance(former, jax.core.Tracer) or not former.committed:
        return value
    return jax.device_put(value, former.sharding)


class CountState(NormalisedState):
    """A count of epochs: a scalar integer, on the host or on a device."""

    _what = "a count of epochs"

    @staticmethod
    def check(name: str, value: Any) -> np.ndarray:
        """Return a value on the host in the epoch's dtype; below 0 is an error."""
        return np.asarray(checks.epoch(name, value))

    def normalise(self, value: Any, former: Any) -> Array:
        """Return ``value`` in the epoch's dtype; below 0 on the host is an error."""
        dtype = epoch_dtype()
        if _is_host_scalar(value, dtype) and value.item() >= 0:
            return value if type(former) is np.ndarray else _placed_like(value, former)
        if isinstance(value, jax.Array):
            if not np.issubdtype(value.dtype, np.integer):
                raise TypeError(f"{self._what} must hold an integer, got an array of {value.dtype}")
            return _strongly_typed(value, dtype)
        return _placed_like(self.check(self._what, value), former)


class EpochState(CountState):
    """``last_epoch``."""

    _what = "last_epoch"


class MetricState(NormalisedState):
    """A metric: a scalar float32, on the host or on a device."""

    @staticmethod
    def check(name: str, value: Any) -> Array:
        """Return a value of a checkpoint as a float32 scalar; NaN is an error."""
        value = checks.metric(name, value)
        if isinstance(value, np.ndarray) and np.isnan(value):
            raise ValueError(f"{name} must not be NaN, which nothing is better than")
        return value

    def normalise(self, value: Any, former: Any) -> Array:
        """Return ``value`` as a float32 scalar."""
        value = checks.metric("a metric", value)
        return _placed_like(value, former) if isinstance(value, np.ndarray) else value


@jax.tree_util.register_pytree_with_keys_class
class AppliedRates(FixedList):
    """The applied rates, in the form in which a State keeps them.

    A list that cannot be changed in place, past all checks. Its arrays are taken as they are: a
    schedule gave them, or a program that was compiled left them.
    """

    _why = (
        "the applied rates cannot be changed in place, past all checks: write group['lr'] = rate "
        "for one param group of an optimizer, or scheduler.current_lrs.value = [...] for all"
    )

    @classmethod
    def tree_unflatten(cls, _: None, rates: Iterable[Any]) -> "AppliedRates":
        """Return what is kept in a State again."""
        return cls(rates)


class RatesState(NormalisedState):
    """``current_lrs``: the rate of each param group, a scalar."""

    def formed(self, value: Any) -> Any:
        """Return a list of rates, as a checkpoint has it, as one that cannot be changed."""
        return AppliedRates(value) if type(value) is list else value

    def normalise(self, value: Any, former: Any) -> AppliedRates:
        """Return ``value`` in the rate's dtype, with as many entries as ``former`` has."""
        if not isinstance(value, list | tuple):
            raise TypeError(f"current_lrs must be a list of rates, got {type(value).__name__}")
        if not isinstance(former, list):
            former = [None] * len(value)
        if len(value) != len(former):
            raise ValueError(
                f"current_lrs must have one rate for each of the {len(former)} param groups, "
                f"got {len(value)}: add the groups to the optimizer first"
            )
        if not isinstance(value, AppliedRates):
            value = [
                _by_hand(f"current_lrs[{group}]", rate) if rate is not kept else rate
                for group, (rate, kept) in enumerate(zip(value, former, strict=True))
            ]
        dtype = rate_dtype()
        return AppliedRates(
            _rate(group, value[group], former[group], dtype) for group in range(len(value))
        )

    def to_state_ref(self) -> TreefyState:
        """Give a reference that holds a list, as checkpoints of the whole state have it."""
        reference = super().to_state_ref()
        reference.value = list(reference.value)
        return reference


def _by_hand(name: str, rate: Any) -> Any:
    """Return a rate that was set by hand; raise if it is known and no rate.

    Compiled code cannot raise. There NaN takes the place of a negative rate, which would train
    uphill: it shows in all that is trained, and :func:`require_rates` tells its cause.
    """
    if isinstance(rate, jax.core.Tracer):
        rate = _strongly_typed(checks.real_array(name, rate), rate_dtype())
        return jnp.where(rate >= 0, rate, np.nan)
    return checks.known_rate(name, rate) if isinstance(rate, jax.Array) else rate


def require_rates(rates: Iterable[Array]) -> None:
    """Raise if a rate on a device is none; wait for it."""
    for group, rate in enumerate(rates):
        if isinstance(rate, jax.Array) and not isinstance(rate, jax.core.Tracer):
            checks.known_rate(
                f"current_lrs[{group}]",
                rate,
                ": a rate was set by hand in compiled code, which cannot raise and has NaN in the "
                "place of a negative rate. What was trained since is lost. Set one that is at "
                "least 0, as jnp.maximum(rate, 0) is",
            )


def _rate(group: int, value: Any, former: Any, dtype: np.dtype) -> Array:
    if _is_host_scalar(value, dtype) and 0 <= value.item() < math.inf:
        return _placed_like(value, former)
    if isinstance(value, jax.Array):
        return _strongly_typed(checks.real_array(f"current_lrs[{group}]", value), dtype)
    value = np.asarray(checks.number(f"current_lrs[{group}]", value), dtype)
    return _placed_like(value, former)
