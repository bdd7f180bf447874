"""How far along a list of boundaries an epoch is."""

from types import ModuleType

import numpy as np
from jaxtyping import Float, Int

from brainsched.types import Array

DEPTH = 3


class Search:
    """Counts how many of its boundaries, which ascend, are at or before an epoch.

    In compiled code it is a search tree of three levels, however many boundaries there are: the
    same small program for 3 and for 10,000 of them, and without a loop. (``jnp.searchsorted`` is a
    loop, which a compiled training loop on a CPU stops for, or a program that grows: benchmarks/.)
    """

    def __init__(self, boundaries: Float[np.ndarray, " boundaries"]) -> None:
        self._boundaries = boundaries
        count = len(boundaries)
        width = next(w for w in range(3, count + 4) if w**DEPTH > count)
        padded = np.full(width**DEPTH, np.inf)
        padded[:count] = boundaries
        # The node with index n on a level is followed by the nodes n * width + i on the next one,
        # where i is how many of its boundaries, a row of the level's table, have been reached.
        self._tables = []
        for level in range(DEPTH):
            below = width ** (DEPTH - 1 - level)
            last_of_each = padded.reshape(-1, width, below)[:, :-1, -1]
            self._tables.append(np.ascontiguousarray(last_of_each))

    def __call__(self, epoch: Float[Array, "*epoch"], xp: ModuleType) -> Int[Array, "*epoch"]:
        """Return how many boundaries are at or before each epoch."""
        if xp is np:
            return np.asarray(self._boundaries.searchsorted(epoch, side="right"))
        node = xp.zeros_like(epoch, np.int32)
        for table in self._tables:
            row = xp.asarray(table).take(node, axis=0, mode="clip")
            reached = (row <= epoch[..., None]).sum(axis=-1, dtype=np.int32)
            node = node * (table.shape[1] + 1) + reached
        return node
