"""Flax models on the digits data: what each step does to the parameters proves the rates."""

import re
import subprocess
import sys
from pathlib import Path

import flax.linen
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx
from flax.training.train_state import TrainState
from sklearn.datasets import load_digits

from brainsched import PiecewiseConstantSchedule, scale_by_scheduler

pytestmark = pytest.mark.slow

X64 = """
import jax
jax.config.update("jax_enable_x64", {enabled})
import brainsched
print(jax.numpy.ones(3).dtype, brainsched.StepLR(0.5).lr_at(0).dtype)
"""
EXAMPLE = Path(__file__).parents[1] / "examples" / "flax_digits.py"
STEPS_PER_EPOCH = 3
BODY = [0.1] * 6 + [0.01] * 6  # the rates of 12 steps, in epochs of 3, with a boundary after 2
HEAD = [0.05] * 6 + [0.025] * 6


@pytest.mark.parametrize(("enabled", "dtype"), [(True, "float64"), (False, "float32")])
def test_importing_it_leaves_64_bit_types_as_they_are(enabled, dtype):
    program = [sys.executable, "-c", X64.format(enabled=enabled)]
    finished = subprocess.run(program, capture_output=True, text=True, check=True)
    assert finished.stdout.split() == [dtype, dtype]


def scheduler():
    return PiecewiseConstantSchedule([0.1, 0.05], [2], [[1.0, 1.0], [0.1, 0.5]])


@pytest.fixture(scope="module")
def batches():
    images, labels = load_digits(return_X_y=True)
    images, labels = images[: 12 * 16] / 16, labels[: 12 * 16]
    return jnp.asarray(images.reshape(12, 16, 64), jnp.float32), jnp.asarray(labels.reshape(12, 16))


def cross_entropy(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def assert_moved_at_the_scheduled_rates(trajectory, gradients):
    """Check that each step moved each parameter by minus its rate times its gradient."""
    for step in range(12):
        for name, rates in (("body", BODY), ("head", HEAD)):
            before, after, gradient = (
                flat(tree[name])
                for tree in (trajectory[step], trajectory[step + 1], gradients[step])
            )
            rate = (before - after) @ gradient / (gradient @ gradient)
            np.testing.assert_allclose(rate, rates[step], rtol=1e-5)
            np.testing.assert_allclose(after, before - rates[step] * gradient, atol=1e-6)


def flat(tree):
    return np.concatenate([np.ravel(leaf).astype(np.float64) for leaf in jax.tree.leaves(tree)])


# nnx


class Network(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.body = nnx.Sequential(nnx.Linear(64, 32, rngs=rngs), nnx.relu)
        self.head = nnx.Linear(32, 10, rngs=rngs)

    def __call__(self, x):
        return self.head(self.body(x))


def nnx_loss(model, x, y):
    return cross_entropy(model(x), y)


@nnx.jit
def nnx_step(model, optimizer, x, y):
    optimizer.update(model, nnx.grad(nnx_loss)(model, x, y))


def parameters(model):
    return jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model, nnx.Param)))


def transformation(*before):
    groups = {"body/*": 0, "head/*": 1}
    return optax.chain(*before, scale_by_scheduler(scheduler(), groups, STEPS_PER_EPOCH))


def rates_in_use(optimizer):
    return optax.tree_utils.tree_get(optimizer.opt_state, "learning_rate")[...].tolist()


def test_nnx_optimizer_moves_two_groups_at_their_rates_in_one_program(batches, compilations):
    model = Network()
    optimizer = nnx.Optimizer(model, transformation(), wrt=nnx.Param)
    gradient = nnx.jit(nnx.grad(nnx_loss))
    trajectory, gradients, rates = [parameters(model)], [], []
    del compilations[:]
    for x, y in zip(*batches, strict=True):
        gradients.append(nnx.to_pure_dict(gradient(model, x, y)))
        nnx_step(model, optimizer, x, y)
        trajectory.append(parameters(model))
        rates.append(rates_in_use(optimizer))
    assert_moved_at_the_scheduled_rates(trajectory, gradients)
    np.testing.assert_array_equal(rates, np.array([BODY, HEAD], np.float32).T)
    assert len([name for name in compilations if "nnx_step" in name]) == 1


def test_nnx_group_that_no_pattern_claims_raises_when_the_optimizer_is_built():
    tx = scale_by_scheduler(scheduler(), {"body/*": 0})
    with pytest.raises(ValueError, match="no group claims the parameter 'head/bias'"):
        nnx.Optimizer(Network(), tx, wrt=nnx.Param)


def test_nnx_paths_are_the_same_when_the_optimizer_is_built_and_when_it_updates(batches):
    model = Network()
    seen = []

    def group(path):
        seen.append(path)
        return 0

    tx = scale_by_scheduler(scheduler(), group, allow_unused=True)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    assert sorted(seen) == [
        "body/layers/0/bias",
        "body/layers/0/kernel",
        "head/bias",
        "head/kernel",
    ]
    nnx_step(model, optimizer, batches[0][0], batches[1][0])
    assert seen[:4] == seen[4:]


# linen


class LinenNetwork(flax.linen.Module):
    @flax.linen.compact
    def __call__(self, x):
        x = flax.linen.relu(flax.linen.Dense(32, name="body")(x))
        return flax.linen.Dense(10, name="head")(x)


def train_state(tx):
    model = LinenNetwork()
    variables = model.init(jax.random.key(0), jnp.ones((1, 64)))
    return TrainState.create(apply_fn=model.apply, params=variables["params"], tx=tx)


def linen_gradient(state, x, y):
    return jax.grad(lambda params: cross_entropy(state.apply_fn({"params": params}, x), y))(
        state.params
    )


def linen_step(state, batch):
    gradient = linen_gradient(state, *batch)
    return state.apply_gradients(grads=gradient), (state.params, gradient)


def test_linen_train_state_moves_two_groups_at_their_rates_under_jit(batches, compilations):
    state = train_state(transformation())
    step = jax.jit(linen_step)
    trajectory, gradients = [], []
    del compilations[:]
    for batch in zip(*batches, strict=True):
        state, (params, gradient) = step(state, batch)
        trajectory.append(params)
        gradients.append(gradient)
    assert_moved_at_the_scheduled_rates([*trajectory, state.params], gradients)
    assert len([name for name in compilations if "linen_step" in name]) == 1


def test_linen_train_state_moves_two_groups_at_their_rates_under_scan(batches):
    state, (params, gradients) = jax.lax.scan(linen_step, train_state(transformation()), batches)
    trajectory = [jax.tree.map(lambda leaf, i=i: leaf[i], params) for i in range(12)]
    gradients = [jax.tree.map(lambda leaf, i=i: leaf[i], gradients) for i in range(12)]
    assert_moved_at_the_scheduled_rates([*trajectory, state.params], gradients)


# Checkpoints


def trained(state, batches, first, last):
    step = jax.jit(linen_step)
    for i in range(first, last):
        state, _ = step(state, (batches[0][i], batches[1][i]))
    return state


def through_msgpack(state, target, folder):
    return flax.serialization.from_bytes(target, flax.serialization.to_bytes(state))


def through_orbax(state, target, folder):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "state", state)
        checkpointer.wait_until_finished()
        return checkpointer.restore(folder / "state", target)


@pytest.mark.parametrize("saved_through", [through_msgpack, through_orbax])
def test_checkpoint_carries_position_and_rates_and_resumes_to_the_same_bits(
    saved_through, batches, tmp_path
):
    tx = transformation(optax.scale_by_adam())
    straight = trained(train_state(tx), batches, 0, 12)
    stopped = trained(train_state(tx), batches, 0, 8)
    resumed = saved_through(stopped, train_state(tx), tmp_path)
    position = optax.tree_utils.tree_get(resumed.opt_state, "ScaleBySchedulerState")
    assert position.count == 8
    assert position.hyperparams["learning_rate"].tolist() == [
        np.float32(BODY[7]),
        np.float32(HEAD[7]),
    ]
    resumed = trained(resumed, batches, 8, 12)
    jax.tree.map(np.testing.assert_array_equal, resumed.params, straight.params)


# The example


def run_example(*arguments):
    """Return the stages that the example prints: epoch, rates, loss and accuracy."""
    finished = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLE), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return re.findall(
        r"epoch (\d+): body rate (\S+), head rate (\S+), loss (\S+), test accuracy (\S+)%",
        finished.stdout,
    )


@pytest.mark.slow
def test_example_trains_both_groups_at_their_rates_to_97_percent_and_resumes(tmp_path):
    stages = run_example()
    assert [stage[:3] for stage in stages] == [
        ("14", "2.00e-03", "1.00e-03"),
        ("24", "6.00e-04", "3.00e-04"),
        ("29", "6.00e-05", "3.00e-05"),
    ]
    assert float(stages[-1][4]) >= 97
    stopped = run_example("--checkpoints", str(tmp_path / "run"), "--epochs", "16")
    assert stopped[0] == stages[0]
    assert run_example("--checkpoints", str(tmp_path / "run")) == stages[1:]
