"""PiecewiseLinearSchedule: what its reference rows do not show."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from brainsched import PiecewiseLinearSchedule
from schedule_references import rounded, units_apart


def test_lines_through_knots_are_those_of_numpy_and_of_optax_between_whole_epochs_too():
    boundaries, values = [4, 10, 30], [0.2, 1.0, 0.1]
    scheduler = PiecewiseLinearSchedule(0.5, boundaries, values)
    asked = np.linspace(0, 40, 161)
    expected = rounded(0.5 * np.interp(asked, boundaries, values))
    assert units_apart(scheduler.lr_at(asked)[:, 0], expected).max() <= 1
    theirs = optax.piecewise_interpolate_schedule("linear", 0.1, {4: 1.0, 10: 5.0, 30: 0.1})
    counts = jnp.arange(40)
    np.testing.assert_allclose(scheduler.lr_at(counts)[:, 0], jax.vmap(theirs)(counts), rtol=1e-6)


def test_a_line_of_one_epoch_goes_all_the_way_within_it():
    scheduler = PiecewiseLinearSchedule(1.0, [2, 3, 5], [0.25, 0.75, 0.5])
    asked = [2, 2.25, 2.5, 2.75, 3, 4]
    assert scheduler.lr_at(asked).ravel().tolist() == [0.25, 0.375, 0.5, 0.625, 0.75, 0.625]


def test_ten_thousand_knots_make_the_same_program_as_three():
    def operations(count):
        scheduler = PiecewiseLinearSchedule(0.1, range(count), [1.0] * count)
        text = jax.jit(scheduler.lr_at).lower(jnp.asarray(0)).as_text()
        return sum(" = " in line and "constant" not in line for line in text.splitlines())

    assert operations(10_000) == operations(3)


def test_a_column_of_lines_for_each_group():
    values = [[0.0, 1.0], [1.0, 0.5]]
    scheduler = PiecewiseLinearSchedule([0.5, 0.25], [0, 4], values)
    assert scheduler.lr_at([0, 1, 4]).tolist() == [[0, 0.25], [0.125, 0.21875], [0.5, 0.125]]
    assert scheduler.max_groups == 2
    with pytest.raises(ValueError, match="param group 2 has no rate: the schedule has col"):
        PiecewiseLinearSchedule([0.1, 0.2, 0.3], [0, 4], values)
