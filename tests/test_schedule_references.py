"""Every schedule against its documented definition, in plain float64 arithmetic of one epoch."""

import inspect
from typing import Any

import braintools
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import brainsched
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
    LambdaLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    PiecewiseLinearSchedule,
    PolynomialLR,
    StepLR,
    WarmupCosineSchedule,
    WarmupScheduler,
)
from brainsched.schedules.curves import STRATEGIES
from schedule_references import (
    BASES,
    LAST,
    LOOK_UPS,
    ONE_OF_EACH,
    SCHEDULES,
    names,
    rounded,
    units_apart,
)


@pytest.mark.parametrize(
    ("cls", "reference", "arguments", "epochs", "tolerance"), SCHEDULES, ids=names(SCHEDULES)
)
def test_rates_are_those_of_the_definition_however_they_are_asked_for(
    cls, reference, arguments, epochs, tolerance
):
    scheduler = cls(BASES, **arguments)
    asked = np.append(np.arange(epochs), [LAST - 1, LAST])
    expected = rounded([[reference(int(t), base, **arguments) for base in BASES] for t in asked])

    on_host = scheduler.lr_at(asked)
    assert on_host.dtype == np.float32
    assert units_apart(on_host, expected).max() <= tolerance

    compiled = jax.jit(scheduler.lr_at)(asked.astype(np.int32))
    np.testing.assert_array_equal(compiled, on_host)

    for index in {*range(0, epochs, 1 + epochs // 20), epochs - 1, epochs + 1}:
        np.testing.assert_array_equal(scheduler.lr_at(int(asked[index])), on_host[index])


@pytest.mark.parametrize("row", ONE_OF_EACH, ids=names(ONE_OF_EACH))
def test_rates_and_their_gradients_are_finite_with_traced_base_rates(row):
    cls, _, arguments, epochs, _ = row
    asked = np.array([0, 1, epochs // 2, epochs, LAST], np.int32)

    def rates(bases):
        return cls(bases, **arguments).lr_at(asked)

    bases = jnp.array([0.5, 0.0])
    values, slopes = jax.jit(lambda b: (rates(b), jax.jacobian(rates)(b)))(bases)
    np.testing.assert_array_equal(values, cls([0.5, 0.0], **arguments).lr_at(asked))
    assert np.isfinite(values).all()
    assert np.isfinite(slopes).all()
    assert (np.asarray(values) >= 0).all()


UNDER_X64 = [(*row, 0) for row in LOOK_UPS] + [(*row[:4], 4) for row in ONE_OF_EACH]


@pytest.mark.parametrize("row", UNDER_X64, ids=names(UNDER_X64))
def test_host_and_compiled_rates_agree_under_x64(row):
    cls, _, arguments, epochs, tolerance = row
    with jax.enable_x64(True):
        scheduler = cls(BASES, **arguments)
        asked = np.arange(min(epochs, 3000))
        on_host = np.asarray(scheduler.lr_at(asked))
        compiled = np.asarray(jax.jit(scheduler.lr_at)(asked))
    assert on_host.dtype == compiled.dtype == np.float64
    np.testing.assert_array_max_ulp(on_host, compiled, tolerance)


OTHER_RATES = {"max_lr", "eta_min", "warmup_start_lr", "end_value"}
MULTIPLIERS = [row for row in SCHEDULES if row[0] is not CyclicLR and not OTHER_RATES & set(row[2])]


@pytest.mark.parametrize("row", MULTIPLIERS, ids=names(MULTIPLIERS))
def test_a_base_rate_of_zero_stays_zero_where_no_other_rate_is_given(row):
    cls, _, arguments, epochs, _ = row
    assert not cls(0.0, **arguments).lr_at(np.arange(epochs)).any()


# Drop-in

OURS: dict[str, Any] = {
    cls.__name__: cls
    for cls in [
        StepLR,
        MultiStepLR,
        ExponentialLR,
        ExponentialDecayLR,
        CosineAnnealingLR,
        CosineAnnealingWarmRestarts,
        PolynomialLR,
        LinearLR,
        ConstantLR,
        WarmupScheduler,
        WarmupCosineSchedule,
        CyclicLR,
        OneCycleLR,
    ]
}


@pytest.mark.parametrize("name", OURS)
def test_parameters_and_their_order_and_defaults_are_those_of_braintools(name):
    def parameters(cls):
        signature = inspect.signature(cls.__init__)
        return [(p.name, p.default, p.kind) for p in signature.parameters.values()]

    theirs = parameters(getattr(braintools.optim, name))
    ours = parameters(OURS[name])
    assert ours[: len(theirs)] == theirs
    assert [n for n, default, _ in ours[len(theirs) :] if default is inspect.Parameter.empty] == []


DEFAULTS: dict[Any, dict[str, Any]] = {
    WSD: {
        "base_lr": 1e-3,
        "warmup_steps": 1000,
        "stay_steps": 8000,
        "decay_steps": 1000,
        "warmup_start_lr": 0.0,
        "eta_min": 0.0,
        "decay_strategy": "linear",
        "cycles": 1,
        "power": 1.0,
        "eta_min_ratio": None,
    },
    InverseSqrtLR: {
        "base_lr": 1e-3,
        "warmup_steps": 1000,
        "timescale": None,
        "warmup_start_lr": 0.0,
        "eta_min": 0.0,
        "eta_min_ratio": None,
    },
    InverseTimeDecayLR: {
        "base_lr": 1e-3,
        "decay_steps": 1000,
        "decay_rate": 1.0,
        "staircase": False,
        "eta_min": 0.0,
        "eta_min_ratio": None,
    },
    LambdaLR: {},
    PiecewiseLinearSchedule: {},
    brainsched.PerUpdate: {"staircase": False},
    brainsched.Branch: {
        "end_lr": None,
        "strategy": "linear",
        "last_epoch": None,
        "power": 1.0,
        "end_lr_ratio": None,
    },
    brainsched.Extension: {"last_epoch": None},
}


@pytest.mark.parametrize("cls", DEFAULTS)
def test_defaults_of_schedules_that_braintools_lacks(cls):
    found = {
        name: parameter.default
        for name, parameter in inspect.signature(cls).parameters.items()
        if parameter.default is not parameter.empty
    }
    assert found == {"last_epoch": 0} | DEFAULTS[cls]


@pytest.mark.parametrize("name", OURS)
def test_every_argument_is_kept_under_its_name(name):
    arguments = {"total_steps": 10} if name == "OneCycleLR" else {}
    scheduler = OURS[name](**arguments, last_epoch=3)
    config = scheduler.config
    assert [*config][1:] == [*inspect.signature(OURS[name].__init__).parameters][1:]
    again = OURS[name](**{key: value for key, value in config.items() if key != "class"})
    assert again.config == config
    np.testing.assert_array_equal(again.lr_at(range(20)), scheduler.lr_at(range(20)))


# Numbers that braintools 0.3.0's documentation shows
DOCUMENTED = [
    (
        StepLR(base_lr=0.1, step_size=30, gamma=0.1),
        {0: 0.1, 29: 0.1, 30: 0.01, 59: 0.01, 60: 0.001, 89: 0.001},
    ),
    (StepLR(base_lr=0.1, step_size=5, gamma=0.5), {15: 0.0125}),
    (
        MultiStepLR(base_lr=0.1, milestones=[30, 80], gamma=0.1),
        {29: 0.1, 30: 0.01, 79: 0.01, 80: 0.001},
    ),
    (
        ExponentialLR(base_lr=0.1, gamma=0.95),
        {0: 0.1, 5: 0.077378, 10: 0.059874, 15: 0.046329},
    ),
    (ExponentialLR(base_lr=0.001, gamma=0.99), {100: 0.000366}),
    (
        ExponentialDecayLR(base_lr=0.1, decay_steps=1000, decay_rate=0.96),
        {0: 0.1, 1000: 0.096, 2000: 0.09216, 3000: 0.088474, 4000: 0.084935},
    ),
    (
        ExponentialDecayLR(base_lr=0.1, decay_steps=1000, decay_rate=0.5, staircase=True),
        {0: 0.1, 500: 0.1, 1000: 0.05, 1500: 0.05, 2000: 0.025, 2500: 0.025, 3000: 0.0125},
    ),
    (
        ExponentialDecayLR(base_lr=0.01, decay_steps=1000, decay_rate=0.95, transition_begin=2000),
        {0: 0.01, 1000: 0.01, 2000: 0.01, 3000: 0.0095, 4000: 0.009025},
    ),
    (
        CosineAnnealingLR(base_lr=0.1, T_max=100, eta_min=0),
        {0: 0.1, 25: 0.085355, 50: 0.05, 75: 0.014645},
    ),
    (
        PolynomialLR(base_lr=0.1, total_iters=100, power=1.0),
        {0: 0.1, 1: 0.099, 2: 0.098, 99: 0.001, 100: 0.0},
    ),
    (
        PolynomialLR(base_lr=0.1, total_iters=100, power=2.0),
        {25: 0.05625, 50: 0.025, 75: 0.00625},
    ),
    (LinearLR(), {0: 0.000333, 5: 0.001}),
    (
        LinearLR(start_factor=1.0, end_factor=0.01, total_iters=20),
        {0: 0.001, 20: 0.00001, 29: 0.00001},
    ),
    (ConstantLR(), {0: 0.000333, 4: 0.000333, 5: 0.001}),
    (
        ConstantLR(base_lr=0.001, factor=0.5, total_iters=10),
        {0: 0.0005, 9: 0.0005, 10: 0.001},
    ),
    (WarmupScheduler(base_lr=0.1, warmup_epochs=10), {0: 0.0, 5: 0.05, 10: 0.1, 49: 0.1}),
    (
        CyclicLR(base_lr=0.0001, max_lr=0.001, step_size_up=1000, mode="triangular2"),
        {0: 0.0001, 1000: 0.001, 2000: 0.0001, 3000: 0.00055, 4000: 0.0001, 5000: 0.000325},
    ),
    (
        CyclicLR(base_lr=0.0001, max_lr=0.001, step_size_up=500, step_size_down=1500),
        {0: 0.0001, 500: 0.001, 1250: 0.00055, 2000: 0.0001, 2500: 0.001},
    ),
    (
        OneCycleLR(
            max_lr=0.1, total_steps=5000, pct_start=0.4, div_factor=10, final_div_factor=100
        ),
        {0: 0.01, 2000: 0.1, 5000: 0.001, 9000: 0.001},
    ),
    (
        CosineAnnealingWarmRestarts(base_lr=0.01, T_0=100, T_mult=2, eta_min=0.0001),
        dict.fromkeys([0, 100, 300, 700, 1500, 3100], 0.01),
    ),
    (
        CosineAnnealingWarmRestarts(base_lr=0.1, T_0=50, eta_min=0.001),
        dict.fromkeys([0, 50, 100, 150], 0.1),
    ),
    (
        WarmupCosineSchedule(0.001, 10_000, 100_000, warmup_start_lr=1e-6, eta_min=1e-5),
        {0: 1e-6, 10_000: 0.001, 100_000: 1e-5},
    ),
]


@pytest.mark.parametrize(
    ("scheduler", "documented"), DOCUMENTED, ids=lambda value: type(value).__name__
)
def test_documented_numbers_are_met(scheduler, documented):
    for epoch, rate in documented.items():
        assert scheduler.lr_at(epoch).item() == pytest.approx(rate, abs=5e-7)


# Exact ends, and no cancellation


def test_ends_and_peaks_are_exact_in_float64_too():
    # 49 * (1 / 49) is not 1 in float64, and XLA divides by a constant in that way.
    cases = [
        (CosineAnnealingLR(0.3, 49, 0.1), {0: 0.3, 49: 0.1}),
        (WarmupCosineSchedule(0.3, 49, 98, 0.1, 0.2), {0: 0.1, 49: 0.3, 98: 0.2}),
        *(
            (WSD(0.3, 49, 49, 49, 0.1, 0.2, strategy), {0: 0.1, 49: 0.3, 98: 0.3, 147: 0.2})
            for strategy in STRATEGIES
        ),
        (LinearLR(1.0, 0.3, 0.7, 49), {0: 0.3, 49: 0.7}),
        (PolynomialLR(0.3, 49, 0.9, eta_min=0.1), {0: 0.3, 49: 0.1}),
        (CyclicLR(0.3, 0.7, 49, 98), {0: 0.3, 49: 0.7, 147: 0.3}),
        (OneCycleLR(0.7, 98, pct_start=0.5, div_factor=4, final_div_factor=8), {49: 0.7}),
        (CosineAnnealingWarmRestarts(0.3, 49, decay=0.5), {0: 0.3, 49: 0.15, 98: 0.075}),
        (WSD(0.3, 49, 49, 49, 0.1, 0.1, cycles=2), {0: 0.1, 49: 0.3, 147: 0.1, 196: 0.3, 294: 0.1}),
        (InverseSqrtLR(0.3, 49, warmup_start_lr=0.1), {0: 0.1, 49: 0.3, 196: 0.15}),
        (PiecewiseLinearSchedule(1.0, [3, 52, 55], [0.1, 0.3, 0.7]), {3: 0.1, 52: 0.3, 55: 0.7}),
    ]
    for scheduler, ends in cases:
        config = {key: value for key, value in scheduler.config.items() if key != "class"}
        with jax.enable_x64(True):
            scheduler = type(scheduler)(**config)
            for epoch, rate in ends.items():
                assert scheduler.lr_at(epoch).item() == rate
                assert jax.jit(scheduler.lr_at)(epoch).item() == rate


# Rates other than the base rate


@pytest.mark.parametrize(
    ("build", "epoch", "slope"),
    [
        (lambda rate: CosineAnnealingLR(0.5, 4, eta_min=rate), 2, 0.5),
        (lambda rate: CosineAnnealingWarmRestarts(0.5, 4, eta_min=rate), 6, 0.5),
        (lambda rate: WarmupCosineSchedule(0.5, 4, 8, warmup_start_lr=rate), 1, 0.75),
        (lambda rate: WarmupCosineSchedule(0.5, 4, 8, eta_min=rate), 6, 0.5),
        (lambda rate: WarmupScheduler(0.5, 4, warmup_start_lr=rate), 1, 0.75),
        (lambda rate: WSD(0.5, 4, 4, 4, eta_min=rate), 11, 0.75),
        (lambda rate: WSD(0.5, 4, 4, 4, eta_min=rate, cycles=2), 23, 0.75),
        (lambda rate: InverseSqrtLR(0.5, 4, warmup_start_lr=rate), 1, 0.75),
        (lambda rate: PiecewiseLinearSchedule(0.5, [0, 4], [0, rate]), 3, 0.375),
        (lambda rate: CyclicLR(0.5, rate, 4), 3, 0.75),
        (lambda rate: OneCycleLR(rate, 8, pct_start=0.5), 4, 1.0),
        (lambda rate: ExponentialDecayLR(0.5, 1, 0.1, end_value=rate), 9, 1.0),
    ],
)
def test_every_rate_may_be_traced(build, epoch, slope):
    given = np.float32(0.1)
    rate, by_rate = jax.jit(jax.value_and_grad(lambda r: build(r).lr_at(epoch)[0]))(given)
    assert rate == build(float(given)).lr_at(epoch)
    assert build(jnp.asarray(given)).lr_at(epoch) == rate
    assert by_rate == pytest.approx(slope)
