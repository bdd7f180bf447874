"""An optimizer of braintools that follows a scheduler: how it begins to, and what it does then.

The applied rates live in one State, ``current_lrs`` of the scheduler that drives. The optimizer
reads it through :class:`GroupRate`, never through a scheduler: so a scheduler is replaced without
touching a transformation, and what the optimizer reports is what it applies.
"""

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, Protocol

import jax
import numpy as np
from brainstate import State
from brainstate.transform import StateFinder
from braintools.optim import OptaxOptimizer, OptimState

from brainsched import checks
from brainsched.link import optimizer_state, states
from brainsched.link.states import Rates, RatesState


class Drives(Protocol):
    """What the link needs of a scheduler."""

    optimizer: OptaxOptimizer | None
    last_epoch: State
    current_lrs: State
    _with_groups: Callable[[Sequence[Any]], Any]  # from ``lr=`` and name of each; may raise
    _have_groups: Callable[[Any], None]


class ScheduledGroup(dict[str, Any]):
    """A param group in which ``group['lr'] = x`` sets the applied rate, as in PyTorch."""

    given: Any = None  # the ``lr=`` that it was added with

    def __setitem__(self, key: str, value: Any) -> None:
        if key == "lr" and key in self:
            self["lr"].value = value
        else:
            super().__setitem__(key, value)

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set each item."""
        for key, value in dict(*args, **kwargs).items():
            self[key] = value


def _plain_dict(keys: tuple[str, ...], values: Any) -> Any:
    return dict(zip(keys, values, strict=True))  # what JAX makes from a group is not a group


jax.tree_util.register_pytree_with_keys(
    ScheduledGroup,
    lambda group: ([(jax.tree_util.DictKey(key), group[key]) for key in group], tuple(group)),
    _plain_dict,
)


class ScheduledOptimizer(OptaxOptimizer):
    """A mixin for the class of an optimizer, which otherwise behaves as before."""

    _plain: type[OptaxOptimizer]
    _own_tx: bool  # whether its class made its transformation, and can make another

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Build a plain optimizer when a user calls ``type(optimizer)(...)``."""
        return object.__new__(cls._plain)

    def default_tx(self) -> Any:
        """Make the transformation, which reads the rate of the first group."""
        self.__dict__["_own_tx"] = True
        return transformation(self, states.GroupRate(self, 0))

    def register_trainable_weights(self, param_states: Any) -> Any:
        """Register weights, before groups are added."""
        if len(self.param_groups) > 1:
            known = set(map(id, self.param_states.to_dict().values()))
            if known.issuperset(map(id, jax.tree.leaves(param_states))):
                return self  # braintools' Trainer registers all weights of a model again
            raise ValueError("register_trainable_weights must be called before add_param_group")
        require_that_the_rate_is_read(self, param_states)
        super().register_trainable_weights(param_states)
        # braintools 0.3.0 and 0.4.0 leave out weights that are registered by a second call.
        params = self.param_states.to_pytree()
        self.param_groups[0] = ScheduledGroup({**self.param_groups[0], "params": params})
        return self

    def add_param_group(
        self, params: Any, *, lr: Any = None, weight_decay: Any = None, name: str | None = None
    ) -> None:
        """Add a group, which runs at its scheduled rate from its first step, or change nothing.

        ``params`` is a dict of States, as ``model.states(brainstate.ParamState)`` is. ``lr`` is the
        base rate of the group, by default its entry in the scheduler's ``base_lr``.
        """
        scheduler = self.lr_scheduler
        states.require_outside_a_trace(scheduler.last_epoch, self.step_count)
        if self.opt_state is None:
            raise ValueError("register_trainable_weights must be called before add_param_group")
        check_params(self, params)
        require_own_tx(self)
        claims = [(entry.given, entry.get("name")) for entry in self.param_groups]
        having = scheduler._with_groups([*claims, (lr, name)])
        decay = self.weight_decay if weight_decay is None else weight_decay
        rate = states.GroupRate(self, len(self.param_groups))
        tx = transformation(self, rate, weight_decay=checks.number("weight_decay", decay))
        moments = OptimState(tx.init({key: state.value for key, state in params.items()}))
        entry = ScheduledGroup(params=dict(params), lr=rate, weight_decay=decay, tx=tx)
        entry |= {"name": name} if name else {}
        entry.given = lr
        # All is checked: from here on nothing raises.
        self.param_states.merge_with(params)
        self.param_groups.append(entry)
        self.param_groups_opt_states.append(moments)
        scheduler._have_groups(having)

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Take a step."""
        if self.lr_scheduler.optimizer is not self:  # a clone: its tx reads the original's rates
            self._refuse_to_be_copied()
        return super().step(*args, **kwargs)

    @property
    def current_lr(self) -> Any:
        """The applied rate of the first group: a float, or traced in compiled code."""
        rate = self.lr_scheduler.current_lrs.value[0]
        if isinstance(rate, jax.core.Tracer) or np.ndim(rate):
            return rate
        # The shortest decimal of this float32, so that it equals the number that the user wrote.
        return float(str(np.asarray(rate)))

    @current_lr.setter
    def current_lr(self, value: Any) -> None:
        rates = self.lr_scheduler.current_lrs
        rates.value = [value, *rates.value[1:]]

    @property
    def base_lr(self) -> Any:
        """The base rate of the first group."""
        return self.lr_scheduler.base_lrs[0]

    def get_last_lr(self) -> list[Any]:
        """Return the applied rate of each group."""
        return self.lr_scheduler.get_last_lr()

    load_state_dict = optimizer_state.load_state_dict

    def _refuse_to_be_copied(self, *args: Any) -> NoReturn:
        raise TypeError(
            f"this {plain_class(self).__name__} has a scheduler, and cannot be copied or pickled: "
            f"build another one with its own scheduler, and load the state_dict() of both"
        )

    __deepcopy__ = __copy__ = __reduce_ex__ = _refuse_to_be_copied


def check_params(optimizer: OptaxOptimizer, params: Any) -> None:
    """Raise unless ``params`` is a dictionary of parameters that are in no other group."""
    found = list(params.values()) if isinstance(params, Mapping) else []
    if not found or not all(isinstance(state, State) for state in found):
        raise TypeError(
            f"params must be a dictionary of one or more States, as "
            f"model.states(brainstate.ParamState) is, got {params!r}"
        )
    taken = {key: s for group in optimizer.param_groups for key, s in group["params"].items()}
    ids = set(map(id, taken.values()))
    for key, state in params.items():
        if key in taken or id(state) in ids:
            raise ValueError(f"params[{key!r}] is already in a param group")
        ids.add(id(state))
    jax.tree.structure({**taken, **params})  # raises unless the keys can be sorted together


def transformation(optimizer: OptaxOptimizer, rate: states.GroupRate, **changed: Any) -> Any:
    """Return what the optimizer's own class makes for a param group, which reads ``rate``.

    It is made on a stand-in whose scheduler is the rate; ``LBFGS`` keeps the stand-in.
    """
    stand_in = object.__new__(plain_class(optimizer))
    stand_in.__dict__.update(optimizer.__dict__, **changed)
    states.follow(stand_in, rate, rate)
    return stand_in.default_tx()


def plain_class(optimizer: OptaxOptimizer) -> type[OptaxOptimizer]:
    """Return the class that the user knows."""
    return getattr(optimizer, "_plain", type(optimizer))


def require_own_tx(optimizer: OptaxOptimizer) -> None:
    """Raise if the transformation may be one of the user's."""
    # All classes of braintools override default_tx, except the one that takes a tx=.
    overrides = type(optimizer).default_tx is not OptaxOptimizer.default_tx
    if not optimizer.__dict__.get("_own_tx", overrides):
        raise ValueError(
            f"this {plain_class(optimizer).__name__} may have a tx= of yours, which does not read "
            f"the scheduler's rates: give it tx=optax.chain(..., brainsched.scale_by_scheduler("
            f"scheduler, groups)), for any number of groups, and no lr=scheduler"
        )


def require_that_the_rate_is_read(optimizer: OptaxOptimizer, params: Any, level: int = 3) -> None:
    """Trace an update: warn if it does not read its rate, raise if it may be one of the user's."""
    tx = optimizer.tx
    update = StateFinder(
        lambda grads: tx.update(grads, tx.init(grads), grads), usage="read", return_type="tuple"
    )
    try:
        found = update(jax.tree.map(lambda state: state.value, params))
    except TypeError:  # it needs more than gradients, as a line search does
        return require_own_tx(optimizer)
    if optimizer.lr_scheduler.current_lrs not in found:
        require_own_tx(optimizer)
        warnings.warn(
            f"{plain_class(optimizer).__name__} does not read its learning rate in braintools: the "
            f"scheduler has no effect",
            UserWarning,
            stacklevel=level,
        )


@functools.cache
def scheduled_class(cls: Any) -> Any:
    """Return the class of an optimizer once it follows a scheduler."""
    content = {"__doc__": cls.__doc__, "__module__": cls.__module__, "_plain": cls}
    return type(cls)(f"Scheduled{cls.__name__}", (ScheduledOptimizer, cls), content)


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
    states.require_outside_a_trace(scheduler.last_epoch, optimizer.step_count)
    former, groups = optimizer.lr_scheduler, optimizer.param_groups
    is_scheduled = isinstance(optimizer, ScheduledOptimizer)
    if is_scheduled and former.optimizer is not optimizer:
        optimizer._refuse_to_be_copied()
    built_plain = hasattr(optimizer, "tx") and not is_scheduled
    if built_plain and len(groups) > 1:
        raise ValueError(
            "attach_optimizer must be called before add_param_group, since braintools trains the "
            "groups that it adds by Adam"
        )
    claims = [(getattr(group, "given", None), group.get("name")) for group in groups]
    having = scheduler._with_groups(claims or [(None, None)])
    if former is not scheduler:
        require_own_tx(optimizer)  # a tx= of the user's goes on reading the former one's State
    if groups:
        require_that_the_rate_is_read(optimizer, groups[0]["params"], level=4)
    rate = states.GroupRate(optimizer, 0)
    tx = transformation(optimizer, rate) if built_plain else None
    cls: Any = type(optimizer)
    scheduled = cls if is_scheduled else scheduled_class(cls)
    # All is checked: from here on nothing raises.
    reported = states.follow(optimizer, scheduler, None if is_scheduled else rate)
    if is_scheduled:
        shared, name = former.current_lrs, type(scheduler).__name__
        own = RatesState(Rates(shared.value))
        former.__dict__.update(_current_lrs=own, optimizer=None, _replaced_by=name)
        states.restructure(scheduler.current_lrs, Rates())
        scheduler.__dict__["_current_lrs"] = shared
    else:
        optimizer.__dict__["_own_tx"] = built_plain
        # The user holds the object, or its constructor is running. Methods on an instance would be
        # copied by graph clones, and act on the original.
        optimizer.__class__ = scheduled
    if built_plain:
        for state in (former.current_lrs, reported):
            states.restructure(state, Rates(jax.tree.leaves(state.value)))
        former.optimizer, optimizer.tx = None, tx
        params = optimizer.param_states.to_pytree()
        groups[:] = [ScheduledGroup({**group, "params": params, "lr": rate}) for group in groups]
    scheduler.__dict__.update(optimizer=optimizer, _replaced_by=None)
    scheduler._have_groups(having)
