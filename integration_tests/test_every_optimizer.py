"""All 24 Optax optimizers of braintools.optim under a schedule, on the host and compiled.

The reference is a second optimizer of the same class, built with a plain rate, through the same
gradients: what differs between the two is where the rate comes from.
"""

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
    optimizer = build(name, scheduler)
    with pytest.warns(UserWarning, match=f"{name} does not read its learning rate") as caught:
        run = Run(optimizer, compiled)
    assert len(caught) == 1
    path = run.path(lambda i: scheduler.step(i))  # in silence
    unscheduled = Run(build(name, 0.25)).path(lambda i: None)  # braintools reads base_lr
    np.testing.assert_allclose(path, unscheduled, rtol=2e-5)


GRADIENTS = [jnp.array([[0.3, -0.1], [0.2, 0.7]]) * factor for factor in (1.0, -2.0, 0.5, 3.0)]


def twins(name, added_later, compiled=False, **options):
    """Train two equal parameters in groups of their own, and return where they go."""
    scheduler = PiecewiseConstantSchedule(0.25, [2], [0.5, 0.125])
    optimizer = build(name, scheduler, **options)
    weights = {key: brainstate.ParamState(jnp.array([[1.0, -2.0], [3.0, 0.5]])) for key in "ab"}
    optimizer.register_trainable_weights({"a": weights["a"]})
    if added_later:
        optimizer.add_param_group({"b": weights["b"]})
    step = brainstate.transform.jit(optimizer.step) if compiled else optimizer.step
    for gradient in GRADIENTS:
        step(dict.fromkeys("ab" if added_later else "a", gradient))
        scheduler.step()
    return [np.asarray(weight.value) for weight in weights.values()]


@pytest.mark.parametrize("compiled", [False, True], ids=["host", "jit"])
@pytest.mark.parametrize(
    ("name", "options"),
    [(name, {}) for name in (*FOLLOWERS, *OWN_RATE)]
    + [
        ("SGD", {"momentum": 0.9, "nesterov": True, "grad_clip_norm": 0.5}),
        ("Adam", {"betas": (0.5, 0.9), "eps": 0.1, "amsgrad": True, "weight_decay": 0.1}),
        ("AdamW", {"weight_decay": 0.3, "grad_clip_value": 0.2}),
    ],
)
@pytest.mark.filterwarnings("ignore:.*does not read its learning rate:UserWarning")
def test_an_added_group_is_trained_as_the_weights_that_were_registered(name, options, compiled):
    first, added = twins(name, True, compiled, **options)
    np.testing.assert_allclose(added, first, rtol=1e-6)
    alone, _ = twins(name, False, compiled, **options)
    np.testing.assert_allclose(first, alone, rtol=1e-6)


def test_an_added_group_has_the_momentum_of_its_optimizer():
    scheduler = PiecewiseConstantSchedule(0.5, [9], [1.0, 0.5])
    optimizer = braintools.optim.SGD(lr=scheduler, momentum=0.5)
    optimizer.register_trainable_weights({"a": brainstate.ParamState(jnp.zeros(1))})
    added = brainstate.ParamState(jnp.zeros(1))
    optimizer.add_param_group({"b": added}, lr=0.25)
    for expected in (-0.75, -1.875):  # 0.25 * 3, and 0.25 * (3 + 0.5 * 3) more
        optimizer.step({"a": jnp.ones(1), "b": jnp.full(1, 3.0)})
        np.testing.assert_array_equal(added.value, expected)


@pytest.mark.parametrize("name", ["AdamW", "SGD"])
def test_weight_decay_of_an_added_group_counts_and_the_others_keep_theirs(name):
    def decayed(decay, **group):
        scheduler = PiecewiseConstantSchedule(0.25, [9], [0.5, 0.25])
        optimizer = build(name, scheduler, weight_decay=decay)
        weights = [brainstate.ParamState(jnp.array([1.0, -2.0])) for _ in range(2)]
        optimizer.register_trainable_weights({"a": weights[0]})
        optimizer.add_param_group({"b": weights[1]}, **group)
        for _ in range(3):
            optimizer.step(dict.fromkeys("ab", jnp.array([5.0, -0.2])))
        return [np.asarray(weight.value) for weight in weights]

    (first, second), (at_03, _) = decayed(0.1, weight_decay=0.3), decayed(0.3)
    np.testing.assert_allclose(first, decayed(0.1)[1], rtol=1e-6)  # whose group has the default
    np.testing.assert_allclose(second, at_03, rtol=1e-6)
    assert np.abs(first - second).max() > 1e-3


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


@pytest.mark.parametrize("name", FOLLOWERS)
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
