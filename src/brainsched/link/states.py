"""The States of the link. This is the one file that touches private names of others.

=============  ============================================================================
jax            ``_src.core.trace_state_clean`` (0.8.1 to 0.12.0)
brainstate     ``_state.TRACE_CONTEXT``, ``State._trace_state``, ``State._value``,
               ``State._write_value`` and ``State._check_value_tree`` (0.5.0 to 0.6.0)
braintools     ``OptaxOptimizer._lr_scheduler`` and ``OptaxOptimizer._current_lr`` (0.3.0, 0.4.0)
=============  ============================================================================
"""

import itertools
from collections.abc import Iterable
from typing import Any

import jax
from brainstate import State, TraceContextError, TreefyState
from brainstate._state import TRACE_CONTEXT
from braintools.optim import OptaxOptimizer, OptimState
from jax._src.core import trace_state_clean

from brainsched import checks
from brainsched.types import placed_like


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


def restructure(state: State, value: Any) -> None:
    """Write a value of another structure, so that programs that read the State trace again."""
    state.__dict__["_value"] = value


class TrackedState(OptimState):
    """A State that raises where brainstate cannot track it, and converts what is written to it."""

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
        """Return what to keep when ``value`` is written over ``former``, or raise."""
        raise NotImplementedError

    @property
    def content(self) -> Any:
        """The value, without making a traced program depend on it."""
        return self._value

    @property
    def present(self) -> Any:
        """The value; outside of traces it skips brainstate's bookkeeping, which takes time."""
        return self._value if trace_state_clean() else self.value

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

    def _write_value(self, v: Any) -> None:
        super()._write_value(self.form(v, self._value))

    def _check_value_tree(self, v: Any) -> None:
        """Leave it to :meth:`form`."""


_links = itertools.count()


class Rates(list[Any]):
    """The applied rate of each param group, and the number of the link: by default a new one.

    brainstate traces a program again where the structure of a State differs from that of its last
    trace. But its ``jax.jit`` reuses an executable of any earlier structure: where two links had
    equal structures, a program kept running under a replaced schedule (brainstate 0.5.4 and
    0.6.0). So the structure carries a number that no other link has.
    """

    def __init__(self, rates: Iterable[Any] = (), link: int | None = None) -> None:
        super().__init__(rates)
        self.link = next(_links) if link is None else link

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)  # a copy belongs to no link


jax.tree_util.register_pytree_with_keys(
    Rates,
    lambda rates: ([(jax.tree_util.SequenceKey(i), r) for i, r in enumerate(rates)], rates.link),
    lambda link, rates: Rates(rates, link),
    lambda rates: (tuple(rates), rates.link),  # without keys, which is faster
)


class Scheduled(list[Any]):
    """Rates of the schedule, which need no check."""


class RatesState(TrackedState):
    """``current_lrs``. What is neither :class:`Scheduled` nor of a compiled program is checked."""

    def form(self, value: Any, former: Rates) -> Rates:
        """Return rates in their dtype, as many as ``former`` has."""
        if len(value) != len(former):
            raise ValueError(f"current_lrs has size {len(former)}, one per group, got {len(value)}")
        on_device = all(isinstance(rate, jax.Array) for rate in value)
        of_a_program = on_device and getattr(value, "link", None) == former.link
        if type(value) is not Scheduled and not of_a_program:
            value = [
                checks.applied_rate(f"current_lrs[{group}]", rate, old)
                for group, (rate, old) in enumerate(zip(value, former, strict=True))
            ]
        return Rates(map(placed_like, value, former), former.link)

    def restore_value(self, v: Any) -> None:
        """Restore what a program has read; what a checkpoint has, or had, is checked."""
        v = v if getattr(v, "link", None) == self._value.link else self.form(v, self._value)
        super().restore_value(v)

    def to_state_ref(self) -> TreefyState:
        """Return a reference to a plain list, for checkpoints of the whole state."""
        reference = super().to_state_ref()
        reference.value = list(reference.value)
        return reference


class GroupRate(OptimState):
    """The rate of one param group: a place in the list of applied rates.

    It is a State because checkpoints of the whole state have one there.
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
        return self._optimizer.lr_scheduler.current_lrs.value[self._group]

    @value.setter
    def value(self, rate: Any) -> None:
        home = self._optimizer.lr_scheduler.current_lrs
        rates = list(home.value)
        rates[self._group] = rate
        home.value = rates

    @property
    def _value(self) -> Any:
        rates = self._optimizer.lr_scheduler.current_lrs._value
        # brainstate puts a mark here once the trace that the State was created in is over.
        return rates[self._group] if isinstance(rates, list) else rates

    def restore_value(self, v: Any) -> None:
        """Leave it: the list is restored where it is."""


def follow(optimizer: OptaxOptimizer, scheduler: Any, rate: GroupRate | None) -> State:
    """Let ``optimizer`` follow ``scheduler`` and report ``rate``; return what it reported."""
    former: State = optimizer._current_lr
    shown = former if rate is None else rate
    optimizer.__dict__.update(_lr_scheduler=scheduler, _current_lr=shown)
    return former
