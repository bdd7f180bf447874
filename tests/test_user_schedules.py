"""Schedules of a user's own: the same bits everywhere, and a sentence for each likely mistake."""

import copy
import pickle
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


# Mistakes


NOT_COMPILED = (
    r"(?s)compiled code cannot run FormulaLR\.formula: .*Use functions of xp, and xp.where"
)
MISTAKES: dict[str, tuple[Any, str]] = {
    "if": (lambda self, t, b, xp: b if t[0] < 5 else b / 2, NOT_COMPILED),
    "min": (lambda self, t, b, xp: b * min(t.max(), 5), NOT_COMPILED),
    "numpy": (lambda self, t, b, xp: b * np.asarray(t), NOT_COMPILED),
    "index": (lambda self, t, b, xp: b * [1, 2, 3][t[0].astype(int)], "scalar index"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_formula_that_cannot_be_compiled_is_refused_when_it_is_built(mistake):
    formula, message = MISTAKES[mistake]
    with pytest.raises((TypeError, ValueError), match=message):
        schedule(formula)


def test_a_formula_that_traces_but_cannot_be_lowered_is_refused_or_gives_the_same_rates():
    refusal = None
    try:
        scheduler = schedule(lambda self, t, b, xp: b * xp.select([t < 5, t < 9], [1.0, 0.5], 0.1))
    except TypeError as error:  # jax 0.10.2 cannot; a later one may
        refusal = str(error)
    if refusal is None:
        rates = scheduler.lr_at(range(12))
        np.testing.assert_array_equal(jax.jit(scheduler.lr_at)(np.arange(12)), rates)
    else:
        assert "compiled code cannot run FormulaLR.formula" in refusal


@pytest.mark.parametrize(
    "function",
    [
        lambda epoch: 1.0 if epoch < 5 else 0.1,
        lambda epoch: np.exp(np.asarray(epoch)),
        lambda epoch: [1.0, 0.5][epoch.astype(int)],
    ],
)
def test_a_function_that_cannot_be_compiled_is_named_when_the_scheduler_is_built(function):
    with pytest.raises(TypeError, match="traced array"):
        LambdaLR(0.1, function)


@pytest.mark.parametrize(
    ("formula", "shape"),
    [
        (lambda self, epoch, base_lrs, xp: base_lrs[0] + epoch[..., 0], r"\(\d*,\)"),
        (lambda self, epoch, base_lrs, xp: xp.stack([base_lrs[0] + epoch] * 2, -1), "2"),
        (lambda self, epoch, base_lrs, xp: xp.asarray([0.1, 0.2]) + 0 * epoch, "2"),
    ],
    ids=["no group axis", "an axis too many", "two rates for one group"],
)
def test_a_formula_of_another_shape_is_refused_with_both_shapes(formula, shape):
    with pytest.raises(
        ValueError, match=rf"FormulaLR.formula must return .* broad.*shape .*{shape}"
    ):
        schedule(formula).lr_at([0, 1, 2])


@pytest.mark.parametrize(
    ("formula", "error", "message"),
    [
        (LRScheduler.formula, TypeError, "abstract class FormulaLR .*formula"),
        (lambda self, epoch, base_lrs: base_lrs, TypeError, "takes 3 positional arguments but 4"),
    ],
)
def test_a_formula_that_is_missing_or_takes_too_little_is_what_python_says(formula, error, message):
    with pytest.raises(error, match=message):
        schedule(formula)


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


class NoEpochLR(StepLR):
    def __init__(self, base_lr=0.5):
        super().__init__(base_lr)


class StarredLR(StepLR):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)


class UnkeptLR(StepLR):
    def __init__(self, base_lr=0.5, step_size=30, gamma=0.1, note="", last_epoch=0):
        super().__init__(base_lr, step_size, gamma, last_epoch)


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (NoEpochLR, "NoEpochLR has no config, as its constructor takes no last_epoch"),
        (StarredLR, r"StarredLR has no config, as its constructor takes \*args: name each arg"),
        (UnkeptLR, "UnkeptLR has no config, as it does not keep self.note = note"),
    ],
)
def test_a_class_that_cannot_be_rebuilt_says_so_when_its_config_is_wanted_and_not_before(
    cls, message
):
    scheduler = cls(0.5)
    scheduler.step(30)
    assert scheduler.get_last_lr() == [np.float32(0.05)]
    assert copy.deepcopy(scheduler).epoch == pickle.loads(pickle.dumps(scheduler)).epoch == 30
    for use in (lambda: scheduler.config, scheduler.state_dict):
        with pytest.raises(TypeError, match=message):
            use()


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


def test_a_class_cannot_displace_a_built_in_of_its_name():
    theirs = a_class_of_the_name_of_a_built_in()
    assert type(brainsched.from_config({"class": "StepLR"})) is StepLR
    scheduler = theirs(0.5)
    assert scheduler.config["class"].startswith("test_user_schedules.a_class_of_the_name")
    assert type(brainsched.from_config(scheduler.config)) is theirs
    with pytest.raises(ValueError, match=r"this scheduler is a test_user_schedules\."):
        scheduler.load_state_dict(StepLR(0.5).state_dict())
    with pytest.raises(ValueError, match=r"but this scheduler is a StepLR: "):
        StepLR(0.5).load_state_dict(scheduler.state_dict())


def test_a_class_that_is_defined_again_takes_its_own_place():
    def define(factor):
        formula = lambda self, t, b, xp: b * factor + 0 * t  # noqa: E731
        return type("NotebookLR", (LRScheduler,), {"formula": formula})

    saved = define(1.0)(0.5).state_dict()
    again = define(0.5)
    config = again(0.5).config
    assert brainsched.from_config(config).lr_at(0).item() == 0.25
    with pytest.warns(UserWarning, match="its formula changed"):
        again(0.5).load_state_dict(saved)


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


@pytest.mark.parametrize("name", ["step_size", "base_lr", "optimizer", "epoch", "note"])
def test_assigning_to_a_built_scheduler_says_what_to_do(name):
    scheduler = StepLR(0.5)
    with pytest.raises(AttributeError, match=rf"StepLR.{name} cannot be assigned.*build a new one"):
        setattr(scheduler, name, 5)
    assert scheduler.get_lr() == [0.5]


def test_assigning_last_epoch_goes_there_with_the_rate_of_that_epoch():
    scheduler = StepLR(0.5, step_size=2, gamma=0.5)
    scheduler.last_epoch = 4
    assert scheduler.epoch == 4
    assert scheduler.get_last_lr() == [0.125]
    with pytest.raises(ValueError, match="epoch must not be negative"):
        scheduler.last_epoch = -1
    assert scheduler.epoch == 4


# Where it is used


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
