"""Rates that stay the same within a stage and change at its boundaries."""

import warnings
from collections.abc import Sequence
from types import ModuleType
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from brainsched import checks
from brainsched.core.scheduler import LRScheduler
from brainsched.schedules import stages
from brainsched.types import Array, BaseLRs, Epochs, LRs, Rates, rate_dtype


class PiecewiseSchedule(LRScheduler):
    """What piecewise schedules share: ``values``, with one column or one for each param group."""

    values: Any
    _more: int  # how many more values there are than boundaries

    def __init__(self, base_lr: Rates, last_epoch: int) -> None:
        table = _table("values", self.values, len(self._boundaries), more=self._more)
        self.max_groups = table.shape[1] if table.ndim == 2 else None
        self._multipliers = table if table.ndim == 2 else table[:, None]
        super().__init__(base_lr, last_epoch)
        base_lrs = self._bases.first(self._bases.known)
        if any(isinstance(leaf, jax.Array) for leaf in [table, *base_lrs]):
            return
        largest = np.float32(np.max(table))
        # Rates given twice: the base rate would count twice.
        if largest not in (0, 1) and largest == np.float32(max(base_lrs)):
            warnings.warn(
                "The largest of values, which are multipliers of base_lr, equals base_lr. If "
                "values are rates, write base_lr=1.0.",
                UserWarning,
                stacklevel=4,
            )


class PiecewiseConstantSchedule(PiecewiseSchedule):
    r"""A rate that is constant within each stage of the training.

    .. math::

        \eta_t = \eta_\text{base} \, v_i, \quad i = |\{\, b \in \text{boundaries} : b \le t \,\}|

    so that stage :math:`i` holds from ``boundaries[i - 1]``, included, to ``boundaries[i]``.

    Parameters
    ----------
    base_lr, last_epoch : float, sequence or mapping of float; int
        The base rate of every param group, or one for each; the epoch to begin at.
    boundaries : sequence of int or float, optional
        The epochs at which a new stage begins, ascending. Default: ``[1000, 2000]``.
    values : sequence of float, or of rows of float, optional
        The multiplier of each stage: one more than there are boundaries. With a row for each
        stage and a column for each param group, each group follows its own stages. 0.0 freezes
        a group; an adaptive optimizer still gathers its moments. Default: ``[1.0, 0.1, 0.01]``.

    Notes
    -----
    ``values`` are multipliers, as braintools documented its class up to version 0.1.10. Its code
    takes rates: see :meth:`from_rates`. ``base_lr`` and ``values`` may be traced or device arrays.

    Examples
    --------
    >>> import brainsched
    >>> scheduler = brainsched.PiecewiseConstantSchedule(
    ...     base_lr=0.5, boundaries=[30, 60], values=[1.0, 0.5, 0.25])
    >>> scheduler.lr_at([29, 30, 59, 60]).ravel().tolist()
    [0.5, 0.25, 0.25, 0.125]
    """

    _more = 1

    def __init__(
        self,
        base_lr: Rates = 1e-3,
        boundaries: Sequence[int | float] | Array | None = None,
        values: Sequence[float] | Sequence[Sequence[float]] | Array | None = None,
        last_epoch: int = 0,
    ) -> None:
        self.boundaries = [1000, 2000] if boundaries is None else boundaries
        self.values = [1.0, 0.1, 0.01] if values is None else values
        self._boundaries = stages.boundaries("boundaries", self.boundaries)
        self._stages = stages.Search(stages.reached(self._boundaries))
        super().__init__(base_lr, last_epoch)

    @classmethod
    def from_rates(
        cls,
        boundaries: Sequence[int | float] | Array,
        rates: Sequence[float] | Sequence[Sequence[float]] | Array,
        last_epoch: int = 0,
    ) -> Self:
        """Build the schedule from ``rates``, which are ``values`` with a base rate of 1."""
        count = len(stages.boundaries("boundaries", boundaries))
        table = _table("rates", rates, count, more=1)
        base_lr = [1.0] * table.shape[1] if table.ndim == 2 else 1.0
        return cls(base_lr, boundaries, rates, last_epoch)

    def formula(self, epoch: Epochs, base_lrs: BaseLRs, xp: ModuleType) -> LRs:
        """Look the stage up and multiply; see :meth:`LRScheduler.formula`."""
        stage = self._stages(epoch[..., 0], xp)
        multipliers = xp.asarray(self._multipliers).take(stage, axis=0, mode="clip")
        return base_lrs * multipliers[..., : len(base_lrs)]


def _table(name: str, value: Any, boundaries: int, *, more: int) -> Array:
    """Return one multiplier for each stage, or a row for each with one for each param group.

    Returns
    -------
    array of shape ``(rows,)`` or ``(rows, groups)``
        In float64; if it or an entry is a JAX array, such an array, in its dtype or the rate's.
    """
    if isinstance(value, jax.Array):
        if value.ndim not in (1, 2):
            raise ValueError(f"{name} must have one or two axes, got the shape {value.shape}")
        result: Array = checks.real_array(name, value)
    else:
        result = _rows(name, checks.sequence(name, value, "numbers, or of rows of numbers"))
    if len(result) != boundaries + more:
        each = f"{'stage' if more else 'boundary'}, {boundaries + more} in all"
        raise ValueError(f"{name} must have one entry for each {each}, got {len(result)}")
    return result


def _rows(name: str, entries: list[Any]) -> Array:
    """Stack numbers, or rows of them; any of them may be a scalar JAX array."""
    if not any(map(checks.is_sequence, entries)):
        return _stack([checks.rate(f"{name}[{i}]", entry) for i, entry in enumerate(entries)])
    rows = []
    for i, entry in enumerate(entries):
        row = checks.sequence(f"{name}[{i}]", entry, "numbers, one for each param group")
        rows.append(_stack([checks.rate(f"{name}[{i}][{j}]", v) for j, v in enumerate(row)]))
        if len(rows[i]) != len(rows[0]):
            found = f"{len(rows[i])} in {name}[{i}] and {len(rows[0])} in {name}[0]"
            raise ValueError(f"{name} must have rows of equal length, got {found}")
    return _stack(rows)


def _stack(entries: Sequence[Any]) -> Array:
    if any(isinstance(entry, jax.Array) for entry in entries):
        return jnp.stack([jnp.asarray(entry, rate_dtype()) for entry in entries])
    return np.asarray(entries, np.float64)
