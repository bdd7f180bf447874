"""What brainsched uses of its dependencies beyond their public interface, all in one place.

=============  ============================================================================
brainstate     ``_state.TRACE_CONTEXT``, ``State._trace_state``, ``State._value`` and
               ``State._write_value`` (0.5.0 to 0.5.4)
braintools     ``LRScheduler._current_lrs``, ``OptaxOptimizer._lr_scheduler`` and
               ``OptaxOptimizer._current_lr`` (0.3.0)
=============  ============================================================================
"""

from typing import Any

from brainstate import State, TreefyState
from brainstate._state import TRACE_CONTEXT
from brainstate.transform import StateFinder
from braintools.optim import LRScheduler, OptaxOptimizer, OptimState


def inside_brainstate_transform() -> bool:
    """Whether a brainstate transformation is tracing now, and so tracks every State."""
    return bool(TRACE_CONTEXT.state_stack)


def created_in_current_trace(state: State) -> bool:
    """Whether ``state`` was created under the JAX trace that is running now."""
    return state._trace_state.is_valid()


class NormalisedState(OptimState):
    """A State that brings what is written into one form first."""

    def __init__(self, value: Any, **kwargs: Any) -> None:
        super().__init__(self.normalise(value, None), **kwargs)

    def normalise(self, value: Any, former: Any) -> Any:
        """Return what to keep when ``value`` is written over ``former``."""
        raise NotImplementedError

    def _write_value(self, v: Any) -> None:
        super()._write_value(self.normalise(v, self._value))

    def replace_structure(self, value: Any) -> None:
        """Write a pytree of another structure than the former one."""
        self._value = None
        self.value = value


class AliasState(OptimState):
    """A State with no value of its own: it shows one entry of a scheduler's ``current_lrs``.

    brainstate tracks ``current_lrs`` alone, so the entry and the list cannot disagree, on the
    host or in a compiled program. A State that others hold already is turned into an alias where
    it is, by :meth:`take_over`: a closure or a program compiled earlier may hold it.
    """

    _scheduler: LRScheduler
    _entry: int
    _own = ("_scheduler", "_entry")

    @classmethod
    def take_over(cls, state: State, scheduler: LRScheduler, entry: int) -> None:
        """Turn ``state`` into an alias of ``entry`` of ``scheduler.current_lrs``."""
        state.__dict__.pop("_value", None)
        state.__dict__.update(_scheduler=scheduler, _entry=entry)
        state.__class__ = cls

    def release(self) -> None:
        """Make this an ordinary State again, which keeps the value that it shows now."""
        value = self._value
        for name in self._own:
            del self.__dict__[name]
        self.__class__ = OptimState
        self.__dict__["_value"] = value

    @property
    def value(self) -> Any:
        return self._scheduler._current_lrs.value[self._entry]

    @value.setter
    def value(self, v: Any) -> None:
        rates = list(self._scheduler._current_lrs.value)
        rates[self._entry] = v
        self._scheduler._current_lrs.value = rates

    @property
    def _value(self) -> Any:
        rates = self._scheduler._current_lrs._value
        # brainstate puts a mark here once the trace that the State was created in is over.
        return rates[self._entry] if isinstance(rates, list) else rates

    def restore_value(self, v: Any) -> None:
        """Write ``v``, as brainstate does with what a compiled program only read."""
        self.value = v

    def __pretty_repr_item__(self, k: str, v: Any) -> tuple[str, Any] | None:
        """Show the entry alone."""
        if k == "_scheduler":
            return super().__pretty_repr_item__("_value", self._value)
        return None if k in self._own else super().__pretty_repr_item__(k, v)

    def to_state_ref(self) -> TreefyState:
        """Give a reference to an ordinary State: a clone of the graph is no alias."""
        reference = super().to_state_ref()
        reference.type = OptimState
        for name in self._own:
            del reference.__dict__[name]
        return reference


class ReplacedRatesState(AliasState):
    """The ``current_lrs`` of a scheduler that another one has replaced: that one's, entirely.

    The optimizer's transformation was built with the replaced scheduler and reads it here. A
    program compiled before sees the length change when a group is added, and is traced again.
    """

    @property
    def value(self) -> list[Any]:
        self._scheduler._was_called = True
        return self._scheduler._current_lrs.value

    @value.setter
    def value(self, v: list[Any]) -> None:
        self._scheduler._current_lrs.value = v

    @property
    def _value(self) -> Any:
        return self._scheduler._current_lrs._value


def scheduler_of(optimizer: OptaxOptimizer) -> LRScheduler:
    """Return the scheduler that owns the rates of ``optimizer``."""
    return optimizer._lr_scheduler


def replace_scheduler(optimizer: OptaxOptimizer, scheduler: LRScheduler) -> None:
    """Make ``scheduler`` the one whose first rate the optimizer's transformation applies.

    The transformation was built with the former scheduler and calls it, so that one's rates
    become an alias of the new one's.
    """
    former = optimizer._lr_scheduler
    if former is not scheduler:
        former.optimizer = None
        ReplacedRatesState.take_over(former._current_lrs, scheduler, 0)
        optimizer._lr_scheduler = scheduler


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
    values = {name: state.value for name, state in entry["params"].items()}
    opt_state = optimizer.param_groups_opt_states[group - 1].value
    read = StateFinder(entry["tx"].update, usage="read", return_type="tuple")
    (state,) = read(values, opt_state, values)
    return state
