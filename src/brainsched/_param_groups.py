"""How a scheduler joins a braintools optimizer and comes to own the rate of its param groups.

The rates have one home, the scheduler's ``current_lrs``. The State of each group's rate, which
the optimizer's transformations read and ``group['lr']`` shows, becomes an alias of its entry
there. Nothing is copied, so what is reported is what is applied.
"""

import functools
import warnings
from typing import TYPE_CHECKING, Any

from brainstate import State
from braintools.optim import OptaxOptimizer

from brainsched import _upstream

if TYPE_CHECKING:
    from brainsched._base import LRScheduler


@functools.cache
def _scheduled(cls: Any) -> Any:
    """Return ``cls`` with what its optimizers do besides once a scheduler owns their rates."""

    class Scheduled(cls):
        __doc__ = cls.__doc__

        _unscheduled_class = cls
        _lr_scheduler: "LRScheduler"

        def add_param_group(self, params: Any, **kwargs: Any) -> None:
            scheduler = self._lr_scheduler
            if scheduler.optimizer is not self:  # it has moved on, or this is a clone
                super().add_param_group(params, **kwargs)
                return
            group = len(self.param_groups)
            bases = scheduler._check_group(group, kwargs.pop("lr", None), scheduler._bases)
            # Without ``lr=``, or braintools 0.3.0 hides the State that it applies.
            super().add_param_group(params, **kwargs)
            scheduler._hold(group + 1, bases)
            _alias(self, scheduler, group)

        def step(self, *args: Any, **kwargs: Any) -> Any:
            scheduler = self._lr_scheduler
            before = None if self.opt_state is None else self.opt_state.value
            result = super().step(*args, **kwargs)
            if scheduler._was_called:
                return result
            # With several groups, braintools leaves the first one out where it has no gradient.
            if len(self.param_groups) == 1 or self.opt_state.value is not before:
                scheduler._was_called = True
                warnings.warn(
                    f"{cls.__name__} does not read its learning rate from the scheduler: its "
                    f"transformation was built with a rate of its own, which it keeps whatever "
                    f"{type(scheduler).__name__} says",
                    UserWarning,
                    stacklevel=2,
                )
            return result

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            rates = self._lr_scheduler._current_lrs.value
            super().load_state_dict(state_dict)
            # What the scheduler has restored from its own checkpoint is the later word.
            if rates is self._lr_scheduler._restored_lrs:
                self._lr_scheduler._current_lrs.value = rates

    Scheduled.__name__ = Scheduled.__qualname__ = f"Scheduled{cls.__name__}"
    Scheduled.__module__ = cls.__module__
    return Scheduled


def _alias(optimizer: OptaxOptimizer, scheduler: "LRScheduler", group: int) -> None:
    state = _upstream.applied_rate(optimizer, group)
    _upstream.AliasState.take_over(state, scheduler, group)
    if group < len(optimizer.param_groups):
        optimizer.param_groups[group]["lr"] = state


def join(scheduler: "LRScheduler", optimizer: OptaxOptimizer) -> None:
    """Make ``scheduler`` own the rates of all of ``optimizer``'s groups, present and to come."""
    if not isinstance(optimizer, OptaxOptimizer):
        raise TypeError(
            f"optimizer must be an OptaxOptimizer of braintools.optim, "
            f"got {type(optimizer).__name__}"
        )
    owner = _upstream.scheduler_of(optimizer)
    if scheduler.optimizer is optimizer and owner is scheduler:
        return
    groups = max(1, len(optimizer.param_groups))
    bases = scheduler._bases
    for group in range(groups):
        bases = scheduler._check_group(group, _given_rate(optimizer, owner, group), bases)
    if scheduler.optimizer is not None:
        leave(scheduler, scheduler.optimizer)

    scheduler._hold(groups, bases)
    _upstream.replace_scheduler(optimizer, scheduler)
    for group in range(groups):
        _alias(optimizer, scheduler, group)
    scheduler._was_called = False
    scheduler.optimizer = optimizer
    if not hasattr(optimizer, "_unscheduled_class"):
        cls: Any = type(optimizer)
        optimizer.__class__ = _scheduled(cls)


def _given_rate(optimizer: OptaxOptimizer, owner: Any, group: int) -> Any:
    """Return the ``lr=`` that a group was added with, or None."""
    if group == 0:
        return None
    rate = optimizer.param_groups[group]["lr"]
    if not isinstance(rate, State):
        return rate
    return owner._bases.given.get(group) if hasattr(owner, "_bases") else None


def leave(scheduler: "LRScheduler", optimizer: OptaxOptimizer) -> None:
    """Take ``scheduler`` away from ``optimizer``, whose added groups keep the rates they have."""
    warnings.warn(
        f"{type(scheduler).__name__} moves to another optimizer, with its epoch and rates. "
        f"The first param group of the former one, {optimizer._unscheduled_class.__name__}, "
        f"still applies this scheduler's rate; its other groups keep the rates they have",
        UserWarning,
        stacklevel=4,
    )
    for group in range(1, len(optimizer.param_groups)):
        state = optimizer.param_groups[group]["lr"]
        if isinstance(state, _upstream.AliasState):
            state.release()
