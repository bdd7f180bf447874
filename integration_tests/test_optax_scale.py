"""What multiplies a schedule: a scale written by hand, and a plateau of a metric."""

import brainstate
import braintools
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx

from brainsched import (
    PiecewiseConstantSchedule,
    ReduceLROnPlateau,
    StepLR,
    WarmupCosineSchedule,
    rates_by_name,
    scale_by_scheduler,
)

ONES = {"body": jnp.ones(()), "head": jnp.ones(())}
GROUPS = {"head": "head", "*": "body"}
LOSSES = [4.0, 3.0, 3.0, 3.0, 3.0, 2.0, 2.0, 2.0, 2.0, 2.0]


def two_groups():
    return PiecewiseConstantSchedule({"body": 0.5, "head": 0.25}, [4], [1.0, 0.5])


def step(tx, state, **more):
    updates, state = jax.jit(tx.update)(ONES, state, ONES, **more)
    moved = [-float(updates[name]) for name in ("body", "head")]
    reported = [float(rate) for rate in rates_by_name(state, two_groups()).values()]
    assert moved == reported
    return moved, state


# By hand


def test_a_scale_multiplies_the_rates_from_the_next_update_on_until_it_is_written_again(
    compilations,
):
    tx = optax.chain(optax.identity(), scale_by_scheduler(two_groups(), GROUPS))
    state = tx.init(ONES)
    assert optax.tree_utils.tree_get(state, "learning_rate_scale") == 1.0
    rates = []
    del compilations[:]
    for update in range(6):
        if update in (1, 3):
            scale = jnp.float32({1: 0.5, 3: 2.0}[update])
            state = optax.tree_utils.tree_set(state, learning_rate_scale=scale)
        found, state = step(tx, state)
        rates.append(found)
    body = [0.5, 0.25, 0.25, 1.0, 0.5, 0.5]  # the second stage, at half the rate, begins with 4
    assert rates == [[rate, rate / 2] for rate in body]
    assert optax.tree_utils.tree_get(state, "scheduled_learning_rate").tolist() == [0.25, 0.125]


def test_a_scale_may_be_a_number_of_python_or_one_for_each_group():
    tx = scale_by_scheduler(two_groups(), GROUPS)
    for scale, expected in [(0.5, [0.25, 0.125]), (jnp.array([1.0, 2.0]), [0.5, 0.5])]:
        found, state = step(tx, optax.tree_utils.tree_set(tx.init(ONES), learning_rate_scale=scale))
        assert found == expected
        assert step(tx, state)[0] == expected


def test_a_scale_can_be_written_into_the_optimizer_of_nnx():
    model = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    scheduler = StepLR(0.5, 100)
    tx = optax.chain(optax.identity(), scale_by_scheduler(scheduler, {"*": 0}))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def train_step(model, optimizer):
        gradient = nnx.grad(lambda model: model.kernel.sum())(model)  # 1 for each
        optimizer.update(model, gradient)

    before = model.kernel[...]
    train_step(model, optimizer)
    optax.tree_utils.tree_get(optimizer.opt_state, "learning_rate_scale")[...] = 0.5
    train_step(model, optimizer)
    np.testing.assert_allclose(model.kernel[...], before - 0.75, rtol=1e-6)
    assert rates_by_name(optimizer.opt_state, scheduler)["0"] == 0.25


def test_a_scale_is_kept_in_checkpoints(tmp_path):
    tx = scale_by_scheduler(two_groups(), GROUPS)
    state = optax.tree_utils.tree_set(tx.init(ONES), learning_rate_scale=jnp.float32(0.5))
    through_flax = flax.serialization.from_bytes(tx.init(ONES), flax.serialization.to_bytes(state))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        through_orbax = checkpointer.restore(tmp_path / "state", tx.init(ONES))
    for restored in (through_flax, through_orbax):
        assert step(tx, restored)[0] == [0.25, 0.125]


def test_in_braintools_a_scale_is_written_into_the_state_of_the_optimizer():
    states = {name: brainstate.ParamState(jnp.zeros(())) for name in ONES}
    optimizer = braintools.optim.OptaxOptimizer(tx=scale_by_scheduler(two_groups(), GROUPS))
    optimizer.register_trainable_weights(states)
    train_step = brainstate.transform.jit(lambda: optimizer.step(ONES))
    train_step()
    state = optax.tree_utils.tree_set(optimizer.opt_state.value, learning_rate_scale=0.5)
    optimizer.opt_state.value = state
    train_step()
    assert states["body"].value == -0.75


@pytest.mark.parametrize("transform", [lambda update: update, jax.jit])
def test_a_negative_scale_or_multiplier_counts_as_0_and_never_climbs(transform):
    backwards = optax.scale(-1.0)
    scaled = scale_by_scheduler(two_groups(), GROUPS)
    multiplied = scale_by_scheduler(two_groups(), GROUPS, multiplier=backwards)
    scale = jnp.array([1.0, -0.5])
    state = optax.tree_utils.tree_set(scaled.init(ONES), learning_rate_scale=scale)
    updates, _ = transform(scaled.update)(ONES, state)
    assert updates == {"body": -0.5, "head": 0.0}
    updates, _ = transform(multiplied.update)(ONES, multiplied.init(ONES))
    assert updates == {"body": 0.0, "head": 0.0}


def test_a_scale_for_another_number_of_groups_is_refused():
    tx = scale_by_scheduler(StepLR(0.5), {"*": 0})
    state = optax.tree_utils.tree_set(tx.init(ONES), learning_rate_scale=jnp.ones(2))
    with pytest.raises(ValueError, match=r"scale must have the shape \(\) or \(1,\), got \(2,\)"):
        tx.update(ONES, state)


# A plateau, in optax


def by_hand(losses, patience):
    """Return factor**n at each update: halved when patience updates in a row were no better."""
    best, bad, factor, factors = np.inf, 0, 1.0, []
    for loss in losses:
        best, bad = (loss, 0) if loss < best else (best, bad + 1)
        if bad == patience:
            factor, bad = factor / 2, 0
        factors.append(factor)
    return factors


def plateau(**options):
    return optax.contrib.reduce_on_plateau(factor=0.5, patience=2, rtol=0.0, atol=1e-6, **options)


def test_a_plateau_multiplies_any_schedule_and_the_product_is_reported():
    tx = optax.chain(
        optax.identity(), scale_by_scheduler(two_groups(), GROUPS, multiplier=plateau())
    )
    state = tx.init(ONES)
    rates = []
    for loss in LOSSES:
        found, state = step(tx, state, value=loss)
        rates.append(found[0])
    factors = by_hand(LOSSES, 2)
    assert factors == [1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125]
    assert rates == [
        stage * factor for stage, factor in zip([0.5] * 4 + [0.25] * 6, factors, strict=True)
    ]


def test_a_plateau_and_a_scale_multiply_and_both_are_kept_in_checkpoints():
    tx = scale_by_scheduler(two_groups(), GROUPS, multiplier=plateau())
    state = optax.tree_utils.tree_set(tx.init(ONES), learning_rate_scale=jnp.float32(2.0))
    for loss in LOSSES[:5]:
        _, state = step(tx, state, value=loss)
    saved = flax.serialization.to_bytes(state)
    state = flax.serialization.from_bytes(tx.init(ONES), saved)
    rates = []
    for loss in LOSSES[5:]:
        found, state = step(tx, state, value=loss)
        rates.append(found[0])
    assert rates == [0.25 * 2 * factor for factor in by_hand(LOSSES, 2)[5:]]


def test_a_plateau_looks_at_the_mean_of_an_epoch_where_it_accumulates():
    scheduler = WarmupCosineSchedule({"body": 0.5, "head": 0.25}, 2, 10)
    every = plateau(accumulation_size=3)
    tx = scale_by_scheduler(scheduler, GROUPS, steps_per_epoch=3, multiplier=every)
    state = tx.init(ONES)
    rates = []
    for loss in [1.0, 2.0, 3.0, 3.0, 2.0, 1.0, 2.0, 2.0, 2.0, 9.0]:  # three means of 2
        updates, state = jax.jit(tx.update)(ONES, state, value=loss)
        rates.append(-float(updates["body"]))
    schedule = scheduler.as_optax("body", steps_per_epoch=3)
    factors = [1.0] * 8 + [0.5] * 2
    assert rates == [float(schedule(n)) * factor for n, factor in enumerate(factors)]


def test_a_plateau_goes_through_the_optimizer_of_nnx():
    model = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    tx = optax.chain(
        optax.identity(), scale_by_scheduler(StepLR(0.5, 100), {"*": 0}, multiplier=plateau())
    )
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def train_step(model, optimizer, loss):
        gradient = nnx.grad(lambda model: model.kernel.sum())(model)
        optimizer.update(model, gradient, value=loss)

    before = model.kernel[...]
    for loss in [1.0, 1.0, 1.0]:
        train_step(model, optimizer, jnp.float32(loss))
    np.testing.assert_allclose(model.kernel[...], before - 1.25, rtol=1e-6)


def test_a_plateau_needs_its_metric():
    tx = scale_by_scheduler(two_groups(), GROUPS, multiplier=plateau())
    with pytest.raises(TypeError, match="value"):
        tx.update(ONES, tx.init(ONES))


# A plateau, in brainstate


@pytest.mark.parametrize("transform", [lambda f: f, brainstate.transform.jit])
def test_a_plateau_multiplies_a_schedule_under_brainstate(transform):
    """A scheduler of its own, of base rate 1.0 and in no optimizer, has the factor."""
    scheduler = two_groups()
    factor = ReduceLROnPlateau(base_lr=1.0, factor=0.5, patience=1, threshold_mode="abs")
    params = {name: brainstate.ParamState(jnp.zeros(())) for name in ONES}
    optimizer = braintools.optim.SGD(lr=scheduler)
    optimizer.register_trainable_weights(params)

    @transform
    def epoch(loss):
        optimizer.step(ONES)
        scheduler.step()
        factor.step(loss)
        scheduler.apply(lambda rate: rate * factor.get_last_lr()[0])

    before = 0.0
    moves = []
    for loss in LOSSES:
        epoch(jnp.float32(loss))
        moves.append(before - float(params["body"].value))
        before = float(params["body"].value)
    factors = [1.0, *by_hand(LOSSES, 2)[:-1]]  # the metric of an epoch counts from the next on
    stages = [0.5] * 4 + [0.25] * 6
    assert moves == [stage * factor for stage, factor in zip(stages, factors, strict=True)]
    saved = scheduler.state_dict(), factor.state_dict()
    resumed, again = two_groups(), ReduceLROnPlateau(1.0, "min", 0.5, 1, threshold_mode="abs")
    other = braintools.optim.SGD(lr=resumed)
    other.register_trainable_weights(params)
    resumed.load_state_dict(saved[0])
    again.load_state_dict(saved[1])
    assert resumed.get_last_lr() == scheduler.get_last_lr()
    assert again.get_last_lr() == factor.get_last_lr()
