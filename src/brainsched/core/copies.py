"""Copies of a scheduler: by ``copy`` and ``pickle``, and through brainstate's graph.

There is one way to copy all but the States: :func:`attributes` out of the original, and
:func:`built` from them. The States are what the three differ in: pickle takes their values to the
host, and the graph hands them over by itself. Neither the link to an optimizer nor the evaluation,
which holds compiled programs, is copied: the first has one end only, the second is made anew.

``brainstate.graph.Node`` would make all attributes, arrays and lists among them, into the graph's
children, and copies through the graph. So a class of ours registers what its children are, its own
States, and has its own ``__deepcopy__``.
"""

import copy
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from brainstate import State
from brainstate.graph import register_graph_node_type

if TYPE_CHECKING:
    from brainsched.core.scheduler import LRScheduler

_NOT_COPIED = ("_evaluation", "_attachment", "_was_missed", "_is_in_optax", "_lost")


def attributes(scheduler: "LRScheduler") -> dict[str, Any]:
    """Return all that a copy of ``scheduler`` has besides States."""
    return {
        name: value
        for name, value in scheduler.__dict__.items()
        if name not in _NOT_COPIED and not isinstance(value, State)
    }


def built(scheduler: "LRScheduler", attributes: dict[str, Any]) -> "LRScheduler":
    """Return ``scheduler``, which is empty, with these attributes and without States."""
    scheduler.__dict__.update(attributes)
    scheduler.__dict__["_evaluation"] = scheduler._evaluation_of(
        scheduler._n_groups, scheduler._bases
    )
    return scheduler


def getstate(scheduler: "LRScheduler") -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what ``pickle`` saves: the attributes, and the States as arrays on the host."""
    states = {
        name: (type(value), jax.tree.map(np.array, value.value))
        for name, value in scheduler.__dict__.items()
        if isinstance(value, State)
    }
    return attributes(scheduler), states


def setstate(scheduler: "LRScheduler", state: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Make an empty ``scheduler`` what :func:`getstate` saved."""
    kept, states = state
    built(scheduler, kept)
    scheduler.__dict__.update({name: cls(value) for name, (cls, value) in states.items()})


def deepcopy(scheduler: "LRScheduler", memo: dict[int, Any]) -> "LRScheduler":
    """Return an independent copy, at the same position with the same rates."""
    duplicate = type(scheduler).__new__(type(scheduler))
    memo[id(scheduler)] = duplicate
    setstate(duplicate, copy.deepcopy(getstate(scheduler), memo))
    return duplicate


class _Blueprint:
    """What stands for a scheduler in a graph's definition, which is hashed and compared."""

    def __init__(self, scheduler: "LRScheduler") -> None:
        self.scheduler = scheduler

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Blueprint) and self.scheduler is other.scheduler

    def __hash__(self) -> int:
        return id(self.scheduler)


def register(cls: "type[LRScheduler]") -> None:
    """Let brainstate's graph functions take schedulers of class ``cls``."""
    register_graph_node_type(
        type=cls,
        flatten=_flatten,
        set_key=lambda scheduler, name, state: scheduler.__dict__.update({name: state}),
        pop_key=lambda scheduler, name: scheduler.__dict__.pop(name),
        create_empty=_create_empty,
        clear=lambda scheduler: None,
    )


def _flatten(scheduler: "LRScheduler") -> tuple[list[tuple[str, State]], _Blueprint]:
    states = [(name, v) for name, v in scheduler.__dict__.items() if isinstance(v, State)]
    return sorted(states), _Blueprint(scheduler)


def _create_empty(blueprint: _Blueprint) -> "LRScheduler":
    original = blueprint.scheduler
    return built(type(original).__new__(type(original)), attributes(original))
