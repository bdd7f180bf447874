"""The bridge to optax, and so to Flax: a rate for each group of parameters, at optax's own count.

It copies the scheduler: what happens to it later plays no part, and nothing that runs
under ``jax.jit`` or ``nnx.jit`` touches a State.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int

from brainsched import checks
from brainsched.core.scheduler import LRScheduler
from brainsched.optax import plan as plans
from brainsched.optax.groups import Assignment, Groups
from brainsched.optax.schedule import Rates
from brainsched.schedules import schedule_checks
from brainsched.types import Array

# What to do where an optimizer has several states of scale_by_scheduler.
GIVE_A_PART = (
    "give the part that has one, as is opt_state.inner_states['matrices'] of an "
    "optax.multi_transform"
)


class ScaleBySchedulerState(NamedTuple):
    """The state of ``scale_by_scheduler``, with the names of ``optax.inject_hyperparams``.

    Attributes
    ----------
    count : int32 array of shape ()
        The updates so far.
    hyperparams : dict
        ``'learning_rate'``, of shape ``(n_groups,)``, has the rates that the latest update was
        scaled by; before the first one, those that it will be. It is written, never read.

        ``'learning_rate_scale'`` multiplies the schedule's rates. It is 1.0 until someone writes
        another number, or one for each group, into it: from the next update on, it counts. One
        that is negative or not finite raises; in compiled code, which cannot raise, a rate below 0
        is 0.

        ``'scheduled_learning_rate'``, ``(n_groups,)``, and ``'plan'`` have the schedule's own rates
        at the latest update and the numbers that tell the plan that gave them: see
        ``check_resumed``.

        ``'learning_rate_multiplier'`` has the state of the ``multiplier``, where there is one.
    """

    count: Int[Array, ""]  # type: ignore[assignment]  # optax's name, and a method of tuple's
    hyperparams: dict[str, Any]


def scale_by_scheduler(
    scheduler: LRScheduler,
    groups: Groups,
    steps_per_epoch: int = 1,
    last_epoch: int | None = None,
    *,
    staircase: bool = False,
    multiplier: optax.GradientTransformation | None = None,
    allow_unused: bool = False,
    legacy_state: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Scale each parameter's update by minus the rate of its group.

    It takes the place of ``optax.scale_by_learning_rate``, last in an ``optax.chain``: after
    ``optax.scale_by_adam`` and ``optax.add_decayed_weights``, never after ``optax.adamw`` or
    ``optax.sgd``. They have a rate and the minus sign already, so that the two would go uphill,
    which nothing here can see.

    The position is the count in its own state, and never ``scheduler.last_epoch``: the scheduler
    gives the rates and is not stepped.

    Parameters
    ----------
    scheduler : LRScheduler
        The schedule. Its groups are the entries of ``base_lr``, or the columns of a schedule that
        has a column for each group.
    groups : callable, or mapping from str
        The group of a parameter: a function of its path, or patterns of paths with ``*`` and
        ``?``, of which the first that matches counts. A path is the parameter's keys joined by a
        slash, as in ``'body/layers/0/kernel'``; ``*`` matches slashes too. A group is a number,
        or a name from ``base_lr``. A sequence of groups has one for each entry of the parameter's
        first axis, as where ``nnx.scan`` stacks the layers of a network.
    steps_per_epoch : int
        How many updates make an epoch of the schedule, as with :class:`PerUpdate`. Under
        ``optax.MultiSteps`` those are real ones: batches // k.
    last_epoch : int, optional
        The epoch to begin at: ``scheduler.epoch`` goes on where a run under brainstate stopped.
        Default: the ``last_epoch`` that the scheduler was built with.
    staircase : bool
        Whether the rates stay the same within an epoch.
    multiplier : optax.GradientTransformation, optional
        What it makes of an update of 1.0 multiplies the rates, such as
        ``optax.contrib.reduce_on_plateau()``. It gets what else is given to ``update``.
    allow_unused : bool
        Allow patterns that claim no parameter, and groups without one.
    legacy_state : bool
        Have the state that brainsched 0.1.0 had, with no more than ``'learning_rate'``, to load
        its checkpoints.

    Returns
    -------
    optax.GradientTransformationExtraArgs
        Its state is a ``ScaleBySchedulerState``, with the rates in use.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described. In ``init``, if a pattern claims no parameter, or a
        group has none. In ``init`` and ``update``, if no group claims a parameter, or one does
        that the schedule does not have.

    See Also
    --------
    rates_by_name, check_resumed, layerwise_decay

    Examples
    --------
    >>> import brainsched, jax.numpy as jnp, optax
    >>> scheduler = brainsched.PiecewiseConstantSchedule(
    ...     {"body": 0.5, "head": 0.25}, [2], [1.0, 0.5])
    >>> groups = {"head/*": "head", "*": "body"}
    >>> tx = optax.chain(
    ...     optax.trace(decay=0.9), brainsched.scale_by_scheduler(scheduler, groups))
    >>> params = {"embedding": jnp.ones(()), "head": {"kernel": jnp.ones(())}}
    >>> updates, state = tx.update(params, tx.init(params))
    >>> updates["embedding"].item(), updates["head"]["kernel"].item()
    (-0.5, -0.25)
    >>> optax.tree_utils.tree_get(state, "learning_rate").tolist()
    [0.5, 0.25]
    """
    rates = Rates(scheduler, steps_per_epoch, staircase, last_epoch)
    assignment = Assignment(groups, rates.groups)
    allow_unused = schedule_checks.flag("allow_unused", allow_unused)
    legacy_state = schedule_checks.flag("legacy_state", legacy_state)
    if multiplier is not None and not isinstance(multiplier, optax.GradientTransformation):
        raise TypeError(
            f"multiplier must be a transformation of optax, such as optax.scale(0.5) or "
            f"optax.scale_by_schedule(schedule), got {checks.shown(multiplier)}"
        )
    times = None if multiplier is None else optax.with_extra_args_support(multiplier)
    plan = plans.fingerprint(scheduler, len(rates.groups), steps_per_epoch, staircase)
    plans.remember(scheduler, steps_per_epoch, staircase)

    def init(params: Any) -> ScaleBySchedulerState:
        assignment.check(params, allow_unused)
        count = jnp.asarray(rates.first_count, jnp.int32)
        present = jnp.asarray(rates.at(rates.first_count))
        hyperparams: dict[str, Any] = {"learning_rate": present}
        if not legacy_state:
            hyperparams["learning_rate_scale"] = jnp.ones((), present.dtype)
            hyperparams["scheduled_learning_rate"] = present
            hyperparams["plan"] = jnp.asarray(plan)
        if times is not None:
            hyperparams["learning_rate_multiplier"] = times.init(jnp.ones((), present.dtype))
        return ScaleBySchedulerState(count, hyperparams)

    def update(
        updates: Any, state: ScaleBySchedulerState, params: Any = None, **extra_args: Any
    ) -> tuple[Any, ScaleBySchedulerState]:
        del params
        scheduled = jnp.asarray(rates.at(state.count))
        # A state that an earlier version saved stays as it is: a loop needs it to.
        hyperparams = dict(state.hyperparams)
        present = scheduled
        if "learning_rate_scale" in hyperparams:
            scale = jnp.asarray(hyperparams["learning_rate_scale"], scheduled.dtype)
            if scale.shape not in ((), scheduled.shape):
                raise ValueError(
                    f"learning_rate_scale must be a scalar, or hold a number for each of the "
                    f"{scheduled.size} param groups, got an array of shape {scale.shape}"
                )
            _require_factor("learning_rate_scale", scale)
            present = present * scale
            hyperparams["learning_rate_scale"] = scale
        if "scheduled_learning_rate" in hyperparams:
            hyperparams["scheduled_learning_rate"] = scheduled
        if "plan" in hyperparams:  # the one of this update, which may not be that of init
            hyperparams["plan"] = jnp.asarray(plan)
        if times is not None:
            one = jnp.ones((), scheduled.dtype)
            memory = hyperparams["learning_rate_multiplier"]
            factor, memory = times.update(one, memory, None, **extra_args)
            present = present * jnp.asarray(factor, scheduled.dtype)
            hyperparams["learning_rate_multiplier"] = memory
        # Compiled code cannot raise; but it never goes uphill.
        present = jnp.where(present < 0, 0, present)
        hyperparams["learning_rate"] = present
        factors = -present

        def scaled(value: Any, group: int | np.ndarray) -> jax.Array:
            return factors[group].astype(value.dtype) * value

        updates = assignment.map(scaled, updates)
        return updates, ScaleBySchedulerState(optax.safe_increment(state.count), hyperparams)

    return optax.GradientTransformationExtraArgs(init, update)


def _require_factor(name: str, value: jax.Array) -> None:
    """Raise if a number that multiplies rates is negative or not finite, where that is known."""
    if not isinstance(value, jax.core.Tracer):
        for factor in np.ravel(value).tolist():
            checks.number(name, factor)


def rates_by_name(opt_state: Any, scheduler: LRScheduler) -> dict[str, Float[Array, "*runs"]]:
    """Return the rates of the latest update, under the names of the param groups.

    Parameters
    ----------
    opt_state : pytree
        The state of an optimizer, in which there is one of :func:`scale_by_scheduler`.
    scheduler : LRScheduler
        The scheduler that has the names. A group without one goes by its number.

    Returns
    -------
    dict
        A scalar for each group, in the order of the groups.

    Raises
    ------
    TypeError, ValueError
        If there is no such state, or more than one, or it has another number of groups.

    Examples
    --------
    >>> import brainsched, jax.numpy as jnp
    >>> scheduler = brainsched.StepLR({"body": 0.5, "head": 0.25}, step_size=30)
    >>> tx = brainsched.scale_by_scheduler(scheduler, {"head": "head", "*": "body"})
    >>> state = tx.init({"body": jnp.ones(()), "head": jnp.ones(())})
    >>> {name: rate.item() for name, rate in brainsched.rates_by_name(state, scheduler).items()}
    {'body': 0.5, 'head': 0.25}
    """
    names = Rates(scheduler).groups.names
    (state,) = states_in(opt_state, at_most=1)
    (rates,) = jax.tree.leaves(state.hyperparams["learning_rate"])
    if rates.shape[-1] != len(names):
        raise ValueError(
            f"opt_state has the rates of {rates.shape[-1]} param groups, and the scheduler has "
            f"{len(names)}: {', '.join(names)}"
        )
    return {name: rates[..., group] for group, name in enumerate(names)}


def states_in(opt_state: Any, at_most: int | None = None) -> list[ScaleBySchedulerState]:
    """Return the states of :func:`scale_by_scheduler` in the state of an optimizer."""

    def is_one(node: Any) -> bool:
        return isinstance(node, ScaleBySchedulerState)

    found = [node for node in jax.tree.leaves(opt_state, is_leaf=is_one) if is_one(node)]
    if not found:
        raise ValueError(
            "opt_state has no state of scale_by_scheduler in it: it must be what tx.init and "
            "tx.update return, or what was restored into such a state"
        )
    if at_most is not None and len(found) > at_most:
        raise ValueError(
            f"opt_state has {len(found)} states of scale_by_scheduler in it: {GIVE_A_PART}"
        )
    return found
