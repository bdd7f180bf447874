"""Rates that stay the same within a stage and change at its boundaries."""

import warnings
from collections.abc import Sequence
from types import ModuleType
from typing import Self

import jax
import numpy as np

from brainsched import checks
from brainsched.core.scheduler import LRScheduler
from brainsched.schedules.lengths import boundaries as checked_boundaries
from brainsched.schedules.lengths import reached
from brainsched.schedules.search import Search
from brainsched.types import Array, BaseLRs, Epochs, LRs, Rate, Rates


class PiecewiseConstantSchedule(LRScheduler):
    r"""A rate that is constant within each stage of the training.

    .. math::

        \eta_t = \eta_\text{base} \, v_i, \quad i = |\{\, b \in \text{boundaries} : b \le t \,\}|

    so that stage :math:`i` holds from ``boundaries[i - 1]``, included, to ``boundaries[i]``.

    Parameters
    ----------
    base_lr : float or sequence of float
        The rate at multiplier 1, of every param group or one for each.
    boundaries : sequence of int or float, optional
        The epochs at which a new stage begins, ascending. Default: ``[1000, 2000]``.
    values : sequence of float, or of rows of float, optional
        The multiplier of each stage: one more than there are boundaries. With a row for each
        stage and a column for each param group, every group follows stages of its own. 0.0
        freezes a group's parameters; an adaptive optimizer still gathers its moments. Default:
        ``[1.0, 0.1, 0.01]``.
    last_epoch : int
        The epoch to begin at.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; the message names the element.

    Notes
    -----
    ``values`` are multipliers, as braintools documents its class of this name up to version 0.1.10.
    The code there takes them for rates and ignores ``base_lr``, and from 0.2.0 on its documentation
    says so, too: what was written for it is :meth:`from_rates` here. Values of which the largest
    equals the largest base rate, and is not 1, are warned of.

    ``base_lr`` and ``values`` may be traced or device arrays, to sweep schedules with ``vmap`` or
    to tune them by gradient.

    Examples
    --------
    >>> import brainsched
    >>> scheduler = brainsched.PiecewiseConstantSchedule(
    ...     base_lr=0.5, boundaries=[30, 60], values=[1.0, 0.5, 0.25])
    >>> scheduler.lr_at([29, 30, 59, 60]).ravel().tolist()
    [0.5, 0.25, 0.25, 0.125]
    """

    def __init__(
        self,
        base_lr: Rates = 1e-3,
        boundaries: Sequence[int | float] | Array | None = None,
        values: Sequence[float] | Sequence[Sequence[float]] | Array | None = None,
        last_epoch: int = 0,
    ) -> None:
        self.boundaries = [1000, 2000] if boundaries is None else boundaries
        self.values = [1.0, 0.1, 0.01] if values is None else values
        self._boundaries = checked_boundaries("boundaries", self.boundaries)
        self._stages = Search(reached(self._boundaries))
        table = checks.table("values", self.values, len(self._boundaries), more=1)
        self.max_groups = table.shape[1] if table.ndim == 2 else None
        self._multipliers = table if table.ndim == 2 else table[:, None]
        super().__init__(base_lr, last_epoch)
        if are_base_rates(self._multipliers, self._bases.first(self._bases.known)):
            warnings.warn(
                f"The largest of values, which are multipliers of base_lr, equals base_lr. If "
                f"values are rates, use {type(self).__name__}.from_rates(boundaries, rates).",
                UserWarning,
                stacklevel=3,
            )

    @classmethod
    def from_rates(
        cls,
        boundaries: Sequence[int | float] | Array,
        rates: Sequence[float] | Sequence[Sequence[float]] | Array,
        last_epoch: int = 0,
    ) -> Self:
        """Build the schedule from its rates, in the place of a base rate and multipliers.

        Parameters
        ----------
        boundaries : sequence of int or float
            The epochs at which a new stage begins, ascending.
        rates : sequence of float, or of rows of float
            The rate of each stage: one more than there are boundaries; with a row for each stage
            and a column for each param group, of every group.
        last_epoch : int
            The epoch to begin at.

        Returns
        -------
        PiecewiseConstantSchedule
            With ``rates`` for ``values``, and a base rate of 1 for each column.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as described; the message names the element.

        Examples
        --------
        >>> import brainsched
        >>> schedule = brainsched.PiecewiseConstantSchedule.from_rates([30, 60], [0.5, 0.25, 0.125])
        >>> schedule.lr_at([29, 30, 60]).ravel().tolist()
        [0.5, 0.25, 0.125]
        """
        count = len(checked_boundaries("boundaries", boundaries))
        table = checks.table("rates", rates, count, more=1)
        base_lr = [1.0] * table.shape[1] if table.ndim == 2 else 1.0
        return cls(base_lr, boundaries, rates, last_epoch)

    @property
    def stage_boundaries(self) -> Sequence[float]:
        """The epochs at which a new stage begins."""
        return self._boundaries

    def formula(self, epoch: Epochs, base_lrs: BaseLRs, xp: ModuleType) -> LRs:
        """Look the stage up and multiply; see :meth:`LRScheduler.formula`."""
        stage = self._stages(epoch[..., 0], xp)
        multipliers = xp.asarray(self._multipliers).take(stage, axis=0, mode="clip")
        return base_lrs * multipliers[..., : len(base_lrs)]


def are_base_rates(multipliers: Array, base_lrs: Sequence[Rate]) -> bool:
    """Whether the largest multiplier is the largest base rate, and not 1: it would count twice."""
    if any(isinstance(leaf, jax.Array) for leaf in [multipliers, *base_lrs]):
        return False
    largest = np.float32(np.max(multipliers))
    return largest not in (0, 1) and largest == np.float32(max(base_lrs))
