"""Whether an optimizer that was restored goes on under the plan that it was saved under."""

import warnings
from typing import Any

import jax
import numpy as np

from brainsched.core import config as configuring
from brainsched.core.scheduler import LRScheduler
from brainsched.optax import plan as plans
from brainsched.optax.scale import GIVE_A_PART, ScaleBySchedulerState, states_in
from brainsched.optax.schedule import Rates, require_scheduler

# Rates that differ by no more than this may come from two devices, or two versions of XLA.
_TOLERANCE = 1e-6


def check_resumed(
    opt_state: Any,
    scheduler: LRScheduler,
    steps_per_epoch: int | None = None,
    staircase: bool | None = None,
) -> None:
    """Warn if an optimizer's state was saved under another plan than the code's.

    Call it on the host, once, after restoring. The code's schedule holds from there on. A state
    of the old schedule of a :class:`Branch` or an :class:`Extension` is one of its plan, up to
    where it leaves.

    Parameters
    ----------
    opt_state : pytree
        The restored state of an optimizer, in which there is one of :func:`scale_by_scheduler`.
        Where there are several, as under ``optax.multi_transform``, one of this plan is enough.
    scheduler : LRScheduler
        The scheduler that the code gives to :func:`scale_by_scheduler`.
    steps_per_epoch, staircase : int and bool, optional
        What it gives besides. Default: what the latest call with this scheduler gave, or else what
        the state was saved with.

    Warns
    -----
    UserWarning
        With the names of what changed, and each group's rate at the latest update: what it was,
        and what it would be, or that they agree. A state that brainsched 0.1.0 saved has the
        rates alone.

    Raises
    ------
    TypeError, ValueError
        If there is no such state, or it is of many runs, or holds no arrays: traced, or shapes.

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
    states = [_on_host(state) for state in states_in(opt_state)]
    _, plan, _ = states[0]
    known_steps, known_staircase = plans.stretching(scheduler, plan)
    steps_per_epoch = known_steps if steps_per_epoch is None else steps_per_epoch
    staircase = known_staircase if staircase is None else staircase
    rates = Rates(scheduler, steps_per_epoch, staircase)
    call = scheduler, len(rates.groups), steps_per_epoch, staircase
    found = [_change(*state, rates, *call) for state in states]
    if not all(found):  # one of the states is this scheduler's
        return
    for change in found:
        which = "" if len(found) == 1 else f" in each of its {len(found)} states, {GIVE_A_PART}"
        warnings.warn(
            f"the optimizer was saved under another plan{which}: {change}. The schedule of the "
            f"code holds from here on",
            stacklevel=2,
        )


def _change(
    before: np.ndarray, plan: np.ndarray | None, count: int, rates: Rates, *call: Any
) -> str:
    """Say what the code has changed since a state was saved; nothing if it goes on.

    The state is as :func:`_on_host` returns it, and ``call`` is what :mod:`_plan` asks for. A state
    of the schedule that the code's branched off from is one of its own, as long as both have the
    same rates at the latest update.
    """
    latest = max(count - 1, 0)
    now = np.asarray(rates.at(latest))
    same_groups = before.shape == now.shape
    same_rates = same_groups and _close(before, now)
    changed: list[str] = []
    branch = None
    if plan is not None:
        changed = plans.changes(plan, *call)
        branch = plans.branch_of(plan, *call) if changed else None
    elif not same_groups:
        changed = [f"number of param groups ({len(before)} -> {len(now)})"]
    if same_rates and (branch or not changed):
        return ""
    what = f"{', '.join(changed or ['its rates'])} changed"
    if branch:
        what = _went_on(*branch, latest)
    agree = ", agree" if same_rates else ""
    return (
        f"{what}. The rates at the latest update, number {latest}{agree}: "
        f"{_shown(before, now, rates.groups.names)}"
    )


def _went_on(branch: Any, steps_per_epoch: int, latest: int) -> str:
    name = configuring.name_of(type(branch.scheduler))
    epoch = -(-latest // steps_per_epoch)  # rounded up: what has been trained stays as it was
    return (
        f"it is of the {name}, which this {type(branch).__name__} leaves with at={branch.at}, and "
        f"the {name} went on to epoch {epoch}. To leave it there, build one with at={epoch}"
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
    if any(isinstance(array, jax.ShapeDtypeStruct) for array in arrays):
        raise TypeError(
            "opt_state must hold arrays, got the shapes of them, as nnx.eval_shape and "
            "jax.eval_shape give: call check_resumed with what was restored into it"
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
        f"group {name} {_number(old)}" + ("" if _close(old, new) else f" -> {_number(new)}")
        for name, old, new in zip(names, before, now, strict=True)
    )


def _close(before: Any, now: Any) -> bool:
    return bool(np.allclose(before, now, rtol=_TOLERANCE, atol=0))


def _joined(rates: np.ndarray) -> str:
    return ", ".join(map(_number, rates))


def _number(rate: Any) -> str:
    return f"{rate:.6g}"
