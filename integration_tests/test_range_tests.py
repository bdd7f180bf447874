"""The learning-rate range test: its curve, what it suggests, and that it leaves all as it was."""

import itertools
from typing import Any

import brainstate
import braintools
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
import pytest
from matplotlib import pyplot as plt

import brainsched
from brainsched import RangeTest, lr_range_test, lr_range_test_optax

SQUARE = jax.value_and_grad(lambda weight, batch: (batch * weight) ** 2)
ONE = jnp.ones(())
RANDOM = np.random.default_rng(0)
INPUTS = RANDOM.normal(size=(8, 16, 4)).astype(np.float32)
TARGETS = (INPUTS @ RANDOM.normal(size=(4, 2))).astype(np.float32)
BATCHES = list(zip(INPUTS, TARGETS, strict=True))


# The curve, of pure functions


def by_hand(batches, start, end, steps, smoothing, divergence):
    """Return rates, losses and smoothed losses of SGD on ``(batch * weight) ** 2`` in float64."""
    weight, average, lowest, rows = 1.0, 0.0, np.inf, []
    for i in range(steps):
        rate = start * (end / start) ** (i / (steps - 1))
        batch = batches[i % len(batches)]
        loss = (batch * weight) ** 2
        weight -= rate * 2 * batch**2 * weight
        average = smoothing * average + (1 - smoothing) * loss
        smoothed = average / (1 - smoothing ** (i + 1))
        lowest = min(lowest, smoothed)
        if smoothed > divergence * lowest:
            break
        rows.append((rate, loss, smoothed))
    return np.transpose(rows)


@pytest.mark.parametrize(("smoothing", "divergence"), [(0.98, 4.0), (0.0, 1.5)])
def test_the_curve_is_that_of_training_at_rising_rates(smoothing, divergence):
    given: dict[str, Any] = {"start": 1e-3, "end": 10.0, "steps": 40}
    given |= {"smoothing": smoothing, "divergence": divergence}
    batches = [1.0, 0.5, 2.0]
    curve = lr_range_test_optax(SQUARE, ONE, map(jnp.float32, batches), optax.sgd, **given)
    expected = by_hand(batches, **given)
    assert len(expected[0]) < 40
    assert curve.diverged
    np.testing.assert_allclose(curve.rates, expected[0], rtol=1e-6)
    np.testing.assert_allclose(curve.losses, expected[1], rtol=1e-3, atol=1e-9)
    np.testing.assert_allclose(curve.smoothed, expected[2], rtol=1e-3)


def test_no_more_batches_are_taken_than_needed():
    count = itertools.count()
    batches = (np.float32(1) for _ in count)
    lr_range_test_optax(SQUARE, ONE, batches, optax.sgd, steps=12)
    assert next(count) == 12


def test_it_ends_where_the_loss_is_not_finite():
    loss = jax.value_and_grad(lambda weight, batch: 1 / batch + 0 * weight)
    batches = [np.float32(1)] * 7 + [np.float32(0)] + [np.float32(1)] * 20
    curve = lr_range_test_optax(loss, ONE, batches, optax.sgd)
    assert curve.diverged
    assert curve.losses.tolist() == [1.0] * 7


def test_a_loss_below_zero_does_not_count_as_diverged_while_it_falls():
    loss = jax.value_and_grad(lambda weight, batch: -3.0 + batch * weight)
    curve = lr_range_test_optax(loss, ONE, [ONE], optax.sgd, end=1e-2)
    assert not curve.diverged
    assert curve.losses[0] == -2.0


def test_one_compiled_loop_runs_it(compilations):
    lr_range_test_optax(SQUARE, ONE, [ONE], optax.sgd)
    assert compilations.count("jit(sweep)") + compilations.count("sweep") == 1


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda rate: optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate)),
        lambda rate: optax.inject_hyperparams(optax.adam)(learning_rate=rate),
    ],
    ids=["chain", "inject_hyperparams"],
)
def test_every_way_of_optax_to_take_a_rate_works(optimizer):
    curve = lr_range_test_optax(SQUARE, ONE, [ONE], optimizer, start=1e-3, steps=30)
    # The first updates of Adam are the rates, since the gradient hardly changes.
    moved = 1 - np.sqrt(curve.losses[:4])
    np.testing.assert_allclose(moved, [0, *np.cumsum(curve.rates[:3])], rtol=0.02, atol=1e-7)


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.bfloat16])
def test_it_runs_with_64_bit_types_enabled_on_parameters_of_any_precision(dtype):
    with jax.enable_x64(True):
        one = jnp.ones((), dtype)
        curve = lr_range_test_optax(SQUARE, one, [one], optax.adam, steps=20)
    assert curve.rates.dtype == np.float64
    assert curve.losses[0] == 1.0
    assert np.isfinite(curve.smoothed).all()


# Suggestions


def curve_of(losses, diverged=True):
    """Return a curve of rates from 1e-4 on, of which 10 make a factor of 10."""
    losses = np.asarray(losses, np.float32)
    rates = 1e-4 * 10 ** (np.arange(len(losses)) / 10)
    return RangeTest(rates.astype(np.float32), losses, losses, diverged)


def longest_fall_by_hand(losses):
    """Return the ends of the longest falling subsequence's stretch, by comparing all pairs."""
    lengths: list[int] = []
    for i, loss in enumerate(losses):
        before = [lengths[j] for j in range(i) if losses[j] > loss]
        lengths.append(1 + max(before, default=0))
    last = int(np.argmax(lengths))
    return last - max(lengths) + 1, last


@pytest.mark.parametrize("seed", range(3))
def test_the_valley_is_the_middle_of_the_longest_fall(seed):
    noise = np.random.default_rng(seed).normal(size=100)
    curve = curve_of(10.0 - np.linspace(0, 3, 100) ** 2 + noise)
    suggestion = curve.suggest()
    kept = curve.losses[10:-5].astype(np.float64)
    begin, end = longest_fall_by_hand(kept)
    flat = kept[begin] - 0.01 * (kept[begin] - kept[end])
    begin = next(i for i in range(begin, end + 1) if kept[i] <= flat)
    assert suggestion.rate == curve.rates[10:-5][(begin + end) // 2]
    assert f"at rate {curve.rates[10 + begin]:.2e}" in suggestion.reason
    assert f"at rate {curve.rates[10 + end]:.2e}" in suggestion.reason


def test_a_hundredth_of_the_fall_is_left_out_of_the_valley():
    even = [100.0] * 12 + list(np.arange(99.0, -1.0, -1.0)) + [0.0] * 6
    assert "from 99 at rate" in curve_of(even).suggest().reason


def test_steepest_is_where_the_loss_falls_the_fastest():
    losses = [5.0] * 10 + [4.9, 4.7, 4.0, 3.0, 2.8, 2.7] + [2.7] * 14
    suggestion = curve_of(losses).suggest("steepest")
    assert suggestion.rate == np.float32(1e-4 * 10**1.2)
    # From 4.7 to 3.0 over two steps, of which 10 make a factor of 10.
    assert "by 8.5 for each factor of 10" in suggestion.reason


def test_it_says_where_the_loss_was_still_falling():
    assert "still falling" in curve_of(np.linspace(5, 1, 40), diverged=False).suggest().reason
    assert "still falling" not in curve_of(np.linspace(5, 1, 40)).suggest().reason
    # A rise in the last five steps, which no rate is read off, is one all the same.
    risen = [*np.linspace(5, 1, 36), 1.1, 1.3, 1.6, 2.0]
    assert "still falling" not in curve_of(risen, diverged=False).suggest().reason


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        (np.linspace(1, 3, 40), r"never fell below 1\.205, its value at rate 2\.51e-04"),
        (np.linspace(3, 1, 10), "diverged after 10 steps.* lower start"),
    ],
)
def test_a_curve_that_suggests_nothing_says_why_and_can_be_drawn(losses, message):
    matplotlib.use("agg")
    with pytest.raises(ValueError, match=message):
        curve_of(losses).suggest()
    assert len(curve_of(losses).plot().lines) == 2
    plt.close("all")


def test_the_plot_has_the_curves_the_suggestion_and_the_losses_that_matter():
    matplotlib.use("agg")
    given = np.array([4.0, 4.0, 5.0, 6.0, *np.linspace(4, 1, 18), 900.0])
    curve = RangeTest(np.geomspace(1e-3, 1, 23), given, np.clip(given, 1.0, 4.0), True)
    ax = curve.plot()
    losses, smoothed, suggested = ax.lines
    np.testing.assert_array_equal(losses.get_ydata(), curve.losses)
    np.testing.assert_array_equal(smoothed.get_ydata(), curve.smoothed)
    np.testing.assert_array_equal(smoothed.get_xdata(), curve.rates)
    assert np.asarray(suggested.get_xdata())[0] == curve.suggest().rate
    assert ax.get_xscale() == "log"
    # Up to the highest of the first tenth, and a twentieth more on both sides.
    np.testing.assert_allclose(ax.get_ylim(), (0.8, 5.2), rtol=1e-6)
    assert curve.plot(ax) is ax
    plt.close("all")


# Models of brainstate


class Training:
    """A model with dropout, whose step also steps the scheduler, if it is one of ours."""

    def __init__(self, lr, optimizer=braintools.optim.Adam, dropout=0.2):
        brainstate.random.seed(0)
        self.first = brainstate.nn.Linear(4, 16)
        self.dropout = brainstate.nn.Dropout(1 - dropout)
        self.second = brainstate.nn.Linear(16, 2)
        self.weights = {
            name: getattr(self, name).states(brainstate.ParamState)["weight",]
            for name in ("first", "second")
        }
        self.optimizer = optimizer(lr=lr)
        self.register()

    def register(self):
        self.optimizer.register_trainable_weights(self.weights)

    def loss(self, batch):
        x, y = batch
        with brainstate.environ.context(fit=True):
            hidden = self.dropout(jnp.tanh(self.first(x)))
        return ((self.second(hidden) - y) ** 2).mean()

    def update(self, batch):
        gradients = brainstate.transform.grad(self.loss, self.weights, return_value=True)
        gradients, loss = gradients(batch)
        self.optimizer.step(gradients)
        return loss

    def step(self, batch):
        loss = self.update(batch)
        if isinstance(self.optimizer.lr, brainsched.LRScheduler):
            self.optimizer.lr.step()
        return loss

    def states(self):
        found = brainstate.transform.StatefulFunction(self.step).get_states(BATCHES[0])
        return [*found, brainstate.random.DEFAULT]


class TwoGroups(Training):
    def register(self):
        self.optimizer.register_trainable_weights({"first": self.weights["first"]})
        self.optimizer.add_param_group({"second": self.weights["second"]})


def bits(states):
    return [[bits_of(leaf) for leaf in jax.tree.leaves(state.value)] for state in states]


def bits_of(leaf):
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf).dtype, np.asarray(leaf).tobytes()


def schedule():
    return brainsched.CosineAnnealingLR(0.01, T_max=10)


@pytest.mark.parametrize(
    ("lr", "compiled"), [(schedule(), True), (schedule(), False), (0.01, False)]
)
def test_a_run_goes_on_as_if_the_test_had_not_been(lr, compiled, compilations):
    training = Training(lr)
    step = brainstate.transform.jit(training.step)
    for batch in BATCHES[:3]:  # so that moments, keys and position are somewhere
        step(batch)
    states = training.states()
    before, values = bits(states), [state.value for state in states]
    curve = lr_range_test(step if compiled else training.step, BATCHES, training.optimizer)
    assert len(curve.losses) > 50
    assert bits(states) == before
    assert all(state.value is value for state, value in zip(states, values, strict=True))
    compilations.clear()
    step(BATCHES[3])
    assert compilations == []


def test_where_compilation_is_disabled_the_states_are_left_alone_too():
    training = Training(schedule())
    states = training.states()
    before = bits(states)
    with jax.disable_jit():
        lr_range_test(training.step, BATCHES, training.optimizer, steps=20)
    assert bits(states) == before


@pytest.mark.parametrize(("lr", "optimizer"), [(schedule(), "Adam"), (0.5, "SGD")])
def test_the_curve_is_that_of_a_loop_over_steps_by_hand(lr, optimizer):
    training = Training(lr, getattr(braintools.optim, optimizer), dropout=0.0)
    curve = lr_range_test(training.step, BATCHES, training.optimizer, start=1e-4, steps=30)
    step = brainstate.transform.jit(training.step)
    for i, expected in enumerate(curve.losses[:20]):
        training.optimizer.current_lr = 1e-4 * (10 / 1e-4) ** (i / 29)
        np.testing.assert_allclose(step(BATCHES[i % 8]), expected, rtol=1e-3)


@pytest.mark.parametrize(
    ("lr", "share"),
    [
        # At rate 0 now, and with a base rate that waits for its group.
        (brainsched.PiecewiseConstantSchedule([0.1, 0.02, 0.3], [5], [0.0, 1.0]), 0.2),
        (1e-3, 1.0),
    ],
)
def test_other_groups_keep_their_proportion_to_the_first(lr, share):
    training = TwoGroups(lr, dropout=0.0)
    seen = []

    def step(batch):
        loss = training.update(batch)
        rates = [group["lr"].value for group in training.optimizer.param_groups]
        first = training.optimizer.lr_scheduler.current_lrs.value[0]
        jax.debug.callback(lambda *each: seen.append(each), first, rates[1], ordered=True)
        return loss

    curve = lr_range_test(step, BATCHES, training.optimizer, start=1e-5, end=1e-2, steps=10)
    first, second = np.transpose([tuple(map(float, rates)) for rates in seen])
    np.testing.assert_allclose(first, curve.rates, rtol=1e-6)
    np.testing.assert_allclose(second, share * curve.rates, rtol=1e-6)


@pytest.mark.slow
def test_it_suggests_a_rate_that_trains_better_than_one_far_from_it():
    training = Training(1e-3, braintools.optim.SGD, dropout=0.0)
    rate = lr_range_test(training.step, BATCHES, training.optimizer).suggest().rate

    def trained_at(rate):
        step = brainstate.transform.jit(Training(rate, braintools.optim.SGD, dropout=0.0).step)
        return np.mean([float(step(batch)) for _ in range(6) for batch in BATCHES][-8:])

    losses = {factor: trained_at(factor * rate) for factor in (0.03, 1.0, 100.0)}
    assert losses[1.0] < losses[0.03]
    assert not losses[1.0] >= losses[100.0]


# Mistakes


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"optimizer": optax.sgd(0.1)}, TypeError, "not callable"),
        ({"optimizer": lambda rate: optax.sgd(0.1)}, ValueError, "optimizer does not use its rate"),
        (
            {"loss_and_grad": jax.value_and_grad(lambda w, b: (w, b), has_aux=True)},
            TypeError,
            "a real scalar, returned alone, got ",
        ),
        ({"batches": []}, ValueError, "batches is empty"),
        (
            {"batches": [jnp.ones(4), jnp.ones(4), jnp.ones(3)]},
            ValueError,
            "must have the same shape",
        ),
        ({"start": 0.0}, ValueError, "start must be above 0 and below end"),
        ({"start": 1.0, "end": 1.0}, ValueError, r"got start=1\.0 and end=1\.0"),
        ({"end": "10"}, TypeError, "end must be a number, got '10'"),
        ({"steps": 9}, ValueError, "steps must be an integer from 10"),
        ({"smoothing": 1.0}, ValueError, r"smoothing must be a number in \[0, 1\)"),
        ({"divergence": 1.0}, ValueError, r"divergence must be a number in \(1, inf\)"),
        ({"params": jnp.asarray(np.nan)}, ValueError, "before any update, is nan"),
    ],
)
def test_a_bad_argument_is_named(changed, error, message):
    given = {"loss_and_grad": SQUARE, "params": ONE, "batches": [ONE], "optimizer": optax.sgd}
    with pytest.raises(error, match=message):
        lr_range_test_optax(**{**given, **changed})


def another_optimizer(training):
    return brainstate.transform.jit(Training(0.1).step)


def steps_the_scheduler_first(training):
    return lambda batch: (training.optimizer.lr.step(), training.update(batch))[1]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda training: training.loss, ValueError, "must call optimizer.step"),
        (another_optimizer, ValueError, "at the rate of optimizer"),
        (steps_the_scheduler_first, ValueError, "before scheduler.step"),
        (
            lambda training: brainstate.transform.jit(steps_the_scheduler_first(training)),
            ValueError,
            "before scheduler.step",
        ),
        (lambda training: lambda batch: (training.step(batch), None)[1], TypeError, "got None"),
        (lambda training: lambda batch: training.step(batch) * jnp.ones(16), TypeError, r"\(16,\)"),
        (lambda training: lambda batch: training.step(batch).of_the_user, AttributeError, "of_the"),
    ],
)
def test_a_mistake_in_the_step_is_named_and_leaves_the_states_as_they_were(make, error, message):
    training = Training(schedule())
    states = training.states()
    before = bits(states)
    with pytest.raises(error, match=message):
        lr_range_test(make(training), BATCHES, training.optimizer)
    assert bits(states) == before


def test_a_group_whose_rate_is_fixed_is_refused():
    training = Training(1e-3)
    training.optimizer.add_param_group({"bias": brainstate.ParamState(ONE)}, lr=2e-4)
    with pytest.raises(ValueError, match="param group added with lr=: use a brainsched scheduler"):
        lr_range_test(training.step, BATCHES, training.optimizer)


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="method must be one of 'valley', 'steepest'"):
        curve_of(np.linspace(3, 1, 40)).suggest("minimum")
