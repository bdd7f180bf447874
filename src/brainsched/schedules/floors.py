"""Rates beside the base rates: those that a schedule begins at, and the floor that it falls to."""

from types import ModuleType
from typing import Any

import jax
import numpy as np

from brainsched import checks
from brainsched.core.arguments import BaseRates
from brainsched.core.evaluation import Bases, Evaluation
from brainsched.core.scheduler import LRScheduler
from brainsched.types import BaseLRs, Rates


class GroupRates:
    """One rate for all param groups, or one for each; the last entry counts for those beyond it.

    ``name`` is the argument that has the rates, and ``base_lr`` has the names of the groups.
    """

    def __init__(self, name: str, value: Any, base_lr: Any) -> None:
        self._name = name
        self._rates = BaseRates(tuple(checks.base_rates(name, value, base_lr)))

    def __call__(self, base_lrs: BaseLRs, xp: ModuleType) -> BaseLRs:
        """Return the rate of each group."""
        rates = self._rates.first(len(base_lrs))
        if any(isinstance(rate, jax.Array) for rate in rates):
            return xp.stack([xp.asarray(rate, np.float64) for rate in rates])
        return xp.asarray(np.asarray(rates, np.float64))  # one constant of a program


class Floor(GroupRates):
    """The rate that each param group falls to: absolute, or a share of its base rate."""

    def __init__(self, name: str, value: Any, ratio: Any, base_lr: Any) -> None:
        super().__init__(name, value, base_lr)
        self._ratio = None if ratio is None else checks.within(f"{name}_ratio", ratio, "[0, 1]")
        is_zero = all(not isinstance(rate, jax.Array) and rate == 0 for rate in self._rates.listed)
        if ratio is not None and not is_zero:
            raise ValueError(f"give {name} or {name}_ratio, not both, got {value!r}")

    def __call__(self, base_lrs: BaseLRs, xp: ModuleType) -> BaseLRs:
        """Return the floor of each group."""
        if self._ratio is None:
            return super().__call__(base_lrs, xp)
        return base_lrs * self._ratio

    def require_below(self, bases: list[Any]) -> None:
        """Raise if a group would rise to its floor; rates on a device are not looked at."""
        floors = self._rates.first(len(bases)) if self._ratio is None else []
        for group, (rate, base) in enumerate(zip(floors, bases, strict=False)):
            known = not (isinstance(rate, jax.Array) or isinstance(base, jax.Array))
            if known and np.float32(rate) > np.float32(base):
                raise ValueError(
                    f"{self._name} must be at most the base rate of each param group, which is "
                    f"{base:g} in group {group}, got {rate:g}"
                )

    def require_above_zero(self) -> None:
        """Raise if a group would fall to 0, which nothing reaches by a constant factor."""
        rates = self._rates.listed if self._ratio is None else (self._ratio,)
        if any(not isinstance(rate, jax.Array) and rate == 0 for rate in rates):
            raise ValueError(f"{self._name} must be above 0 for an exponential fall, got 0")


class FallingLR(LRScheduler):
    """What schedules that fall share: a floor for each param group, none above its base rate."""

    _floor: Floor

    def __init__(
        self, base_lr: Rates, last_epoch: int, eta_min: Rates | None, ratio: float | None
    ) -> None:
        self.eta_min, self.eta_min_ratio = eta_min, ratio
        self._floor = Floor("eta_min", 0.0 if eta_min is None else eta_min, ratio, base_lr)
        LRScheduler.__init__(self, base_lr, last_epoch)

    def _evaluation_of(self, groups: int, bases: Bases) -> Evaluation:
        self._floor.require_below(bases.first(max(groups, bases.known)))
        return super()._evaluation_of(groups, bases)
