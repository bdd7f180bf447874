"""ValueSchedule: a signed quantity as a function of the epoch, on the host and compiled."""

import copy
import dataclasses
import pickle

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import brainsched
from brainsched import ValueSchedule

CURVES = [
    brainsched.CosineAnnealingLR(1.0, T_max=49),
    brainsched.WarmupCosineSchedule(1.0, 7, 49),
    brainsched.WSD(1.0, 7, 20, 22, decay_strategy="sqrt"),
    brainsched.PiecewiseConstantSchedule(1.0, [10, 30], [0.0, 0.3, 1.0]),
    brainsched.CyclicLR(0.0, 1.0, step_size_up=9),
    brainsched.LambdaLR(1.0, lambda epoch: jnp.exp(-0.1 * epoch)),
]


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: type(curve).__name__)
@given(ends=st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), per_epoch=st.integers(1, 7))
def test_it_is_the_affine_map_of_the_float64_rate_rounded_once(curve, ends, per_epoch):
    at_zero, at_one = ends
    epochs = np.arange(60) / per_epoch
    with jax.enable_x64(True):
        share = np.asarray(curve.lr_at(epochs))[:, 0]
    found = ValueSchedule(curve, at_zero, at_one)(epochs)
    assert found.dtype == np.float32
    # Where the ends cancel, only the larger one's last digit in float64 is left to compare with.
    expected = at_zero + (at_one - at_zero) * share
    lost = 1e-15 * max(abs(at_zero), abs(at_one)) + np.finfo(np.float32).tiny
    np.testing.assert_allclose(found, expected, rtol=6e-8, atol=lost)


@pytest.mark.parametrize("curve", CURVES, ids=lambda curve: type(curve).__name__)
def test_compiled_code_gives_the_same_bits(curve):
    for at_zero, at_one in [(-70.0, -54.0), (0.999, 0.9), (-1.0, 1.0), (0.0, 1e-42)]:
        value = ValueSchedule(curve, at_zero, at_one)
        epochs = np.arange(60)
        np.testing.assert_array_equal(jax.jit(value)(epochs), value(epochs))
        np.testing.assert_array_equal(jax.jit(value)(epochs / 4), value(epochs / 4))


def test_the_ends_are_exact_and_may_have_either_sign_and_order():
    rise = brainsched.WarmupScheduler(1.0, warmup_epochs=49)
    for at_zero, at_one in [(-70.0, -54.0), (0.999, 0.9), (-1.0, 1.0), (3, -3)]:
        value = ValueSchedule(rise, at_zero, at_one)
        assert value(0) == np.float32(at_zero)
        assert value(49) == value(10**6) == np.float32(at_one)


def test_the_smallest_normal_number_is_kept_and_what_is_below_it_is_zero():
    smallest = float(np.finfo(np.float32).tiny)
    value = ValueSchedule(brainsched.ConstantLR(1.0, factor=1.0), 0.0, smallest)
    assert value(0) == smallest
    assert ValueSchedule(brainsched.ConstantLR(1.0, factor=1.0), 0.0, -smallest)(0) == -smallest
    assert ValueSchedule(brainsched.ConstantLR(1.0, factor=0.5), 0.0, smallest)(0) == 0


def test_it_has_the_shape_of_the_epochs():
    value = ValueSchedule(CURVES[0], -1.0, 1.0)
    for epochs in (3, 3.5, np.float32(2), np.int32(2), [], [1, 2], [[1, 2]], range(4), np.eye(3)):
        assert isinstance(value(epochs), np.ndarray)
        assert value(epochs).shape == np.shape(epochs)
    assert value(jnp.ones((2, 3))).shape == (2, 3)
    assert jax.vmap(value)(jnp.arange(3)).shape == (3,)


def test_a_count_below_zero_counts_as_zero_wherever_it_is():
    value = ValueSchedule(CURVES[0], -1.0, 1.0)
    assert value(-7) == value(jnp.asarray(-7)) == jax.jit(value)(-7) == 1.0
    joined = optax.join_schedules([optax.constant_schedule(5.0), value], [10])
    assert [float(joined(count)) for count in (3, 10)] == [5.0, 1.0]


def test_its_dtype_is_that_of_a_rate():
    with jax.enable_x64(True):
        value = ValueSchedule(CURVES[0], -1.0, 0.1)
        assert value(49).dtype == jax.jit(value)(49).dtype == np.float64
        assert value(49) == -1.0
        assert value(0) == 0.1
    largest = float(np.finfo(np.float32).max)
    assert ValueSchedule(CURVES[0], -largest, 0.0)(49) == np.float32(-largest)


def test_it_is_read_at_the_position_of_a_scheduler_in_compiled_code():
    scheduler = brainsched.StepLR(0.1, step_size=2)
    value = ValueSchedule(brainsched.WarmupScheduler(1.0, 4), -70.0, -54.0)

    @brainstate.transform.jit
    def step():
        scheduler.step()
        return value(scheduler.last_epoch.value)

    assert [float(step()) for _ in range(3)] == [-66.0, -62.0, -58.0]
    assert value(scheduler.epoch) == -58.0
    assert value.schedule.epoch == 0


def test_its_ends_can_be_tuned_by_gradient_and_swept():
    def at_half_way(at_zero, at_one):
        return ValueSchedule(brainsched.LinearLR(1.0, 0.0, 1.0, 4), at_zero, at_one)(1)

    assert jax.jit(jax.grad(at_half_way))(2.0, 5.0) == 0.75
    swept = jax.vmap(at_half_way, in_axes=(0, None))(jnp.array([0.0, -4.0]), 4.0)
    np.testing.assert_array_equal(swept, [1.0, -2.0])


def test_copies_give_the_same_values_and_it_is_shown_as_the_call_that_made_it():
    value = ValueSchedule(CURVES[0], -1, 1.5)
    for again in (pickle.loads(pickle.dumps(value)), copy.deepcopy(value)):
        np.testing.assert_array_equal(again(range(50)), value(range(50)))
    assert repr(value) == (
        "ValueSchedule(CosineAnnealingLR(base_lr=1.0, T_max=49, eta_min=0.0), "
        "at_zero=-1.0, at_one=1.5)"
    )
    assert value != ValueSchedule(CURVES[0], -1, 1.5)  # compiled code tells them apart
    again = eval(repr(value), vars(brainsched))
    np.testing.assert_array_equal(again(range(50)), value(range(50)))


def test_it_cannot_be_changed_behind_the_back_of_compiled_code():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ValueSchedule(CURVES[0], -1.0, 1.0).at_one = 2.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0.1, 0.0, 1.0), TypeError, "schedule must be a scheduler of brainsched, got float"),
        (
            (brainsched.CosineAnnealingLR(T_max=9), -1.0, 1.0),
            ValueError,
            r"base_lr of 1\.0, as its rate is the share of the way from at_zero to at_one, "
            r"got 0\.001",
        ),
        (
            (brainsched.StepLR([1.0, 1.0]), -1.0, 1.0),
            ValueError,
            "one param group, got one of 2",
        ),
        (
            (brainsched.PiecewiseConstantSchedule(1.0, [3], [[1, 1], [0, 1]]), -1.0, 1.0),
            ValueError,
            "one param group, got one of 2",
        ),
        (
            (brainsched.ReduceLROnPlateau(1.0), -1.0, 1.0),
            TypeError,
            "schedule needs a rate that is a function of the epoch",
        ),
        ((CURVES[0], "1", 1.0), TypeError, "at_zero must be a number, got '1'"),
        ((CURVES[0], 0.0, True), TypeError, "at_one must be a number, got True"),
        ((CURVES[0], float("nan"), 1.0), ValueError, "at_zero must be a finite float32, got nan"),
        ((CURVES[0], 0.0, -1e39), ValueError, r"at_one must be a finite float32, got -1e\+39"),
        ((CURVES[0], 0.0, jnp.ones(2)), ValueError, r"at_one must be a scalar.*\(2,\)"),
        ((CURVES[0], 0.0, jnp.asarray(True)), TypeError, "at_one must hold real numbers"),
    ],
)
def test_bad_arguments_raise_and_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        ValueSchedule(*arguments)


@pytest.mark.parametrize("epoch", [True, "3", None, float("nan"), 1j, [1, "2"]])
def test_what_is_no_epoch_raises(epoch):
    with pytest.raises((TypeError, ValueError), match="epoch must be"):
        ValueSchedule(CURVES[0], -1.0, 1.0)(epoch)
