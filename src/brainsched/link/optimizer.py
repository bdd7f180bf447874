"""What an optimizer of braintools does in addition once it follows a scheduler of ours."""

import functools
import warnings
from collections.abc import Mapping
from typing import Any, NoReturn

import jax
import numpy as np
from brainstate import State
from braintools.optim import OptaxOptimizer, OptimState

from brainsched import checks
from brainsched.link import optimizer_state, upstream
from brainsched.link.group import ScheduledGroup, check_params, given_rate


class ScheduledOptimizer(OptaxOptimizer):
    """A mixin for the class of an optimizer, which otherwise behaves as before."""

    _plain: type[OptaxOptimizer]
    _own_tx: bool

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Build a plain optimizer when a user calls ``type(optimizer)(...)``."""
        return object.__new__(cls._plain)

    def default_tx(self) -> Any:
        """Make the transformation, which reads the rate of the first group."""
        self.__dict__["_own_tx"] = True
        return transformation(self, 0)

    def register_trainable_weights(self, param_states: Any) -> Any:
        """Register weights, before groups are added."""
        if len(self.param_groups) > 1:
            found = jax.tree.leaves(param_states, is_leaf=lambda leaf: isinstance(leaf, State))
            if {id(state) for state in found} <= self.param_states.seen_ids:
                return self  # braintools' Trainer registers all weights of a model again
            raise ValueError("register_trainable_weights must be called before add_param_group")
        warn_unless_read(self, param_states)
        super().register_trainable_weights(param_states)
        self.param_groups[0] = first_group(self)
        return self

    def add_param_group(
        self, params: Any, *, lr: Any = None, weight_decay: Any = None, name: str | None = None
    ) -> None:
        """Add a group, which runs at its scheduled rate from its first step, or change nothing.

        ``params`` is a dict of States, as ``model.states(brainstate.ParamState)`` is. ``lr`` is the
        base rate of the group, by default its entry in the scheduler's ``base_lr``.
        """
        scheduler = self.lr_scheduler
        group = len(self.param_groups)
        upstream.require_outside_a_trace(scheduler.last_epoch, self.step_count)
        require_original(self)
        if self.opt_state is None:
            raise ValueError("register_trainable_weights must be called before add_param_group")
        check_params(self, params)
        for expected in scheduler.group_names[group : group + 1]:
            if name not in (None, expected):
                raise ValueError(
                    f"param group {group} is called {expected!r} in base_lr, got {name!r}: add the "
                    f"groups in its order"
                )
        require_own_tx(self)
        having = scheduler._with_groups([*[entry.given for entry in self.param_groups], lr])
        decay = self.weight_decay if weight_decay is None else weight_decay
        content = {"weight_decay": decay, **({"name": name} if name else {})}
        entry, moments = group_of(self, group, params, lr, content)
        # All is checked: from here on nothing raises.
        self.param_states.merge_with(params)
        self.param_groups.append(entry)
        self.param_groups_opt_states.append(moments)
        scheduler._have_groups(having)

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Take a step."""
        require_original(self)
        takes_gradients = self._plain.step is OptaxOptimizer.step
        if (
            takes_gradients and len(self.param_groups) > 1
        ):  # braintools silently skips a group without gradients
            grads = args[0] if args else kwargs["grads"]
            missing = [
                key for group in self.param_groups for key in group["params"] if key not in grads
            ]
            if missing:
                raise ValueError(f"grads has no gradient for {missing[0]!r}")
        return super().step(*args, **kwargs)

    @property
    def current_lr(self) -> Any:
        """The applied rate of the first group: a float, or traced in compiled code."""
        rate = upstream.first_rate(self).value
        if isinstance(rate, jax.core.Tracer) or np.ndim(rate):
            return rate
        # The shortest decimal of this float32, so that it equals the number that the user wrote.
        return float(str(np.asarray(rate)))

    @current_lr.setter
    def current_lr(self, value: Any) -> None:
        upstream.first_rate(self).value = value

    @property
    def base_lr(self) -> Any:
        """The base rate of the first group."""
        return self.lr_scheduler.base_lrs[0]

    def get_last_lr(self) -> list[Any]:
        """Return the applied rate of each group."""
        return self.lr_scheduler.get_last_lr()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore what ``state_dict()`` gave, or raise an error and change nothing.

        The rates are restored too, unless a checkpoint of the scheduler has restored them.
        """
        optimizer_state.load(self, state_dict)

    def _refuse_to_be_copied(self, *args: Any) -> NoReturn:
        raise TypeError(
            f"a {plain_class(self).__name__} with a scheduler cannot be copied or pickled: build "
            f"another one with its own scheduler, and load the state_dict() of both"
        )

    __deepcopy__ = __copy__ = __reduce_ex__ = _refuse_to_be_copied


def transformation(optimizer: OptaxOptimizer, group: int, **changed: Any) -> Any:
    """Return what the optimizer's own class makes for a param group, which reads its rate.

    It is made on a stand-in whose scheduler is the group's rate; ``LBFGS`` keeps the stand-in.
    """
    stand_in = object.__new__(plain_class(optimizer))
    stand_in.__dict__.update(optimizer.__dict__, **changed)
    rate = upstream.GroupRate(optimizer, group)
    upstream.follow(stand_in, rate, rate)
    return stand_in.default_tx()


def group_of(
    optimizer: OptaxOptimizer, group: int, params: Any, lr: Any, content: Mapping[str, Any]
) -> tuple[ScheduledGroup, OptimState]:
    """Return a param group with the algorithm of the first one, and its moments."""
    decay = checks.number("weight_decay", content["weight_decay"])
    tx = transformation(optimizer, group, weight_decay=decay)
    rate = upstream.GroupRate(optimizer, group)
    entry = ScheduledGroup({**content, "params": dict(params), "lr": rate, "tx": tx}, lr)
    return entry, OptimState(tx.init({key: state.value for key, state in params.items()}))


def first_group(optimizer: OptaxOptimizer) -> ScheduledGroup:
    """Return the group of the registered weights, as one whose rate can be set."""
    # braintools 0.3.0 and 0.4.0 leave out weights that are registered by a second call.
    params = optimizer.param_states.to_pytree()
    rate = upstream.first_rate(optimizer)
    return ScheduledGroup({**optimizer.param_groups[0], "params": params, "lr": rate}, None)


def added_groups(optimizer: OptaxOptimizer) -> list[tuple[ScheduledGroup, OptimState]]:
    """Return the groups that were added before the scheduler, with new moments."""
    # braintools 0.3.0 and 0.4.0 file a parameter under a string made of the key of its gradient.
    keys = {id(state): key for key, state in optimizer.param_states.to_pytree().items()}
    found = []
    for group, entry in enumerate(optimizer.param_groups[1:], start=1):
        params = {keys[id(state)]: state for state in entry["params"].values()}
        found.append(group_of(optimizer, group, params, given_rate(entry), entry))
    return found


def plain_class(optimizer: OptaxOptimizer) -> type[OptaxOptimizer]:
    """Return the class that the user knows."""
    return getattr(optimizer, "_plain", type(optimizer))


def makes_its_own(optimizer: OptaxOptimizer) -> bool:
    """Whether the optimizer's class made its transformation, so that it can make another."""
    # All classes of braintools override it, except the one that takes a tx=.
    overrides = type(optimizer).default_tx is not OptaxOptimizer.default_tx
    return bool(optimizer.__dict__.get("_own_tx", overrides))


def require_own_tx(optimizer: OptaxOptimizer) -> None:
    """Raise if the transformation may be one of the user's."""
    if not makes_its_own(optimizer):
        raise ValueError(
            f"this {plain_class(optimizer).__name__} may have a tx= of yours, which does not read "
            f"the scheduler's rates: give it tx=optax.chain(..., brainsched.scale_by_scheduler("
            f"scheduler, groups)), for any number of groups, and no lr=scheduler"
        )


def warn_unless_read(optimizer: OptaxOptimizer, params: Any, *, stacklevel: int = 3) -> None:
    """Warn if the transformation does not read its rate; raise if it is the user's."""
    if not upstream.reads_its_rate(optimizer, params, unknown=makes_its_own(optimizer)):
        require_own_tx(optimizer)
        warnings.warn(
            f"{plain_class(optimizer).__name__} does not read its learning rate in braintools: the "
            f"scheduler has no effect",
            UserWarning,
            stacklevel=stacklevel,
        )


def own_tx_again(optimizer: OptaxOptimizer) -> Any:
    """Return the transformation that the optimizer's class makes, as one that reads our rates."""
    tx = transformation(optimizer, 0)
    if optimizer.opt_state is not None:
        made: Any = jax.tree.structure(tx.init(optimizer.param_states.to_pytree_value()))
        if made != jax.tree.structure(optimizer.opt_state.value):
            raise ValueError(
                f"the tx of this {plain_class(optimizer).__name__} is not the one that its class "
                f"makes: build it with lr=scheduler instead"
            )
    return tx


def require_original(optimizer: OptaxOptimizer) -> None:
    """Raise if ``optimizer`` is a copy through the graph, whose tx reads the original's rates."""
    is_built = isinstance(optimizer, ScheduledOptimizer) and hasattr(optimizer, "tx")
    if is_built and optimizer.lr_scheduler.optimizer is not optimizer:
        optimizer._refuse_to_be_copied()


@functools.cache
def _scheduled(cls: Any) -> Any:
    content = {"__doc__": cls.__doc__, "__module__": cls.__module__, "_plain": cls}
    return type(cls)(f"Scheduled{cls.__name__}", (ScheduledOptimizer, cls), content)


def scheduled_class(optimizer: OptaxOptimizer) -> Any:
    """Return the class of ``optimizer`` once it follows a scheduler."""
    cls: Any = type(optimizer)
    return cls if isinstance(optimizer, ScheduledOptimizer) else _scheduled(cls)


def make_scheduled(optimizer: OptaxOptimizer, scheduled: Any) -> None:
    """Turn ``optimizer`` into a scheduled one, in place.

    ``__class__`` is assigned because the user holds the object, or its constructor is running.
    Methods on an instance would be copied by graph clones, and act on the original.
    """
    if not isinstance(optimizer, ScheduledOptimizer):
        optimizer.__dict__["_own_tx"] = hasattr(optimizer, "tx")
        optimizer.__class__ = scheduled
