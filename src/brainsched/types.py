"""The array types, shapes and dtypes that every module shares."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np
from jaxtyping import Float

# Importing brainstate turns 64-bit types off (0.5.0 to 0.6.0). Imported here, before all others,
# it leaves them on for a program of JAX or Flax that has them on.
_x64 = jax.config.read("jax_enable_x64")
import brainstate  # noqa: E402, F401

if _x64:
    jax.config.update("jax_enable_x64", True)

Array: TypeAlias = np.ndarray | jax.Array

Rate: TypeAlias = float | np.floating | np.ndarray | jax.Array
Rates: TypeAlias = Rate | Sequence[Rate] | Mapping[str, Rate]

# What a formula takes and returns, all in float64: epochs with an axis of length 1 for the param
# groups, the base rate of each group, and the rate of each group at each epoch.
Epochs: TypeAlias = Float[Array, "*epoch 1"]
BaseLRs: TypeAlias = Float[Array, " groups"]
LRs: TypeAlias = Float[Array, "*epoch groups"]


_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
_INT32, _INT64 = np.dtype(np.int32), np.dtype(np.int64)
_SMALLEST = {dtype: float(np.finfo(dtype).tiny) for dtype in (_FLOAT32, _FLOAT64)}
_LARGEST = {dtype: int(np.iinfo(dtype).max) for dtype in (_INT32, _INT64)}


def rate_dtype() -> np.dtype:
    """Return the dtype of a learning rate: float32, or float64 under ``jax_enable_x64``."""
    return _FLOAT64 if jax.config.read("jax_enable_x64") else _FLOAT32


def epoch_dtype() -> np.dtype:
    """Return the dtype of ``last_epoch``: int32, or int64 under ``jax_enable_x64``."""
    return _INT64 if jax.config.read("jax_enable_x64") else _INT32


def smallest_rate(dtype: np.dtype) -> float:
    """Return the smallest rate that is not 0: the smallest normal number of ``dtype``."""
    return _SMALLEST[dtype]


def largest_epoch() -> int:
    """Return the largest epoch that ``last_epoch`` can hold."""
    return _LARGEST[epoch_dtype()]


def strongly_typed(value: jax.Array, dtype: Any) -> jax.Array:
    """Return ``value`` in ``dtype``, strongly typed: a weak type would be traced again."""
    if value.dtype == dtype and not value.weak_type:
        return value
    return jax.lax.convert_element_type(value, dtype)


def placed_like(value: Array, former: Any) -> Array:
    """Place a host value where the former one was committed, if it was.

    A State whose placement changes between two calls makes JAX compile the user's step again.
    """
    if type(former) is np.ndarray or not isinstance(value, np.ndarray):
        return value
    if isinstance(former, jax.core.Tracer) or not getattr(former, "committed", False):
        return value
    return jax.device_put(value, former.sharding)
