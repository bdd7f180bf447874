"""The bridge to optax, and so to Flax: a rate for each group of parameters, at optax's own count.

Nothing here touches a State: what runs under ``jax.jit`` or ``nnx.jit`` is pure.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float, Int

from brainsched.core.scheduler import LRScheduler
from brainsched.optax.groups import Assignment, Groups, checksum
from brainsched.optax.schedule import Rates
from brainsched.types import Array


class ScaleBySchedulerState(NamedTuple):
    """The state of ``scale_by_scheduler``, with the names of ``optax.inject_hyperparams``.

    ``count`` has the updates so far. Of ``hyperparams``, ``'learning_rate'`` has the rates of the
    latest update; before the first one, those that it will apply. It is written, never read.
    ``'learning_rate_scale'`` multiplies the schedule's rates: 1.0 until you write another number
    into it, or one for each group. A negative one counts as 0. ``'scheduled_learning_rate'``, the
    schedule's own rates, and ``'group_checksum'``, if there are several groups, are for
    :func:`~brainsched.check_resumed`. ``'learning_rate_multiplier'`` is the state of the
    ``multiplier``. Rates are scalars if the schedule has one group, and vectors otherwise.
    """

    count: Int[Array, ""]  # type: ignore[assignment]  # optax's name, and a method of tuple's
    hyperparams: dict[str, Any]


def scale_by_scheduler(
    scheduler: LRScheduler,
    groups: Groups,
    steps_per_epoch: float = 1,
    last_epoch: float | None = None,
    *,
    staircase: bool = False,
    multiplier: optax.GradientTransformation | None = None,
    allow_unused: bool = False,
    legacy_state: bool = False,
    flip_sign: bool = True,
) -> optax.GradientTransformationExtraArgs:
    """Scale each parameter's update by minus the rate of its group.

    Put it last in an ``optax.chain``, where ``optax.scale_by_learning_rate`` would be: after
    ``optax.scale_by_adam`` and ``optax.add_decayed_weights``. The position is the count in its own
    state: the scheduler is not stepped.

    Parameters
    ----------
    scheduler : LRScheduler
        The schedule, for the entries of ``base_lr``, or for each of its columns.
    groups : callable, or mapping from str
        The group of a parameter: a function of its path, or patterns of paths with ``*`` and
        ``?``; the first that matches counts. A path is the parameter's keys joined by slashes, as
        in ``'body/layers/0/kernel'``; ``*`` matches slashes too. A group is a number, a name from
        ``base_lr``, or a sequence of them, one for each entry of the parameter's first axis, as
        where ``nnx.scan`` stacks layers.
    steps_per_epoch : float
        The number of updates in an epoch, whole or not. Leave it out if the schedule is in updates.
    last_epoch : float, optional
        The epoch to begin at, whole or not: the first update is the next one that is not before
        it. Default: the ``last_epoch`` that the scheduler was built with.
    staircase : bool
        Whether the rates stay the same within an epoch.
    multiplier : optax.GradientTransformation, optional
        What it makes of an update of 1.0 multiplies the rates, as in
        ``optax.contrib.reduce_on_plateau()``. It gets what else is passed to ``update``.
    allow_unused : bool
        Allow patterns that claim no parameter, and groups without one.
    legacy_state : bool
        Use the state of brainsched 0.1.0, to load its checkpoints.
    flip_sign : bool
        Whether to scale by minus the rate. Pass False after ``optax.sgd(1.0)`` or
        ``optax.adamw(1.0)``, which have the minus sign already: else the loss climbs.

    Returns
    -------
    optax.GradientTransformationExtraArgs
        Its state is a ``ScaleBySchedulerState``, with the rates in use.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; in ``init``, if a pattern claims no parameter, a group
        has none, or a parameter is in no group.

    Examples
    --------
    >>> import brainsched, jax.numpy as jnp, optax
    >>> scheduler = brainsched.PiecewiseConstantSchedule(
    ...     {"body": 0.5, "head": 0.25}, [2], [1.0, 0.5])
    >>> last = brainsched.scale_by_scheduler(scheduler, {"head/*": "head", "*": "body"})
    >>> tx = optax.chain(optax.trace(decay=0.9), last)
    >>> params = {"embedding": jnp.ones(()), "head": {"kernel": jnp.ones(())}}
    >>> updates, state = tx.update(params, tx.init(params))
    >>> updates["embedding"].item(), updates["head"]["kernel"].item()
    (-0.5, -0.25)
    >>> optax.tree_utils.tree_get(state, "learning_rate").tolist()
    [0.5, 0.25]
    """
    rates = Rates(scheduler, steps_per_epoch, staircase, last_epoch)
    number = len(rates.names)
    assignment = Assignment(groups, rates.names)
    sign = -1 if flip_sign else 1
    times = optax.with_extra_args_support(optax.identity() if multiplier is None else multiplier)

    def init(params: Any) -> ScaleBySchedulerState:
        found = assignment.of(params)
        if not allow_unused:
            assignment.check(found)
        first = math.ceil(rates.first_count)
        present = jnp.asarray(rates.at(first))
        if number == 1 and not legacy_state:
            present = present[0]
        hyperparams: dict[str, Any] = {"learning_rate": present}
        if not legacy_state:
            hyperparams["learning_rate_scale"] = jnp.ones((), present.dtype)
            # A buffer of its own: one that has two names cannot be donated.
            hyperparams["scheduled_learning_rate"] = jnp.array(present, copy=True)
            if number > 1:
                hyperparams["group_checksum"] = jnp.asarray(checksum(found))
        if multiplier is not None:
            hyperparams["learning_rate_multiplier"] = times.init(jnp.ones((), present.dtype))
        return ScaleBySchedulerState(jnp.asarray(first, jnp.int32), hyperparams)

    @functools.partial(jax.jit, inline=True)  # for calls outside of compiled code
    def advanced(count: Any, before: Any, scale: Any, factor: Any) -> tuple[Any, ...]:
        """Return the next count, the hyperparameters, and what each group is multiplied by."""
        scheduled = jnp.asarray(rates.at(count))
        scale = jnp.asarray(scale, scheduled.dtype)
        if scale.shape not in ((), (number,)):
            raise ValueError(
                f"learning_rate_scale must have the shape () or ({number},), got {scale.shape}"
            )
        applied = scheduled * scale * jnp.asarray(factor, scheduled.dtype)
        applied = jnp.where(applied < 0, 0, applied)
        shape = before.shape if number == 1 else (number,)  # that of 0.1.0 stays (1,)
        hyperparams = {
            "learning_rate": applied.reshape(shape),
            "learning_rate_scale": scale,
            "scheduled_learning_rate": scheduled.reshape(shape),
        }
        factors = sign * applied
        return optax.safe_increment(count), hyperparams, factors, [*factors]

    def update(
        updates: Any, state: ScaleBySchedulerState, params: Any = None, **extra_args: Any
    ) -> tuple[Any, ScaleBySchedulerState]:
        found, hyperparams = assignment.of(updates), dict(state.hyperparams)
        before, scale = hyperparams["learning_rate"], hyperparams.get("learning_rate_scale", 1.0)
        memory = hyperparams.get("learning_rate_multiplier", optax.EmptyState())
        factor, memory = times.update(jnp.ones((), before.dtype), memory, None, **extra_args)
        count, now, factors, each = advanced(state.count, before, scale, factor)
        now["learning_rate_multiplier"] = memory
        now["group_checksum"] = jnp.asarray(checksum(found))  # init may be that of other code
        # A state that 0.1.0 saved keeps its keys, as a compiled loop needs it to.
        hyperparams.update({name: now[name] for name in now if name in hyperparams})
        leaves, treedef = jax.tree.flatten(updates)
        scaled = []
        for leaf, (_, group) in zip(leaves, found, strict=True):
            rate = each[group] if isinstance(group, int) else factors[group]
            scaled.append(rate.astype(leaf.dtype) * leaf)
        return jax.tree.unflatten(treedef, scaled), ScaleBySchedulerState(count, hyperparams)

    return optax.GradientTransformationExtraArgs(init, update)


def rates_by_name(opt_state: Any, scheduler: LRScheduler) -> dict[str, Float[Array, "*runs"]]:
    """Return the rate of each param group in the latest update, a scalar, by its name in scheduler.

    ``opt_state`` is the state of an optimizer that contains one of :func:`scale_by_scheduler`, or a
    ValueError is raised. A group without a name goes by its number.

    Examples
    --------
    >>> import brainsched, jax.numpy as jnp
    >>> scheduler = brainsched.StepLR({"body": 0.5, "head": 0.25}, step_size=30)
    >>> tx = brainsched.scale_by_scheduler(scheduler, {"head": "head", "*": "body"})
    >>> state = tx.init({"body": jnp.ones(()), "head": jnp.ones(())})
    >>> {name: rate.item() for name, rate in brainsched.rates_by_name(state, scheduler).items()}
    {'body': 0.5, 'head': 0.25}
    """
    names = Rates(scheduler).names
    states = states_in(opt_state)
    if len(states) > 1:
        raise ValueError(
            f"opt_state has {len(states)} states of scale_by_scheduler: pass the part that has "
            f"one, as opt_state.inner_states['matrices'] of an optax.multi_transform"
        )
    count, rates = jax.tree.leaves([states[0].count, states[0].hyperparams["learning_rate"]])
    if rates.ndim == count.ndim:  # one group, in one run or in each of many
        rates = rates[..., None]
    if rates.shape[-1] != len(names):
        raise ValueError(f"opt_state has {rates.shape[-1]} rates, for the groups {names}")
    return {name: rates[..., group] for group, name in enumerate(names)}


def states_in(opt_state: Any) -> list[ScaleBySchedulerState]:
    """Return the states of :func:`scale_by_scheduler` in the state of an optimizer."""
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, ScaleBySchedulerState))
    found = [leaf for leaf in leaves if isinstance(leaf, ScaleBySchedulerState)]
    if not found:
        raise ValueError("opt_state has no state of scale_by_scheduler in it")
    return found
