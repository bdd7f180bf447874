"""How an optimizer of braintools is attached to a scheduler, and detached.

The applied rates live in one State, ``current_lrs`` of the scheduler that drives. The optimizer
reads it through :class:`GroupRate`, never through a scheduler: so a scheduler is replaced without
touching a transformation, and what the optimizer reports is what it applies. The new scheduler
takes over the State with a new structure, so compiled steps are traced again: see
:class:`Rates`.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from brainstate import State
from braintools.optim import OptaxOptimizer

from brainsched.link import upstream
from brainsched.link.group import given_rate
from brainsched.link.optimizer import (
    added_groups,
    first_group,
    make_scheduled,
    own_tx_again,
    plain_class,
    require_original,
    require_own_tx,
    scheduled_class,
    warn_unless_read,
)
from brainsched.link.rates import Rates, RatesState


class Drives(Protocol):
    """What the link needs of a scheduler."""

    optimizer: OptaxOptimizer | None
    last_epoch: State
    _current_lrs: RatesState
    _with_groups: Callable[[Sequence[Any]], Any]  # from the ``lr=`` of each group; may raise
    _have_groups: Callable[[Any], None]


def attach(scheduler: Drives, optimizer: OptaxOptimizer) -> None:
    """Let ``optimizer`` follow ``scheduler``, or raise and change nothing."""
    if not isinstance(optimizer, OptaxOptimizer):
        raise TypeError(
            f"optimizer must be an OptaxOptimizer of braintools.optim, got {optimizer!r}: pass "
            f"scheduler.as_optax() to optax and Flax"
        )
    present = scheduler.optimizer
    if present is optimizer:
        return
    # An optimizer without a transformation was never built: its constructor raised.
    if present is not None and hasattr(present, "tx"):
        raise ValueError(
            f"this {type(scheduler).__name__} already drives a {plain_class(present).__name__}: "
            f"give the other one copy.deepcopy(scheduler) or "
            f"brainsched.from_config(scheduler.config)"
        )
    upstream.require_outside_a_trace(scheduler.last_epoch, optimizer.step_count)
    require_original(optimizer)
    groups = optimizer.param_groups
    having = scheduler._with_groups([given_rate(group) for group in groups] or [None])
    former, added = optimizer.lr_scheduler, []
    built_plain = former is not scheduler and not isinstance(former._current_lrs, RatesState)
    if former is not scheduler:
        require_own_tx(optimizer)  # a tx= of the user's goes on reading the former one's State
    if built_plain:
        tx = own_tx_again(optimizer)
        added = added_groups(optimizer)
    if groups:
        warn_unless_read(optimizer, groups[0]["params"], stacklevel=4)
    scheduled = scheduled_class(optimizer)
    # All is checked: from here on nothing raises.
    if built_plain:
        upstream.stand_aside(optimizer, Rates)
    elif former is not scheduler:
        shared = former._current_lrs
        leave(former, f"a {type(scheduler).__name__}")
        scheduler._current_lrs.restructure(Rates())
        scheduler.__dict__["_current_lrs"] = shared
    upstream.follow(optimizer, scheduler, upstream.first_rate(optimizer))
    make_scheduled(optimizer, scheduled)
    if built_plain:
        optimizer.tx = tx
        groups[:1] = [first_group(optimizer)] if groups else []
        for group, (entry, moments) in enumerate(added, start=1):
            groups[group], optimizer.param_groups_opt_states[group - 1] = entry, moments
    scheduler.__dict__.update(optimizer=optimizer, _replaced_by=None)
    scheduler._have_groups(having)


def leave(scheduler: Drives, successor: str) -> None:
    """Detach ``scheduler``, which keeps its epoch and gets a State of its own."""
    rates = RatesState(list(scheduler._current_lrs.value))
    scheduler.__dict__.update(_current_lrs=rates, optimizer=None, _replaced_by=successor)
