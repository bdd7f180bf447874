"""The one file that touches private names of others.

=============  ============================================================================
jax            ``_src.core.trace_state_clean`` (0.8.1 to 0.12.0)
brainstate     ``_state.TRACE_CONTEXT``, ``State._trace_state``, ``State._value``,
               ``State._read_value``, ``State._write_value`` and ``State._check_value_tree``
               (0.5.0 to 0.6.0)
braintools     ``LRScheduler._current_lrs``, ``OptaxOptimizer._lr_scheduler`` and
               ``OptaxOptimizer._current_lr``, and ``UniqueStateManager.seen_ids`` (0.3.0, 0.4.0)
=============  ============================================================================
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from brainstate import State, TraceContextError, TreefyState
from brainstate._state import TRACE_CONTEXT
from brainstate.transform import StateFinder
from braintools.optim import OptaxOptimizer, OptimState
from jax._src.core import trace_state_clean


def inside_a_trace() -> bool:
    """Whether any transformation, of JAX or brainstate, is tracing now."""
    return not trace_state_clean()


def require_outside_a_trace(*states: State) -> None:
    """Raise if these States were created outside the running trace, which a link outlives."""
    if not all([state._trace_state.is_valid() for state in states]):
        raise TraceContextError(
            "a scheduler cannot be attached, nor a param group added, inside a compiled function: "
            "do it outside, between two training steps"
        )


class TrackedState(OptimState):
    """A State that raises where brainstate cannot track it, and converts what is written to it."""

    def __init__(self, value: Any, **metadata: Any) -> None:
        is_formed = isinstance(value, list | np.ndarray)
        super().__init__(value if is_formed else self.form(value, None), **metadata)

    def require_tracked(self) -> None:
        """Raise under a plain JAX transformation, where reads are frozen and writes are lost."""
        if len(TRACE_CONTEXT.state_stack) > self.stack_level or self._trace_state.is_valid():
            return
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(self._value)):
            return  # brainstate's own vmap puts tracers in the State
        raise TraceContextError(
            "a learning rate was read or written under a plain JAX transformation (jax.jit, "
            "jax.vmap, jax.lax.scan, ...), where the schedule would stand still. Compile the whole "
            "step with brainstate.transform.jit, vmap, for_loop or scan; in pure JAX, optax or "
            "Flax code, use scheduler.as_optax() or scheduler.lr_at(count)"
        )

    def form(self, value: Any, former: Any) -> Any:
        """Return what to keep when ``value`` is written over ``former``."""
        raise NotImplementedError

    def structured(self, value: Any) -> Any:
        """Return ``value`` with the pytree structure of what is kept."""
        return value

    def restore_value(self, v: Any) -> None:
        """Write ``v`` as it is, as brainstate does with what a compiled program only read."""
        super().restore_value(self.structured(v))

    def _check_value_tree(self, v: Any) -> None:
        if TRACE_CONTEXT.tree_check[-1] and not self.is_like(v):
            super()._check_value_tree(self.structured(v))

    def is_like(self, value: Any) -> bool:
        """Whether ``value`` is known to have the structure of what is kept."""
        return False

    def restructure(self, value: Any) -> None:
        """Write a value of another structure."""
        self.__dict__["_value"] = None
        self.value = value

    @property
    def content(self) -> Any:
        """The value, without making a traced program depend on it."""
        return self._value

    @property
    def value(self) -> Any:
        """What is kept."""
        if not trace_state_clean():  # not in _read_value, which brainstate uses itself
            self.require_tracked()
        return OptimState.value.fget(self)

    @value.setter
    def value(self, v: Any) -> None:
        if not trace_state_clean():
            self.require_tracked()
        OptimState.value.fset(self, v)

    @property
    def present(self) -> Any:
        """The value; outside of traces it skips brainstate's bookkeeping, which takes time."""
        return self._value if trace_state_clean() else self.value

    def _write_value(self, v: Any) -> None:
        super()._write_value(self.form(v, self._value))


class GroupRate(OptimState):
    """The rate of one param group: a place in the list of applied rates.

    It has no value of its own that could disagree with the list. It is a State because
    checkpoints of the whole state have one there.
    """

    __slots__ = ("_group", "_optimizer")  # to keep them out of references and reprs

    def __init__(self, optimizer: OptaxOptimizer, group: int) -> None:
        super().__init__(None)
        del self.__dict__["_value"]
        self._optimizer, self._group = optimizer, group

    def __call__(self, count: Any) -> Any:
        """Return minus the rate, as ``optax.scale_by_schedule`` asks for it."""
        return -self.value

    @property
    def value(self) -> Any:
        """The applied rate."""
        return applied_rates(self._optimizer).value[self._group]

    @value.setter
    def value(self, rate: Any) -> None:
        if getattr(rate, "ndim", 0):
            raise ValueError(f"a rate must be a scalar, got an array of shape {rate.shape}")
        home = applied_rates(self._optimizer)
        rates = list(home.value)
        rates[self._group] = rate
        home.value = rates

    @property
    def _value(self) -> Any:
        rates = applied_rates(self._optimizer)._value
        # brainstate puts a mark here once the trace that the State was created in is over.
        return rates[self._group] if isinstance(rates, list) else rates

    def restore_value(self, v: Any) -> None:
        """Leave it: the list is restored where it is."""

    def to_state_ref(self) -> TreefyState:
        """Return a reference to an ordinary State."""
        reference = super().to_state_ref()
        reference.type = OptimState
        return reference


# Optimizers


def applied_rates(optimizer: OptaxOptimizer) -> State:
    """Return the State of the applied rates, of the scheduler that drives ``optimizer``."""
    return optimizer._lr_scheduler._current_lrs


def follow(optimizer: OptaxOptimizer, scheduler: Any, rate: "GroupRate") -> None:
    """Let ``optimizer`` follow ``scheduler``, and read its first group's rate from ``rate``."""
    optimizer.__dict__.update(_lr_scheduler=scheduler, _current_lr=rate)


def stand_aside(optimizer: OptaxOptimizer, empty: Callable[[], Any]) -> None:
    """Detach ``optimizer`` from the scheduler of braintools that it was built with.

    ``empty`` makes a new structure, so programs that have read the States are traced again.
    """
    former = optimizer._lr_scheduler
    read = [former._current_lrs, optimizer._current_lr]
    read += [group["lr"] for group in optimizer.param_groups[1:] if isinstance(group["lr"], State)]
    former._current_lrs = OptimState(list(former._current_lrs.value))
    if former.optimizer is optimizer:  # braintools' optimizers may share one
        former.optimizer = None
    for state in read:
        state.__dict__["_value"] = empty()


def first_rate(optimizer: OptaxOptimizer) -> GroupRate:
    """Return the rate of the first param group."""
    present = optimizer._current_lr
    return present if isinstance(present, GroupRate) else GroupRate(optimizer, 0)


def reads_its_rate(optimizer: OptaxOptimizer, params: Any, *, unknown: bool) -> bool:
    """Whether the transformation reads the applied rates, found by tracing an update once.

    Also true if the update needs more than gradients, as a line search does.
    """
    values = jax.tree.map(
        lambda state: state.value, params, is_leaf=lambda leaf: isinstance(leaf, State)
    )
    update = StateFinder(
        lambda values: optimizer.tx.update(values, optimizer.tx.init(values), values),
        usage="read",
        return_type="tuple",
    )
    try:
        found = update(values)
    except TypeError:
        return unknown
    return any(state is applied_rates(optimizer) for state in found)
