"""The applied rates: one list in one State, which the optimizer reads and the scheduler writes."""

import itertools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from brainstate import TreefyState

from brainsched import checks
from brainsched.link.upstream import TrackedState
from brainsched.types import Array, placed_like, rate_dtype, strongly_typed

_links = itertools.count()


@jax.tree_util.register_pytree_with_keys_class
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

    def tree_flatten_with_keys(self) -> tuple[list[tuple[Any, Any]], int]:
        """Flatten like a list, with the number in the structure."""
        return [(jax.tree_util.SequenceKey(i), rate) for i, rate in enumerate(self)], self.link

    def tree_flatten(self) -> tuple[tuple[Any, ...], int]:
        """Flatten without keys, which is faster."""
        return tuple(self), self.link

    @classmethod
    def tree_unflatten(cls, link: int, rates: Iterable[Any]) -> "Rates":
        """Return the rates of the same link again."""
        return cls(rates, link)


class RatesState(TrackedState):
    """``current_lrs``. Any value but :class:`Rates` was set by hand, and is checked."""

    def __init__(self, value: Any, **metadata: Any) -> None:
        super().__init__(value if isinstance(value, Rates) else Rates(value), **metadata)

    def structured(self, value: Any) -> Any:
        """Return a list of rates, such as a checkpoint has, as rates of the present link."""
        return Rates(value, self.link) if type(value) is list else value

    def is_like(self, value: Any) -> bool:
        """Whether ``value`` is of the same link: JAX would flatten both in Python to compare."""
        return isinstance(value, Rates) and value.link == self.link

    @property
    def link(self) -> int | None:
        """The number of the link that the rates belong to."""
        return getattr(self.content, "link", None)

    def form(self, value: Any, former: Any) -> Rates:
        """Return rates in their dtype, as many as ``former`` has."""
        if not isinstance(former, Rates):
            former = Rates(value)
        if not isinstance(value, list | tuple):
            raise TypeError(f"current_lrs must be a list of rates, got {type(value).__name__}")
        if len(value) != len(former):
            raise ValueError(
                f"current_lrs must have a rate for each of the {len(former)} param groups, "
                f"got {len(value)}"
            )
        arrays = [rate for rate in value if isinstance(rate, np.ndarray | jax.Array)]
        if not isinstance(value, Rates) or len(arrays) < len(value):
            value = map(_by_hand, range(len(value)), value, former)
        return Rates(map(placed_like, value, former), former.link)

    def to_state_ref(self) -> TreefyState:
        """Return a reference to a plain list, for checkpoints of the whole state."""
        reference = super().to_state_ref()
        reference.value = list(reference.value)
        return reference


def _by_hand(group: int, rate: Any, former: Any) -> Array:
    """Return a rate that was set by hand. A traced one is not checked; below 0 it becomes 0."""
    if rate is former:
        return rate
    name = f"current_lrs[{group}]"
    if np.ndim(rate) != np.ndim(former):
        raise ValueError(f"{name} must be a scalar, got an array of shape {np.shape(rate)}")
    if isinstance(rate, jax.core.Tracer):
        rate = strongly_typed(checks.real_array(name, rate), rate_dtype())
        return jnp.maximum(rate, 0)
    if isinstance(rate, jax.Array):
        return strongly_typed(checks.known_rate(name, rate), rate_dtype())
    return np.asarray(checks.number(name, rate), rate_dtype())
