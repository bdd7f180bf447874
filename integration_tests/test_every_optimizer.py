"""All 24 Optax optimizers of braintools.optim under a schedule, on the host and compiled.

The reference is a second optimizer of the same class, built with a plain rate, through the same
gradients: what differs between the two is where the rate comes from.
"""

import warnings

import brainstate
import braintools
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from braintools.optim import OptaxOptimizer

from brainsched import PiecewiseConstantSchedule

FOLLOWERS = [
    "OptaxOptimizer",
    "SGD",
    "Momentum",
    "MomentumNesterov",
    "Adam",
    "AdamW",
    "Adagrad",
    "Adadelta",
    "RMSprop",
    "Adamax",
    "Nadam",
    "RAdam",
    "Lamb",
    "Lars",
    "Yogi",
    "LBFGS",
    "Adafactor",
    "AdaBelief",
    "Lion",
    "SM3",
    "Novograd",
]
OWN_RATE = ["Rprop", "Fromage", "Lookahead"]
OWN_GRADIENTS = ["SOFO", "SOFOScan"]  # they step on inputs and targets

RATES = [0.125, 0.125, 0.03125, 0.03125]  # of the four steps below, with a boundary in the middle


def build(name, lr, **options):
    if name == "Lookahead":
        options["base_optimizer"] = optax.sgd(0.1)
    return getattr(braintools.optim, name)(lr=lr, **options)


class Run:
    """An optimizer over one parameter, and where four steps take it."""

    def __init__(self, optimizer, compiled=False, gradient_scale=1.0):
        self.optimizer = optimizer
        self.weight = brainstate.ParamState(jnp.array([[1.0, -2.0], [3.0, 0.5]]))
        optimizer.register_trainable_weights({"weight": self.weight})
        self.scale = gradient_scale
        self.step = brainstate.transform.jit(self._step) if compiled else self._step

    def _step(self, factor):
        gradient = jnp.array([[0.3, -0.1], [0.2, 0.7]]) * factor * self.scale
        self.optimizer.step({"weight": gradient + 0.1 * self.weight.value})

    def path(self, before_step):
        """Return the parameter after each step; ``before_step(i)`` runs before step i."""
        positions = []
        for i in range(len(RATES)):
            before_step(i)
            self.step(jnp.float32(1 + i))
            positions.append(np.asarray(self.weight.value))
        return np.array(positions)


def scheduled_path(name, compiled=False, **options):
    scheduler = PiecewiseConstantSchedule(0.25, [2], [0.5, 0.125])
    run = Run(build(name, scheduler, **options), compiled)
    return run.path(lambda i: scheduler.step(i))


def reference_path(name, **options):
    run = Run(build(name, RATES[0], **options))

    def set_rate(i):
        run.optimizer.current_lr = RATES[i]

    return run.path(set_rate)


def test_every_optax_optimizer_of_braintools_is_named_here():
    found = [
        name
        for name in braintools.optim.__all__
        if isinstance(getattr(braintools.optim, name), type)
        and issubclass(getattr(braintools.optim, name), OptaxOptimizer)
    ]
    assert sorted(found) == sorted(FOLLOWERS + OWN_RATE + OWN_GRADIENTS)
    assert len(FOLLOWERS + OWN_RATE) == 24


@pytest.mark.parametrize("compiled", [False, True], ids=["host", "jit"])
@pytest.mark.parametrize("name", FOLLOWERS)
def test_optimizer_applies_the_scheduled_rate(name, compiled):
    path = scheduled_path(name, compiled)
    np.testing.assert_allclose(path, reference_path(name), rtol=2e-5, atol=1e-6)
    # The rate matters: at another one, the parameter is elsewhere.
    other = PiecewiseConstantSchedule(0.75, [2], [0.5, 0.125])
    elsewhere = Run(build(name, other)).path(lambda i: other.step(i))
    assert np.abs(elsewhere - path).max() > 1e-4


@pytest.mark.parametrize("compiled", [False, True], ids=["host", "jit"])
@pytest.mark.parametrize("name", OWN_RATE)
def test_optimizer_with_a_rate_of_its_own_warns_once(name, compiled):
    scheduler = PiecewiseConstantSchedule(0.25, [2], [0.5, 0.125])
    run = Run(build(name, scheduler), compiled)
    with pytest.warns(UserWarning, match=f"{name} does not read its learning rate") as caught:
        run.path(lambda i: scheduler.step(i))
    assert len(caught) == 1


@pytest.mark.parametrize("tx", [optax.sgd(0.1), optax.adam(0.1)])
def test_own_transformation_with_a_rate_of_its_own_warns(tx):
    run = Run(OptaxOptimizer(tx=tx, lr=PiecewiseConstantSchedule(0.25)))
    with pytest.warns(UserWarning, match="OptaxOptimizer does not read its learning rate"):
        run.step(1.0)


def test_own_transformation_that_reads_the_scheduler_does_not_warn():
    scheduler = PiecewiseConstantSchedule(0.25, [2], [0.5, 0.125])
    tx = optax.chain(optax.trace(0.9), optax.scale_by_schedule(scheduler))
    path = Run(OptaxOptimizer(tx=tx, lr=scheduler)).path(lambda i: scheduler.step(i))
    np.testing.assert_allclose(path, reference_path("Momentum", momentum=0.9), rtol=2e-5)


@pytest.mark.filterwarnings("ignore:braintools 0.3.0 trains every group:UserWarning")
def test_no_warning_of_a_rate_that_is_not_read_where_the_first_group_has_no_gradient():
    optimizer = braintools.optim.Rprop(lr=PiecewiseConstantSchedule(0.25))
    optimizer.register_trainable_weights({})
    trained = brainstate.ParamState(jnp.zeros(2))
    optimizer.add_param_group({"trained": trained})
    optimizer.step({"trained": jnp.full(2, 1000.0)})
    np.testing.assert_allclose(trained.value, -0.25, rtol=1e-5)


class Cell(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = brainstate.ParamState(jnp.ones((2, 2)))

    def update(self, latent, inputs):
        latent = (0.3 * latent + inputs) @ self.weight.value
        return latent, latent


class Layer(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = brainstate.ParamState(jnp.ones((2, 2)))

    def update(self, inputs):
        return inputs @ self.weight.value


@pytest.mark.parametrize(
    ("name", "model", "arguments"),
    [
        ("SOFO", Layer, (jnp.eye(2), jnp.zeros((2, 2)))),
        ("SOFOScan", Cell, (jnp.zeros((3, 2)), (jnp.ones((4, 3, 2)), jnp.zeros((4, 3, 2))))),
    ],
)
def test_optimizer_that_makes_its_own_gradients_keeps_its_interface(name, model, arguments):
    def first_step(lr):
        built = model()
        optimizer = getattr(braintools.optim, name)(
            built,
            lambda predictions, targets: ((predictions - targets) ** 2).mean(),
            lr=lr,
            tangent_size=4,
            key=jax.random.key(0),
        )
        optimizer.register_trainable_weights({"weight": built.weight})
        return optimizer.step(*arguments), built.weight.value

    loss, weight = first_step(PiecewiseConstantSchedule(0.25, [2], [0.5, 0.125]))
    expected_loss, expected_weight = first_step(0.125)
    np.testing.assert_array_equal(weight, expected_weight)
    assert loss == expected_loss
    assert np.abs(weight - 1).max() > 1e-3


WITH_WEIGHT_DECAY = ["SGD", "Adam", "AdamW", "Lamb", "Lion"]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {"weight_decay": 0.1}) for name in WITH_WEIGHT_DECAY),
        ("SGD", {"grad_clip_norm": 0.5}),
        ("SGD", {"grad_clip_value": 0.2}),
        ("Adam", {"weight_decay": 0.1, "grad_clip_norm": 0.5, "grad_clip_value": 0.2}),
    ],
)
def test_weight_decay_and_clipping_work_as_with_a_plain_rate(name, options):
    path = scheduled_path(name, **options)
    np.testing.assert_allclose(path, reference_path(name, **options), rtol=2e-5)
    assert np.abs(path - scheduled_path(name)).max() > 1e-4


@pytest.mark.parametrize("lr", [None, 0.5])
def test_weight_decay_and_clipping_of_an_added_group_work_as_with_a_plain_rate(lr):
    given = {} if lr is None else {"lr": lr}

    def moved(optimizer, **added):
        first, second = (brainstate.ParamState(jnp.array([1.0, -2.0])) for _ in range(2))
        optimizer.register_trainable_weights({"first": first})
        optimizer.add_param_group({"second": second}, weight_decay=0.3, **added)
        for _ in range(3):
            optimizer.step({"first": jnp.ones(2), "second": jnp.array([5.0, -0.2])})
        return np.concatenate([first.value, second.value])

    rate = 0.25 if lr is None else lr
    plain = braintools.optim.Adam(lr=0.25 * 0.5, grad_clip_norm=1.0)
    expected = moved(plain, lr=rate * 0.5)
    scheduler = PiecewiseConstantSchedule(0.25, [], [0.5])
    scheduled = braintools.optim.Adam(lr=scheduler, grad_clip_norm=1.0)
    np.testing.assert_allclose(moved(scheduled, **given), expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["SGD", "Adam", "Adafactor", "LBFGS"])
def test_optimizer_checkpoint_continues_to_the_same_bits(name):
    scheduler = PiecewiseConstantSchedule(0.25, [2], [0.5, 0.125])
    run = Run(build(name, scheduler))
    straight = run.path(lambda i: scheduler.step(i))

    scheduler = PiecewiseConstantSchedule(0.25, [2], [0.5, 0.125])
    first = Run(build(name, scheduler))
    for i in range(2):
        first.step(jnp.float32(1 + i))
        scheduler.step()
    saved = first.optimizer.state_dict(), scheduler.state_dict(), first.weight.value

    scheduler = PiecewiseConstantSchedule(0.25, [2], [0.5, 0.125])
    second = Run(build(name, scheduler))
    second.optimizer.load_state_dict(saved[0])
    scheduler.load_state_dict(saved[1])
    second.weight.value = saved[2]
    for i in range(2, 4):
        second.step(jnp.float32(1 + i))
        np.testing.assert_array_equal(second.weight.value, straight[i])
        scheduler.step()


def two_groups(keys="ab", name="Adam", size=2):
    scheduler = PiecewiseConstantSchedule([0.25, 0.75], [2], [0.5, 0.125])
    optimizer = build(name, scheduler)
    weights = {key: brainstate.ParamState(jnp.zeros(size)) for key in keys}
    optimizer.register_trainable_weights({keys[0]: weights[keys[0]]})
    if len(keys) == 2:
        optimizer.add_param_group({keys[1]: weights[keys[1]]})
    return optimizer, {key: jnp.ones(size) for key in keys}


@pytest.mark.filterwarnings("ignore:braintools 0.3.0 trains every group:UserWarning")
@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"keys": "ba"}, "'opt_state'"),
        ({"name": "Lion"}, "'opt_state'"),
        ({"size": 3}, "'opt_state'"),
        ({"keys": "ac"}, r"'param_groups_opt_states\[0\]'"),
    ],
)
def test_a_checkpoint_of_another_optimizer_is_refused_and_changes_nothing(other, named):
    saved, gradients = two_groups(**other)
    saved.step(gradients)
    optimizer, gradients = two_groups()
    before = jax.tree.map(np.asarray, optimizer.state_dict())
    with pytest.raises(ValueError, match=rf"state_dict\[{named}\] is not of this Adam.*another"):
        optimizer.load_state_dict(saved.state_dict())
    jax.tree.map(np.testing.assert_array_equal, optimizer.state_dict(), before)
    optimizer.step(gradients)


@pytest.mark.filterwarnings("ignore:.*does not read its learning rate:UserWarning")
@pytest.mark.parametrize(
    ("name", "options"),
    [(name, {}) for name in (*FOLLOWERS, *OWN_RATE)]
    + [
        ("Adam", {"betas": (0.5, 0.999)}),
        ("Adam", {"betas": (0.9, 0.5)}),
        ("Adam", {"eps": 0.1}),
        ("Adam", {"amsgrad": True}),
        ("Adam", {"weight_decay": 0.1, "grad_clip_value": 0.5}),
        ("OptaxOptimizer", {"tx": optax.scale(-0.125)}),
    ],
)
def test_the_first_added_group_warns_if_it_is_not_trained_as_the_group_before_it(name, options):
    optimizer = build(name, PiecewiseConstantSchedule(0.125), **options)
    first, added, last = (brainstate.ParamState(jnp.array([[1.0, -2.0]])) for _ in range(3))
    optimizer.register_trainable_weights({"first": first})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        optimizer.add_param_group({"added": added})
    optimizer.add_param_group({"last": last})  # in silence
    assert [str(found.message)[:48] for found in caught] in (
        [],
        ["braintools 0.3.0 trains every group that is adde"],
    )
    for size in (1.0, -2.0, 0.01, 0.5, 1.0):
        gradient = jnp.array([[0.3, -0.1]]) * size
        optimizer.step(dict.fromkeys(("first", "added", "last"), gradient))
    alike = np.allclose(first.value, added.value, rtol=1e-6)
    assert bool(caught) != alike
