"""A scheduler as a node of brainstate's graph.

Its own States are its children, and nothing else: its arguments, arrays and long lists among
them, stand in a blueprint that brainstate does not look into.
"""

from typing import TYPE_CHECKING, Any

from brainstate import State, TreefyState
from brainstate.graph import register_graph_node_type

if TYPE_CHECKING:
    from brainsched._base import LRScheduler


class _Blueprint:
    """What a copy of a scheduler through the graph needs besides the States."""

    def __init__(self, scheduler: "LRScheduler") -> None:
        self._scheduler = scheduler

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Blueprint) and self._scheduler is other._scheduler

    def __hash__(self) -> int:
        return id(self._scheduler)

    def build(self) -> "LRScheduler":
        """Return a copy without States and without an optimizer."""
        attributes, _ = self._scheduler.__getstate__()
        copied = type(self._scheduler).__new__(type(self._scheduler))
        copied.__dict__.update(attributes)
        copied._compile()
        return copied


def register(cls: "type[LRScheduler]") -> None:
    """Let brainstate's graph functions take schedulers of class ``cls``."""
    register_graph_node_type(
        type=cls,
        flatten=_flatten,
        set_key=_set_state,
        pop_key=lambda scheduler, name: scheduler.__dict__.pop(name),
        create_empty=lambda blueprint: blueprint.build(),
        clear=lambda scheduler: None,
    )


def _flatten(scheduler: "LRScheduler") -> tuple[list[tuple[str, State]], _Blueprint]:
    states = [(name, v) for name, v in vars(scheduler).items() if isinstance(v, State)]
    return sorted(states), _Blueprint(scheduler)


def _set_state(scheduler: "LRScheduler", name: str, value: Any) -> None:
    present = scheduler.__dict__.get(name)
    if isinstance(present, State) and isinstance(value, TreefyState):
        present.update_from_ref(value)
    else:
        scheduler.__dict__[name] = value
