"""The learning-rate range test on models of brainstate and Flax, under braintools' optimizers."""

import brainstate
import braintools
import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import brainsched
from brainsched import lr_range_test, lr_range_test_optax

RANDOM = np.random.default_rng(0)
INPUTS = RANDOM.normal(size=(8, 16, 4)).astype(np.float32)
TARGETS = (INPUTS @ RANDOM.normal(size=(4, 2))).astype(np.float32)
BATCHES = list(zip(INPUTS, TARGETS, strict=True))


class Training:
    """A model with dropout, whose step also steps the scheduler, if it is one of ours."""

    def __init__(self, lr, optimizer=braintools.optim.Adam, rate_of_dropout=0.2):
        brainstate.random.seed(0)
        self.first = brainstate.nn.Linear(4, 16)
        self.dropout = brainstate.nn.Dropout(1 - rate_of_dropout)
        self.second = brainstate.nn.Linear(16, 2)
        self.weights = {
            ("first",): self.first.states(brainstate.ParamState)["weight",],
            ("second",): self.second.states(brainstate.ParamState)["weight",],
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
        gradients, loss = brainstate.transform.grad(self.loss, self.weights, return_value=True)(
            batch
        )
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
        first, second = self.weights
        self.optimizer.register_trainable_weights({first: self.weights[first]})
        self.optimizer.add_param_group({second: self.weights[second]})


def bits(states):
    return [[bits_of(leaf) for leaf in jax.tree.leaves(state.value)] for state in states]


def bits_of(leaf):
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf).dtype, np.asarray(leaf).tobytes()


def schedule():
    return brainsched.CosineAnnealingLR(0.01, T_max=10)


@pytest.mark.parametrize("make", [schedule, lambda: 0.01], ids=["ours", "plain_rate"])
@pytest.mark.parametrize("compiled", [False, True])
def test_every_state_has_its_bits_afterwards_moments_and_random_key_included(make, compiled):
    training = Training(make())
    step = brainstate.transform.jit(training.step)
    for batch in BATCHES[:3]:  # so that moments, keys and position are somewhere
        step(batch)
    states = training.states()
    assert len(states) >= 6
    before, values = bits(states), [state.value for state in states]
    curve = lr_range_test(step if compiled else training.step, BATCHES, training.optimizer)
    assert len(curve.losses) > 50
    assert bits(states) == before
    assert all(state.value is value for state, value in zip(states, values, strict=True))


def test_a_run_goes_on_as_if_the_test_had_not_been(compilations):
    runs = []
    for tested in (False, True):
        training = Training(schedule())
        step = brainstate.transform.jit(training.step)
        losses = [float(step(batch)) for batch in BATCHES[:4]]
        if tested:
            lr_range_test(step, BATCHES, training.optimizer)
        compilations.clear()
        losses += [float(step(batch)) for batch in BATCHES[4:]]
        assert compilations == []
        runs.append((losses, bits(training.states())))
    assert runs[0] == runs[1]


def test_a_step_that_raises_leaves_the_states_as_they_were():
    training = Training(schedule())
    states = training.states()
    before = bits(states)

    def fails(batch):
        training.step(batch)
        raise RuntimeError("of the user")

    with pytest.raises(RuntimeError, match="of the user"):
        lr_range_test(fails, BATCHES, training.optimizer)
    assert bits(states) == before


def test_where_compilation_is_disabled_the_states_are_left_alone_too():
    training = Training(schedule())
    states = training.states()
    before = bits(states)
    with jax.disable_jit():
        lr_range_test(training.step, BATCHES, training.optimizer, steps=20)
    assert bits(states) == before


@pytest.mark.parametrize("make", [schedule, lambda: 0.5], ids=["ours", "plain_rate"])
@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_the_curve_is_that_of_optax_and_of_a_loop_over_steps_by_hand(make, optimizer):
    training = Training(make(), getattr(braintools.optim, optimizer), rate_of_dropout=0.0)
    curve = lr_range_test(training.step, BATCHES, training.optimizer, start=1e-4, steps=30)

    def loss(params, batch):
        x, y = batch
        hidden = jnp.tanh(x @ params["first",]["weight"] + params["first",]["bias"])
        return ((hidden @ params["second",]["weight"] + params["second",]["bias"] - y) ** 2).mean()

    params = {name: state.value for name, state in training.weights.items()}
    same = lr_range_test_optax(
        jax.value_and_grad(loss),
        params,
        BATCHES,
        getattr(optax, optimizer.lower()),
        start=1e-4,
        steps=30,
    )
    assert len(same.losses) == len(curve.losses)
    np.testing.assert_allclose(curve.losses, same.losses, rtol=1e-3)

    step = brainstate.transform.jit(training.step)
    for i, expected in enumerate(curve.losses[:20]):
        training.optimizer.current_lr = 1e-4 * (10 / 1e-4) ** (i / 29)
        np.testing.assert_allclose(step(BATCHES[i % 8]), expected, rtol=1e-3)


def test_other_groups_keep_their_proportion_to_the_first():
    training = TwoGroups(brainsched.ConstantLR([0.1, 0.02], factor=0.5), rate_of_dropout=0.0)
    seen = []

    def step(batch):
        loss = training.update(batch)
        jax.debug.callback(
            lambda *rates: seen.append(rates),
            *(group["lr"].value for group in training.optimizer.param_groups),
            ordered=True,
        )
        return loss

    curve = lr_range_test(step, BATCHES, training.optimizer, start=1e-5, end=1e-2, steps=10)
    assert not curve.diverged
    first, second = np.transpose([tuple(map(float, rates)) for rates in seen])
    np.testing.assert_allclose(first, curve.rates, rtol=1e-6)
    np.testing.assert_allclose(second, 0.2 * curve.rates, rtol=1e-6)


def test_base_rates_of_groups_that_were_not_added_play_no_part():
    optimizer = braintools.optim.SGD(lr=brainsched.StepLR([0.1, 0.02, 0.3]))
    weights = {"first": brainstate.ParamState(jnp.zeros(2))}
    optimizer.register_trainable_weights(weights)

    def step(batch):
        loss = (weights["first"].value ** 2).sum()
        optimizer.step({"first": jnp.ones(2)})
        return loss

    lr_range_test(step, [np.ones(1)], optimizer, start=1e-5, end=1e-2, steps=10)
    assert optimizer.get_last_lr() == [np.float32(0.1)]


@pytest.mark.parametrize(("lr", "share"), [(None, 1.0), (2e-4, 0.2)])
def test_groups_of_an_optimizer_without_a_scheduler_of_ours_keep_their_proportion_too(lr, share):
    weights = {key: brainstate.ParamState(jnp.zeros(2)) for key in ("first", "second")}
    optimizer = braintools.optim.Adam(lr=1e-3)
    optimizer.register_trainable_weights({"first": weights["first"]})
    optimizer.add_param_group({"second": weights["second"]}, **({} if lr is None else {"lr": lr}))
    moves = []

    def step(batch):
        before = [weight.value for weight in weights.values()]
        optimizer.step(dict.fromkeys(weights, jnp.ones(2)))
        after = [weight.value for weight in weights.values()]
        moved = [(b - a)[0] for b, a in zip(before, after, strict=True)]
        jax.debug.callback(lambda *each: moves.append(each), *moved, ordered=True)
        return batch.sum()

    curve = lr_range_test(step, [np.ones(1)], optimizer, start=0.5, end=1.0, steps=10)
    # Under a gradient that stays the same, Adam moves each parameter by the rate.
    expected = np.stack([curve.rates, share * curve.rates], axis=1)
    np.testing.assert_allclose(moves, expected, rtol=1e-3)
    assert optimizer.current_lr == np.float32(1e-3)


@pytest.mark.slow
def test_it_suggests_a_rate_that_trains_better_than_one_far_from_it():
    training = Training(1e-3, braintools.optim.SGD, rate_of_dropout=0.0)
    rate = lr_range_test(training.step, BATCHES, training.optimizer).suggest().rate

    def trained_at(rate):
        fresh = Training(rate, braintools.optim.SGD, rate_of_dropout=0.0)
        step = brainstate.transform.jit(fresh.step)
        return np.mean([float(step(batch)) for _ in range(6) for batch in BATCHES][-8:])

    losses = {factor: trained_at(factor * rate) for factor in (0.03, 1.0, 100.0)}
    assert losses[1.0] < losses[0.03]
    assert not losses[1.0] >= losses[100.0]


# Flax


def test_a_model_of_linen():
    model = flax.linen.Dense(2)
    params = model.init(jax.random.key(0), INPUTS[0])

    def loss(params, batch):
        x, y = batch
        return ((model.apply(params, x) - y) ** 2).mean()

    curve = lr_range_test_optax(jax.value_and_grad(loss), params, BATCHES, optax.adam)
    assert 1e-4 < curve.suggest().rate < 1


def test_a_model_of_nnx_with_dropout_is_left_as_it_was():
    model = nnx.Sequential(
        nnx.Linear(4, 16, rngs=nnx.Rngs(0)),
        nnx.Dropout(0.2, rngs=nnx.Rngs(1)),
        nnx.Linear(16, 2, rngs=nnx.Rngs(2)),
    )
    graph, params, rest = nnx.split(model, nnx.Param, ...)  # type: ignore[misc]  # the stub of Flax

    def loss(params, batch):
        x, y = batch
        return ((nnx.merge(graph, params, rest, copy=True)(x) - y) ** 2).mean()

    def state():
        return jax.tree.map(bits_of, nnx.to_pure_dict(nnx.state(model)))

    before = state()
    curve = lr_range_test_optax(jax.value_and_grad(loss), params, BATCHES, optax.adamw)
    assert 1e-4 < curve.suggest().rate < 1
    assert state() == before


# Mistakes


def no_update(training):
    return training.loss


def another_optimizer(training):
    other = braintools.optim.SGD(lr=0.1)
    other.register_trainable_weights(training.weights)

    def step(batch):
        gradients, loss = brainstate.transform.grad(
            training.loss, training.weights, return_value=True
        )(batch)
        other.step(gradients)
        return loss

    return brainstate.transform.jit(step)


def steps_the_scheduler_first(training):
    def step(batch):
        training.optimizer.lr.step()
        return training.step(batch)

    return step


def steps_the_scheduler_first_compiled(training):
    """Hands the rate to the compiled step, which does not calculate with it."""
    return brainstate.transform.jit(steps_the_scheduler_first(training))


def returns_nothing(training):
    def step(batch):
        training.step(batch)

    return step


def returns_more(training):
    return lambda batch: (training.step(batch), 0)


def returns_a_loss_of_each_example(training):
    return lambda batch: training.step(batch) * jnp.ones(16)


def takes_two(training):
    return lambda x, y: training.step((x, y))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (no_update, ValueError, "does not use the rate of this Adam.* call optimizer.step"),
        (another_optimizer, ValueError, "of this very optimizer"),
        (steps_the_scheduler_first, ValueError, "at the rate that the optimizer has"),
        (steps_the_scheduler_first_compiled, ValueError, "at the rate that the optimizer has"),
        (returns_nothing, TypeError, "must return the loss alone, a real scalar, not None"),
        (returns_more, TypeError, "must return the loss alone, a real scalar, not "),
        (returns_a_loss_of_each_example, TypeError, r"a real scalar, not float32\[16\]"),
        (takes_two, TypeError, r"give lambda batch: train_step\(\*batch\)"),
    ],
)
def test_a_mistake_in_the_step_is_named_with_its_cure(make, error, message):
    training = Training(schedule())
    states = training.states()
    before = bits(states)
    with pytest.raises(error, match=message):
        lr_range_test(make(training), BATCHES, training.optimizer)
    assert bits(states) == before


@pytest.mark.parametrize(
    "optimizer",
    [schedule(), optax.adam(0.1), braintools.optim.Adam],
    ids=["ours", "optax", "class"],
)
def test_another_thing_in_the_place_of_the_optimizer_is_refused(optimizer):
    training = Training(schedule())
    with pytest.raises(TypeError, match=r"optimizer must be an OptaxOptimizer .*, got "):
        lr_range_test(training.step, BATCHES, optimizer)


def test_a_single_group_needs_no_positive_base_rate():
    training = Training(brainsched.ConstantLR(0.0), rate_of_dropout=0.0)
    curve = lr_range_test(training.step, BATCHES, training.optimizer, steps=20)
    same = Training(brainsched.ConstantLR(0.1), rate_of_dropout=0.0)
    expected = lr_range_test(same.step, BATCHES, same.optimizer, steps=20)
    np.testing.assert_array_equal(curve.losses, expected.losses)


def test_groups_without_a_proportion_to_the_first_are_refused():
    training = TwoGroups(brainsched.ConstantLR([0.0, 0.02]))
    with pytest.raises(ValueError, match="base rate of the first param group is 0"):
        lr_range_test(training.step, BATCHES, training.optimizer)
