"""The bridge to optax, and so to Flax: schedules whose position is a count in optax's own state.

Both ways in copy the scheduler: what happens to it later plays no part, and nothing that runs
under ``jax.jit`` or ``nnx.jit`` touches a State.
"""

import fnmatch
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int

from brainsched import _check
from brainsched._base import LRScheduler
from brainsched._types import Array, epoch_dtype

Groups = Callable[[str], int] | Mapping[str, int]

_LARGEST_COUNT = int(np.iinfo(np.int32).max)


class ScaleBySchedulerState(NamedTuple):
    """The state of :func:`scale_by_scheduler`, with the names of ``optax.inject_hyperparams``.

    Attributes
    ----------
    count : int32 array of shape ()
        The updates so far.
    hyperparams : dict
        Under ``'learning_rate'``, the rate of each group in the latest update; before the first
        one, in that one.
    """

    count: Int[Array, ""]  # type: ignore[assignment]  # optax's name, and a method of tuple's
    hyperparams: dict[str, Float[Array, " groups"]]


def schedule(scheduler: LRScheduler, group: int, steps_per_epoch: int) -> optax.Schedule:
    """Return the rate of ``group`` as a function of a count: :meth:`LRScheduler.as_optax`."""
    rates = _Rates(scheduler, steps_per_epoch)
    group = rates.group("group", group)
    return lambda count: rates.at(count)[..., group]


def scale_by_scheduler(
    scheduler: LRScheduler, groups: Groups, steps_per_epoch: int = 1, last_epoch: int = 0
) -> optax.GradientTransformation:
    """Scale each parameter's update by minus the rate of its group.

    It takes the place of ``optax.scale_by_learning_rate``, last in an ``optax.chain``. The
    position is the count in its own state, and never ``scheduler.last_epoch``: the scheduler
    gives the rates and is not stepped.

    Parameters
    ----------
    scheduler : LRScheduler
        The schedule. Its groups are the entries of ``base_lr``, or the columns of a schedule that
        has a column for each group.
    groups : callable, or mapping from str to int
        The group of a parameter: a function of its path, or patterns of paths as in
        :mod:`fnmatch`, of which the first that matches counts. A path is the parameter's keys
        joined by a slash, as in ``'body/layers/0/kernel'``; ``*`` matches slashes too.
    steps_per_epoch : int
        How many updates make an epoch of the schedule.
    last_epoch : int
        The epoch to begin at: ``scheduler.epoch`` goes on where a run under brainstate stopped.

    Returns
    -------
    optax.GradientTransformation
        Its state has a ``count`` and, as with ``optax.inject_hyperparams``, the rates in use,
        of shape ``(n_groups,)``, as ``hyperparams['learning_rate']``.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described. In ``init`` and ``update``, if a path matches no
        pattern, or the function returns None or a group that the schedule does not have.

    Examples
    --------
    >>> import brainsched, jax.numpy as jnp, optax
    >>> scheduler = brainsched.PiecewiseConstantSchedule([0.5, 0.25], [2], [1.0, 0.5])
    >>> tx = optax.chain(
    ...     optax.trace(decay=0.9), brainsched.scale_by_scheduler(scheduler, {"head": 1, "*": 0}))
    >>> params = {"body": jnp.ones(()), "head": jnp.ones(())}
    >>> updates, state = tx.update(params, tx.init(params))
    >>> {name: update.item() for name, update in updates.items()}
    {'body': -0.5, 'head': -0.25}
    >>> optax.tree_utils.tree_get(state, "learning_rate").tolist()
    [0.5, 0.25]
    """
    rates = _Rates(scheduler, steps_per_epoch)
    first_count = _check.epoch_number("last_epoch", last_epoch) * rates.steps_per_epoch
    if first_count > _LARGEST_COUNT:
        raise ValueError(
            f"last_epoch * steps_per_epoch must be at most {_LARGEST_COUNT}, got {first_count}"
        )
    group_of = _group_of(groups, rates)

    def init(params: Any) -> ScaleBySchedulerState:
        jax.tree_util.tree_map_with_path(lambda keys, _: group_of(keys), params)
        count = jnp.asarray(first_count, jnp.int32)
        return ScaleBySchedulerState(count, {"learning_rate": jnp.asarray(rates.at(first_count))})

    def update(
        updates: Any, state: ScaleBySchedulerState, params: Any = None
    ) -> tuple[Any, ScaleBySchedulerState]:
        del params
        present = jnp.asarray(rates.at(state.count))
        factors = -present

        def scaled(keys: tuple[Any, ...], value: jax.Array) -> jax.Array:
            return factors[group_of(keys)].astype(value.dtype) * value

        updates = jax.tree_util.tree_map_with_path(scaled, updates)
        count = optax.safe_increment(state.count)
        return updates, ScaleBySchedulerState(count, {"learning_rate": present})

    return optax.GradientTransformation(init, update)


class _Rates:
    """The rates of a copy of ``scheduler``, for all the groups that it has rates for."""

    def __init__(self, scheduler: LRScheduler, steps_per_epoch: int) -> None:
        if not isinstance(scheduler, LRScheduler):
            raise TypeError(f"scheduler must be an LRScheduler, got {type(scheduler).__name__}")
        scheduler._require_pure("the bridge to optax")
        self.steps_per_epoch = _check.integer("steps_per_epoch", steps_per_epoch)
        if not 1 <= self.steps_per_epoch <= _LARGEST_COUNT:
            raise ValueError(
                f"steps_per_epoch must be from 1 to {_LARGEST_COUNT}, got {steps_per_epoch}"
            )
        self._groups = scheduler.max_groups or len(scheduler.base_lrs)
        self._scheduler = scheduler
        self._evaluation = scheduler._evaluation_of(self._groups, scheduler._bases)

    def at(self, count: Any) -> Float[Array, "*count groups"]:
        """Return the rates after ``count`` updates."""
        epoch = _count(count) // np.asarray(self.steps_per_epoch, epoch_dtype())
        return self._evaluation.rates(epoch)

    def group(self, name: str, value: Any) -> int:
        """Return ``value`` if it is the number of a group."""
        group = _check.integer(name, value)
        if not 0 <= group < self._groups:
            raise ValueError(
                f"{name} must be from 0 to {self._groups - 1}, got {group}: "
                f"{type(self._scheduler).__name__} has the rates of {self._groups} param groups, "
                f"one for each entry of base_lr, or for each of its columns"
            )
        return group


def _count(value: Any) -> Array:
    if isinstance(value, np.ndarray) and value.ndim:
        return _check.real_epoch("count", value)
    return _check.epoch("count", value) if not getattr(value, "ndim", 0) else _check.clipped(value)


def _group_of(groups: Groups, rates: _Rates) -> Callable[[tuple[Any, ...]], int]:
    """Return the function from a parameter's keys to its group."""
    look_up: Callable[[str], int | None]
    if isinstance(groups, Mapping):
        patterns = {}
        for pattern, group in groups.items():
            if not isinstance(pattern, str):
                raise TypeError(f"groups must have patterns of paths as keys, got {pattern!r}")
            patterns[pattern] = rates.group(f"groups[{pattern!r}]", group)

        def look_up(path: str) -> int | None:
            matches = (patterns[p] for p in patterns if fnmatch.fnmatchcase(path, p))
            return next(matches, None)

    elif callable(groups):
        look_up = groups
    else:
        raise TypeError(
            f"groups must be a function from a parameter's path to its group, or a mapping from "
            f"patterns of paths, got {groups!r} ({type(groups).__name__})"
        )

    def group_of(keys: tuple[Any, ...]) -> int:
        path = _path(keys)
        group = look_up(path)
        if group is None:
            raise ValueError(f"no group claims the parameter {path!r}: groups must cover every one")
        return rates.group(f"the group of {path!r}", group)

    return group_of


def _path(keys: tuple[Any, ...]) -> str:
    # nnx.Optimizer initialises with parameters in their Variables, and updates without them.
    if keys and keys[-1] == jax.tree_util.GetAttrKey("value"):
        keys = keys[:-1]
    return jax.tree_util.keystr(keys, simple=True, separator="/")
