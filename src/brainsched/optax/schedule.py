"""The rates of a schedule as a function of optax's count of updates, which ``as_optax`` returns."""

import numbers
import warnings
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from brainsched import checks
from brainsched.core import arguments
from brainsched.core import config as configuring
from brainsched.core.evaluation import float64_arithmetic
from brainsched.core.scheduler import LRScheduler
from brainsched.optax.groups import group_number
from brainsched.schedules.composition import PerUpdate
from brainsched.types import Array


class Rates:
    """The rates of all groups of ``scheduler``, as it is now, at a count of updates."""

    def __init__(
        self,
        scheduler: LRScheduler,
        steps_per_epoch: float = 1,
        staircase: bool = False,
        last_epoch: float | None = None,
    ) -> None:
        if not isinstance(scheduler, LRScheduler):
            raise TypeError(f"scheduler must be an LRScheduler, got {type(scheduler).__name__}")
        cure = ". Give scale_by_scheduler multiplier=optax.contrib.reduce_on_plateau(...)"
        scheduler._require_pure("the bridge to optax", cure)
        counts = arguments.counts_updates(scheduler)
        if counts is not None and steps_per_epoch != 1:
            raise ValueError(
                f"steps_per_epoch must be left out, as a {type(counts).__name__} counts updates"
            )
        first = scheduler._first_epoch if last_epoch is None else last_epoch
        stretched = scheduler
        if staircase or steps_per_epoch != 1:
            stretched = PerUpdate(scheduler, steps_per_epoch, staircase)
        # Rounded, since 0.07 * 100 is 7.000000000000001: it begins with update 7.
        self.first_count = round(checks.number("last_epoch", first) * steps_per_epoch, 6)
        number = scheduler.max_groups or len(scheduler.base_lrs)
        named = scheduler.group_names
        self.names = (*named, *(str(group) for group in range(len(named), number)))
        self._evaluation = stretched._evaluation_of(number, stretched._bases)

    def at(self, count: Any, first: float = 0.0) -> Float[Array, "*count groups"]:
        """Return the rates ``count`` updates after ``first``: whole numbers or not, at least 0.

        Below 0 a count is one of 0: ``optax.join_schedules`` asks each schedule before its turn.
        """
        if not isinstance(count, jax.Array):
            return self._evaluation.rates(np.maximum(np.asarray(count, np.float64), 0) + first)
        with float64_arithmetic():
            epoch = jax.lax.max(checks.real_array("count", count).astype(np.float64), 0.0)
            epoch = epoch + first if first else epoch
        return self._evaluation.rates(epoch)


class OptaxSchedule:
    """The rate of one param group as a function of a count: see :meth:`LRScheduler.as_optax`."""

    def __init__(
        self,
        scheduler: LRScheduler,
        group: int | str | None = None,
        steps_per_epoch: float = 1,
        staircase: bool = False,
        last_epoch: float | None = None,
    ) -> None:
        if not isinstance(group, str | numbers.Integral | None):
            # It may be a count: optax.adamw(scheduler.as_optax) calls the method itself.
            raise TypeError(
                f"group must be the number or the name of a param group, got "
                f"{checks.shown(group)}: to give optax a schedule, write scheduler.as_optax()"
            )
        rates = Rates(scheduler, steps_per_epoch, staircase, last_epoch)
        differ = scheduler.max_groups or len(set(map(str, scheduler.base_lrs))) > 1
        if group is None and len(rates.names) > 1 and differ:
            warnings.warn(
                f"as_optax() gives the rate of group 0, and the rates of the {len(rates.names)} "
                f"groups differ. Name a group, as in as_optax(group=0), or use scale_by_scheduler",
                UserWarning,
                stacklevel=3,
            )
        group = 0 if group is None else group
        self._given = (scheduler, group, steps_per_epoch, staircase, last_epoch)
        index = group_number("group", group, rates.names)

        def rate(count: Any) -> Array:
            return rates.at(count, rates.first_count)[..., index]

        self._on_host, self._in_jax = rate, jax.jit(rate, inline=True)

    def __call__(self, count: Any) -> Array:
        """Return the rate after ``count`` updates."""
        return (self._in_jax if isinstance(count, jax.Array) else self._on_host)(count)

    def __repr__(self) -> str:
        scheduler, *given = self._given
        defaults = {"group": 0, "steps_per_epoch": 1, "staircase": False, "last_epoch": None}
        named = zip(defaults.items(), given, strict=True)
        shown = [f"{name}={value!r}" for (name, default), value in named if value != default]
        return f"{configuring.call(scheduler)}.as_optax({', '.join(shown)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._given  # without what is compiled
