"""Copies of a scheduler: by ``copy`` and ``pickle``, and through brainstate's graph.

All three take :func:`attributes` from the original and pass them to :func:`built`. They differ in
the States: pickle moves their values to the host, and the graph hands over the States themselves.
The optimizer and the evaluation, which holds compiled programs, are not copied: a scheduler drives
one optimizer, and the evaluation is made anew.

``brainstate.graph.Node`` would make every attribute a child in the graph, arrays and lists
included, and copy through the graph. So our classes register their own States as the children, and
have their own ``__deepcopy__``.
"""

import copy
from typing import Any

import jax
import numpy as np
from brainstate import State
from brainstate.graph import register_graph_node_type

from brainsched.link.states import Rates, RatesState, restructure

_NOT_COPIED = ("_evaluation", "optimizer", "_replaced_by", "_restored")


class Copied:
    """The part of a scheduler that is copied and pickled."""

    def __getstate__(self) -> Any:
        states = {
            name: (type(value), jax.tree.map(np.array, value.value))
            for name, value in self.__dict__.items()
            if isinstance(value, State)
        }
        return attributes(self), states

    def __setstate__(self, state: Any) -> None:
        kept, states = state
        built(self, kept)
        for name, (cls, value) in states.items():
            _set_key(self, name, cls(value))

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        duplicate = object.__new__(type(self))
        memo[id(self)] = duplicate
        duplicate.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return duplicate


def attributes(scheduler: Any) -> dict[str, Any]:
    """Return everything but the States that a copy of ``scheduler`` needs."""
    kept = {
        name: value
        for name, value in scheduler.__dict__.items()
        if name not in _NOT_COPIED and not isinstance(value, State)
    }
    return {**kept, "_groups": scheduler._evaluation.groups}


def built(scheduler: Any, attributes: dict[str, Any]) -> Any:
    """Fill an empty ``scheduler`` with these attributes, without States, and return it."""
    scheduler.__dict__.update(attributes)
    groups = attributes["_groups"]
    scheduler.__dict__["_evaluation"] = scheduler._evaluation_of(groups, scheduler._bases)
    return scheduler


class _Blueprint:
    """A scheduler in the definition of a graph, which is hashed and compared."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Blueprint) and self.scheduler is other.scheduler

    def __hash__(self) -> int:
        return id(self.scheduler)


def register(cls: type) -> None:
    """Let brainstate's graph functions take schedulers of class ``cls``."""
    register_graph_node_type(
        type=cls,
        flatten=_flatten,
        set_key=_set_key,
        pop_key=lambda scheduler, name: scheduler.__dict__.pop(name),
        create_empty=_create_empty,
        clear=lambda scheduler: None,
    )


def _flatten(scheduler: Any) -> tuple[list[tuple[str, State]], _Blueprint]:
    states = [(name, v) for name, v in scheduler.__dict__.items() if isinstance(v, State)]
    return sorted(states), _Blueprint(scheduler)


def _set_key(scheduler: Any, name: str, state: State) -> None:
    if isinstance(state, RatesState):  # a reference holds a plain list
        restructure(state, Rates(state.content))
    scheduler.__dict__[name] = state


def _create_empty(blueprint: _Blueprint) -> Any:
    original = blueprint.scheduler
    return built(object.__new__(type(original)), attributes(original))
