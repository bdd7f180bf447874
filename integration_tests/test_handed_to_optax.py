"""A scheduler that is handed to optax itself goes downhill, or raises: never uphill."""

import brainstate
import braintools
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import brainsched
from brainsched import StepLR

PARAMS = {"w": jnp.ones(())}

MADE = {
    "sgd": optax.sgd,
    "sgd with momentum": lambda s: optax.sgd(s, momentum=0.9),
    "adamw": optax.adamw,
    "lion": optax.lion,
    "scale_by_learning_rate": optax.scale_by_learning_rate,
    "inject_hyperparams": lambda s: optax.inject_hyperparams(optax.sgd)(learning_rate=s),
    "join_schedules": lambda s: optax.sgd(
        optax.join_schedules([optax.constant_schedule(0.1), s], [0])
    ),
    "a lambda": lambda s: optax.sgd(lambda count: s(count)),
    "a chain": lambda s: optax.chain(optax.clip(1.0), optax.adam(s)),
}

made = pytest.mark.parametrize("make", MADE.values(), ids=MADE)
raises = pytest.raises(TypeError, match=r"would go uphill.*scheduler\.as_optax\(\)")


def schedulers():
    """Return one without an optimizer, and one that drives one."""
    attached = StepLR(0.1, 30)
    optimizer = braintools.optim.SGD(lr=attached)
    optimizer.register_trainable_weights({"w": brainstate.ParamState(jnp.ones(()))})
    return {"alone": StepLR(0.1, 30), "with an optimizer": attached}


@made
@pytest.mark.parametrize("which", ["alone", "with an optimizer"])
def test_it_raises_and_names_as_optax_wherever_the_update_runs(make, which):
    scheduler = schedulers()[which]

    def trained(params):
        tx = make(scheduler)
        updates, _ = tx.update(params, tx.init(params), params)
        return optax.apply_updates(params, updates)

    with raises:
        trained(PARAMS)  # eager
    with raises:
        jax.jit(trained)(PARAMS)  # built inside the compiled function
    with raises:
        brainstate.transform.jit(trained)(PARAMS)
    with raises:  # compiled alone; inject_hyperparams asks for the rate when the state is made
        tx = make(scheduler)
        state = tx.init(PARAMS)
        jax.jit(tx.update)(PARAMS, state, PARAMS)


@made
def test_it_raises_where_the_scheduler_itself_is_built_in_the_compiled_function(make):
    def update(params):
        tx = make(StepLR(0.1, 30))
        return tx.update(params, tx.init(params), params)

    with raises:
        jax.jit(update)(PARAMS)


@made
@pytest.mark.parametrize("transform", [lambda f: f, brainstate.transform.jit])
def test_it_raises_in_an_optimizer_of_braintools(make, transform):
    scheduler = StepLR(0.1, 30)
    with raises:
        optimizer = braintools.optim.OptaxOptimizer(tx=make(scheduler), lr=scheduler)
        optimizer.register_trainable_weights({"w": brainstate.ParamState(jnp.ones(()))})
        transform(lambda: optimizer.step({"w": jnp.ones(())}))()


@pytest.mark.parametrize("make", [optax.sgd, optax.adam, optax.adamw], ids=["sgd", "adam", "adamw"])
def test_as_optax_in_its_place_goes_downhill(make):
    def loss(params):
        return params["w"] ** 2

    params, tx = PARAMS, make(StepLR(0.1, 30).as_optax())
    state = tx.init(params)
    losses = [loss(params)]
    for _ in range(5):
        updates, state = jax.jit(tx.update)(jax.grad(loss)(params), state, params)
        params = optax.apply_updates(params, updates)
        losses.append(loss(params))
    assert losses == sorted(losses, reverse=True)


@pytest.mark.parametrize("transform", [lambda f: f, brainstate.transform.jit])
def test_scale_by_schedule_of_optax_takes_the_factor_of_a_scheduler_in_braintools(transform):
    scheduler = StepLR(0.5, 1, gamma=0.5)
    param = brainstate.ParamState(jnp.zeros(()))
    tx = optax.chain(optax.identity(), optax.scale_by_schedule(scheduler))
    optimizer = braintools.optim.OptaxOptimizer(tx=tx, lr=scheduler)
    optimizer.register_trainable_weights({"w": param})

    @transform
    def step():
        optimizer.step({"w": jnp.ones(())})
        scheduler.step()

    for expected in (-0.5, -0.75, -0.875):
        step()
        assert param.value == expected


def test_lr_at_in_the_place_of_a_rate_raises_and_names_as_optax():
    params = {"a": jnp.ones((3, 2))}
    tx = optax.sgd(brainsched.StepLR([0.1, 0.2]).lr_at)
    for update in (tx.update, jax.jit(tx.update)):
        with pytest.raises(TypeError, match=r"StepLR.lr_at in the place of a rate.*as_optax\(\)"):
            update(params, tx.init(params))
    own = optax.sgd(lambda count: brainsched.StepLR(0.5).lr_at(count)[0])
    updates, _ = own.update(params, own.init(params))
    assert (updates["a"] == -0.5).all()


def test_updates_are_not_stretched_twice():
    stretched = brainsched.PerUpdate(brainsched.StepLR(0.5), 10)
    with pytest.raises(ValueError, match="steps_per_epoch must be left out for a PerUpdate"):
        stretched.as_optax(steps_per_epoch=10)
    assert float(stretched.as_optax()(300)) == np.float32(0.05)
    branch = brainsched.cooldown(stretched, 500, 100)
    with pytest.raises(ValueError, match="for a PerUpdate, a part of this Branch, which counts"):
        brainsched.scale_by_scheduler(branch, {"*": 0}, 10)
    assert float(branch.as_optax()(550)) == np.float32(0.025)


@pytest.mark.parametrize("multiplier", [0.5, optax.constant_schedule(0.5)])
def test_a_multiplier_that_is_no_transformation_is_refused(multiplier):
    with pytest.raises(TypeError, match=r"multiplier must be a transformation .*optax\.scale\(0"):
        brainsched.scale_by_scheduler(brainsched.StepLR(0.5), {"*": 0}, multiplier=multiplier)


def test_a_scale_of_another_number_of_groups_is_refused():
    params = {"a": jnp.ones(2)}
    tx = brainsched.scale_by_scheduler(brainsched.StepLR(0.5), {"*": 0})
    state = tx.init(params)
    state.hyperparams["learning_rate_scale"] = jnp.array([1.0, 2.0])
    with pytest.raises(ValueError, match=r"learning_rate_scale must be a scalar, or .* \(2,\)"):
        tx.update(params, state)
