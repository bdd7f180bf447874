"""Checks of arguments, each with a message that names the parameter and the element.

A wrong type raises ``TypeError`` and a wrong value ``ValueError``. A bool is never a number.
Traced and device arrays are checked by shape and dtype alone: their numbers are not known,
or only after waiting for the device.
"""

import math
import numbers
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from brainsched.types import Array, epoch_dtype, largest_epoch, rate_dtype, strongly_typed

LARGEST_RATE = float(np.finfo(np.float32).max)


def shown(value: Any) -> str:
    """Return a value, shortened, and its type, for a message."""
    is_number = isinstance(value, str) and value[:1] in set("+-.0123456789")
    hint = ": a config has text where a number is in quotes, or like 1e-3 without a point"
    return f"{reprlib.repr(value)} ({type(value).__name__}){hint if is_number else ''}"


def keys(name: str, value: Any, expected: Iterable[str], source: str) -> None:
    """Raise unless ``value`` is a mapping that has exactly the keys that ``source`` returns."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a dict, as {source} returns, got {type(value).__name__}")
    for key in expected:
        if key not in value:
            raise ValueError(f"{name} has no {key!r}: pass everything that {source} returned")
    for key in value:
        if key not in expected:
            raise ValueError(
                f"{name} has an unknown key {key!r}: {source} returns {', '.join(expected)}"
            )


def unwrap(value: Any) -> Any:
    """Turn a 0-d NumPy array into its scalar; leave everything else alone."""
    return value[()] if isinstance(value, np.ndarray) and value.ndim == 0 else value


def real(name: str, value: Any) -> Any:
    """Return ``value``, which must be a real number."""
    value = unwrap(value)
    if isinstance(value, bool) or not isinstance(value, numbers.Real):  # np.bool_ is not Real
        raise TypeError(f"{name} must be a number, got {shown(value)}")
    return value


def number(name: str, value: Any, *, largest: float = LARGEST_RATE) -> float:
    """Return ``value`` as a float: a real number, finite, not negative, at most ``largest``."""
    value = real(name, value)
    if not 0 <= value < math.inf:  # excludes NaN
        raise ValueError(f"{name} must be finite and not negative, got {value!r}")
    if value > largest:
        raise ValueError(f"{name} must be at most {largest:.4g}, got {shown(value)}")
    return float(value)


def real_array(name: str, value: jax.Array) -> jax.Array:
    """Return ``value``, which must hold real numbers."""
    if not any(jnp.issubdtype(value.dtype, kind) for kind in (jnp.floating, jnp.integer)):
        raise TypeError(f"{name} must hold real numbers, got an array of {value.dtype}")
    return value


def rate(name: str, value: Any) -> float | jax.Array:
    """Return one rate: a float, or the scalar JAX array that was given."""
    if not isinstance(value, jax.Array):
        return number(name, value)
    if value.ndim:
        raise ValueError(f"{name} must be a scalar, got an array of shape {value.shape}")
    return real_array(name, value)


def are_rates(values: np.ndarray) -> np.ndarray:
    """Return for each number whether it is a rate: finite and not negative."""
    return (values >= 0) & (values < np.inf)  # excludes NaN


def applied_rate(name: str, value: Any, former: Any) -> Array:
    """Return a rate in its dtype, or those of many runs, shaped as ``former``.

    A rate on a device is waited for. A traced one is not checked; below 0 it is 0.
    """
    if value is former:
        return former
    if np.ndim(value) != np.ndim(former):
        raise ValueError(f"{name} must be a scalar, got an array of shape {np.shape(value)}")
    if not isinstance(value, jax.Array):
        return np.asarray(number(name, value), rate_dtype())
    result = strongly_typed(real_array(name, value), rate_dtype())
    if isinstance(value, jax.core.Tracer):
        return jnp.maximum(result, 0)
    if value.is_fully_addressable or value.is_fully_replicated:  # else no process has all of it
        found = np.asarray(value)
        if not are_rates(found).all():
            raise ValueError(f"{name} must be finite and not negative, got {found}")
    return result


def integer(name: str, value: Any) -> int:
    """Return ``value`` as an int; a whole float is accepted."""
    value = real(name, value)
    if not isinstance(value, numbers.Integral) and not float(value).is_integer():
        raise ValueError(f"{name} must be an integer, got {value!r}")
    return int(value)


def epoch_number(name: str, value: Any) -> int:
    """Return ``value`` as an int that counts epochs: not negative, and within the dtype."""
    result = integer(name, value)
    if result < 0:
        hint = ": the first epoch is 0 here" if result == -1 else ""
        raise ValueError(f"{name} must not be negative, got {result}{hint}")
    if result > largest_epoch():
        raise ValueError(f"{name} must be at most {largest_epoch()}, got {result}")
    return result


def count(name: str, value: Any, *, least: int) -> int:
    """Return a number of times as an int: at least ``least``, and within the epoch's dtype."""
    result = integer(name, value)
    if not least <= result <= largest_epoch():
        raise ValueError(
            f"{name} must be an integer from {least} to {largest_epoch()}, got {result}"
        )
    return result


def within(name: str, value: Any, interval: str) -> float:
    """Return ``value`` as a float: a number in ``interval``, written like ``'(0, 1]'``."""
    result = number(name, value)
    low, high = map(float, interval[1:-1].split(","))
    after_low = result >= low if interval[0] == "[" else result > low
    before_high = result <= high if interval[-1] == "]" else result < high
    if not (after_low and before_high):
        raise ValueError(f"{name} must be a number in {interval}, got {value!r}")
    return result


def one_of(name: str, value: Any, choices: Sequence[str]) -> str:
    """Return ``value``, which must be one of ``choices``."""
    if value not in choices:
        error = ValueError if isinstance(value, str) else TypeError
        listed = ", ".join(map(repr, choices))
        raise error(f"{name} must be one of {listed}, got {value!r}")
    return value


def flag(name: str, value: Any) -> bool:
    """Return ``value`` as a bool, which it must be."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {shown(value)}")
    return bool(value)


def epoch(name: str, value: Any) -> Array:
    """Return an epoch as a scalar in the dtype of ``last_epoch``.

    A JAX array is not checked; below 0 it counts as 0.
    """
    if isinstance(value, np.ndarray | jax.Array) and value.ndim:
        raise ValueError(f"{name} must be a scalar, got an array of shape {value.shape}")
    if isinstance(value, jax.Array):
        if not jnp.issubdtype(value.dtype, jnp.integer):
            raise TypeError(f"{name} must hold integers, got an array of {value.dtype}")
        return jnp.maximum(clipped(value), 0)
    return np.asarray(epoch_number(name, value), epoch_dtype())


def real_epoch(name: str, value: Any) -> Array:
    """Return an epoch that may lie between whole ones, or an array of them.

    A JAX array is not checked; numbers below 0 count as 0.
    """
    if isinstance(value, jax.Array):
        value = real_array(name, value)
        is_integer = jnp.issubdtype(value.dtype, jnp.integer)
        return jnp.maximum(clipped(value) if is_integer else value, 0)
    found = np.asarray(value)
    if found.dtype.kind not in "iuf":
        raise TypeError(f"{name} must be a real number, or an array of them, got {shown(value)}")
    for extreme in (found.min(), found.max()) if found.size else ():
        if found.dtype.kind in "iu":
            epoch_number(name, extreme)
        elif not 0 <= extreme <= largest_epoch():
            raise ValueError(
                f"{name} must be finite, not negative and at most {largest_epoch()}, got {extreme}"
            )
    return found


def clipped(value: jax.Array) -> jax.Array:
    """Convert to the dtype of ``last_epoch``; an unsigned number that is too large is clipped."""
    if jnp.issubdtype(value.dtype, jnp.unsignedinteger):
        largest = min(largest_epoch(), int(jnp.iinfo(value.dtype).max))
        value = jnp.minimum(value, np.asarray(largest, value.dtype))
    return jax.lax.convert_element_type(value, epoch_dtype())


def sequence(name: str, value: Any, of: str) -> list[Any]:
    """Return the elements of a list, a tuple, a range, or a NumPy or JAX array."""
    if not is_sequence(value):
        raise TypeError(f"{name} must be a sequence of {of}, got {shown(value)}")
    return list(value)


def is_sequence(value: Any) -> bool:
    """Whether ``value`` is a list, a tuple, a range, or an array with an axis, but no text."""
    if isinstance(value, np.ndarray | jax.Array):
        return value.ndim > 0
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def group_names(name: str, value: Any) -> tuple[str, ...]:
    """Return the names that a mapping of base rates gives to the param groups, in its order."""
    if not isinstance(value, Mapping):
        return ()
    for key in value:
        if not isinstance(key, str):
            raise TypeError(f"{name} must have the names of param groups as keys, got {shown(key)}")
    return tuple(value)


def base_rates(name: str, value: Any, named_as: Any = None) -> list[float | jax.Array]:
    """Return the base rates: one number, a sequence with an entry for each group, or a mapping.

    The order is that of a mapping's entries. ``named_as`` is the ``base_lr`` whose names, in its
    order, a mapping must have.
    """
    if isinstance(value, Mapping):
        names = group_names(name, value)
        if named_as is not None:
            expected = group_names("base_lr", named_as)
            if set(names) != set(expected):
                raise ValueError(
                    f"{name} must have the names that base_lr gives to the param groups, "
                    f"{list(expected)}, got {list(names)}"
                )
            names = expected
        if not names:
            raise ValueError(f"{name} must have at least one rate, got an empty mapping")
        return [rate(f"{name}[{key!r}]", value[key]) for key in names]
    value = unwrap(value)
    if isinstance(value, numbers.Real) or (isinstance(value, jax.Array) and value.ndim == 0):
        return [rate(name, value)]
    if hasattr(value, "param_groups"):  # PyTorch's order
        raise TypeError(
            f"{name} must be a learning rate, got an optimizer: build the scheduler with its rate "
            f"first, then the optimizer with lr=scheduler"
        )
    entries = sequence(name, value, "numbers, or one number, or a mapping of names to numbers")
    if not entries:
        raise ValueError(f"{name} must have at least one rate, got an empty sequence")
    return [rate(f"{name}[{i}]", entry) for i, entry in enumerate(entries)]


def metric(name: str, value: Any) -> Array:
    """Return a real number, infinite and NaN included, as a float32 scalar array."""
    if isinstance(value, jax.Array):
        value = jax.lax.convert_element_type(real_array(name, value), np.float32)
    else:
        value = real(name, value)
        if isinstance(value, int) and value.bit_length() > 1023:  # JSON can hold 10**400
            raise ValueError(f"{name} must fit into a float, got {shown(value)}")
        value = np.asarray(value, np.float32)
    if value.ndim:
        raise ValueError(f"{name} must be a scalar, got an array of shape {value.shape}")
    return value
