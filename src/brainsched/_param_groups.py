"""The link between a scheduler and the braintools optimizer whose param groups it drives.

The rule: a scheduler drives at most one optimizer, an optimizer follows exactly one scheduler of
ours from the first one on, and both know it by one object, their :class:`Attachment`. Attaching,
moving, replacing and going back are one operation, :func:`attach`, that makes such an object and
ends those that its two sides had.

- A scheduler that loses its optimizer is free: whole, where it stood, with its rates.
- An optimizer that loses its scheduler keeps its rates: it follows a constant schedule of them.

The rates have one home, ``current_lrs`` of the scheduler that is followed. All that an optimizer
reads or shows is read there, through the attachment. A compiled program has a scheduler's States
built in; so it also reads the State of the attachment, which changes its structure when the
attachment ends, upon which brainstate traces the program again.
"""

import dataclasses
import functools
import sys
import types
import warnings
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NoReturn

import jax
from brainstate import State, TraceContextError
from braintools.optim import OptaxOptimizer, OptimState

from brainsched import _arguments, _tracking, _upstream
from brainsched._types import Array

if TYPE_CHECKING:
    from brainsched._base import LRScheduler
    from brainsched._evaluation import Bases


class Unwritten:
    """Whether nobody has written to a State since this was made.

    Every write puts another object into a State, and a read leaves the object that is there.
    """

    def __init__(self, state: State) -> None:
        self._watched = state
        self._content = state.value

    def __bool__(self) -> bool:
        return self._watched.value is self._content


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class _InForce:
    """The value of an attachment's State: no array, but a structure, which programs depend on."""

    holds: bool


class Attachment:
    """The link between one scheduler and one optimizer, while it lasts.

    Parameters
    ----------
    scheduler : LRScheduler
        The one that drives.
    optimizer : OptaxOptimizer
        The one that follows.
    held : list of scalar arrays
        The applied rates that the scheduler brings along. It may have had more param groups
        elsewhere: their rates wait for the group to be added, up to the next step.

    Attributes
    ----------
    built_with : LRScheduler or None
        The scheduler that the optimizer was built with, which its transformation may hold.
    rate_was_read : bool
        Whether a step of the optimizer has asked for the rate.
    restored : Unwritten or None
        Whether the applied rates are still those that a checkpoint of the scheduler restored.
    """

    def __init__(
        self, scheduler: "LRScheduler", optimizer: OptaxOptimizer, held: list[Array]
    ) -> None:
        self.scheduler = scheduler
        self.optimizer = optimizer
        self.built_with: LRScheduler | None = None
        self.rate_was_read = False
        self.restored: Unwritten | None = None
        self._held = held
        self._position = Unwritten(scheduler.last_epoch)
        self._in_force = OptimState(_InForce(True))
        self._names = _names_of(scheduler)
        _attachments.add(self)

    @property
    def held(self) -> list[Array]:
        """The applied rates, and those that wait for their group: none once it has stepped."""
        applied = list(self.scheduler.current_lrs.value)
        return [*applied, *(self._held[len(applied) :] if self._position else [])]

    def end(self) -> None:
        """Let all programs that rely on it be traced again."""
        self._in_force.value = _InForce(False)
        _attachments.discard(self)

    def replaced_name(self, scheduler: "LRScheduler") -> str | None:
        """Return a name in ``__main__`` that meant the scheduler here, and now means another."""
        namespace = vars(sys.modules["__main__"])
        return next((name for name in self._names if namespace.get(name) is scheduler), None)

    @contextmanager
    def stepping(self) -> Iterator[None]:
        """Mark that the optimizer takes a step: what reads the rate meanwhile is its doing."""
        if _upstream.inside_brainstate_transform():
            _ = self._in_force.value  # so that the program that is traced depends on it
        for group, rate in enumerate(self.scheduler.current_lrs.value):
            if rate.ndim:
                raise ValueError(
                    f"current_lrs[{group}] must be a scalar, got an array of shape {rate.shape}"
                )
        token = _stepping.set(self)
        try:
            yield
        finally:
            _stepping.reset(token)

    def read(self) -> Array:
        """Return the rate of the first param group, for the optimizer's transformation."""
        self.rate_was_read = True
        _tracking.require(self.scheduler.last_epoch, "the optimizer's step")
        return self.scheduler.current_lrs.value[0]

    def read_for_replaced(self) -> list[Array]:
        """Return the rates to a transformation that was built with a scheduler of braintools."""
        return [self.read(), *self.scheduler.current_lrs.value[1:]]


# Those in force, and the one whose optimizer is taking a step.
_attachments: "weakref.WeakSet[Attachment]" = weakref.WeakSet()
_stepping: ContextVar[Attachment | None] = ContextVar("_stepping", default=None)


def attachment_of(optimizer: OptaxOptimizer) -> Attachment | None:
    """Return the attachment of an optimizer that follows a scheduler of ours."""
    attachment = getattr(_upstream.scheduler_of(optimizer), "_attachment", None)
    return attachment if attachment is not None and attachment.optimizer is optimizer else None


def applied_rate(scheduler: "LRScheduler") -> Array:
    """Return the first group's rate to whoever calls ``scheduler`` for it.

    A transformation may hold the scheduler that it was built with, which may be replaced since.
    """
    attachment = _stepping.get()
    if attachment is not None and scheduler in (attachment.scheduler, attachment.built_with):
        return attachment.read()
    return scheduler.current_lrs.value[0]


def note_that_rates_were_read(scheduler: "LRScheduler") -> None:
    """Take note of it if the optimizer of ``scheduler`` is taking a step."""
    attachment = _stepping.get()
    if attachment is not None and attachment.scheduler is scheduler:
        attachment.rate_was_read = True


# Attaching


def attach(scheduler: "LRScheduler", optimizer: OptaxOptimizer) -> None:
    """Let ``optimizer`` follow ``scheduler``: see :meth:`LRScheduler.attach_optimizer`."""
    if not isinstance(optimizer, OptaxOptimizer):
        raise TypeError(
            f"optimizer must be an OptaxOptimizer of braintools.optim, "
            f"got {type(optimizer).__name__}"
        )
    former = scheduler._attachment
    if former is not None and former.optimizer is optimizer:
        return
    groups = max(1, len(optimizer.param_groups))
    bases = scheduler._bases
    for group in range(groups):
        bases = _bases_with(scheduler, group, _given_rate(optimizer, group), bases)
        if group:
            _upstream.params_by_their_keys(optimizer, group)  # which raises if it cannot be trained
    held = list(scheduler.current_lrs.value) if former is None else former.held
    having = scheduler._with_groups(groups, bases, held)

    if former is not None and not _upstream.is_under_construction(former.optimizer):
        warnings.warn(
            f"{type(scheduler).__name__} moves to another optimizer, with its epoch and rates. "
            f"The former one, {type(former.optimizer).__name__}, keeps the rates that it has",
            UserWarning,
            stacklevel=3,
        )
        _follow(former.optimizer, *_constant(former.optimizer))
    _follow(optimizer, scheduler, having, held)


def _follow(
    optimizer: OptaxOptimizer, scheduler: "LRScheduler", having: Any, held: list[Array]
) -> None:
    """Make the attachment. All is checked: from here on nothing raises."""
    new = Attachment(scheduler, optimizer, held)
    old = attachment_of(optimizer)
    replaced = _upstream.scheduler_of(optimizer)
    if old is not None:
        new.built_with = old.built_with
        old.end()
        old.scheduler.__dict__.update(
            _attachment=None,
            _was_missed=False,
            _lost=f"{_plain_name(optimizer)} follows a {type(scheduler).__name__} now",
        )
    elif _upstream.is_under_construction(optimizer):
        new.built_with = scheduler
    else:
        replaced.optimizer = None
        _upstream.ReplacedRatesState.take_over(
            _upstream.rates_state(replaced),
            functools.partial(_rates_for_replaced, type(replaced).__name__, optimizer),
        )
    if scheduler._attachment is not None:
        scheduler._attachment.end()
    scheduler.__dict__.update(_attachment=new, _was_missed=True, _lost=None)
    scheduler._have_groups(*having)
    _upstream.set_scheduler(optimizer, scheduler)
    for group in range(max(1, len(optimizer.param_groups))):
        if group:
            _upstream.file_by_their_keys(optimizer, group)
        _own_rate(optimizer, group)
    if not isinstance(optimizer, ScheduledOptimizer):
        cls: Any = type(optimizer)
        # On an instance, methods would be copied by graph clones, and then act on the original.
        optimizer.__class__ = _scheduled(cls)


def _own_rate(optimizer: OptaxOptimizer, group: int) -> None:
    """Make the State that the transformation of ``group`` reads show the scheduler's rate."""
    given = _given_rate(optimizer, group)
    state = _upstream.applied_rate(optimizer, group)
    _upstream.AliasState.take_over(state, optimizer, group)
    if group < len(optimizer.param_groups):
        content = {**optimizer.param_groups[group], "lr": state}
        optimizer.param_groups[group] = ScheduledGroup(content, given)


def _constant(optimizer: OptaxOptimizer) -> tuple["LRScheduler", Any, list[Array]]:
    """Return a schedule that keeps the rates that ``optimizer`` has, for :func:`_follow`."""
    from brainsched.schedules import ConstantLR  # which stands on this module

    rates = list(_upstream.scheduler_of(optimizer).current_lrs.value)
    scheduler = ConstantLR(rates, factor=1.0, total_iters=0)
    return scheduler, scheduler._with_groups(len(rates), scheduler._bases, rates), rates


def _bases_with(scheduler: "LRScheduler", group: int, lr: Any, bases: "Bases") -> "Bases":
    """Return ``bases`` with that of a param group, if it may join; change nothing."""
    if not _upstream.created_in_current_trace(scheduler.last_epoch):
        raise TraceContextError(
            "a scheduler cannot take on a param group while a function is traced: the "
            "compiled program would not know of it. Add the group outside, before the "
            "training step is called; the next call traces again, once"
        )
    if scheduler.max_groups is not None and group >= scheduler.max_groups:
        raise ValueError(
            f"param group {group} has no rate: the schedule has columns for "
            f"{scheduler.max_groups} groups"
        )
    return bases.adding(group, lr)


def _given_rate(optimizer: OptaxOptimizer, group: int) -> Any:
    """Return the ``lr=`` that a group was added with, or None."""
    if not 0 < group < len(optimizer.param_groups):
        return None
    entry = optimizer.param_groups[group]
    if isinstance(entry, ScheduledGroup):
        return entry.given_lr
    return None if isinstance(entry["lr"], State) else entry["lr"]


def _rates_for_replaced(name: str, optimizer: OptaxOptimizer) -> list[Array]:
    attachment = attachment_of(optimizer)
    if attachment is None or _stepping.get() is not attachment:
        raise RuntimeError(
            f"this {name} of braintools drives no optimizer any more: {_plain_name(optimizer)} "
            f"follows a scheduler of brainsched, optimizer.lr. Step and read that one; another "
            f"optimizer that shares this {name} needs a scheduler of its own"
        )
    return attachment.read_for_replaced()


def _plain_name(optimizer: OptaxOptimizer) -> str:
    return getattr(optimizer, "_plain_class", type(optimizer)).__name__


# Schedulers that nobody follows


def warn_if_missed(scheduler: "LRScheduler") -> None:
    """Warn at the first step of a scheduler that an optimizer seems to be meant to follow."""
    scheduler.__dict__["_was_missed"] = True
    reason = scheduler._lost or _followed_part(scheduler) or _namesake(scheduler)
    if reason is not None:
        warnings.warn(
            f"no optimizer follows this {type(scheduler).__name__}, so that its steps change no "
            f"rate: {reason}. Give it to the optimizer with scheduler.attach_optimizer(optimizer)",
            UserWarning,
            stacklevel=3,
        )


def _followed_part(scheduler: "LRScheduler") -> str | None:
    for attachment in tuple(_attachments):
        if any(part is scheduler for part in _arguments.parts(attachment.scheduler)):
            whole = type(attachment.scheduler).__name__
            return f"{_plain_name(attachment.optimizer)} follows the {whole} that it is a part of"
    for part in _arguments.parts(scheduler):
        if part._attachment is not None:
            optimizer = _plain_name(part._attachment.optimizer)
            return f"{optimizer} follows a part of it, a {type(part).__name__}"
    return None


def _namesake(scheduler: "LRScheduler") -> str | None:
    """Say which optimizer follows the scheduler that had this one's name: a cell was run again."""
    for attachment in tuple(_attachments):
        name = attachment.replaced_name(scheduler)
        if name is not None:
            return (
                f"{_plain_name(attachment.optimizer)} follows the "
                f"{type(attachment.scheduler).__name__} that was called {name!r} before"
            )
    return None


def _names_of(scheduler: "LRScheduler") -> list[str]:
    """Return the names that a notebook, or a script, has for ``scheduler``."""
    return [name for name, value in vars(sys.modules["__main__"]).items() if value is scheduler]


# What an optimizer does besides


@jax.tree_util.register_pytree_with_keys_class
class ScheduledGroup(dict[str, Any]):
    """A param group, in which ``group['lr'] = x``, as in PyTorch, sets the rate that is applied.

    Parameters
    ----------
    content : mapping
        The param group of braintools.
    given_lr : float, scalar array or None
        The ``lr=`` that it was added with.
    """

    def __init__(self, content: Mapping[str, Any], given_lr: Any) -> None:
        super().__init__(content)
        self.given_lr = given_lr

    def __setitem__(self, key: str, value: Any) -> None:
        if key == "lr" and value is not self["lr"]:
            self["lr"].value = value
        else:
            super().__setitem__(key, value)

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set each item."""
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def tree_flatten_with_keys(self) -> tuple[list[tuple[Any, Any]], tuple[str, ...]]:
        """Flatten like a dict."""
        keys = tuple(sorted(self))
        return [(jax.tree_util.DictKey(key), self[key]) for key in keys], keys

    @classmethod
    def tree_unflatten(cls, keys: tuple[str, ...], values: Any) -> dict[str, Any]:
        """Return a plain dict: what is made from a group is no group of an optimizer."""
        return dict(zip(keys, values, strict=True))


class ScheduledOptimizer(OptaxOptimizer):
    """What an optimizer does besides, once it follows a scheduler of ours.

    It is mixed into the optimizer's own class, which is otherwise what it was: an instance of the
    mixed class is one of the plain class, and calling the mixed class builds a plain optimizer.
    """

    _plain_class: type[OptaxOptimizer]

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return object.__new__(cls._plain_class)

    @property
    def _attachment(self) -> Attachment:
        attachment = attachment_of(self)
        if attachment is None:
            self._refuse_to_be_copied()
        return attachment

    def default_tx(self) -> Any:
        """Make the transformation, which asks this optimizer for the rate of the moment."""
        scheduler = _upstream.scheduler_of(self)
        _upstream.set_scheduler(self, lambda count: -self._attachment.read())
        try:
            return super().default_tx()
        finally:
            _upstream.set_scheduler(self, scheduler)

    def register_trainable_weights(self, param_states: Any) -> Any:
        """Register weights, before groups are added."""
        if len(self.param_groups) > 1:
            found = jax.tree.leaves(param_states, is_leaf=lambda leaf: isinstance(leaf, State))
            if {id(state) for state in found} <= _upstream.registered_ids(self):
                return self  # braintools' Trainer registers all of a model's once more
            raise ValueError(
                "register_trainable_weights comes before add_param_group: the weights would belong "
                "to no param group"
            )
        super().register_trainable_weights(param_states)
        _upstream.refresh_first_group(self)
        _own_rate(self, 0)
        return self

    def add_param_group(self, params: Any, **kwargs: Any) -> None:
        """Add a group, which runs at its scheduled rate from its first step, or leave all as is."""
        scheduler = self._attachment.scheduler
        group = len(self.param_groups)
        _check_params(self, params)
        given = kwargs.pop("lr", None)
        bases = _bases_with(scheduler, group, given, scheduler._bases)
        having = scheduler._with_groups(group + 1, bases, self._attachment.held)

        undo = _upstream.param_groups_as_they_are(self)
        try:
            # Without ``lr=``, or braintools 0.3.0 hides the State that it applies.
            super().add_param_group(params, **kwargs)
            _upstream.file_by_their_keys(self, group)
        except BaseException:
            undo()
            raise
        scheduler._have_groups(*having)
        _own_rate(self, group)
        self.param_groups[group].given_lr = given

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Take a step, and warn once if the rate was not asked for."""
        attachment = self._attachment
        before = None if self.opt_state is None else self.opt_state.value
        with attachment.stepping():
            result = super().step(*args, **kwargs)
        # With several groups, braintools leaves the first one out where it has no gradient.
        if not attachment.rate_was_read and (
            len(self.param_groups) == 1 or self.opt_state.value is not before
        ):
            attachment.rate_was_read = True
            warnings.warn(
                f"{_plain_name(self)} does not read its learning rate from the scheduler: its "
                f"transformation was built with a rate of its own, which it keeps whatever "
                f"{type(attachment.scheduler).__name__} says",
                UserWarning,
                stacklevel=2,
            )
        return result

    @property
    def current_lr(self) -> Any:
        """The applied rate of the first group."""
        return self._attachment.scheduler.current_lrs.value[0]

    @current_lr.setter
    def current_lr(self, value: Any) -> None:
        _upstream.applied_rate(self, 0).value = value

    def get_last_lr(self) -> list[Any]:
        """Return the applied rate of each group."""
        return self._attachment.scheduler.get_last_lr()

    def add_scheduler(self, scheduler: Any) -> None:
        """Take note of the scheduler that is followed; refuse another, which nothing would read."""
        if scheduler is not self._attachment.scheduler:
            raise ValueError(
                f"an optimizer follows one scheduler, and this one has a "
                f"{type(self._attachment.scheduler).__name__}: replace it with "
                f"scheduler.attach_optimizer(optimizer), or join both in a SequentialLR or a "
                f"ChainedScheduler"
            )
        super().add_scheduler(scheduler)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the optimizer, rates included, unless the scheduler's own were restored."""
        attachment = self._attachment
        for key in ("step_count", "lr", "base_lr"):
            if key not in state_dict:
                raise ValueError(f"state_dict has no {key!r}, which an optimizer's state has")
        groups = state_dict.get("param_groups", {})
        if groups and len(groups) != len(self.param_groups):
            raise ValueError(
                f"the checkpoint has {len(groups)} param groups, but the optimizer has "
                f"{len(self.param_groups)}: add the groups that it was saved with, then load, and "
                f"only then add others"
            )
        rates = attachment.scheduler.current_lrs.value
        saved = [groups.get(str(i), {}).get("lr", rate) for i, rate in enumerate(rates)]
        attachment.scheduler.current_lrs.normalise([state_dict["lr"], *saved[1:]], rates)
        restored = bool(attachment.restored)
        super().load_state_dict(state_dict)
        if restored:  # what the scheduler has from its own checkpoint is the later word
            attachment.scheduler.current_lrs.value = rates
            attachment.restored = Unwritten(attachment.scheduler.current_lrs)

    def _refuse_to_be_copied(self, *args: Any) -> NoReturn:
        name = _plain_name(self)
        raise TypeError(
            f"a {name} with a scheduler cannot be copied or pickled, and a copy through the graph "
            f"cannot be used: its transformations are functions that hold the original's States. "
            f"Build another {name} with a scheduler of its own, register its weights, add the same "
            f"groups, and load what state_dict() of both gives. To restore the whole state in "
            f"place, use brainstate.graph.update_states"
        )

    __deepcopy__ = __copy__ = __reduce_ex__ = _refuse_to_be_copied


@functools.cache
def _scheduled(cls: type[OptaxOptimizer]) -> Any:
    """Return the class of a ``cls`` that follows a scheduler of ours."""
    content = {"__doc__": cls.__doc__, "__module__": cls.__module__, "_plain_class": cls}
    return types.new_class(
        f"Scheduled{cls.__name__}",
        (ScheduledOptimizer, cls),
        exec_body=lambda ns: ns.update(content),
    )


def _check_params(optimizer: OptaxOptimizer, params: Any) -> None:
    """Raise if the gradients of ``params`` could not be told apart from those of other groups."""
    if not isinstance(params, Mapping):
        raise TypeError(
            f"params must be a dictionary of States, as model.states(brainstate.ParamState) is, "
            f"got {type(params).__name__}"
        )
    if not params:
        raise ValueError(
            "params has no parameter, so that the group would train nothing: was it selected by "
            "keys that the model does not have?"
        )
    if not optimizer.param_groups:
        return  # braintools says that weights must be registered first
    taken = {
        key: group for group, entry in enumerate(optimizer.param_groups) for key in entry["params"]
    }
    try:
        sorted([*taken, *params])
    except TypeError as error:
        raise ValueError(
            f"the keys of params cannot be sorted among those of the other groups, as JAX must: "
            f"give all keys one form, as model.states(brainstate.ParamState) does ({error})"
        ) from error
    nested = [key for key, value in optimizer.param_groups[0]["params"].items() if _is_dict(value)]
    for key, value in params.items():
        if _is_dict(value) or nested:
            where = f"params[{key!r}]" if _is_dict(value) else f"the registered {nested[0]!r}"
            raise ValueError(
                f"{where} is a dictionary of parameters, and braintools would train a group of "
                f"such at the first group's rate: give flat dictionaries to both "
                f"register_trainable_weights and add_param_group, with tuples for keys, as "
                f"model.states(brainstate.ParamState) does"
            )
        if key in taken and optimizer.param_groups[taken[key]]["params"][key] is not value:
            raise ValueError(
                f"params[{key!r}] has the key of another parameter, of param group {taken[key]}: "
                f"give it a key of its own, as its gradient has"
            )
        if id(value) in _upstream.registered_ids(optimizer):
            raise ValueError(
                f"params[{key!r}] is in another param group already: register the others alone, "
                f"{{key: state for key, state in model.states(brainstate.ParamState).items() if "
                f"key not in params}}"
            )


def _is_dict(value: Any) -> bool:
    return isinstance(value, Mapping)
