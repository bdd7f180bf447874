"""Bad input raises at once, and the message names parameter, element and what is accepted."""

from fractions import Fraction
from typing import Any

import braintools
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from brainsched import (
    WSD,
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    CyclicLR,
    ExponentialDecayLR,
    ExponentialLR,
    InverseSqrtLR,
    InverseTimeDecayLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    PiecewiseConstantSchedule,
    PolynomialLR,
    ReduceLROnPlateau,
    StepLR,
    WarmupCosineSchedule,
    WarmupScheduler,
)

NAN, INF = float("nan"), float("inf")
TOO_LATE = 2**31

BAD_ARGUMENTS = [
    # boundaries
    ({"boundaries": [True, 2]}, TypeError, r"boundaries\[0\] must be a number, got True"),
    ({"boundaries": ["1", 2]}, TypeError, r"boundaries\[0\] must be a number, got '1'"),
    ({"boundaries": [1, NAN]}, ValueError, r"boundaries\[1\] must be finite .*, got nan"),
    ({"boundaries": [-3, 2]}, ValueError, r"boundaries\[0\] must be .* not negative, got -3"),
    ({"boundaries": [20, 10]}, ValueError, r"ascending order.*boundaries\[1\] = 10 after 20"),
    ({"boundaries": [10, 10]}, ValueError, r"without repeats.*boundaries\[1\] = 10 after 10"),
    ({"boundaries": [1, TOO_LATE]}, ValueError, r"boundaries\[1\] must be at most 2\.147e"),
    ({"boundaries": 10}, TypeError, r"boundaries must be a sequence of numbers, got 10"),
    ({"boundaries": "10"}, TypeError, r"boundaries must be a sequence of numbers, got '10'"),
    ({"boundaries": {1, 2}}, TypeError, r"boundaries must be a sequence of numbers"),
    # values
    ({"values": [1.0, NAN, 0.1]}, ValueError, r"values\[1\] must be finite and not negative"),
    ({"values": [1.0, 0.1, INF]}, ValueError, r"values\[2\] must be finite.*got inf"),
    ({"values": [1.0, -0.1, 0.1]}, ValueError, r"values\[1\] must be .*not negative, got -0.1"),
    ({"values": [1.0, "0.1", 0.1]}, TypeError, r"values\[1\] must be a number, got '0.1'"),
    ({"values": [True, 0.1, 0.1]}, TypeError, r"values\[0\] must be a number, got True"),
    ({"values": [1.0, 1j, 0.1]}, TypeError, r"values\[1\] must be a number, got 1j"),
    ({"values": [1e39, 1.0, 1.0]}, ValueError, r"values\[0\] must be at most 3.403e\+38"),
    (
        {"values": [1.0, 0.1]},
        ValueError,
        r"values must have one entry .* stage, 3 in all, got 2",
    ),
    (
        {"boundaries": [5]},
        ValueError,
        r"values must have one entry .* stage, 2 in all, got 3",
    ),
    ({"values": 0.1}, TypeError, r"values must be a sequence of numbers, or of rows"),
    ({"values": [[1, 2], [1], [1, 2]]}, ValueError, r"rows of equal length, got 1 in values\[1\]"),
    ({"values": [[1, 2], 3, [1, 2]]}, TypeError, r"values\[1\] must be a sequence of numbers"),
    ({"values": [[1, 2], [1, NAN], [1, 2]]}, ValueError, r"values\[1\]\[1\] must be finite"),
    ({"values": [[], [], []]}, ValueError, r"the schedule has 0 column"),
    ({"values": jnp.ones((3, 2, 1))}, ValueError, r"one or two axes, got the shape \(3, 2, 1\)"),
    ({"values": jnp.ones(2)}, ValueError, r"each stage, 3 in all, got 2"),
    ({"values": jnp.ones(3, bool)}, TypeError, r"values must hold real numbers, got .* bool"),
    # base_lr
    ({"base_lr": -0.1}, ValueError, r"base_lr must be finite and not negative, got -0.1"),
    ({"base_lr": NAN}, ValueError, r"base_lr must be finite and not negative, got nan"),
    ({"base_lr": INF}, ValueError, r"base_lr must be finite and not negative, got inf"),
    ({"base_lr": "0.1"}, TypeError, r"base_lr must be a sequence of numbers, or one number"),
    ({"base_lr": None}, TypeError, r"base_lr must be a sequence of numbers, or one number"),
    ({"base_lr": True}, TypeError, r"base_lr must be a number, got True"),
    ({"base_lr": []}, ValueError, r"base_lr must have at least one rate"),
    ({"base_lr": {}}, ValueError, r"base_lr must have at least one rate, got an empty mapping"),
    ({"base_lr": braintools.optim.SGD()}, TypeError, r"got an optimizer: build the scheduler with"),
    ({"base_lr": [0.1, -1]}, ValueError, r"base_lr\[1\] must be finite and not negative, got -1"),
    ({"base_lr": [0.1, "x"]}, TypeError, r"base_lr\[1\] must be a number, got 'x'"),
    ({"base_lr": np.array([0.1, NAN])}, ValueError, r"base_lr\[1\] must be finite"),
    ({"base_lr": np.bool_(True)}, TypeError, r"base_lr"),
    ({"base_lr": jnp.ones((2, 2))}, ValueError, r"base_lr\[0\] must be a scalar, got .* \(2,\)"),
    (
        {"base_lr": [0.1, 0.1, 0.1], "values": [[1, 1], [1, 1], [1, 1]]},
        ValueError,
        r"param group 2 has no rate: the schedule has 2 column",
    ),
    # last_epoch
    ({"last_epoch": -1}, ValueError, r"last_epoch .* negative, got -1: the first epoch is 0 here"),
    ({"last_epoch": -2}, ValueError, r"last_epoch must not be negative, got -2$"),
    ({"last_epoch": 1.5}, ValueError, r"last_epoch must be an integer, got 1.5"),
    ({"last_epoch": True}, TypeError, r"last_epoch must be a number, got True"),
    ({"last_epoch": "3"}, TypeError, r"last_epoch must be a number, got '3'"),
    ({"last_epoch": None}, TypeError, r"last_epoch must be a number, got None"),
    ({"last_epoch": TOO_LATE}, ValueError, r"last_epoch must be at most 2147483647"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), BAD_ARGUMENTS)
def test_bad_argument_raises_when_the_scheduler_is_built(arguments, error, message):
    with pytest.raises(error, match=message):
        PiecewiseConstantSchedule(**arguments)


BAD_STEPS = [
    (-1, ValueError, r"epoch must not be negative, got -1: the first epoch is 0 here"),
    (-7, ValueError, r"epoch must not be negative, got -7"),
    (1.5, ValueError, r"epoch must be an integer, got 1.5"),
    (NAN, ValueError, r"epoch must be an integer, got nan"),
    (True, TypeError, r"epoch must be a number, got True"),
    ("3", TypeError, r"epoch must be a number, got '3'"),
    (TOO_LATE, ValueError, r"epoch must be at most 2147483647, got 2147483648"),
    (jnp.array(1.0), TypeError, r"epoch must hold integers, got an array of float32"),
    (np.array(0.5), ValueError, r"epoch must be an integer, got .*0.5"),
    (np.array([5]), ValueError, r"epoch must be a scalar, got an array of shape \(1,\)"),
    (jnp.array([3, 4]), ValueError, r"epoch must be a scalar, got an array of shape \(2,\)"),
]
BAD_EPOCHS = [
    (-1, ValueError, r"epoch must not be negative, got -1: the first epoch is 0 here"),
    (-0.5, ValueError, r"epoch must be finite, not negative and at most 2147483647, got -0.5"),
    (NAN, ValueError, r"epoch must be finite, not negative and at most 2147483647, got nan"),
    ([1.5, INF], ValueError, r"epoch must be finite, not negative and at most .*, got inf"),
    (True, TypeError, r"epoch must be a real number, or an array of them, got True"),
    ("3", TypeError, r"epoch must be a real number, or an array of them, got '3'"),
    (1j, TypeError, r"epoch must be a real number, or an array of them"),
    (None, TypeError, r"epoch must be a real number, or an array of them"),
    (TOO_LATE, ValueError, r"epoch must be at most 2147483647, got 2147483648"),
    (float(TOO_LATE), ValueError, r"epoch must be finite, not negative and at most 2147483647"),
    (jnp.array(True), TypeError, r"epoch must hold real numbers, got an array of bool"),
]


@pytest.mark.parametrize(
    ("method", "epoch", "error", "message"),
    [*(("step", *bad) for bad in BAD_STEPS), *(("lr_at", *bad) for bad in BAD_EPOCHS)],
)
def test_bad_epoch_raises_and_leaves_the_scheduler_where_it_was(method, epoch, error, message):
    scheduler = PiecewiseConstantSchedule(last_epoch=1500)
    with pytest.raises(error, match=message):
        getattr(scheduler, method)(epoch)
    assert scheduler.epoch == 1500
    assert scheduler.get_last_lr() == [np.float32(1e-4)]


@pytest.mark.parametrize("epochs", [[0, "x"], [True, False], np.array([0, -1]), [0, TOO_LATE]])
def test_bad_epoch_among_many_raises(epochs):
    with pytest.raises((TypeError, ValueError), match="epoch must"):
        PiecewiseConstantSchedule().lr_at(epochs)


def test_a_step_beyond_the_last_epoch_raises():
    scheduler = PiecewiseConstantSchedule(last_epoch=TOO_LATE - 1)
    assert scheduler.lr_at(float(TOO_LATE - 1)).item() == scheduler.get_last_lr()[0]
    with pytest.raises(ValueError, match="last_epoch cannot go beyond 2147483647"):
        scheduler.step()
    assert scheduler.epoch == TOO_LATE - 1


def test_traced_boundaries_raise():
    with pytest.raises(jax.errors.TracerArrayConversionError):
        jax.jit(lambda b: PiecewiseConstantSchedule(0.1, b, [1.0, 0.1]).lr_at(0))(jnp.array([3]))


@pytest.mark.parametrize(
    ("result", "error", "message"),
    [
        (-1.0, ValueError, r"current_lrs\[0\] must be finite and not negative, got -1.0"),
        (NAN, ValueError, r"current_lrs\[0\] must be finite"),
        (INF, ValueError, r"current_lrs\[0\] must be finite"),
        ("0.1", TypeError, r"current_lrs\[0\] must be a number, got '0.1'"),
        (True, TypeError, r"current_lrs\[0\] must be a number, got True"),
        (None, TypeError, r"current_lrs\[0\] must be a number, got None"),
        (np.array(INF, np.float32), ValueError, r"current_lrs\[0\] must be finite"),
        (np.array(-1, np.float32), ValueError, r"current_lrs\[0\] must be finite"),
    ],
)
def test_bad_rate_set_by_hand_raises_and_changes_nothing(result, error, message):
    scheduler = PiecewiseConstantSchedule(0.1)
    with pytest.raises(error, match=message):
        scheduler.apply(lambda rate: result)
    with pytest.raises(error, match=message):
        scheduler.current_lrs.value = [result]
    assert scheduler.get_last_lr() == [np.float32(0.1)]


@pytest.mark.parametrize("text", ["0.1", "1e-3", "30", "-5.", "1E5"])
def test_a_number_that_a_config_has_as_text_is_told_why(text):
    word: Any = "ten"
    with pytest.raises(TypeError, match=r"\(str\): a config has text where a number is in quotes"):
        PiecewiseConstantSchedule(text)
    with pytest.raises(TypeError, match=r"got 'ten' \(str\)$"):
        PiecewiseConstantSchedule(word)


@pytest.mark.parametrize("optimizer", [None, 0.1, braintools.optim.Optimizer()])
def test_attaching_to_what_is_no_optax_optimizer_raises(optimizer):
    with pytest.raises(TypeError, match=r"must be an OptaxOptimizer of braintools\.optim"):
        PiecewiseConstantSchedule().attach_optimizer(optimizer)


def test_a_base_rate_of_one_is_no_number_of_epochs():
    assert PiecewiseConstantSchedule(1, [], [0.5]).lr_at(0).item() == 0.5  # without a warning


def test_multipliers_of_zero_alone_are_no_rates():
    assert PiecewiseConstantSchedule(values=[0.0], boundaries=[]).lr_at(0).item() == 0.0


def test_the_largest_float32_is_a_rate():
    largest = float(np.finfo(np.float32).max)
    assert PiecewiseConstantSchedule(largest, [], [1.0]).lr_at(0).item() == largest
    with pytest.raises(ValueError, match=r"base_lr must be at most 3\.403e\+38"):
        PiecewiseConstantSchedule(largest * 1.001, [], [1.0])


# The arguments that schedules share

# Every length, with the least that it may be
LENGTHS = [
    (StepLR, "step_size", 1),
    (ExponentialDecayLR, "decay_steps", 1),
    (ExponentialDecayLR, "transition_begin", 0),
    (CosineAnnealingLR, "T_max", 1),
    (CosineAnnealingWarmRestarts, "T_0", 1),
    (PolynomialLR, "total_iters", 1),
    (LinearLR, "total_iters", 0),
    (ConstantLR, "total_iters", 0),
    (WarmupScheduler, "warmup_epochs", 0),
    (WarmupCosineSchedule, "warmup_steps", 0),
    (WarmupCosineSchedule, "total_steps", 1),
    (CyclicLR, "step_size_up", 1),
    (CyclicLR, "step_size_down", 1),
    (OneCycleLR, "total_steps", 1),
    (WSD, "warmup_steps", 0),
    (WSD, "stay_steps", 0),
    (WSD, "decay_steps", 1),
    (InverseSqrtLR, "warmup_steps", 0),
    (InverseSqrtLR, "timescale", 1),
    (InverseTimeDecayLR, "decay_steps", 1),
]


@pytest.mark.parametrize(("cls", "name", "least"), LENGTHS)
def test_a_length_is_a_number_of_epochs_whole_or_not(cls, name, least):
    with pytest.raises(ValueError, match=f"^{name} must be finite and not negative, got -1"):
        cls(**{name: -1})
    with pytest.raises(ValueError, match=rf"^{name} must be at most 2\.147e\+09, got 2147483648"):
        cls(**{name: 2**31})
    for value in ("10", True, np.bool_(True), [10], None if least else "10"):
        if value is None and name in ("timescale", "step_size_down", "total_steps"):
            continue
        with pytest.raises(TypeError, match=f"^{name} must be a number, got"):
            cls(**{name: value})
    if least:
        with pytest.raises(ValueError, match=f"^{name} must be above 0, got 0"):
            cls(**{name: 0})
    arguments = {"warmup_steps": 0} if name == "total_steps" and cls is not OneCycleLR else {}
    for whole in (np.int64(10), np.array(10), 10, 20 / 2, Fraction(10)):
        kept = getattr(cls(**{name: whole}, **arguments), name)
        assert (type(kept), kept) == (int, 10)
    for number in (2.5, Fraction(5, 2), np.float32(2.5)):
        kept = getattr(cls(**{name: number}, **arguments), name)
        assert (type(kept), kept) == (float, 2.5)


@pytest.mark.parametrize(
    ("cls", "name"),
    [(WSD, "cycles"), (CosineAnnealingWarmRestarts, "T_mult"), (ReduceLROnPlateau, "patience")],
)
def test_a_number_of_times_is_whole(cls, name):
    assert getattr(cls(**{name: 6 / 2}), name) == 3
    with pytest.raises(ValueError, match=f"^{name} must be an integer, got 1.5"):
        cls(**{name: 1.5})
    with pytest.raises(
        ValueError, match=f"^{name} must be an integer from . to 2147483647, got -1"
    ):
        cls(**{name: -1})


# Every argument that is a number but no rate, with its interval and numbers outside of it
NUMBERS = [
    (StepLR, "gamma", r"\(0, 1\]", [0, 1.1]),
    (MultiStepLR, "gamma", r"\(0, 1\]", [0.0, 2]),
    (ExponentialLR, "gamma", r"\(0, 1\]", [0, 1.0001]),
    (ExponentialDecayLR, "decay_rate", r"\(0, inf\)", [0, 0.0]),
    (PolynomialLR, "power", r"\(0, inf\)", [0]),
    (LinearLR, "start_factor", r"\[0, 1\]", [1.5]),
    (LinearLR, "end_factor", r"\[0, 1\]", [2]),
    (ConstantLR, "factor", r"\[0, 1\]", [1.01]),
    (CyclicLR, "gamma", r"\(0, 1\]", [0, 1.1]),
    (OneCycleLR, "pct_start", r"\(0, 1\)", [0.0, 1, 30]),
    (OneCycleLR, "div_factor", r"\[1, inf\)", [0, 0.5]),
    (OneCycleLR, "final_div_factor", r"\[1, inf\)", [0, 0.99]),
    (CosineAnnealingWarmRestarts, "decay", r"\(0, 1\]", [0, 1.1]),
    (InverseTimeDecayLR, "decay_rate", r"\[0, inf\)", []),
]


@pytest.mark.parametrize(("cls", "name", "interval", "outside"), NUMBERS)
def test_a_number_is_finite_and_in_its_interval(cls, name, interval, outside):
    arguments = {"total_steps": 10} if cls is OneCycleLR else {}
    for value in outside:
        with pytest.raises(ValueError, match=f"^{name} must be a number in {interval}, got"):
            cls(**arguments, **{name: value})
    for value in (-0.5, NAN, INF, -INF):
        with pytest.raises(ValueError, match=f"^{name} must be finite and not negative, got"):
            cls(**arguments, **{name: value})
    for no_number in (True, "0.5", None, [0.5], 0.5j):
        with pytest.raises(TypeError, match=f"^{name} must be a number, got"):
            cls(**arguments, **{name: no_number})


RATES = [
    (CosineAnnealingLR, "eta_min"),
    (WarmupScheduler, "warmup_start_lr"),
    (ExponentialDecayLR, "end_value"),
]


@pytest.mark.parametrize(("cls", "name"), RATES)
def test_a_rate_is_finite_and_not_negative(cls, name):
    for value in (-1e-3, NAN, INF):
        with pytest.raises(ValueError, match=f"^{name} must be finite and not negative, got"):
            cls(**{name: value})
        with pytest.raises(ValueError, match=rf"^{name}\[1\] must be finite and not negative, got"):
            cls(**{name: [0.0, value]})
    for no_number in (True, "0.1", [0.1, "0.2"]):
        with pytest.raises(TypeError, match=rf"^{name}(\[1\])? must be a "):
            cls(**{name: no_number})


CHOICES = [
    (CyclicLR, "mode", "'triangular', 'triangular2', 'exp_range'"),
    (CyclicLR, "scale_mode", "'cycle', 'iterations'"),
    (OneCycleLR, "anneal_strategy", "'cos', 'linear'"),
    (WSD, "decay_strategy", "'linear', 'cos', 'sqrt', 'exponential', 'polynomial'"),
]


@pytest.mark.parametrize(("cls", "name", "listed"), CHOICES)
def test_a_choice_that_does_not_exist_is_told_those_that_do(cls, name, listed):
    arguments = {"total_steps": 10} if cls is OneCycleLR else {}
    with pytest.raises(ValueError, match=f"^{name} must be one of {listed}, got 'Cos'$"):
        cls(**arguments, **{name: "Cos"})
    for value in (None, 1, ["cos"]):
        with pytest.raises(TypeError, match=f"^{name} must be one of {listed}, got"):
            cls(**arguments, **{name: value})
