"""Quantities that follow a schedule but are not rates: of either sign, and never stepped."""

import dataclasses
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from brainsched import checks
from brainsched.core import config as configuring
from brainsched.core.evaluation import float64_arithmetic
from brainsched.core.scheduler import LRScheduler
from brainsched.schedules.composition import require_part
from brainsched.types import Array, rate_dtype, smallest_rate


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class ValueSchedule:
    r"""A value that a schedule takes from one number to another, as a function of the epoch.

    .. math::

        v_t = v_0 + (v_1 - v_0) \, \eta_t

    with the rate :math:`\eta_t` of a schedule whose ``base_lr`` is 1.0: it is a share here. It
    has no position. Call it with an epoch or a count, in compiled code too: as an
    ``optax.Schedule``, or as ``value(scheduler.last_epoch.value)`` in a model of brainstate.

    Parameters
    ----------
    schedule : LRScheduler
        What gives the share, for one param group. Its position is ignored.
    at_zero, at_one : float
        The values at rates 0 and 1, :math:`v_0` and :math:`v_1`: of either sign and in either
        order. Scalar arrays, traced or not, serve too.

    Examples
    --------
    A threshold in mV:

    >>> import brainsched
    >>> rise = brainsched.WarmupScheduler(1.0, warmup_epochs=4)
    >>> threshold = brainsched.ValueSchedule(rise, at_zero=-70.0, at_one=-54.0)
    >>> threshold([0, 1, 4, 9]).tolist()
    [-70.0, -66.0, -54.0, -54.0]
    """

    schedule: LRScheduler
    at_zero: float | jax.Array
    at_one: float | jax.Array

    def __post_init__(self) -> None:
        schedule = self.schedule
        require_part("schedule", schedule)
        groups = schedule.max_groups or len(schedule.base_lrs)
        if groups != 1:
            raise ValueError(f"schedule must be of one param group, got one of {groups}")
        (base,) = schedule._bases.first(1)
        if not isinstance(base, jax.Array) and base not in (0, 1):
            raise ValueError(
                f"schedule must have a base_lr of 1.0, as its rate is the share of the way from "
                f"at_zero to at_one, got {base!r}"
            )
        for name in ("at_zero", "at_one"):
            value = getattr(self, name)
            if isinstance(value, jax.Array):
                checks.rate(name, value)
                continue
            number = float(checks.real(name, value))
            if not abs(number) <= checks.LARGEST_RATE:  # nor is NaN
                raise ValueError(f"{name} must be a finite float32, got {value!r}")
            object.__setattr__(self, name, number)

    def __call__(self, epoch: Any) -> Float[Array, "*epoch"]:
        """Return the value at any epoch, or at many.

        An epoch is as in :meth:`LRScheduler.lr_at`; but below 0 it always counts as 0, since
        ``optax.join_schedules`` asks all its parts for every count. The values have the shape of
        ``epoch`` and the dtype of a rate, and are a NumPy array if all that is on the host.
        """
        dtype = rate_dtype()
        if not isinstance(epoch, jax.Array):
            epoch = np.asarray(epoch)
            if np.issubdtype(epoch.dtype, np.number):
                epoch = np.maximum(epoch, 0)
        # Rounded once: with 64-bit types enabled, the share is in float64.
        with float64_arithmetic():
            epoch = checks.real_epoch("epoch", epoch)
            share = self.schedule._evaluation.rates(epoch)[..., 0]
            value: Any = self.at_zero * (1 - share) + self.at_one * share
            # Below the smallest normal number it is 0 on the host, too, as compiled code has it.
            value = value * (abs(value) >= smallest_rate(dtype))
            return value.astype(dtype) if isinstance(value, jax.Array) else np.asarray(value, dtype)

    def __repr__(self) -> str:
        schedule = configuring.call(self.schedule)
        return f"ValueSchedule({schedule}, at_zero={self.at_zero}, at_one={self.at_one})"
