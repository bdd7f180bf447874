"""The bridge to optax, and so to Flax: schedules whose position is a count in optax's own state.

Both ways in copy the scheduler: what happens to it later plays no part, and nothing that runs
under ``jax.jit`` or ``nnx.jit`` touches a State.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int

from brainsched import _arguments, _check, _config, _foreign_calls, _plan
from brainsched._base import LRScheduler
from brainsched._optax_groups import Assignment, GroupNumbers, Groups
from brainsched._optax_in_braintools import report_applied_rate
from brainsched._types import Array, Rate, epoch_dtype, largest_epoch
from brainsched.schedules import _schedule_check
from brainsched.schedules.per_update import PerUpdate

# What to do where an optimizer has several states of scale_by_scheduler.
GIVE_A_PART = (
    "give the part that has one, as is opt_state.inner_states['matrices'] of an "
    "optax.multi_transform"
)
_PLATEAU = (
    ". Give scale_by_scheduler multiplier=optax.contrib.reduce_on_plateau(...), which reduces "
    "the rates of any schedule"
)
_LARGEST_COUNT = int(np.iinfo(np.int32).max)


class OptaxSchedule:
    """The rate of one param group as a function of a count: :meth:`LRScheduler.as_optax`.

    Parameters
    ----------
    scheduler : LRScheduler
        The schedule.
    group : int or str, optional
        The number or the name of the group. Default: 0, with a warning where the rates of the
        groups differ.
    steps_per_epoch : int
        How many counts make an epoch.
    staircase : bool
        Whether the rate stays the same within an epoch.
    last_epoch : int, optional
        The epoch of count 0.
    """

    def __init__(
        self,
        scheduler: LRScheduler,
        group: int | str | None = None,
        steps_per_epoch: int = 1,
        staircase: bool = False,
        last_epoch: int | None = None,
    ) -> None:
        is_given = group is not None
        group = group if is_given else 0
        self._arguments = (scheduler, group, steps_per_epoch, staircase, last_epoch)
        self._rates = Rates(scheduler, steps_per_epoch, staircase, last_epoch)
        hint = f". For epochs of {group} updates, write as_optax(steps_per_epoch={group})"
        self._group = self._rates.groups.one("group", group, hint)
        if not is_given:
            _warn_if_groups_differ(scheduler, len(self._rates.groups))

    def __call__(self, count: Any) -> Array:
        """Return the rate after ``count`` updates."""
        first = self._rates.first_count
        count = _count(count)
        if first:  # at the largest count it stays, as 1 more wraps
            smaller = jnp.minimum if isinstance(count, jax.Array) else np.minimum
            count = smaller(count, largest_epoch() - first) + first
        return self._rates.at(count)[..., self._group]

    @property
    def __name__(self) -> str:
        """The class of the scheduler, for those who name a function by this."""
        return type(self._arguments[0]).__name__

    def __repr__(self) -> str:
        scheduler, *given = self._arguments
        defaults = {"group": 0, "steps_per_epoch": 1, "staircase": False, "last_epoch": None}
        shown = [
            f"{name}={value!r}"
            for (name, default), value in zip(defaults.items(), given, strict=True)
            if value != default
        ]
        return f"{_config.call(scheduler)}.as_optax({', '.join(shown)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._arguments  # without what is compiled


def _warn_if_groups_differ(scheduler: LRScheduler, number: int) -> None:
    """Warn that one rate will serve all parameters, of a schedule with several that differ."""
    by_part = jax.tree.leaves(scheduler._bases.arrays(number, _distinct))
    has_columns = scheduler.max_groups is not None and number > 1
    if has_columns or max(by_part) > 1:
        _check.warn(
            f"as_optax() is the rate of one param group, and those of the {number} groups of this "
            f"{type(scheduler).__name__} differ: name one, as group=0, or give each parameter its "
            f"own with scale_by_scheduler. Group 0 it is"
        )


def _distinct(rates: list[Rate]) -> Array:
    """Return how many rates there are that are known to differ."""
    known = {float(rate) for rate in rates if not isinstance(rate, jax.core.Tracer)}
    return np.asarray(len(known))


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
    allow_unused = _schedule_check.flag("allow_unused", allow_unused)
    legacy_state = _schedule_check.flag("legacy_state", legacy_state)
    if multiplier is not None and not isinstance(multiplier, optax.GradientTransformation):
        raise TypeError(
            f"multiplier must be a transformation of optax, such as optax.scale(0.5) or "
            f"optax.scale_by_schedule(schedule), got {_check.shown(multiplier)}"
        )
    times = None if multiplier is None else optax.with_extra_args_support(multiplier)
    plan = _plan.fingerprint(scheduler, len(rates.groups), steps_per_epoch, staircase)
    _plan.remember(scheduler, steps_per_epoch, staircase)

    def init(params: Any) -> ScaleBySchedulerState:
        assignment.check(params, allow_unused)
        report_applied_rate(
            lambda opt_state: states_in(opt_state)[0].hyperparams["learning_rate"][..., 0]
        )
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
            _check.number(name, factor)


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


def require_scheduler(scheduler: Any) -> None:
    """Raise a TypeError unless ``scheduler`` is one whose rate is a function of the epoch."""
    if not isinstance(scheduler, LRScheduler):
        raise TypeError(
            f"scheduler must be an LRScheduler, got {type(scheduler).__name__}"
            f"{_foreign_calls.hint_of_function(scheduler)}"
        )
    scheduler._require_pure("the bridge to optax", _PLATEAU)


class Rates:
    """The rates of a copy of ``scheduler``, for all the groups that it has rates for."""

    def __init__(
        self,
        scheduler: LRScheduler,
        steps_per_epoch: int = 1,
        staircase: bool = False,
        last_epoch: int | None = None,
    ) -> None:
        require_scheduler(scheduler)
        steps = _schedule_check.count("steps_per_epoch", steps_per_epoch, least=1)
        staircase = _schedule_check.flag("staircase", staircase)
        first = (
            scheduler._first_epoch
            if last_epoch is None
            else _check.epoch_number("last_epoch", last_epoch)
        )
        self.first_count = first * steps
        if self.first_count > _LARGEST_COUNT:
            raise ValueError(
                f"last_epoch * steps_per_epoch must be at most {_LARGEST_COUNT}, "
                f"got {self.first_count}"
            )
        counts = _arguments.counts_updates(scheduler)
        if counts is not None and steps != 1:
            where = "" if counts is scheduler else f", a part of this {type(scheduler).__name__}"
            raise ValueError(
                f"steps_per_epoch must be left out for a {type(counts).__name__}{where}, which "
                f"counts updates already, got {steps}"
            )
        number = scheduler.max_groups or len(scheduler.base_lrs)
        self.groups = GroupNumbers(number, scheduler.group_names, type(scheduler).__name__)
        stretched = scheduler if steps == 1 else PerUpdate(scheduler, steps, staircase)
        self._evaluation = stretched._evaluation_of(number, stretched._bases)

    def at(self, count: Any) -> Float[Array, "*count groups"]:
        """Return the rates after ``count`` updates."""
        return self._evaluation.rates(_count(count))


def _count(value: Any) -> Array:
    """Return a count of updates, or an array of them, in the dtype of an epoch.

    Below 0 it counts as 0, as ``optax.join_schedules`` has it before a schedule's turn, and what
    is too large as the largest: on the host as in compiled code, where nothing can be refused.
    """
    if isinstance(value, jax.Array):
        if not jnp.issubdtype(value.dtype, jnp.integer):
            raise TypeError(f"count must hold integers, got an array of {value.dtype}")
        return jnp.maximum(_check.clipped(value), 0)
    if not (isinstance(value, np.ndarray) and value.ndim):
        count = min(max(_check.integer("count", value), 0), largest_epoch())
        return np.asarray(count, epoch_dtype())
    if not np.issubdtype(value.dtype, np.integer):
        raise TypeError(f"count must hold integers, got an array of {value.dtype}")
    counts = np.minimum(np.maximum(value, 0).astype(np.uint64), np.uint64(largest_epoch()))
    return counts.astype(epoch_dtype())
