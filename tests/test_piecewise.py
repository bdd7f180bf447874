"""Piecewise constant and linear schedules, against numbers worked out by hand or in NumPy."""

import bisect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainsched import PiecewiseConstantSchedule, PiecewiseLinearSchedule
from schedule_references import rounded, units_apart


def float32(*rates):
    return np.array(rates, np.float32)


def test_rate_is_base_rate_times_the_multiplier_of_the_stage():
    scheduler = PiecewiseConstantSchedule(0.1, [30, 60, 80], [1.0, 0.1, 0.01, 0.001])
    epochs = [0, 29, 30, 59, 60, 79, 80, 10**6]
    expected = float32(0.1, 0.1, 0.01, 0.01, 0.001, 0.001, 0.0001, 0.0001)[:, None]
    np.testing.assert_array_equal(scheduler.lr_at(epochs), expected)


def test_tenth_of_a_tenth_is_the_float32_nearest_a_hundredth():
    scheduler = PiecewiseConstantSchedule(0.1, [1], [1.0, 0.1])
    assert scheduler.lr_at(1).item() == np.float32(0.01)
    assert np.float32(0.1) * np.float32(0.1) != np.float32(0.01)


def test_defaults_are_those_documented():
    scheduler = PiecewiseConstantSchedule()
    assert scheduler.boundaries == [1000, 2000]
    assert scheduler.values == [1.0, 0.1, 0.01]
    assert scheduler.base_lrs == [1e-3]
    assert scheduler.epoch == 0
    rates = scheduler.lr_at([999, 1000, 1999, 2000])
    np.testing.assert_array_equal(rates[:, 0], float32(1e-3, 1e-4, 1e-4, 1e-5))


def test_each_group_follows_its_own_column():
    values = [[1.0, 0.0], [0.5, 1.0], [0.25, 0.5]]
    scheduler = PiecewiseConstantSchedule([0.1, 0.2], [5, 10], values)
    expected = [float32(0.1, 0.0), float32(0.05, 0.2), float32(0.025, 0.1)]
    np.testing.assert_array_equal(scheduler.lr_at([0, 5, 10]), expected)


@pytest.mark.parametrize("kind", [list, tuple, np.array, jnp.array])
def test_any_sequence_of_numbers_serves_and_stays_as_it_was_given(kind):
    boundaries, values = kind([10, 20]), kind([4.0, 2.0, 1.0])
    scheduler = PiecewiseConstantSchedule(0.5, boundaries, values)
    for kept, argument in ((scheduler.boundaries, boundaries), (scheduler.values, values)):
        assert isinstance(kept, type(argument))
        np.testing.assert_array_equal(kept, argument)
        assert isinstance(argument, jax.Array) or kept is not argument
    np.testing.assert_array_equal(scheduler.lr_at([9, 10, 20])[:, 0], float32(2.0, 1.0, 0.5))


def test_a_range_serves_as_boundaries():
    scheduler = PiecewiseConstantSchedule(1.0, range(10, 40, 10), [8, 4, 2, 1])
    np.testing.assert_array_equal(scheduler.lr_at([9, 10, 29, 30])[:, 0], float32(8, 4, 2, 1))


def test_rates_have_the_shape_of_the_epochs_and_an_axis_of_groups():
    scheduler = PiecewiseConstantSchedule([0.1, 0.2, 0.3])
    assert scheduler.lr_at(0).shape == (3,)
    assert scheduler.lr_at(np.zeros((2, 5), int)).shape == (2, 5, 3)
    assert scheduler.lr_at([]).shape == (0, 3)
    assert jax.eval_shape(scheduler.lr_at, jnp.zeros((2, 5), int)).shape == (2, 5, 3)


def test_traced_epoch_below_zero_counts_as_zero():
    scheduler = PiecewiseConstantSchedule(0.1, [0, 2], [9.0, 1.0, 0.5])
    rates = jax.jit(scheduler.lr_at)(jnp.array([-5, 0, 2]))
    np.testing.assert_array_equal(rates[:, 0], float32(0.1, 0.1, 0.05))


def test_rate_below_the_smallest_normal_float32_is_zero_everywhere():
    tiny = float(np.finfo(np.float32).tiny)
    scheduler = PiecewiseConstantSchedule(tiny, [1], [1.0, 0.5])
    epochs = np.arange(2)
    np.testing.assert_array_equal(scheduler.lr_at(epochs)[:, 0], float32(tiny, 0.0))
    np.testing.assert_array_equal(jax.jit(scheduler.lr_at)(epochs)[:, 0], float32(tiny, 0.0))


def test_base_rate_in_a_float32_array_means_the_number_that_it_holds():
    given = np.float32(0.1)
    exact = np.float32(np.float64(given) * 0.3)
    assert exact != np.float32(0.1 * 0.3)
    for base_lr in (given, np.array(given), jnp.asarray(given)):
        scheduler = PiecewiseConstantSchedule(base_lr, [], [0.3])
        assert np.asarray(scheduler.lr_at(0)).item() == exact


def test_values_traced_or_on_a_device_are_swept_by_vmap():
    def rates(values):
        return PiecewiseConstantSchedule(0.1, [2], values).lr_at(jnp.arange(4))[:, 0]

    table = jnp.array([[1.0, 0.5], [0.3, 0.7]])
    expected = [float32(0.1, 0.1, 0.05, 0.05), 0.1 * np.asarray(table[1, [0, 0, 1, 1]], float)]
    np.testing.assert_array_equal(jax.vmap(rates)(table), np.array(expected, np.float32))


def test_gradient_of_the_rates_reaches_each_multiplier_and_the_base_rate():
    def total(base_lr, values):
        return PiecewiseConstantSchedule(base_lr, [2, 5], values).lr_at(jnp.arange(9)).sum()

    by_base, by_value = jax.jit(jax.grad(total, argnums=(0, 1)))(0.5, jnp.array([4.0, 2.0, 1.0]))
    np.testing.assert_allclose(by_value, [0.5 * 2, 0.5 * 3, 0.5 * 4], rtol=1e-6)
    np.testing.assert_allclose(by_base, 2 * 4.0 + 3 * 2.0 + 4 * 1.0, rtol=1e-6)


def test_values_may_mix_numbers_and_traced_scalars():
    def rates(last):
        return PiecewiseConstantSchedule(1.0, [2], [0.25, last]).lr_at(jnp.arange(3))[:, 0]

    np.testing.assert_array_equal(jax.jit(rates)(0.5), float32(0.25, 0.25, 0.5))


@st.composite
def schedules(draw):
    """Arguments of a schedule, and epochs around its boundaries."""
    boundaries = sorted(draw(st.sets(st.integers(0, 2**31 - 1), max_size=12)))
    groups = draw(st.integers(1, 4))
    rate = st.floats(0, 1e3, allow_subnormal=False)
    base_lr = draw(st.lists(rate, min_size=groups, max_size=groups))
    row = st.lists(rate, min_size=groups, max_size=groups)
    rows = st.lists(row, min_size=len(boundaries) + 1, max_size=len(boundaries) + 1)
    around = {min(max(b + d, 0), 2**31 - 1) for b in [0, *boundaries] for d in (-1, 0, 1)}
    return base_lr, boundaries, draw(rows), sorted(around)


@pytest.mark.filterwarnings("ignore:The largest of values")
@given(schedules())
def test_every_rate_is_the_float64_product_rounded_once(arguments):
    base_lr, boundaries, rows, epochs = arguments
    scheduler = PiecewiseConstantSchedule(base_lr, boundaries, rows)
    expected = np.array(
        [
            [base * value for base, value in zip(base_lr, rows[stage], strict=True)]
            for stage in (bisect.bisect_right(boundaries, epoch) for epoch in epochs)
        ]
    )
    expected[expected < np.finfo(np.float32).tiny] = 0.0
    np.testing.assert_array_equal(scheduler.lr_at(epochs), expected.astype(np.float32))
    compiled = jax.jit(scheduler.lr_at)(np.array(epochs, np.int32))
    np.testing.assert_array_equal(compiled, expected.astype(np.float32))


# Rates in the place of multipliers


def test_from_rates_trains_at_the_rates_themselves():
    scheduler = PiecewiseConstantSchedule.from_rates([30, 60], [0.1, 0.01, 0.001], last_epoch=30)
    np.testing.assert_array_equal(scheduler.lr_at([29, 30, 60])[:, 0], float32(0.1, 0.01, 0.001))
    assert scheduler.base_lrs == [1.0]
    assert scheduler.epoch == 30
    assert scheduler.values == [0.1, 0.01, 0.001]


def test_from_rates_takes_a_column_for_each_group():
    rates = [[0.1, 0.2], [0.01, 0.02]]
    scheduler = PiecewiseConstantSchedule.from_rates([30], np.array(rates))
    np.testing.assert_array_equal(scheduler.lr_at([0, 30]), np.array(rates, np.float32))
    swept = jax.vmap(lambda r: PiecewiseConstantSchedule.from_rates([30], r).lr_at(30)[0])
    assert swept(jnp.array([[1.0, 0.5], [1.0, 0.25]])).tolist() == [0.5, 0.25]


@pytest.mark.parametrize(
    ("boundaries", "rates", "error", "message"),
    [
        ([30], [0.1], ValueError, "rates must have one entry for each stage, 2 in all, got 1"),
        ([30], [0.1, -0.1], ValueError, r"rates\[1\] must be finite and not negative, got -0.1"),
        ([30], [[0.1, "x"], [0.1, 0.2]], TypeError, r"rates\[0\]\[1\] must be a number, got 'x'"),
        (["30"], [0.1, 0.01], TypeError, r"boundaries\[0\] must be a number, got '30'"),
        (0.1, [0.1, 0.01], TypeError, "boundaries must be a sequence of numbers, got 0.1"),
    ],
)
def test_from_rates_names_what_is_wrong(boundaries, rates, error, message):
    with pytest.raises(error, match=message):
        PiecewiseConstantSchedule.from_rates(boundaries, rates)


GIVEN_TWICE = [
    (0.1, [0.1, 0.01, 0.001]),
    (1e-3, [0.0, 1e-3, 1e-4]),
    (np.float32(0.1), np.array([0.1, 0.01, 0.001])),
    ([0.1, 0.3], [[0.1, 0.3], [0.01, 0.03], [0.0, 0.0]]),
]


@pytest.mark.parametrize(("base_lr", "values"), GIVEN_TWICE)
def test_values_that_are_the_base_rate_are_warned_of_with_the_cure(base_lr, values):
    message = r"multipliers of base_lr, equals base_lr.*base_lr=1\.0"
    with pytest.warns(UserWarning, match=message):
        PiecewiseConstantSchedule(base_lr, [30, 60], values)
    with pytest.warns(UserWarning, match=message):
        PiecewiseLinearSchedule(base_lr, [0, 30, 60], values)


@pytest.mark.parametrize(
    ("base_lr", "values"),
    [
        (0.1, [1.0, 0.1, 0.01]),  # 0.1 is among the multipliers, and not the largest
        (1.0, [1.0, 0.1, 0.01]),
        (1.0, [0.1, 0.01, 0.001]),
        (0.1, [0.2, 0.1, 0.05]),
        (0.0, [0.0, 0.0, 0.0]),
        (0.5, [[0.0, 1.0], [0.5, 1.0], [0.5, 0.5]]),  # what thaws gradually
        (np.nextafter(np.float32(0.1), np.float32(1)), [0.1, 0.01, 0.001]),
        (jnp.float32(0.1), [0.1, 0.01, 0.001]),  # not on the host
        (0.1, jnp.float32([0.1, 0.01, 0.001])),
    ],
)
def test_multipliers_are_not_warned_of(base_lr, values):
    assert PiecewiseConstantSchedule(base_lr, [30, 60], values).base_lrs
    assert jax.jit(lambda b: PiecewiseConstantSchedule(b, [30, 60], values).lr_at(0))(0.1).size


def test_rows_of_one_column_are_stages_of_one_group():
    scheduler = PiecewiseConstantSchedule(0.5, [1], [[1.0], [0.25]])
    assert scheduler.lr_at([0, 1]).tolist() == [[0.5], [0.125]]
    assert scheduler.max_groups == 1


def test_a_boundary_may_lie_between_whole_epochs():
    scheduler = PiecewiseConstantSchedule(0.5, [2.5, 3], [1.0, 0.5, 0.25])
    assert scheduler.lr_at([2, 2.4, 2.5, 3]).ravel().tolist() == [0.5, 0.5, 0.25, 0.125]
    assert scheduler.stage_boundaries == [2.5, 3]
    assert scheduler.config["boundaries"] == [2.5, 3]


# Lines


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


def test_a_column_of_lines_for_each_group():
    values = [[0.0, 1.0], [1.0, 0.5]]
    scheduler = PiecewiseLinearSchedule([0.5, 0.25], [0, 4], values)
    assert scheduler.lr_at([0, 1, 4]).tolist() == [[0, 0.25], [0.125, 0.21875], [0.5, 0.125]]
    assert scheduler.max_groups == 2
    with pytest.raises(ValueError, match="param group 2 has no rate: the schedule has 2 col"):
        PiecewiseLinearSchedule([0.1, 0.2, 0.3], [0, 4], values)


BAD_LINES: list[tuple[list[int], list[float], str]] = [
    (
        [0, 30],
        [1.0, 0.5, 0.1],
        r"values must have one entry for each boundary, 2 in all, got 3",
    ),
    ([], [], r"boundaries must have at least one epoch, got an empty sequence"),
    (
        [30, 0],
        [1.0, 0.5],
        r"boundaries must be in ascending order .* got boundaries\[1\] = 0 after 30",
    ),
]


@pytest.mark.parametrize(("boundaries", "values", "message"), BAD_LINES)
def test_bad_lines_are_refused(boundaries, values, message):
    with pytest.raises(ValueError, match=message):
        PiecewiseLinearSchedule(0.1, boundaries, values)
