"""What brainsched uses of its dependencies beyond their public interface, all in one place.

=============  ============================================================================
brainstate     ``_state.TRACE_CONTEXT``, ``State._trace_state``, ``State._value``,
               ``State._write_value`` and ``State._check_value_tree`` (0.5.0 to 0.5.4)
braintools     ``LRScheduler._current_lrs``, ``OptaxOptimizer._lr_scheduler`` and
               ``OptaxOptimizer._current_lr``, what ``UniqueStateManager`` keeps, and that an added
               group's ``tx`` and State of moments are made for keys of its own (0.3.0);
               and what the Trainer's resumption overrides: ``Trainer._cleanup``, and
               ``_save_checkpoint`` and ``_remove_checkpoint`` of ``ModelCheckpoint`` (0.3.0)
optax          ``scale_by_schedule.<locals>.update_fn``, the one function that asks a schedule for
               a factor rather than a rate, and ``scale_by_learning_rate.<locals>.<lambda>``, which
               asks one for the rate (0.2.5 to 0.2.8)
=============  ============================================================================
"""

import copy
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from types import FrameType, ModuleType
from typing import Any

import jax
import optax
from brainstate import State, TreefyState
from brainstate._state import TRACE_CONTEXT
from brainstate.transform import StateFinder
from braintools.optim import Adam, ConstantLR, LRScheduler, OptaxOptimizer, OptimState
from braintools.trainer import ModelCheckpoint

# What is being traced


def inside_brainstate_transform() -> bool:
    """Whether a brainstate transformation is tracing now, and so tracks every State."""
    return bool(TRACE_CONTEXT.state_stack)


def created_in_current_trace(state: State) -> bool:
    """Whether ``state`` was created under the JAX trace that is running now."""
    return state._trace_state.is_valid()


_made_on_import = State(0)

# What may stand between a caller and what it calls: ours, and run-time checks of annotations.
_BETWEEN = ("brainsched", "jaxtyping", "beartype", "functools", "contextlib")


def inside_a_trace() -> bool:
    """Whether any transformation, of JAX or brainstate, is tracing now."""
    return not created_in_current_trace(_made_on_import)


def content_of(state: State) -> Any:
    """Return the object in ``state``, of which a program that is traced takes no note."""
    return state._value


def is_tracked(state: State) -> bool:
    """Whether what is written to ``state`` now is kept, on the host or by brainstate.

    brainstate counts at which depth of its transformations a State was created, and has those
    that are deeper track it.
    """
    return len(TRACE_CONTEXT.state_stack) > state.stack_level or created_in_current_trace(state)


# Who calls


def _callers() -> Iterator[tuple[str, FrameType]]:
    """Yield who called into brainsched, the nearest first: the package, and the frame."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        package = str(frame.f_globals.get("__name__")).partition(".")[0]
        if package not in _BETWEEN:
            yield package, frame
        frame = frame.f_back


def called_by_optax() -> bool:
    """Whether the caller of a method of ours is optax itself, and no function of the user's."""
    return next((package == "optax" for package, _ in _callers()), False)


def optax_wants_a_positive_rate() -> bool:
    """Whether optax is the caller, and not its ``scale_by_schedule``, which takes a signed factor.

    The nearest function of optax or braintools on the stack tells: a lambda may be between.
    """
    for package, frame in _callers():
        if package in ("optax", "braintools"):
            name = frame.f_code.co_qualname
            return package == "optax" and name != "scale_by_schedule.<locals>.update_fn"
    return False


def called_for_the_learning_rate() -> bool:
    """Whether optax is the caller, for what its ``scale_by_learning_rate`` was given.

    Itself, or through a function of optax that joins schedules.
    """
    name = "scale_by_learning_rate.<locals>.<lambda>"
    within = itertools.takewhile(lambda caller: caller[0] == "optax", _callers())
    return any(frame.f_code.co_qualname == name for _, frame in within)


def called_by_a_plain_optimizer() -> bool:
    """Whether an optimizer that follows no scheduler of ours is asking for the latest rates.

    One that does has a ``get_last_lr`` of its own.
    """
    theirs = OptaxOptimizer.get_last_lr.__code__
    return next((frame.f_code is theirs for _, frame in _callers()), False)


def called_by_a_scheduler_of_braintools() -> bool:
    """Whether a method that braintools' schedulers inherit or override is the caller."""
    theirs = LRScheduler.attach_optimizer.__globals__
    return next((frame.f_globals is theirs for _, frame in _callers()), False)


def plain_optimizer_in(method: str) -> OptaxOptimizer | None:
    """Return the optimizer in whose ``method``, as braintools has it, this runs.

    That is ``register_trainable_weights``, ``step`` or ``load_state_dict``.
    """
    theirs = getattr(OptaxOptimizer, method).__code__
    found = (frame.f_locals["self"] for _, frame in _callers() if frame.f_code is theirs)
    return next(found, None)


def optimizers_in_sight() -> Iterator[OptaxOptimizer]:
    """Yield the optimizers of those who called into brainsched: variables, and what these have."""
    for _, frame in _callers():
        for value in list(frame.f_locals.values()):
            if isinstance(value, OptaxOptimizer):
                yield value
            elif not isinstance(value, type | ModuleType):
                own = list(getattr(value, "__dict__", {}).values())
                yield from (each for each in own if isinstance(each, OptaxOptimizer))


# States


class NormalisedState(OptimState):
    """A State that brings what is written into one form first."""

    def __init__(self, value: Any, **kwargs: Any) -> None:
        super().__init__(self.normalise(value, None), **kwargs)

    def normalise(self, value: Any, former: Any) -> Any:
        """Return what to keep when ``value`` is written over ``former``."""
        raise NotImplementedError

    def formed(self, value: Any) -> Any:
        """Return ``value`` with the pytree structure of what is kept."""
        return value

    def restore_value(self, v: Any) -> None:
        """Write ``v``, as brainstate does with what a compiled program only read."""
        super().restore_value(self.formed(v))

    def _check_value_tree(self, v: Any) -> None:
        super()._check_value_tree(self.formed(v))

    def _write_value(self, v: Any) -> None:
        super()._write_value(self.normalise(v, self._value))

    def replace_structure(self, value: Any) -> None:
        """Write a pytree of another structure than the former one."""
        value = self.normalise(value, None)  # before the former one is gone
        self._value = None
        self.value = value


class _WithoutValue(OptimState):
    """A State with no value of its own, which shows what an optimizer applies.

    The State is one that others hold already, braintools' closures and programs compiled earlier
    among them, which read it and cannot be told of another. So it stays the object that it is, and
    gets this class (``__class__`` is assigned): there is no public way to have one State show
    another one's value.
    """

    _optimizer: OptaxOptimizer
    _own: tuple[str, ...]

    @classmethod
    def _adopt(cls, state: State, **own: Any) -> None:
        for name in ("_value", *getattr(state, "_own", ())):
            state.__dict__.pop(name, None)
        state.__dict__.update(own)
        state.__class__ = cls

    def __pretty_repr_item__(self, k: str, v: Any) -> tuple[str, Any] | None:
        """Show the value alone."""
        if k == "_optimizer":
            return super().__pretty_repr_item__("_value", self._value)
        return None if k in self._own else super().__pretty_repr_item__(k, v)

    def to_state_ref(self) -> TreefyState:
        """Give a reference to an ordinary State: a clone of the graph shows nothing of others."""
        reference = super().to_state_ref()
        reference.type = OptimState
        for name in self._own:
            del reference.__dict__[name]
        return reference


class AliasState(_WithoutValue):
    """The rate of one param group of an optimizer that follows a scheduler of ours.

    The rates have one home, the ``current_lrs`` of the scheduler that the optimizer follows.
    brainstate tracks that State alone, so that the rate of a group and the list cannot disagree,
    on the host or in a compiled program.
    """

    _group: int
    _own = ("_optimizer", "_group")

    @classmethod
    def take_over(cls, state: State, optimizer: OptaxOptimizer, group: int) -> None:
        """Turn ``state`` into an alias of the rate of ``group``."""
        if type(state) is not cls:
            cls._adopt(state, _optimizer=optimizer, _group=group)

    @property
    def _home(self) -> State:
        return self._optimizer._lr_scheduler._current_lrs

    @property
    def value(self) -> Any:
        """What is applied."""
        return self._home.value[self._group]

    @value.setter
    def value(self, v: Any) -> None:
        if getattr(v, "ndim", 0):
            raise ValueError(
                f"the rate of param group {self._group} must be a scalar, got an array of shape "
                f"{v.shape}"
            )
        rates = list(self._home.value)
        rates[self._group] = v
        self._home.value = rates

    @property
    def _value(self) -> Any:
        rates = self._home._value
        # brainstate puts a mark here once the trace that the State was created in is over.
        return rates[self._group] if isinstance(rates, list) else rates

    def restore_value(self, v: Any) -> None:
        """Write ``v``, as brainstate does with what a compiled program only read."""
        self.value = v


class ShownState(_WithoutValue):
    """What others believe to be a rate that they can set: it shows another, or raises.

    It is the ``current_lrs`` of a scheduler of braintools that one of ours has replaced, which the
    optimizer's transformation was built with and reads; or what an optimizer of braintools reports
    whose transformation has rates of its own.

    A program that was compiled before it could not be read any more is traced again, as brainstate
    does with a program one of whose States raises.
    """

    _read: Callable[[OptaxOptimizer], Any]
    _refuse: Callable[[OptaxOptimizer], None]
    _own = ("_optimizer", "_read", "_refuse")

    @classmethod
    def take_over(
        cls,
        state: State,
        optimizer: OptaxOptimizer,
        read: Callable[[OptaxOptimizer], Any],
        refuse: Callable[[OptaxOptimizer], None],
    ) -> None:
        """Let ``state`` show what ``read`` returns, and call ``refuse`` when it is written."""
        cls._adopt(state, _optimizer=optimizer, _read=read, _refuse=refuse)

    @property
    def value(self) -> Any:
        """What is applied."""
        return self._read(self._optimizer)

    @value.setter
    def value(self, v: Any) -> None:
        self._refuse(self._optimizer)

    @property
    def _value(self) -> Any:
        return self._read(self._optimizer)

    def _read_value(self) -> Any:
        return self._read(self._optimizer)

    def restore_value(self, v: Any) -> None:
        """Leave it: what it shows is restored where it is."""

    def update_from_ref(self, state_ref: TreefyState) -> None:
        """Leave it: what it shows is restored where it is."""


# Optimizers


def scheduler_of(optimizer: OptaxOptimizer) -> LRScheduler:
    """Return the scheduler that owns the rates of ``optimizer``."""
    return optimizer._lr_scheduler


def set_scheduler(optimizer: OptaxOptimizer, scheduler: Any) -> None:
    """Make ``scheduler`` what ``optimizer`` shows and asks for its rate."""
    optimizer._lr_scheduler = scheduler


def rates_state(scheduler: LRScheduler) -> State:
    """Return the State of the applied rates of a scheduler of braintools."""
    return scheduler._current_lrs


def give_a_scheduler_of_its_own(optimizer: OptaxOptimizer) -> None:
    """Let ``optimizer``, which was built with a number, share no scheduler with another one."""
    own = ConstantLR(optimizer.base_lr, factor=1.0, total_iters=0)
    own.attach_optimizer(optimizer)
    set_scheduler(optimizer, own)


def is_under_construction(optimizer: OptaxOptimizer) -> bool:
    """Whether the constructor of ``optimizer`` has yet to make its transformation."""
    return not hasattr(optimizer, "tx")


def applied_rate(optimizer: OptaxOptimizer, group: int) -> State:
    """Return the State that holds the rate of a param group of ``optimizer``.

    It is the one that the group's transformation reads. braintools 0.3.0 hands it out as
    ``group['lr']``, except for a group that was added with ``lr=``, where it leaves a number.
    """
    if group == 0:
        return optimizer._current_lr
    entry = optimizer.param_groups[group]
    if isinstance(entry["lr"], State):
        return entry["lr"]
    opt_state = optimizer.param_groups_opt_states[group - 1].value
    (state,) = _states_read(entry["tx"], entry["params"], opt_state)
    return state


def _states_read(tx: Any, params: Any, opt_state: Any) -> tuple[State, ...]:
    """Return the States that an update of a transformation reads."""
    values = jax.tree.map(lambda state: state.value, params)
    return StateFinder(tx.update, usage="read", return_type="tuple")(values, opt_state, values)


def asks_none(optimizer: OptaxOptimizer, states: Sequence[State]) -> bool:
    """Whether it is known that the transformation of ``optimizer`` reads none of ``states``.

    It is not looked at where it reports a rate of its own, which needs no other.
    """
    reports = isinstance(applied_rate(optimizer, 0), ShownState)
    if reports or optimizer.opt_state is None or inside_a_trace():
        return False
    params = optimizer.param_states.to_pytree()
    try:
        found = _states_read(optimizer.tx, params, optimizer.opt_state.value)
    except Exception:  # noqa: BLE001  (it may take more than gradients, which only a step gives it)
        return False
    return not {id(state) for state in found} & {id(state) for state in states}


def registered_ids(optimizer: OptaxOptimizer) -> set[int]:
    """Return the ids of the parameters that ``optimizer`` trains already."""
    return optimizer.param_states.seen_ids


def refresh_first_group(optimizer: OptaxOptimizer) -> None:
    """Put all registered parameters into the first group.

    braintools 0.3.0 leaves those of a second ``register_trainable_weights`` out of it.
    """
    optimizer.param_groups[0]["params"] = optimizer.param_states.to_pytree()


def by_their_keys(optimizer: OptaxOptimizer, group: int) -> Callable[[], None]:
    """Return a function that files the parameters of an added group as their gradients are keyed.

    braintools 0.3.0 files them under a string made of the key, so that a tuple, as
    ``model.states()`` gives, finds no gradient, and the first group's rate trains them. So there
    are no moments yet that could be lost.

    Raises
    ------
    ValueError
        If one was registered in a nested dictionary, so that it has no key of its own.
    """
    keys = {id(state): key for key, state in optimizer.param_states.to_pytree().items()}
    entry = optimizer.param_groups[group]
    for name, state in entry["params"].items():
        if id(state) not in keys:
            raise ValueError(
                f"{name!r} of param group {group} was added in a nested dictionary, and braintools "
                f"trains it at the first group's rate: add groups as flat dictionaries, as "
                f"model.states(brainstate.ParamState) gives"
            )
    params = {keys[id(state)]: state for state in entry["params"].values()}

    def file() -> None:
        if entry["params"].keys() != params.keys():
            entry["params"] = params
            moments = entry["tx"].init({key: state.value for key, state in params.items()})
            optimizer.param_groups_opt_states[group - 1] = OptimState(moments)

    return file


def trains_as_added_groups_do(optimizer: OptaxOptimizer, cls: type[OptaxOptimizer]) -> bool:
    """Whether an optimizer, built as a ``cls``, has their algorithm for its first group, too.

    braintools 0.3.0 gives every added group Adam with its defaults, whatever the optimizer is.
    """
    parts = optimizer.opt_state.value if isinstance(optimizer.opt_state.value, tuple) else ()
    return (
        cls.default_tx in (Adam.default_tx, OptaxOptimizer.default_tx)
        and any(isinstance(part, optax.ScaleByAdamState) for part in parts)
        and getattr(optimizer, "betas", (0.9, 0.999)) == (0.9, 0.999)
        and getattr(optimizer, "eps", 1e-8) == 1e-8
    )


def param_groups_as_they_are(optimizer: OptaxOptimizer) -> Callable[[], None]:
    """Return a function that undoes what adding a group to ``optimizer`` will have done."""
    managed = {name: copy.copy(value) for name, value in vars(optimizer.param_states).items()}
    groups = list(optimizer.param_groups)
    moments = list(optimizer.param_groups_opt_states)

    def undo() -> None:
        vars(optimizer.param_states).update(managed)
        optimizer.param_groups[:] = groups
        optimizer.param_groups_opt_states[:] = moments

    return undo


# The Trainer


def copy_that_leaves_files_alone(saving: ModelCheckpoint) -> ModelCheckpoint:
    """Return a copy of a callback that remembers its best by itself, and writes no file."""
    copied = copy.copy(saving)
    copied.best_k_models = dict(saving.best_k_models)
    vars(copied).update(_save_checkpoint=_do_nothing, _remove_checkpoint=_do_nothing)
    return copied


def _do_nothing(*args: Any) -> None:
    return
