"""A compiled training step with 1 to 1,000 param groups."""

import brainstate
import braintools
import jax
import jax.numpy as jnp
import optax
import pytest
from brainstate.transform import jit

import brainsched

GROUPS = [1, 10, 100, 1000]


def rates(groups):
    return [1e-3 * (1 + group / groups) for group in range(groups)]


@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("name", ["brainsched", "one constant rate"])
def bench_optax_step(measure, name, groups):
    """With ``scale_by_scheduler`` the groups are one vector; the peer has one rate for all."""
    params = {f"w{group}": jnp.ones(64) for group in range(groups)}
    if name == "brainsched":
        scheduler = brainsched.CosineAnnealingLR(rates(groups), 10_000)
        tx = brainsched.scale_by_scheduler(scheduler, lambda path: int(path[1:]))
    else:
        tx = optax.scale_by_learning_rate(1e-3)

    @jax.jit
    def step(params, state):
        updates, state = tx.update(params, state)
        return optax.apply_updates(params, updates), state

    carry = [params, tx.init(params)]

    def call():
        carry[:] = step(*carry)
        jax.block_until_ready(carry)

    measure(name, call, group=f"optax step, {groups} groups", rounds=500)


@pytest.mark.parametrize("groups", GROUPS[:3])
@pytest.mark.parametrize("name", ["brainsched", "not stepped"])
def bench_braintools_step(measure, name, groups):
    """Adam on every group; the peer is the same step with a schedule that stands still."""
    scheduler = brainsched.CosineAnnealingLR(rates(groups), 10_000)
    optimizer = braintools.optim.Adam(lr=scheduler)
    states = {f"w{group}": brainstate.ParamState(jnp.ones(64)) for group in range(groups)}
    optimizer.register_trainable_weights({"w0": states["w0"]})
    for group in range(1, groups):
        optimizer.add_param_group({f"w{group}": states[f"w{group}"]})

    @jit
    def step():
        optimizer.step({name: state.value for name, state in states.items()})
        if name == "brainsched":
            scheduler.step()

    def call():
        step()
        jax.block_until_ready(states["w0"].value)

    measure(name, call, group=f"braintools step, {groups} groups", rounds=400)
