"""The rates of a schedule as a function of optax's count of updates, which ``as_optax`` returns.

They are those of a copy of the scheduler: what happens to it later plays no part.
"""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from brainsched import checks
from brainsched.core import arguments
from brainsched.core import config as configuring
from brainsched.core.scheduler import LRScheduler
from brainsched.optax.groups import GroupNumbers
from brainsched.schedules import schedule_checks
from brainsched.schedules.per_update import PerUpdate
from brainsched.types import Array, Rate, epoch_dtype, largest_epoch

_PLATEAU = (
    ". Give scale_by_scheduler multiplier=optax.contrib.reduce_on_plateau(...), which reduces "
    "the rates of any schedule"
)
_LARGEST_COUNT = int(np.iinfo(np.int32).max)


class OptaxSchedule:
    """The rate of one param group as a function of a count: :meth:`LRScheduler.as_optax`.

    Parameters
    ----------
    scheduler : LRScheduler
        The schedule.
    group : int or str, optional
        The number or the name of the group. Default: 0, with a warning where the rates of the
        groups differ.
    steps_per_epoch : int
        How many counts make an epoch.
    staircase : bool
        Whether the rate stays the same within an epoch.
    last_epoch : int, optional
        The epoch of count 0.
    """

    def __init__(
        self,
        scheduler: LRScheduler,
        group: int | str | None = None,
        steps_per_epoch: int = 1,
        staircase: bool = False,
        last_epoch: int | None = None,
    ) -> None:
        is_given = group is not None
        group = group if is_given else 0
        self._arguments = (scheduler, group, steps_per_epoch, staircase, last_epoch)
        self._rates = Rates(scheduler, steps_per_epoch, staircase, last_epoch)
        hint = f". For epochs of {group} updates, write as_optax(steps_per_epoch={group})"
        self._group = self._rates.groups.one("group", group, hint)
        if not is_given:
            _warn_if_groups_differ(scheduler, len(self._rates.groups))

    def __call__(self, count: Any) -> Array:
        """Return the rate after ``count`` updates."""
        first = self._rates.first_count
        count = _count(count)
        if first:  # at the largest count it stays, as 1 more wraps
            smaller = jnp.minimum if isinstance(count, jax.Array) else np.minimum
            count = smaller(count, largest_epoch() - first) + first
        return self._rates.at(count)[..., self._group]

    @property
    def __name__(self) -> str:
        """The class of the scheduler, for those who name a function by this."""
        return type(self._arguments[0]).__name__

    def __repr__(self) -> str:
        scheduler, *given = self._arguments
        defaults = {"group": 0, "steps_per_epoch": 1, "staircase": False, "last_epoch": None}
        shown = [
            f"{name}={value!r}"
            for (name, default), value in zip(defaults.items(), given, strict=True)
            if value != default
        ]
        return f"{configuring.call(scheduler)}.as_optax({', '.join(shown)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._arguments  # without what is compiled


def _warn_if_groups_differ(scheduler: LRScheduler, number: int) -> None:
    """Warn that one rate will serve all parameters, of a schedule with several that differ."""
    by_part = jax.tree.leaves(scheduler._bases.arrays(number, _distinct))
    has_columns = scheduler.max_groups is not None and number > 1
    if has_columns or max(by_part) > 1:
        warnings.warn(
            f"as_optax() is the rate of one param group, and those of the {number} groups of this "
            f"{type(scheduler).__name__} differ: name one, as group=0, or give each parameter its "
            f"own with scale_by_scheduler. Group 0 it is",
            stacklevel=2,
        )


def _distinct(rates: list[Rate]) -> Array:
    """Return how many rates there are that are known to differ."""
    known = {float(rate) for rate in rates if not isinstance(rate, jax.core.Tracer)}
    return np.asarray(len(known))


def require_scheduler(scheduler: Any) -> None:
    """Raise a TypeError unless ``scheduler`` is one whose rate is a function of the epoch."""
    if not isinstance(scheduler, LRScheduler):
        raise TypeError(f"scheduler must be an LRScheduler, got {type(scheduler).__name__}")
    scheduler._require_pure("the bridge to optax", _PLATEAU)


class Rates:
    """The rates of a copy of ``scheduler``, for all the groups that it has rates for."""

    def __init__(
        self,
        scheduler: LRScheduler,
        steps_per_epoch: int = 1,
        staircase: bool = False,
        last_epoch: int | None = None,
    ) -> None:
        require_scheduler(scheduler)
        steps = schedule_checks.count("steps_per_epoch", steps_per_epoch, least=1)
        staircase = schedule_checks.flag("staircase", staircase)
        first = (
            scheduler._first_epoch
            if last_epoch is None
            else checks.epoch_number("last_epoch", last_epoch)
        )
        self.first_count = first * steps
        if self.first_count > _LARGEST_COUNT:
            raise ValueError(
                f"last_epoch * steps_per_epoch must be at most {_LARGEST_COUNT}, "
                f"got {self.first_count}"
            )
        counts = arguments.counts_updates(scheduler)
        if counts is not None and steps != 1:
            where = "" if counts is scheduler else f", a part of this {type(scheduler).__name__}"
            raise ValueError(
                f"steps_per_epoch must be left out for a {type(counts).__name__}{where}, which "
                f"counts updates already, got {steps}"
            )
        number = scheduler.max_groups or len(scheduler.base_lrs)
        self.groups = GroupNumbers(number, scheduler.group_names, type(scheduler).__name__)
        stretched = scheduler if steps == 1 else PerUpdate(scheduler, steps, staircase)
        self._evaluation = stretched._evaluation_of(number, stretched._bases)

    def at(self, count: Any) -> Float[Array, "*count groups"]:
        """Return the rates after ``count`` updates."""
        return self._evaluation.rates(_count(count))


def _count(value: Any) -> Array:
    """Return a count of updates, or an array of them, in the dtype of an epoch.

    Below 0 it counts as 0, as ``optax.join_schedules`` has it before a schedule's turn, and what
    is too large as the largest: on the host as in compiled code, where nothing can be refused.
    """
    if isinstance(value, jax.Array):
        if not jnp.issubdtype(value.dtype, jnp.integer):
            raise TypeError(f"count must hold integers, got an array of {value.dtype}")
        return jnp.maximum(checks.clipped(value), 0)
    if not (isinstance(value, np.ndarray) and value.ndim):
        count = min(max(checks.integer("count", value), 0), largest_epoch())
        return np.asarray(count, epoch_dtype())
    if not np.issubdtype(value.dtype, np.integer):
        raise TypeError(f"count must hold integers, got an array of {value.dtype}")
    counts = np.minimum(np.maximum(value, 0).astype(np.uint64), np.uint64(largest_epoch()))
    return counts.astype(epoch_dtype())
