"""Schedules of a user's own: the same bits everywhere, and a sentence for each likely mistake."""

import copy
import pickle
import threading
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brainstate.transform import for_loop, jit
from hypothesis import given
from hypothesis import strategies as st

import brainsched
from brainsched import LambdaLR, LRScheduler, PiecewiseConstantSchedule, StepLR

EPOCHS = np.arange(5000)


class InverseSqrtLR(LRScheduler):
    """A schedule as a user writes one."""

    def __init__(self, base_lr=0.1, timescale=100, last_epoch=0):
        self.timescale = timescale
        super().__init__(base_lr, last_epoch)

    def formula(self, epoch, base_lrs, xp):
        return base_lrs / xp.sqrt(1 + epoch / self.timescale)


class CosineLR(LRScheduler):
    """A cosine as one writes it down, which cancels near its end."""

    def formula(self, epoch, base_lrs, xp):
        return base_lrs * (1 + xp.cos(xp.pi * xp.minimum(epoch, 4000) / 4000)) / 2


class JaxLR(LRScheduler):
    """A formula that calls JAX, where xp is meant."""

    def formula(self, epoch, base_lrs, xp):
        return base_lrs * jnp.exp(-epoch / 1000)


class PerGroupLR(LRScheduler):
    """Another time scale for each group."""

    def __init__(self, base_lr=(0.1, 0.2), scales=(10.0, 30.0), last_epoch=0):
        self.scales = scales
        super().__init__(base_lr, last_epoch)

    def formula(self, epoch, base_lrs, xp):
        return base_lrs / (1 + epoch / xp.asarray(self.scales))


def compiled_rates(scheduler, epochs):
    return jit(lambda t: scheduler.lr_at(t))(jnp.asarray(epochs))


def exact(rates):
    return np.asarray(rates, np.float64).astype(np.float32)


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        (InverseSqrtLR(), 0.1 / np.sqrt(1 + EPOCHS / 100)),
        (CosineLR(0.1), 0.1 * (1 + np.cos(np.pi * np.minimum(EPOCHS, 4000) / 4000)) / 2),
        (JaxLR(0.1), 0.1 * np.exp(-EPOCHS / 1000)),
        (LambdaLR(0.1, lambda epoch: jnp.exp(-epoch / 1000)), 0.1 * np.exp(-EPOCHS / 1000)),
        (LambdaLR(0.1, lambda epoch: 0.5 ** (epoch // 50)), 0.1 * 0.5 ** (EPOCHS // 50)),
    ],
    ids=["inverse root", "cosine", "jnp", "LambdaLR", "floor division"],
)
def test_a_formula_is_float64_rounded_once_on_the_host_and_compiled(scheduler, expected):
    for rates in (scheduler.lr_at(EPOCHS), compiled_rates(scheduler, EPOCHS)):
        np.testing.assert_array_equal(rates[:, 0], exact(expected))
    seen = for_loop(lambda t: (scheduler.step(t), scheduler.current_lrs.value[0])[1], EPOCHS[:300])
    np.testing.assert_array_equal(seen, exact(expected)[:300])


class StairLR(LRScheduler):
    """Stages as one writes them down, with a division by a constant."""

    def __init__(self, base_lr=0.1, every=49, last_epoch=0):
        self.every = every
        super().__init__(base_lr, last_epoch)

    def formula(self, epoch, base_lrs, xp):
        return base_lrs * 0.5 ** xp.floor(epoch / self.every)


class SawLR(StairLR):
    """What is left of a division, where the last place decides everything."""

    def formula(self, epoch, base_lrs, xp):
        share = epoch / self.every
        return base_lrs * (share - xp.floor(share))


UNARY = ["sqrt", "exp", "log1p", "sin", "cos", "tanh", "arctan", "sinh", "expm1", "cbrt", "floor"]


@given(
    st.lists(st.sampled_from(UNARY), min_size=1, max_size=4),
    st.floats(0.01, 10.0),
    st.integers(1, 1000),
)
def test_any_formula_of_functions_of_one_number_has_the_same_bits_everywhere(names, a, scale):
    class ComposedLR(LRScheduler):
        def formula(self, epoch, base_lrs, xp):
            x = a + epoch / scale
            for name in names:
                x = getattr(xp, name)(xp.minimum(xp.abs(x), 50))
            return base_lrs * xp.minimum(xp.abs(x), 1e6)

    scheduler = ComposedLR(0.1)
    host = scheduler.lr_at(EPOCHS[:200])
    compiled = np.asarray(compiled_rates(scheduler, EPOCHS[:200]))
    # Two libraries of float64 functions differ in their last digits, which rounding hides; a
    # floor or a chain may show one of them.
    assert (host != compiled).mean() <= 0.01
    np.testing.assert_array_almost_equal_nulp(host, compiled, nulp=4 if "floor" not in names else 8)


@pytest.mark.parametrize("promotion", ["standard", "strict"])
@pytest.mark.parametrize("rank", ["allow", "raise"])
def test_the_users_settings_of_promotion_do_not_reach_a_formula(promotion, rank):
    built = [PerGroupLR(), CosineLR(), *map(brainsched.from_config, CONFIGS)]
    for scheduler in built:
        expected = scheduler.lr_at([0, 3, 7.5])
        with jax.numpy_dtype_promotion(promotion), jax.numpy_rank_promotion(rank):
            np.testing.assert_array_equal(scheduler.lr_at(jnp.array([0, 3, 7.5])), expected)
            np.testing.assert_array_equal(compiled_rates(scheduler, 3), expected[1])
            jit(scheduler.step)()


CONFIGS = [
    {"class": name, "base_lr": [0.1, 0.2]}
    for name in ("CosineAnnealingLR", "WSD", "CyclicLR", "MultiStepLR", "PolynomialLR")
]


# What a formula returns


def schedule(formula, base_lr=0.5) -> Any:
    return type("FormulaLR", (LRScheduler,), {"formula": formula})(base_lr)


@pytest.mark.parametrize(
    "formula",
    [
        lambda self, epoch, base_lrs, xp: 0.5,
        lambda self, epoch, base_lrs, xp: base_lrs,
        lambda self, epoch, base_lrs, xp: 0.5 + 0 * epoch,
        lambda self, epoch, base_lrs, xp: base_lrs + 0 * epoch,
    ],
    ids=["a number", "one rate for each group", "one for each epoch", "one for each of both"],
)
@pytest.mark.parametrize("base_lr", [0.5, [0.5, 0.5, 0.5]])
def test_what_a_formula_returns_is_broadcast_where_that_is_clear(formula, base_lr):
    scheduler = schedule(formula, base_lr)
    groups = np.size(base_lr)
    for epochs in (3, [1, 2], [[1, 2, 3], [4, 5, 6]]):
        rates = scheduler.lr_at(epochs)
        assert rates.shape == (*np.shape(epochs), groups)
        assert (rates == 0.5).all()
        np.testing.assert_array_equal(compiled_rates(scheduler, epochs), rates)
    scheduler.step()
    assert scheduler.get_last_lr() == [0.5] * groups


@pytest.mark.parametrize(
    ("wrong", "shown"), [(-0.25, "-0.125"), (np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf")]
)
def test_a_rate_that_is_none_raises_when_its_epoch_comes_and_not_before(wrong, shown):
    scheduler = schedule(lambda self, t, b, xp: b * xp.where(t == 200, wrong, 1.0))
    for _ in range(199):
        scheduler.step()
    message = rf"FormulaLR gives param group 0 the rate {shown} at epoch 200: a rate must be finite"
    for use in (scheduler.step, lambda: scheduler.lr_at([3, 200]), lambda: scheduler.plot(201)):
        with pytest.raises(ValueError, match=message):
            use()
    assert (scheduler.epoch, scheduler.applied_rates) == (199, [0.5])
    scheduler.step(201)
    assert (scheduler.epoch, scheduler.applied_rates) == (201, [0.5])
    with pytest.raises(ValueError, match=message):
        scheduler.step(200)


class PeakLR(LRScheduler):
    """A schedule whose formula takes the rate from an argument of its own."""

    def __init__(self, max_lr=0.5, relative=False, last_epoch=0):
        self.max_lr = max_lr
        self.relative = relative
        super().__init__(max_lr, last_epoch)

    def formula(self, epoch, base_lrs, xp):
        return (base_lrs if self.relative else self.max_lr) * 0.5**epoch


# Mistakes


MISTAKES: dict[str, tuple[Any, str]] = {
    "if": (lambda self, t, b, xp: b if t < 5 else b / 2, "decides in Python.*use xp.where"),
    "min": (lambda self, t, b, xp: b * min(t, 5), "decides in Python.*use xp.where, xp.minimum"),
    "numpy": (lambda self, t, b, xp: b * np.asarray(t), "calls NumPy.*use xp"),
    "math": (lambda self, t, b, xp: b * float(t[0]), "turns the epoch into a Python number"),
    "index": (lambda self, t, b, xp: b * [1, 2, 3][t[0].astype(int)], "uses the epoch as an in"),
}


READS: dict[str, tuple[Any, str]] = {
    "base_lr": (lambda self, t, b, xp: self.base_lr * 0.5**t, "argument base_lrs"),
    "base_lrs": (lambda self, t, b, xp: self.base_lrs[0] * 0.5**t, "argument base_lrs"),
    "last_epoch": (lambda self, t, b, xp: b * 0.5**self.last_epoch.value, "argument epoch"),
    "epoch": (lambda self, t, b, xp: b * 0.5**self.epoch, "argument epoch"),
    "get_lr": (lambda self, t, b, xp: self.get_lr()[0] * 0.5, "argument epoch"),
    "get_last_lr": (lambda self, t, b, xp: self.get_last_lr()[0] * 0.5, "argument epoch"),
    "current_lrs": (lambda self, t, b, xp: self.current_lrs.value[0], "epoch and base_lrs"),
    "lr_at": (lambda self, t, b, xp: self.lr_at(t - 1) * 0.5, "epoch and base_lrs"),
}


def test_an_array_that_is_derived_from_the_arguments_is_fixed_too():
    class TableLR(LRScheduler):
        def __init__(self, base_lr=0.1, last_epoch=0):
            self.table = np.array([1.0, 0.5])
            super().__init__(base_lr, last_epoch)

        def formula(self, epoch, base_lrs, xp):
            return base_lrs * xp.asarray(self.table)[xp.minimum(epoch, 1).astype(int)]

    with pytest.raises(ValueError, match="read-only"):
        TableLR().table[0] = 7.0


def test_an_attribute_error_of_something_else_reaches_the_user():
    with pytest.raises(AttributeError, match="no attribute 'sqroot'"):
        schedule(lambda self, epoch, base_lrs, xp: xp.sqroot(epoch))


class TwoArgumentsLR(LRScheduler):
    def __init__(self, base_lr=0.1, gamma=0.5, last_epoch=0):
        self.gamma = gamma
        super().__init__(base_lr, last_epoch)

    def formula(self, epoch, base_lrs, xp):
        return base_lrs * self.gamma**epoch


class DoublesLR(TwoArgumentsLR):
    def __init__(self, base_lr=0.1, gamma=0.5, last_epoch=0):
        super().__init__(base_lr, gamma * 2, last_epoch)


class DoublesTheRateLR(TwoArgumentsLR):
    def __init__(self, base_lr=0.1, gamma=0.5, last_epoch=0):
        super().__init__(base_lr * 2, gamma, last_epoch)


class WrapsLR(LRScheduler):
    def __init__(self, base_lr=0.1, functions=(), last_epoch=0):
        self.functions = [lambda t, f=f: 2 * f(t) for f in functions]
        super().__init__(base_lr, last_epoch)

    def formula(self, epoch, base_lrs, xp):
        return base_lrs * sum(f(epoch) for f in self.functions)


class NestsLR(LRScheduler):
    def __init__(self, base_lr=0.1, stages=1, last_epoch=0):
        self.stages = {"all": stages} if isinstance(stages, dict) else [stages]
        super().__init__(base_lr, last_epoch)

    def formula(self, epoch, base_lrs, xp):
        return base_lrs


class SwapsLR(LRScheduler):
    def __init__(self, base_lr=0.1, stages=(), last_epoch=0):
        self.stages = tuple(stages.items()) if isinstance(stages, dict) else dict(stages)
        super().__init__(base_lr, last_epoch)

    def formula(self, epoch, base_lrs, xp):
        return base_lrs


class HalvesStepsLR(StepLR):
    def __init__(self, base_lr=0.1, step_size=8, gamma=0.1, last_epoch=0):
        super().__init__(base_lr, step_size // 2, gamma, last_epoch)


class GrowsLR(brainsched.ExponentialLR):
    def __init__(self, base_lr=0.1, gamma=0.5, last_epoch=0):
        super().__init__(base_lr, gamma * 2, last_epoch)


class DropsTheEpochLR(TwoArgumentsLR):
    def __init__(self, base_lr=0.1, gamma=0.5, last_epoch=0):
        super().__init__(base_lr, gamma)


class CountsFromOneLR(TwoArgumentsLR):
    def __init__(self, base_lr=0.1, gamma=0.5, last_epoch=0):
        super().__init__(base_lr, gamma, last_epoch + 1)


class NoisyLR(TwoArgumentsLR):
    def __init__(self, base_lr=0.1, gamma=0.5, last_epoch=0):
        self._noise = np.random.default_rng().uniform()
        super().__init__(base_lr, gamma, last_epoch)

    def formula(self, epoch, base_lrs, xp):
        return base_lrs * self._noise


def test_a_class_may_bring_its_arguments_into_a_form_that_stays():
    class TidyLR(LRScheduler):
        def __init__(
            self,
            base_lr=0.1,
            milestones=(2, 1),
            stages=((1,), (2, 3)),
            mode="A",
            names=None,
            last_epoch=0,
        ):
            self.milestones = sorted(milestones)
            self.stages = [list(stage) for stage in stages]
            self.mode = mode.lower()
            self.names = {"a": np.arange(3), "b": None} if names is None else names
            super().__init__(base_lr, last_epoch)

        def formula(self, epoch, base_lrs, xp):
            return base_lrs

    scheduler = TidyLR(last_epoch=7)
    assert (scheduler.milestones, scheduler.mode, scheduler.epoch) == ([1, 2], "a", 7)
    assert brainsched.from_config(scheduler.config).config == scheduler.config


def test_a_warning_of_a_users_constructor_is_given_once():
    class WarningLR(TwoArgumentsLR):
        def __init__(self, base_lr=0.1, gamma=0.5, last_epoch=0):
            super().__init__(base_lr, gamma, last_epoch)
            warnings.warn("gamma is small", UserWarning, stacklevel=2)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        WarningLR()
    assert [str(warning.message) for warning in caught] == ["gamma is small"]


def test_a_schedule_of_the_users_is_swept_and_built_of_device_arrays():
    rates = jax.vmap(lambda base: TwoArgumentsLR(base, base).lr_at(1))(jnp.array([0.5, 0.25]))
    np.testing.assert_array_equal(rates, [[0.25], [0.0625]])


# Names


def a_class_of_the_name_of_a_built_in():
    class StepLR(LRScheduler):
        def formula(self, epoch, base_lrs, xp):
            return base_lrs + 0 * epoch

    return StepLR


# Arguments


def test_arguments_are_copied_and_cannot_be_changed_behind_a_schedulers_back():
    boundaries, values, base_lr = [3], [[1.0, 0.5], [0.5, 0.25]], np.array([1.0, 2.0])
    scheduler = PiecewiseConstantSchedule(base_lr, boundaries, values)
    expected = scheduler.lr_at([0, 3])
    boundaries.append(5)
    values[0][0] = 7.0
    base_lr[0] = 9.0
    np.testing.assert_array_equal(scheduler.lr_at([0, 3]), expected)
    np.testing.assert_array_equal(brainsched.from_config(scheduler.config).lr_at([0, 3]), expected)
    assert scheduler.values == [[1.0, 0.5], [0.5, 0.25]]
    kept: Any = vars(scheduler)
    for change in (
        lambda: kept["boundaries"].append(5),
        lambda: kept["values"][0].__setitem__(0, 7.0),
        lambda: kept["base_lr"].__setitem__(0, 7.0),
    ):
        with pytest.raises((TypeError, ValueError), match=r"fixed: build a new|read-only"):
            change()
    for twin in (copy.deepcopy(scheduler), pickle.loads(pickle.dumps(scheduler))):
        np.testing.assert_array_equal(twin.lr_at([0, 3]), expected)
        assert twin.config == scheduler.config


def test_assigning_last_epoch_goes_there_with_the_rate_of_that_epoch():
    scheduler = StepLR(0.5, step_size=2, gamma=0.5)
    scheduler.last_epoch = 4
    assert scheduler.epoch == 4
    assert scheduler.get_last_lr() == [0.125]
    with pytest.raises(ValueError, match="epoch must not be negative"):
        scheduler.last_epoch = -1
    assert scheduler.epoch == 4


# Where it is used


def test_another_thread_that_looks_at_the_rates_leaves_those_of_the_steps_alone():
    scheduler = PiecewiseConstantSchedule(1.0, range(1, 4000), np.arange(1.0, 4001.0))
    stop = threading.Event()

    def look():
        while not stop.is_set():
            for epoch in (0, 700, 3999):
                scheduler._evaluation._at(epoch)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for epoch in range(3000):
            assert scheduler.get_last_lr() == [epoch + 1.0]
            scheduler.step()
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_compiled_step_at_the_largest_epoch_stays_there():
    scheduler = PiecewiseConstantSchedule(0.5, [3], [1.0, 0.5], last_epoch=2**31 - 2)
    step = jit(scheduler.step)
    for _ in range(3):
        step()
        assert scheduler.epoch == 2**31 - 1
        assert scheduler.get_last_lr() == [0.25]


# Between epochs


@pytest.mark.parametrize(
    ("scheduler", "epoch", "expected"),
    [
        (PiecewiseConstantSchedule(0.5, [3], [1.0, 0.5]), 2.999, 0.5),
        (StepLR(0.5, 3, 0.5), 5.5, 0.25),
        (brainsched.ExponentialLR(0.5, 0.25), 0.5, 0.25),
        (brainsched.WarmupScheduler(0.5, 4), 0.5, 0.0625),
        (brainsched.CosineAnnealingLR(1.0, 1), 0.5, 0.5),
        (brainsched.CosineAnnealingWarmRestarts(1.0, 2), 5.0, 0.5),
        (brainsched.CyclicLR(0.0, 1.0, 2), 1.5, 0.75),
        (
            brainsched.SequentialLR([StepLR(1.0), brainsched.WarmupScheduler(1.0, 4)], [3]),
            3.5,
            0.125,
        ),
    ],
)
def test_stages_hold_and_curves_are_smooth_between_whole_epochs(scheduler, epoch, expected):
    assert scheduler.lr_at(epoch).item() == np.float32(expected)
    assert float(compiled_rates(scheduler, epoch)[0]) == np.float32(expected)


def test_the_counters_of_warm_restarts_follow_from_the_position():
    scheduler = brainsched.CosineAnnealingWarmRestarts(1.0, T_0=3, T_mult=2)
    seen = []
    for _ in range(12):
        seen.append((scheduler.T_cur, scheduler.T_i))
        scheduler.step()
    cycles = [*((i, 3) for i in range(3)), *((i, 6) for i in range(6)), (0, 12), (1, 12), (2, 12)]
    assert seen == cycles
    with pytest.raises(AttributeError, match="T_cur cannot be assigned"):
        scheduler.T_cur = 1  # type: ignore[misc]
