"""Which group a parameter is in: patterns that claim, names, layers, and groups that wait."""

import re
from typing import NamedTuple

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import brainsched
from brainsched import (
    ChainedScheduler,
    PiecewiseConstantSchedule,
    StepLR,
    layerwise_decay,
    rates_by_name,
    scale_by_scheduler,
)

NETWORK = {"embed": {"kernel": 1.0}, "body": {"kernel": 1.0, "bias": 1.0}, "head": {"kernel": 1.0}}
NAMED = {"body": 0.5, "head": 0.125}


def constant(rates):
    return StepLR(rates, step_size=1, gamma=1.0)


def factors(tx, params):
    """Return what the first update multiplies a gradient of 1 by, with the sign of a rate."""
    params = jax.tree.map(jnp.asarray, params)
    updates, _ = jax.jit(tx.update)(params, tx.init(params))
    return jax.tree.map(lambda update: (-update).tolist(), updates)


# Patterns


@pytest.mark.parametrize(
    "groups",
    [
        {"embed/*": 1, "body/*": 0, "head/kern?l": 1},
        {"body*": 0, "*": 1},
        {"*/bias": np.int64(0), "body/k*": 0, "*": 1},
        lambda path: 0 if path in ("body/kernel", "body/bias") else 1,
    ],
)
def test_groups_are_patterns_the_first_match_counts_or_a_function_of_the_path(groups):
    found = factors(scale_by_scheduler(constant([0.5, 0.125]), groups), NETWORK)
    assert found == {
        "embed": {"kernel": 0.125},
        "body": {"kernel": 0.5, "bias": 0.5},
        "head": {"kernel": 0.125},
    }


# Patterns that claim nothing, and groups without a parameter


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"embd*": 1, "*": 0}, r"'embd\*', which claims none of the parameters \['body/bias'"),
        ({"*": 0, "embed/*": 1}, r"'embed/\*', which claims none .* an earlier one does"),
        ({"embed/*": 1, "embed/kernel": 0, "*": 0}, "'embed/kernel', which claims none"),
        ({"*": 0}, r"no parameter is in param group '1'\. .* pass allow_unused=True"),
        (lambda path: 1, "no parameter is in param group '0'"),
        ({"embed/*": "head", "*": "head"}, r"no parameter is in param group 'body'"),
    ],
)
def test_what_claims_no_parameter_raises_when_the_state_is_made(groups, message):
    by_name = not callable(groups) and "head" in groups.values()
    scheduler = constant(NAMED if by_name else [0.5, 0.125])
    tx = scale_by_scheduler(scheduler, groups)
    with pytest.raises(ValueError, match=message):
        tx.init(NETWORK)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(tx.init, jax.tree.map(jnp.asarray, NETWORK))
    scale_by_scheduler(scheduler, groups, allow_unused=True).init(NETWORK)


def test_a_column_that_no_group_has_raises_when_the_state_is_made():
    table = PiecewiseConstantSchedule(NAMED, [2], [[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    tx = scale_by_scheduler(table, {"head/*": "head", "*": "body"})
    with pytest.raises(ValueError, match="no parameter is in param group '2'"):
        tx.init(NETWORK)


def test_parts_of_the_parameters_allow_what_is_for_the_others():
    groups = {"head/*": 1, "embed/*": 1, "*": 0}
    mask = {"embed": True, "body": False, "head": False}
    tx = optax.masked(scale_by_scheduler(constant([0.5, 0.125]), groups), mask)
    with pytest.raises(ValueError, match=r"'head/\*', which claims none .*allow_unused"):
        tx.init(NETWORK)
    part = scale_by_scheduler(constant([0.5, 0.125]), groups, allow_unused=True)
    found = factors(optax.masked(part, mask), NETWORK)
    assert found["embed"] == {"kernel": 0.125}
    assert found["body"] == {"kernel": -1.0, "bias": -1.0}  # left alone


def test_a_parameter_that_nothing_claims_raises_all_the_same():
    tx = scale_by_scheduler(constant([0.5]), {"head/*": 0}, allow_unused=True)
    with pytest.raises(ValueError, match="no group claims the parameter 'body/bias'"):
        tx.init(NETWORK)


# Paths


def test_a_tuple_as_a_key_contributes_its_parts():
    model = brainstate.nn.Sequential(brainstate.nn.Linear(2, 3), brainstate.nn.Linear(3, 1))
    states = model.states(brainstate.ParamState)
    params = {key: jax.tree.map(jnp.ones_like, state.value) for key, state in states.items()}
    assert all(isinstance(key, tuple) for key in params)
    tx = scale_by_scheduler(constant([0.5, 0.125]), {"layers/1/*": 1, "*": 0})
    for key, found in factors(tx, params).items():
        assert set(np.ravel(jax.tree.leaves(found))) == {0.125 if key[1] == 1 else 0.5}
    nested = {"layer": {("r2r", ("in", 0)): 1.0, ("r2r", ("out", 1)): 1.0}}
    tx = scale_by_scheduler(constant([0.5, 0.125]), {"layer/r2r/out/1": 1, "layer/r2r/*/0": 0})
    assert list(factors(tx, nested)["layer"].values()) == [0.5, 0.125]


def test_paths_join_keys_indices_and_attributes_with_slashes():
    seen = []

    def group(path):
        seen.append(path)
        return 0

    tree = {"layers": [jnp.ones(1), (jnp.ones(1), jnp.ones(1))], "a": optax.TraceState(jnp.ones(1))}
    tx = scale_by_scheduler(constant(0.5), group)
    tx.update(tree, tx.init(tree))
    assert seen[:4] == seen[4:]
    assert sorted(seen[:4]) == ["a/trace", "layers/0", "layers/1/0", "layers/1/1"]


class Attention(NamedTuple):
    query: float
    value: float


def test_a_field_that_is_called_value_keeps_its_name():
    params = {"attention": Attention(1.0, 1.0)}
    tx = scale_by_scheduler(constant([0.5, 0.125]), {"*/value": 1, "*/query": 0})
    assert factors(tx, params) == {"attention": Attention(0.5, 0.125)}


def test_variables_of_nnx_are_parameters_whatever_they_hold():
    params = {"a": nnx.Param(jnp.ones(2)), "b": nnx.Param({"value": jnp.ones(2)})}
    seen = []

    def group(path):
        seen.append(path)
        return 0

    tx = scale_by_scheduler(constant(0.5), group)
    updates, _ = tx.update(params, tx.init(params))
    assert seen == ["a", "b", "a", "b"]
    assert isinstance(updates["b"], nnx.Param)
    assert updates["b"].get_value()["value"].tolist() == [-0.5, -0.5]


def test_brackets_in_names_stand_for_themselves():
    params = {"w[0]": 1.0, "w0": 1.0}
    tx = scale_by_scheduler(constant([0.5, 0.125]), {"w[0]": 1, "w?": 0})
    assert factors(tx, params) == {"w[0]": 0.125, "w0": 0.5}
    with pytest.raises(ValueError, match=r"'w\[01\]', which claims none"):
        scale_by_scheduler(constant([0.5, 0.1]), {"w[01]": 1, "*": 0}).init(params)


# Names


@pytest.mark.parametrize(
    "groups",
    [{"head/*": "head", "*": "body"}, lambda path: "head" if path.startswith("head") else "body"],
)
def test_groups_go_by_the_names_that_base_lr_gives(groups):
    scheduler = constant(NAMED)
    tx = optax.chain(optax.identity(), scale_by_scheduler(scheduler, groups))
    found = factors(tx, NETWORK)
    assert found["body"] == {"kernel": 0.5, "bias": 0.5}
    assert found["head"] == {"kernel": 0.125}
    state = tx.init(NETWORK)
    assert {name: float(rate) for name, rate in rates_by_name(state, scheduler).items()} == NAMED
    assert scheduler.as_optax("head")(0) == 0.125


def test_rates_of_groups_without_a_name_go_by_their_number():
    scheduler = PiecewiseConstantSchedule({"a": 0.5}, [9], [[1.0, 0.5], [1.0, 1.0]])
    state = scale_by_scheduler(scheduler, {"embed/*": 1, "*": "a"}).init(NETWORK)
    assert {k: float(v) for k, v in rates_by_name(state, scheduler).items()} == {
        "a": 0.5,
        "1": 0.25,
    }


def test_rates_by_name_are_those_of_the_latest_update_compiled_too():
    scheduler = PiecewiseConstantSchedule(NAMED, [1], [1.0, 0.5])
    tx = scale_by_scheduler(scheduler, {"head/*": "head", "*": "body"})
    params = jax.tree.map(jnp.asarray, NETWORK)

    @jax.jit
    def update(state):
        _, state = tx.update(params, state)
        return state, rates_by_name(state, scheduler)

    state, first = update(tx.init(params))
    _, second = update(state)
    assert {name: float(rate) for name, rate in first.items()} == NAMED
    assert {name: float(rate) for name, rate in second.items()} == {"body": 0.25, "head": 0.0625}


def test_rates_by_name_say_what_is_missing():
    scheduler = constant(NAMED)
    with pytest.raises(ValueError, match="no state of scale_by_scheduler"):
        rates_by_name(optax.sgd(0.1).init(NETWORK), scheduler)
    state = scale_by_scheduler(scheduler, {"head/*": 1, "*": 0}).init(NETWORK)
    with pytest.raises(ValueError, match="has 2 states of scale_by_scheduler"):
        rates_by_name((state, state), scheduler)
    with pytest.raises(ValueError, match="opt_state has 2 rates, for the groups"):
        rates_by_name(state, constant(0.5))


# Layers


def test_layerwise_decay_of_a_transformer_of_12_layers():
    """The rate of depth d of 14 is 1e-3 * 0.8**(13 - d), as in ELECTRA and BEiT."""
    blocks = [f"blocks/{i}/*" for i in range(12)]
    base_lr, groups = layerwise_decay(1e-3, 0.8, [["embed/*", "position"], *blocks, "head/*"])
    assert list(base_lr) == ["embed", *(f"blocks/{i}" for i in range(12)), "head"]
    assert groups["position"] == groups["embed/*"] == "embed"
    scheduler = brainsched.WarmupCosineSchedule(base_lr, 0, 10)
    params = {
        "embed": {"kernel": 1.0},
        "position": 1.0,
        "blocks": [{"kernel": 1.0} for _ in range(12)],
        "head": {"kernel": 1.0},
    }
    found = factors(scale_by_scheduler(scheduler, groups), params)
    expected = [1e-3 * 0.8 ** (13 - depth) for depth in range(14)]
    np.testing.assert_allclose(found["embed"]["kernel"], expected[0], rtol=1e-6)
    np.testing.assert_allclose(found["position"], expected[0], rtol=1e-6)
    kernels = [block["kernel"] for block in found["blocks"]]
    np.testing.assert_allclose(kernels, expected[1:13], rtol=1e-6)
    np.testing.assert_allclose(found["head"]["kernel"], 1e-3, rtol=1e-6)


def test_layers_that_are_stacked_in_one_array_have_a_rate_each():
    layers = ["embed/*", *["blocks/*"] * 3, "head/*"]
    base_lr, groups = layerwise_decay(1.0, 0.5, layers)
    assert groups["blocks/*"] == ["blocks/0", "blocks/1", "blocks/2"]
    params = {
        "embed": {"kernel": jnp.ones(2)},
        "blocks": {"kernel": jnp.ones((3, 2, 2)), "bias": jnp.ones(3)},
        "head": {"kernel": jnp.ones(2)},
    }
    found = factors(scale_by_scheduler(constant(base_lr), groups), params)
    assert found["embed"]["kernel"] == [0.0625] * 2
    assert found["blocks"]["bias"] == [0.125, 0.25, 0.5]
    assert found["blocks"]["kernel"] == [[[rate] * 2] * 2 for rate in (0.125, 0.25, 0.5)]
    assert found["head"]["kernel"] == [1.0] * 2


def test_stacked_layers_of_nnx_move_at_their_rates():
    class Stack(nnx.Module):
        def __init__(self):
            @nnx.split_rngs(splits=3)
            @nnx.vmap(in_axes=0, out_axes=0)
            def layer(rngs):
                return nnx.Linear(2, 2, rngs=rngs)

            self.blocks = layer(nnx.Rngs(0))

        def __call__(self, x):
            return nnx.scan(lambda x, block: block(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)(
                x, self.blocks
            )

    model = Stack()
    tx = scale_by_scheduler(constant([0.5, 0.25, 0.125]), {"blocks/*": range(3)})
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    before = np.asarray(model.blocks.kernel[...])
    gradient = nnx.grad(lambda model: (model(jnp.ones(2)) ** 2).mean())(model)
    optimizer.update(model, gradient)
    moved = before - np.asarray(model.blocks.kernel[...])
    rates = np.array([0.5, 0.25, 0.125]).reshape(3, 1, 1)
    np.testing.assert_allclose(moved, rates * gradient["blocks"]["kernel"][...], rtol=1e-4)


def test_a_first_axis_of_another_length_than_its_groups_raises():
    tx = scale_by_scheduler(constant([0.5, 0.25, 0.125]), {"w": range(3)})
    for shape in [(2, 3), ()]:
        with pytest.raises(
            ValueError, match=rf"'w' a group for each of 3 .* is {re.escape(str(shape))}"
        ):
            tx.init({"w": jnp.ones(shape)})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((-1.0, 0.5, ["a"]), ValueError, "base_lr must be finite and not negative"),
        ((1.0, 0.0, ["a"]), ValueError, r"decay must be a number in \(0, 1\]"),
        ((1.0, 0.5, "a/*"), TypeError, "layers must be a sequence of patterns"),
        ((1.0, 0.5, ["a", 1]), TypeError, r"layers\[1\] must be a sequence of patterns"),
        ((1.0, 0.5, ["a/*", "a"]), ValueError, r"layers\[1\] is called 'a', as a layer before"),
        ((1.0, 0.5, [["a", "b"], ["c", "b"]]), ValueError, r"layers\[1\] repeats the pattern 'b'"),
    ],
)
def test_layerwise_decay_refuses_what_it_cannot_mean(arguments, error, message):
    with pytest.raises(error, match=message):
        layerwise_decay(*arguments)


# Freezing


def test_a_group_is_frozen_for_some_updates_under_any_schedule():
    """The second part has one base rate, 1.0, for all groups, and a column for each."""
    plan = brainsched.WarmupCosineSchedule(NAMED, 2, 8)
    frozen = PiecewiseConstantSchedule(1.0, [3], [[0.0, 1.0], [1.0, 1.0]])
    scheduler = ChainedScheduler([plan, frozen])
    assert scheduler.group_names == ("body", "head")
    expected = plan.lr_at(range(8)) * np.array([[0, 1]] * 3 + [[1, 1]] * 5)
    np.testing.assert_array_equal(scheduler.lr_at(range(8)), expected)
    tx = scale_by_scheduler(scheduler, {"head/*": "head", "*": "body"})
    params = jax.tree.map(jnp.asarray, NETWORK)
    state = tx.init(params)
    for body, head in expected:
        updates, state = jax.jit(tx.update)(params, state)
        assert updates["body"]["bias"] == -body
        assert updates["head"]["kernel"] == -head


def test_updates_that_freeze_go_with_epochs_that_are_stretched():
    plan = brainsched.PerUpdate(brainsched.WarmupCosineSchedule(NAMED, 2, 8), 10)
    frozen = PiecewiseConstantSchedule(1.0, [25], [[1.0, 0.0], [1.0, 1.0]])
    rates = ChainedScheduler([plan, frozen]).lr_at([24, 25])
    assert (rates[:, 1] == 0).tolist() == [True, False]
    np.testing.assert_array_equal(rates[:, 0], plan.lr_at([24, 25])[:, 0])
