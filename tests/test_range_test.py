"""The learning-rate range test on pure functions: its curve, where it ends, what it suggests."""

import dataclasses
import inspect
import itertools

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
import pytest
from matplotlib import pyplot as plt

from brainsched import RangeTest, StepLR, lr_range_test, lr_range_test_optax

SQUARE = jax.value_and_grad(lambda weight, batch: (batch * weight) ** 2)


@pytest.fixture(autouse=True)
def _no_screen():
    matplotlib.use("agg")
    yield
    plt.close("all")


def square_test(batches=(1.0,), start=1e-3, end=10.0, steps=40, **kwargs):
    return lr_range_test_optax(
        SQUARE,
        jnp.ones(()),
        (jnp.asarray(batch, jnp.float32) for batch in batches),
        optax.sgd,
        start=start,
        end=end,
        steps=steps,
        **kwargs,
    )


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


@pytest.mark.parametrize("batches", [(1.0,), (1.0, 0.5, 2.0)])
@pytest.mark.parametrize(("smoothing", "divergence"), [(0.98, 4.0), (0.5, 4.0), (0.0, 1.5)])
def test_the_curve_is_that_of_training_at_rising_rates(batches, smoothing, divergence):
    curve = square_test(batches, smoothing=smoothing, divergence=divergence)
    expected = by_hand(batches, 1e-3, 10.0, 40, smoothing, divergence)
    assert len(expected[0]) < 40
    assert curve.diverged
    np.testing.assert_allclose(curve.rates, expected[0], rtol=1e-6)
    np.testing.assert_allclose(curve.losses, expected[1], rtol=1e-3, atol=1e-9)
    np.testing.assert_allclose(curve.smoothed, expected[2], rtol=1e-3)


def test_the_rates_rise_by_equal_factors_from_start_to_end():
    curve = square_test(start=1e-4, end=1e-2, steps=11)
    assert not curve.diverged
    assert (curve.rates[0], curve.rates[-1]) == (np.float32(1e-4), np.float32(1e-2))
    np.testing.assert_allclose(curve.rates[1:] / curve.rates[:-1], 10**0.2, rtol=1e-6)


def test_it_ends_where_the_loss_is_not_finite():
    def loss(weight, batch):
        return jnp.where(batch > 0, jnp.log(batch) * 0 + weight * 0 + 1, jnp.inf)

    batches = [jnp.ones(())] * 7 + [jnp.zeros(())] + [jnp.ones(())] * 20
    curve = lr_range_test_optax(jax.value_and_grad(loss), jnp.ones(()), batches, optax.sgd)
    assert curve.diverged
    assert curve.losses.tolist() == [1.0] * 7


def test_a_loss_below_zero_does_not_count_as_diverged_while_it_falls():
    loss = jax.value_and_grad(lambda weight, batch: -3.0 + batch * weight)
    curve = lr_range_test_optax(loss, jnp.ones(()), [jnp.ones(())], optax.sgd, end=1e-2)
    assert not curve.diverged
    assert curve.losses[0] == -2.0


def test_one_compiled_loop_runs_it_and_calls_python_no_more(compilations):
    calls = []

    def loss(weight, batch):
        calls.append(weight)
        return (batch * weight) ** 2

    lr_range_test_optax(jax.value_and_grad(loss), jnp.ones(()), [jnp.ones(())], optax.sgd)
    assert compilations.count("jit(sweep)") + compilations.count("sweep") == 1
    assert all(isinstance(weight, jax.core.Tracer) for weight in calls)
    assert len(calls) < 6


def test_batches_may_be_an_endless_generator_of_which_no_more_is_taken_than_needed():
    count = itertools.count()
    square_test((1.0 for _ in count), steps=12)
    assert next(count) == 12


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.adam,
        lambda rate: optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate)),
        lambda rate: optax.inject_hyperparams(optax.adam)(learning_rate=rate),
        lambda rate: optax.chain(optax.scale_by_adam(), optax.scale_by_learning_rate(rate)),
    ],
    ids=["adam", "chain", "inject_hyperparams", "scale_by_learning_rate"],
)
def test_every_way_of_optax_to_take_a_rate_works(optimizer):
    curve = lr_range_test_optax(SQUARE, jnp.ones(()), [jnp.ones(())], optimizer, steps=30)
    # The first update of Adam is the rate itself, whatever the gradient.
    assert curve.losses[1] == pytest.approx((1 - 1e-7) ** 2, rel=1e-6)
    assert curve.losses[20] < 0.99


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64, jnp.bfloat16])
def test_it_runs_with_64_bit_types_enabled_on_parameters_of_any_precision(dtype):
    with jax.enable_x64(True):
        one = jnp.ones((), dtype)
        curve = lr_range_test_optax(SQUARE, one, [one], optax.adam, steps=20)
    assert curve.rates.dtype == np.float64
    assert curve.losses[0] == 1.0
    assert np.isfinite(curve.smoothed).all()


# Suggestions


def longest_fall_by_hand(losses):
    """Return the ends of the longest falling subsequence's stretch, by comparing all pairs."""
    lengths: list[int] = []
    for i, loss in enumerate(losses):
        before = [lengths[j] for j in range(i) if losses[j] > loss]
        lengths.append(1 + max(before, default=0))
    last = int(np.argmax(lengths))
    return last - max(lengths) + 1, last


@pytest.mark.parametrize("seed", range(5))
def test_the_valley_is_the_middle_of_the_longest_fall(seed):
    noise = np.random.default_rng(seed).normal(size=100)
    losses = (10.0 - np.linspace(0, 3, 100) ** 2 + noise).astype(np.float32)
    rates = np.geomspace(1e-7, 10, 100).astype(np.float32)
    suggestion = RangeTest(rates, losses, losses, False).suggest()
    kept = losses[10:-5].astype(np.float64)
    begin, end = longest_fall_by_hand(kept)
    flat = kept[begin] - 0.01 * (kept[begin] - kept[end])
    begin = next(i for i in range(begin, end + 1) if kept[i] <= flat)
    assert suggestion.rate == rates[10:-5][(begin + end) // 2]
    assert suggestion.method == "valley"
    assert f"at rate {rates[10 + begin]:.2e}" in suggestion.reason
    assert f"at rate {rates[10 + end]:.2e}" in suggestion.reason


def curve_of(losses, diverged=True):
    losses = np.asarray(losses, np.float32)
    rates = np.geomspace(1e-4, 1e-4 * 10 ** ((len(losses) - 1) / 10), len(losses))
    return RangeTest(rates.astype(np.float32), losses, losses, diverged)


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
        (np.linspace(1, 3, 40), r"never fell below 1\.205, where it was at rate 2\.51e-04"),
        (np.linspace(3, 1, 10), "diverged after 10 steps.* lower start"),
    ],
)
def test_a_curve_that_suggests_nothing_says_why_and_can_be_drawn(losses, message):
    curve = curve_of(losses)
    with pytest.raises(ValueError, match=message):
        curve.suggest()
    assert len(curve.plot().lines) == 2


def test_five_steps_are_enough_to_read_a_rate_from():
    # Of eleven steps, the first one and the last five are left out.
    suggestion = curve_of(np.linspace(3, 1, 11)).suggest()
    assert 1e-4 * 10**0.1 < suggestion.rate < 1e-4 * 10**0.5
    with pytest.raises(ValueError, match="diverged after 10 steps"):
        curve_of(np.linspace(3, 1, 10)).suggest()


def test_a_hundredth_of_the_fall_is_left_out_of_the_valley():
    # It falls from 100 to 0, by 1 in the first of its 101 steps, or not before the last one.
    even = [100.0] * 12 + list(np.arange(99.0, -1.0, -1.0)) + [0.0] * 6
    assert "from 99 at rate" in curve_of(even).suggest().reason
    late = [100.0] * 3 + list(100.0 - np.arange(1, 18) / 64) + [0.0] * 6
    curve = curve_of(late)
    assert curve.suggest().rate == curve.rates[-6]


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="method must be one of 'valley', 'steepest'"):
        curve_of(np.linspace(3, 1, 40)).suggest("minimum")


def test_the_plot_has_the_curves_and_the_suggestion():
    curve = square_test(steps=60)
    ax = curve.plot()
    losses, smoothed, suggested = ax.lines
    np.testing.assert_array_equal(losses.get_ydata(), curve.losses)
    np.testing.assert_array_equal(smoothed.get_xdata(), curve.rates)
    assert suggested.get_xdata()[0] == curve.suggest().rate
    assert ax.get_xscale() == "log"
    assert curve.plot(ax) is ax


@pytest.mark.parametrize(
    ("losses", "limits"),
    [
        # A twentieth of what is between the lowest and the highest beyond both.
        ([4.0, 4.0, 5.0, 6.0, *[4.0] * 13, 3.0, 1.0, 900.0], (0.8, 5.2)),
        ([2.0] * 20, (1.0, 3.0)),
    ],
)
def test_the_plot_shows_the_losses_that_matter(losses, limits):
    smoothed = np.clip(losses, 1.0, 4.0)
    curve = RangeTest(np.geomspace(1e-3, 1, len(losses)), np.array(losses), smoothed, False)
    np.testing.assert_allclose(curve.plot().get_ylim(), limits, rtol=1e-6)


def test_a_curve_equals_itself_alone_and_cannot_be_changed():
    curve = square_test(steps=20)
    assert curve == curve
    assert curve != dataclasses.replace(curve)
    with pytest.raises(dataclasses.FrozenInstanceError):
        curve.diverged = True
    with pytest.raises(dataclasses.FrozenInstanceError):
        curve.suggest().rate = 0.1


@pytest.mark.parametrize("function", [lr_range_test, lr_range_test_optax])
def test_the_defaults_are_those_documented(function):
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is not parameter.empty
    }
    assert defaults == {
        "start": 1e-7,
        "end": 10.0,
        "steps": 100,
        "smoothing": 0.98,
        "divergence": 4.0,
    }


# Mistakes


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"optimizer": optax.sgd(0.1)}, TypeError, "function of the learning rate, as optax.adam"),
        ({"optimizer": StepLR(0.1)}, TypeError, "got a StepLR, whose rate is fixed"),
        ({"optimizer": 0.1}, TypeError, r"as optax\.adam is, got 0\.1"),
        ({"optimizer": lambda rate: optax.sgd(0.1)}, ValueError, "does not use the learning rate"),
        (
            {"loss_and_grad": lambda weight, batch: weight},
            TypeError,
            r"give jax\.value_and_grad\(loss\)",
        ),
        (
            {"loss_and_grad": jax.value_and_grad(lambda w, b: (w, b), has_aux=True)},
            TypeError,
            "must return the loss alone",
        ),
        (
            {"loss_and_grad": lambda weight, x, y: None},
            TypeError,
            r"give lambda params, batch: loss_and_grad\(params, \*batch\)",
        ),
        ({"loss_and_grad": 3}, TypeError, "must be a function of params and batch, got 3"),
        ({"batches": []}, ValueError, "batches is empty: a generator that was used"),
        ({"batches": {"x": jnp.ones(3)}}, TypeError, r"a single batch is \[batch\]"),
        ({"batches": jnp.ones(())}, TypeError, r"a single batch is \[batch\]"),
        (
            {"optimizer": lambda rate: optax.sgd(0.1 * rate)},
            TypeError,
            r"must hand on the learning rate as it is, since it is a schedule here, .*function",
        ),
        ({"batches": 1.0}, TypeError, r"got one float: a single batch is \[batch\]"),
        (
            {"batches": [jnp.ones(4), jnp.ones(4), jnp.ones(3)]},
            ValueError,
            r"batches\[2\] has other shapes .* last batch that is smaller",
        ),
        ({"batches": (jnp.ones((4, 2)), jnp.ones(4))}, ValueError, r"\[\(x, y\)\]"),
        ({"batches": ["abc"]}, TypeError, "batches must hold arrays, got 'abc'"),
        ({"start": 0.0}, ValueError, "start must be above 0 and below end"),
        ({"start": 1.0, "end": 0.1}, ValueError, r"got start=1\.0 and end=0\.1"),
        ({"start": 1.0, "end": 1.0}, ValueError, r"got start=1\.0 and end=1\.0"),
        (
            {"loss_and_grad": lambda weight, batch: (weight, weight, weight)},
            TypeError,
            r"give jax\.value_and_grad\(loss\)",
        ),
        ({"end": "10"}, TypeError, "end must be a number, got '10'"),
        ({"steps": 5}, ValueError, "steps must be an integer from 10"),
        ({"steps": 100.0}, TypeError, "steps must be an integer, got 100.0"),
        ({"smoothing": 1.0}, ValueError, r"smoothing must be a number in \[0, 1\)"),
        ({"divergence": 1.0}, ValueError, "divergence must be above 1"),
        ({"params": jnp.asarray(np.nan)}, ValueError, "before any update, is nan"),
    ],
)
def test_a_mistake_is_named_with_its_cure(changed, error, message):
    given = {
        "loss_and_grad": SQUARE,
        "params": jnp.ones(()),
        "batches": [jnp.ones(())],
        "optimizer": optax.sgd,
    }
    with pytest.raises(error, match=message):
        lr_range_test_optax(**{**given, **changed})
