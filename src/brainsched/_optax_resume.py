"""Whether an optimizer that was restored goes on under the plan that it was saved under."""

import warnings
from typing import Any

import jax
import numpy as np

from brainsched import _plan
from brainsched._base import LRScheduler
from brainsched._optax import Rates, ScaleBySchedulerState, require_scheduler, states_in

# Rates that differ by no more than this may come from two devices, or two versions of XLA.
_TOLERANCE = 1e-6


def check_resumed(
    opt_state: Any,
    scheduler: LRScheduler,
    steps_per_epoch: int | None = None,
    staircase: bool | None = None,
) -> None:
    """Warn if an optimizer's state was saved under another plan than the code's.

    Call it on the host, once, after restoring. The code's schedule holds from there on.

    Parameters
    ----------
    opt_state : pytree
        The restored state of an optimizer, in which there is one of :func:`scale_by_scheduler`.
    scheduler : LRScheduler
        The scheduler that the code gives to :func:`scale_by_scheduler`.
    steps_per_epoch, staircase : int and bool, optional
        What it gives besides. Default: what the latest call with this scheduler gave.

    Warns
    -----
    UserWarning
        With the names of what changed, and each group's rate at the latest update: what it was,
        and what it would be. A state that brainsched 0.1.0 saved has the rates alone.

    Raises
    ------
    TypeError, ValueError
        If there is no such state, it is traced, or it is of many runs.

    Examples
    --------
    >>> import brainsched, jax.numpy as jnp, warnings
    >>> saved = brainsched.StepLR(0.5, step_size=30, gamma=0.5)
    >>> state = brainsched.scale_by_scheduler(saved, {"*": 0}).init({"kernel": jnp.ones(())})
    >>> changed = brainsched.StepLR(0.25, step_size=20, gamma=0.5)
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     brainsched.check_resumed(state, changed)
    >>> print(str(caught[0].message).partition(". ")[0])
    the optimizer was saved under another plan: base_lr (0.5 -> 0.25), step_size (30 -> 20) changed
    """
    require_scheduler(scheduler)
    known_steps, known_staircase = _plan.remembered(scheduler)
    steps_per_epoch = known_steps if steps_per_epoch is None else steps_per_epoch
    staircase = known_staircase if staircase is None else staircase
    rates = Rates(scheduler, steps_per_epoch, staircase)
    for state in states_in(opt_state):
        before, plan, count = _on_host(state)
        latest = max(count - 1, 0)
        now = np.asarray(rates.at(latest))
        changed = (
            []
            if plan is None
            else _plan.changes(plan, scheduler, len(rates.groups), steps_per_epoch, staircase)
        )
        same_groups = before.shape == now.shape
        if not same_groups and plan is None:
            changed = [f"number of param groups ({len(before)} -> {len(now)})"]
        same_rates = same_groups and bool(np.allclose(before, now, rtol=_TOLERANCE, atol=0))
        if not changed and same_rates:
            continue
        warnings.warn(
            f"the optimizer was saved under another plan: "
            f"{', '.join(changed or ['its rates'])} changed. The rates at the latest update, "
            f"number {latest}: {_shown(before, now, rates.groups.names)}. The schedule of the code "
            f"holds from here on",
            UserWarning,
            stacklevel=2,
        )


def _on_host(state: ScaleBySchedulerState) -> tuple[np.ndarray, np.ndarray | None, int]:
    """Return the schedule's rates at the latest update, the fingerprint, and the count."""
    hyperparams = state.hyperparams
    scheduled = hyperparams.get("scheduled_learning_rate", hyperparams["learning_rate"])
    arrays = jax.tree.leaves([state.count, scheduled, hyperparams.get("plan")])
    if any(isinstance(array, jax.core.Tracer) for array in arrays):
        raise TypeError(
            "opt_state must be on the host or on a device, got traced arrays: call "
            "check_resumed once, outside of compiled code"
        )
    count, before, *plan = map(np.asarray, arrays)
    if count.ndim:
        raise ValueError(
            f"opt_state has the states of many runs, of shape {count.shape}: give one of them"
        )
    return before, plan[0] if plan else None, int(count)


def _shown(before: np.ndarray, now: np.ndarray, names: tuple[str, ...]) -> str:
    if before.shape != now.shape:
        return f"{_joined(before)} -> {_joined(now)}"
    return ", ".join(
        f"group {name} {old:.6g} -> {new:.6g}"
        for name, old, new in zip(names, before, now, strict=True)
    )


def _joined(rates: np.ndarray) -> str:
    return ", ".join(f"{rate:.6g}" for rate in rates)
