"""Whether a restored optimizer goes on under the schedule that it was saved under."""

import warnings
from typing import Any

import jax
import numpy as np

from brainsched.core.scheduler import LRScheduler
from brainsched.optax.scale import states_in
from brainsched.optax.schedule import Rates


def check_resumed(
    opt_state: Any,
    scheduler: LRScheduler,
    initial_state: Any = None,
    steps_per_epoch: float = 1,
    *,
    staircase: bool = False,
) -> None:
    """Warn if the code's schedule gives other rates than a restored optimizer applied last.

    Call it once after restoring, outside of compiled code. The code's schedule and groups hold
    from there on. A schedule that differs only later is not a change yet.

    Parameters
    ----------
    opt_state : pytree
        The restored state of an optimizer that contains one of :func:`scale_by_scheduler`. Where
        there are several, as under ``optax.multi_transform``, one with this schedule is enough.
    scheduler, steps_per_epoch, staircase
        As passed to :func:`scale_by_scheduler`.
    initial_state : pytree, optional
        What ``tx.init(params)`` returns: then a parameter whose group changed is noticed, too.

    Raises
    ------
    ValueError
        If there is no such state, or it is that of many different runs.

    Examples
    --------
    >>> import brainsched, jax.numpy as jnp
    >>> scheduler = brainsched.StepLR(0.5, step_size=30)
    >>> state = brainsched.scale_by_scheduler(scheduler, {"*": 0}).init({"kernel": jnp.ones(())})
    >>> brainsched.check_resumed(state, scheduler)  # silent, as the rates agree
    """
    rates = Rates(scheduler, steps_per_epoch, staircase)
    states = [_on_host(state) for state in states_in(opt_state)]
    changes = []
    for count, before, _ in states:
        latest = count - 1 if count > rates.first_count else count
        now = np.asarray(rates.at(latest))
        # Rates that differ by less may come from two devices, or two versions of XLA.
        if before.shape != now.shape or not np.allclose(before, now, rtol=1e-6, atol=0):
            shown = (", ".join(f"{rate:.6g}" for rate in found) for found in (before, now))
            changes.append("at update {} its rates were {} and are {}".format(latest, *shown))
    messages = []
    if len(changes) == len(states):
        messages.append(
            f"the schedule changed since the optimizer was saved: {'; '.join(changes)}. If it did "
            f"not, pass the steps_per_epoch and staircase of scale_by_scheduler here, too"
        )
    initial = states if initial_state is None else map(_on_host, states_in(initial_state))
    pairs = [(old[-1], new[-1]) for old, new in zip(states, initial, strict=True)]
    if any(old != new and old and new for old, new in pairs):  # 0.1.0 has none
        messages.append("a parameter is in another param group than when the optimizer was saved")
    for message in messages:
        warnings.warn(message, UserWarning, stacklevel=2)


def _on_host(state: Any) -> tuple[int, np.ndarray, int]:
    """Return the count, the schedule's rates at the latest update, and the checksum of groups."""
    values = state.hyperparams
    rates = values.get("scheduled_learning_rate", values["learning_rate"])
    leaves = jax.tree.leaves([state.count, rates, values.get("group_checksum", 0)])
    count, *others = [np.asarray(leaf) for leaf in leaves]
    first = (0,) * count.ndim  # of states that are replicated over devices
    if any((array != array[first]).any() for array in (count, *others[:1])):
        raise ValueError(f"opt_state has the states of many runs, of shape {count.shape}: give one")
    before, checksum = others[0][first], others[1].ravel()[0]
    return int(count[first]), np.atleast_1d(before), int(checksum)
