"""Multipliers of a base rate that seem to be the rates themselves."""

import warnings
from typing import Any

import jax
import numpy as np

from brainsched.core.scheduler import LRScheduler


def warn_if_rates(scheduler: LRScheduler, name: str, multipliers: Any, cure: str) -> None:
    """Warn where multipliers look like rates, so that the base rate would count twice.

    Parameters
    ----------
    scheduler : LRScheduler
        The schedule, which is built.
    name : str
        The argument that has the multipliers.
    multipliers : array of shape ``(rows, columns)``
        A column for each param group, or one for all; not looked at where it is on a device.
    cure : str
        What to write where they are rates.
    """
    base_lrs = scheduler._bases.first(max(multipliers.shape[1], scheduler._bases.known))
    if any(isinstance(leaf, jax.Array) for leaf in [multipliers, *base_lrs]):
        return
    base, largest = np.float32(max(base_lrs)), np.float32(np.max(multipliers))
    if largest in (0, 1):
        return
    highest = np.max(np.asarray(base_lrs) * np.max(multipliers, axis=0))
    if base != largest:
        return
    why = f"the largest multiplier equals the base rate, {largest:g}"
    warnings.warn(
        f"{name} are multipliers of base_lr, and {why}: the highest rate is {highest:g}. If {name} "
        f"are the rates themselves, {cure}",
        stacklevel=2,
    )
