"""Checks of what the arguments of several schedules have in common."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from brainsched import checks
from brainsched.types import largest_epoch


def count(name: str, value: Any, *, least: int) -> int:
    """Return a number of times as an int: at least ``least``, and within the epoch's dtype."""
    result = checks.integer(name, value)
    if not least <= result <= largest_epoch():
        raise ValueError(
            f"{name} must be an integer from {least} to {largest_epoch()}, got {result}"
        )
    return result


def within(name: str, value: Any, interval: str) -> float:
    """Return ``value`` as a float: a number in ``interval``, written like ``'(0, 1]'``."""
    result = checks.number(name, value)
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
        raise TypeError(f"{name} must be True or False, got {checks.shown(value)}")
    return bool(value)
