"""The search tree of compiled look-ups against NumPy's search."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from brainsched.schedules.search import Search

LAST = 2**31 - 1
epochs = st.integers(0, 40) | st.integers(LAST - 3, LAST)


@example(set(range(27)), [0, 25, 26, 27, 28, 40])  # as many as a tree of three branches has leaves
@given(st.sets(epochs, max_size=30), st.lists(epochs, min_size=6, max_size=6))
def test_it_counts_the_boundaries_at_or_before_an_epoch(boundaries, asked):
    ordered = np.array(sorted(boundaries), np.int32)
    search = Search(ordered.astype(np.float64))
    at = np.array(asked, np.float64).reshape(2, 3)
    expected = np.searchsorted(ordered, at, side="right")
    np.testing.assert_array_equal(search(at, np), expected)
    with jax.enable_x64(True):
        np.testing.assert_array_equal(jax.jit(lambda epoch: search(epoch, jnp))(at), expected)
