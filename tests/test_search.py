"""The search tree of compiled look-ups against NumPy's search."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from brainsched import MultiStepLR, PiecewiseConstantSchedule, PiecewiseLinearSchedule
from brainsched.schedules.stages import Search

LAST = 2**31 - 1
epochs = st.integers(0, 40) | st.integers(LAST - 3, LAST)


@example(set(range(1000)), [0, 1, 500, 998, 999, 1000])
@example(set(range(63)), [0, 25, 61, 62, 63, 64])
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


@pytest.mark.parametrize(
    "build",
    [
        lambda at: PiecewiseConstantSchedule(0.1, at, np.linspace(1, 0.2, len(at) + 1)),
        lambda at: PiecewiseLinearSchedule(0.1, at, [1.0] * len(at)),
        lambda at: MultiStepLR(0.1, at, 0.5),
    ],
    ids=["constant", "linear", "steps"],
)
def test_ten_thousand_boundaries_make_the_same_program_as_three(build):
    def program(count):
        lr_at = jax.jit(build(range(1, count + 1)).lr_at)
        return lr_at.lower(jnp.asarray(0)).as_text().splitlines()

    def operations(lines):
        return sum(" = " in line and "constant" not in line for line in lines)

    many = program(10_000)
    assert operations(many) == operations(program(3))
    assert not any("while" in line for line in many)
