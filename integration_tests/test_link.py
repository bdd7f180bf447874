"""The link between a scheduler and an optimizer, as users come upon it."""

import copy
import pathlib
import pickle
import re
import textwrap

import brainstate
import braintools
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from brainstate.transform import jit, vmap

import brainsched
from brainsched import (
    ConstantLR,
    CosineAnnealingLR,
    LRScheduler,
    StepLR,
)

# Which algorithm an added group gets is measured in test_every_optimizer.py; here, its rate is.
pytestmark = pytest.mark.filterwarnings("ignore:braintools 0.3.0 trains every group:UserWarning")


def parameter(size=2):
    return brainstate.ParamState(jnp.zeros(size))


def sgd(lr, keys=("a",)):
    optimizer = braintools.optim.SGD(lr=lr)
    optimizer.register_trainable_weights({key: parameter() for key in keys})
    return optimizer


def moved(optimizer):
    """Return how far one step under a gradient of 1 moves the parameters of the first group."""
    states = optimizer.param_groups[0]["params"]
    before = {key: np.asarray(state.value, float) for key, state in states.items()}
    optimizer.step({key: jnp.ones(2) for key in states})
    (distance,) = {float((before[k] - np.asarray(s.value, float))[0]) for k, s in states.items()}
    return pytest.approx(distance, rel=1e-6)


# A model as it comes


class Network(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = [brainstate.nn.Linear(3, 3) for _ in range(2)]
        self.gain = brainstate.ParamState(jnp.ones(3))
        self.head = brainstate.nn.Linear(3, 1)

    def update(self, x):
        for layer in self.layers:
            x = jnp.tanh(layer(x))
        return self.head(x * self.gain.value)


def test_the_moments_of_a_tuple_keyed_group_are_saved_and_restored():
    def trained():
        scheduler = StepLR(0.125, 100)
        optimizer = sgd(scheduler, [("a", "weight")])
        added = {("b", "weight"): parameter()}
        optimizer.add_param_group(added)
        return optimizer, added[("b", "weight")]

    gradients = {("a", "weight"): jnp.ones(2), ("b", "weight"): jnp.array([1.0, 3.0])}
    optimizer, straight = trained()
    for _ in range(3):
        optimizer.step(gradients)
    first, weight = trained()
    first.step(gradients)
    second, resumed = trained()
    second.load_state_dict(first.state_dict())
    resumed.value = weight.value
    for _ in range(2):
        second.step(gradients)
    np.testing.assert_array_equal(resumed.value, straight.value)


BAD_GROUPS: dict[str, tuple[dict, str]] = {
    "another form of key": ({"b": None, 3: None}, "cannot be sorted"),
    "nested": ({"b": {"weight": None}}, r"params\['b'\] is a dictionary .*flat dictionaries"),
    "a key that is taken": ({"a": None}, r"params\['a'\] has the key of another parameter, of "),
    "nothing": ({}, "params has no parameter"),
}


def optimizer_with_a_group_of_its_own(params):
    optimizer = braintools.optim.SGD(lr=0.25)
    optimizer.register_trainable_weights({("a", "weight"): parameter()})
    optimizer.add_param_group(params, lr=0.125)
    return optimizer


def test_weights_that_are_registered_once_more_change_nothing():
    states = {"a": parameter(), "b": parameter()}
    optimizer = braintools.optim.Adam(lr=StepLR(0.5))
    optimizer.register_trainable_weights({"a": states["a"]})
    optimizer.add_param_group({"b": states["b"]}, lr=0.25)
    optimizer.register_trainable_weights(states)  # as braintools' Trainer does
    optimizer.step({key: jnp.ones(2) for key in states})
    np.testing.assert_allclose(states["a"].value, -0.5, rtol=1e-5)
    np.testing.assert_allclose(states["b"].value, -0.25, rtol=1e-5)


class OneGroupLR(LRScheduler):
    """A formula that fails for a second group."""

    def formula(self, epoch, base_lrs, xp):
        if len(base_lrs) > 1:
            raise ZeroDivisionError("mine")
        return base_lrs + 0 * epoch


def test_an_error_of_the_formula_when_a_group_is_added_leaves_all_as_it_was():
    optimizer = sgd(OneGroupLR(0.5))
    for _ in range(2):
        with pytest.raises(ZeroDivisionError, match="mine"):
            optimizer.add_param_group({"b": parameter()})
    assert len(optimizer.param_groups) == 1
    assert moved(optimizer) == 0.5
    optimizer.lr.step()
    assert moved(optimizer) == 0.5


def test_an_error_of_braintools_when_a_group_is_added_leaves_all_as_it_was():
    optimizer = sgd(StepLR(0.5))
    with pytest.raises(TypeError):
        optimizer.add_param_group({"b": parameter()}, weight_decay="much")
    assert len(optimizer.param_groups) == 1
    assert len(optimizer.lr.current_lrs.value) == 1
    assert moved(optimizer) == 0.5
    optimizer.add_param_group({"b": parameter()})
    optimizer.step({"a": jnp.ones(2), "b": jnp.ones(2)})


# One scheduler, one optimizer


@pytest.mark.parametrize("times", [1, 3])
def test_a_replaced_scheduler_is_whole_and_comes_back(times):
    scheduler, other = StepLR(0.5, 1, 0.5), ConstantLR(0.875, 1.0)
    optimizer = sgd(scheduler)
    scheduler.step()
    for _ in range(times):
        other.attach_optimizer(optimizer)
        assert scheduler.optimizer is None
        assert scheduler.get_last_lr() == [0.25]
        assert moved(optimizer) == 0.875
        scheduler.attach_optimizer(optimizer)
        assert other.optimizer is None
        assert moved(optimizer) == 0.25


def test_a_program_compiled_before_the_scheduler_was_replaced_applies_the_new_rate():
    optimizer = sgd(StepLR(0.5))
    weight = optimizer.param_groups[0]["params"]["a"]

    @jit
    def train_step():
        optimizer.step({"a": jnp.ones(2)})

    train_step()
    other = CosineAnnealingLR(0.25, 10)
    other.attach_optimizer(optimizer)
    train_step()
    assert float(weight.value[0]) == -0.75
    other.step(10)
    train_step()
    assert float(weight.value[0]) == -0.75


def test_an_optimizer_that_could_not_be_built_does_not_hold_its_scheduler():
    scheduler = StepLR(0.5)
    with pytest.raises(TypeError, match="tx must be an instance"):
        braintools.optim.OptaxOptimizer(tx="sgd", lr=scheduler)
    assert moved(sgd(scheduler)) == 0.5  # and nothing says that the scheduler moves


# What an optimizer still is


def test_the_type_of_an_optimizer_builds_a_plain_one_that_works():
    optimizer = sgd(StepLR(0.5))
    assert isinstance(optimizer, braintools.optim.SGD)
    assert type(optimizer) is type(sgd(StepLR(0.25)))
    plain = type(optimizer)(lr=0.25, momentum=0.0)
    assert type(plain) is braintools.optim.SGD
    plain.register_trainable_weights({"a": parameter()})
    assert moved(plain) == 0.25
    plain.load_state_dict(plain.state_dict())
    plain.add_param_group({"b": parameter()}, lr=0.5)
    scheduled = type(optimizer)(lr=StepLR(0.125))
    scheduled.register_trainable_weights({"a": parameter()})
    assert moved(scheduled) == 0.125


def test_the_state_dict_of_an_optimizer_is_plain_and_leaves_its_groups_alone():
    optimizer = sgd(StepLR(0.5))
    optimizer.add_param_group({"b": parameter()}, lr=0.25)
    groups = optimizer.state_dict()["param_groups"]
    assert [type(group) for group in groups.values()] == [dict, dict]
    assert [float(group["lr"]) for group in groups.values()] == [0.5, 0.25]
    assert "tx" in optimizer.param_groups[1]


VECTOR, BOOL = jnp.array([0.1, 0.2]), jnp.array(True)


@pytest.mark.parametrize(("value", "error"), [(VECTOR, ValueError), (BOOL, TypeError)])
def test_a_device_value_that_is_no_rate_is_refused(value, error):
    optimizer = sgd(StepLR(0.5))

    def by_state():
        optimizer.param_groups[0]["lr"].value = value

    def by_item():
        optimizer.param_groups[0]["lr"] = value

    def by_attribute():
        optimizer.current_lr = value

    for write in (by_state, by_item, by_attribute):
        with pytest.raises(error, match=r"must be a scalar|must hold real numbers"):
            write()
    assert moved(optimizer) == 0.5


def test_a_rate_set_by_hand_may_be_traced():
    optimizer = sgd(StepLR(0.5))

    @jit
    def train_step(rate):
        optimizer.current_lr = rate
        optimizer.step({"a": jnp.ones(2)})

    train_step(0.25)
    assert optimizer.get_last_lr() == [0.25]
    np.testing.assert_array_equal(optimizer.param_groups[0]["params"]["a"].value, -0.25)


# A program that set a rate by hand, and cannot raise


@pytest.mark.parametrize("bad", [-0.25, float("nan"), float("inf")])
def test_a_bad_rate_on_a_device_is_refused_on_the_host(bad):
    optimizer = sgd(StepLR(0.5))

    def by_list():
        optimizer.lr.current_lrs.value = [jnp.asarray(bad)]

    def by_attribute():
        optimizer.current_lr = jnp.asarray(bad)

    for write in (by_list, by_attribute):
        with pytest.raises(ValueError, match=r"current_lrs\[0\] must be finite and not negative"):
            write()
    assert moved(optimizer) == 0.5


def test_the_gradient_of_a_rate_that_is_set_by_hand_is_what_it_was():
    def moved_by(rate):
        optimizer = sgd(StepLR(0.5))
        optimizer.current_lr = rate
        optimizer.step({"a": jnp.full(2, 3.0)})
        return optimizer.param_groups[0]["params"]["a"].value[0]

    np.testing.assert_array_equal(jax.grad(moved_by)(0.25), -3.0)


# Rates and arguments cannot be changed in place


IN_PLACE = {
    "an item": lambda rates: rates.__setitem__(0, 0.125),
    "append": lambda rates: rates.append(0.125),
    "+=": lambda rates: rates.__iadd__([0.125]),
    "clear": lambda rates: rates.clear(),
    "sort": lambda rates: rates.sort(),
}


def test_an_optimizer_under_vmap_trains_each_copy_at_its_own_rate():
    def trained(base_lr):
        optimizer = sgd(StepLR(base_lr, 1, 0.5))
        optimizer.add_param_group({"b": parameter()}, lr=base_lr)
        gradients = {"a": jnp.ones(2), "b": jnp.ones(2)}
        optimizer.step(gradients)
        optimizer.lr.step()
        optimizer.step(gradients)
        return [optimizer.param_groups[g]["params"][k].value[0] for g, k in enumerate("ab")]

    for moved_by in vmap(trained)(jnp.array([0.25, 0.5])):
        np.testing.assert_allclose(moved_by, [-0.375, -0.75], rtol=1e-5)


def test_after_a_step_on_the_host_the_transformation_may_be_compiled_alone():
    optimizer = sgd(StepLR(0.5, 1, 0.5))
    tx, parameters = optimizer.tx, {"a": jnp.zeros(2)}
    assert moved(optimizer) == 0.5
    update = jit(lambda: tx.update({"a": jnp.ones(2)}, tx.init(parameters))[0]["a"][0])
    assert update() == -0.5
    optimizer.lr.step()
    assert update() == -0.25


WRAPPERS = {
    "MultiSteps": lambda tx: optax.MultiSteps(tx, 2).gradient_transformation(),
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 3),
    "jit": lambda tx: optax.GradientTransformation(tx.init, jax.jit(tx.update)),
}


def wrapped(name):
    """Return an optimizer with a wrapped transformation, and its parameter."""
    optimizer = braintools.optim.SGD(lr=StepLR(0.5, 1, 0.5))
    optimizer.tx = WRAPPERS[name](optimizer.tx)
    weight = parameter()
    optimizer.register_trainable_weights({"a": weight})
    return optimizer, weight


# MultiSteps applies the mean of two gradients at the rate of the second one.
@pytest.mark.parametrize(("name", "expected"), [("MultiSteps", 0.25), ("apply_if_finite", 0.75)])
def test_compiled_as_a_whole_it_applies_the_rates_of_the_schedule(name, expected):
    optimizer, weight = wrapped(name)

    @jit
    def train_step():
        optimizer.step({"a": jnp.ones(2)})
        optimizer.lr.step()

    train_step(), train_step()
    np.testing.assert_array_equal(weight.value, -expected)


# A scheduler that was built in a function that was traced


def built_within():
    """Return a scheduler and an optimizer that a compiled function built, after its call."""
    kept = []

    @jit
    def train():
        scheduler = StepLR(0.5, 1, 0.5)
        kept.append((scheduler, sgd(scheduler)))
        kept[-1][1].step({"a": jnp.ones(2)})
        scheduler.step()
        return kept[-1][1].param_groups[0]["params"]["a"].value

    np.testing.assert_array_equal(train(), -0.5)
    return kept[0]


OUTLIVED = {
    "step": lambda scheduler: scheduler.step(),
    "compiled step": lambda scheduler: jit(scheduler.step)(),
    "get_last_lr": lambda scheduler: scheduler.get_last_lr(),
    "epoch": lambda scheduler: scheduler.epoch,
    "the optimizer's rates": lambda scheduler: scheduler.optimizer.get_last_lr(),
    "attach_optimizer": lambda scheduler: scheduler.attach_optimizer(sgd(0.25)),
    "add_param_group": lambda scheduler: scheduler.optimizer.add_param_group({"b": parameter()}),
}


# A scheduler that nobody reads


THEIRS = {
    "StepLR": lambda: braintools.optim.StepLR(0.75, 1, 0.5),
    "ChainedScheduler": lambda: braintools.optim.ChainedScheduler([braintools.optim.StepLR(0.75)]),
    "ReduceLROnPlateau": lambda: braintools.optim.ReduceLROnPlateau(0.75, patience=0),
    "CosineAnnealingWarmRestarts": lambda: braintools.optim.CosineAnnealingWarmRestarts(0.75, 2),
}


def test_a_transformation_that_reads_the_applied_rates_itself_is_no_cause_for_a_warning():
    scheduler = StepLR(0.5, 1, 0.5)
    tx = optax.scale_by_schedule(lambda count: -scheduler.current_lrs.value[0])
    optimizer = braintools.optim.OptaxOptimizer(tx=tx, lr=scheduler)
    optimizer.register_trainable_weights({"a": parameter()})
    assert moved(optimizer) == 0.5
    scheduler.step()
    assert moved(optimizer) == 0.25


def rebuilt(scheduler):
    return type(scheduler)(scheduler.base_lr, scheduler.step_size, scheduler.gamma)


def through_config(scheduler):
    return brainsched.from_config(scheduler.config)


def through_pickle(scheduler):
    return pickle.loads(pickle.dumps(scheduler))


def test_a_copy_is_silent_before_the_training_and_where_both_are_stepped():
    scheduler = StepLR(0.5, 1, 0.5)
    optimizer, preview = sgd(scheduler), copy.deepcopy(scheduler)
    preview.step()
    moved(optimizer)
    scheduler.step()
    copy.deepcopy(scheduler).step()
    assert moved(optimizer) == 0.25


class Experiment:
    """Has its optimizer, and a scheduler that was never attached."""

    def __init__(self, optimizer):
        self.optimizer = optimizer
        self.optimizer.register_trainable_weights({"a": parameter()})
        self.scheduler = StepLR(0.125, 1, 0.5)

    def train(self):
        self.optimizer.step({"a": jnp.ones(2)})
        self.scheduler.step()


def test_a_transformation_that_only_a_step_can_run_is_not_judged():
    tx = optax.chain(optax.contrib.reduce_on_plateau(), optax.sgd(0.5))
    optimizer = braintools.optim.OptaxOptimizer(tx=tx)
    optimizer.register_trainable_weights({"a": parameter()})
    scheduler = StepLR(0.125)
    scheduler.step()
    assert scheduler.optimizer is None


def test_the_transformation_can_be_used_by_itself_in_compiled_code():
    optimizer = sgd(StepLR(0.5))
    params = {"a": jnp.zeros(2)}
    update = jit(lambda: optimizer.tx.update({"a": jnp.ones(2)}, optimizer.opt_state.value, params))
    np.testing.assert_array_equal(update()[0]["a"], [-0.5, -0.5])


def test_a_scheduler_that_is_used_alone_is_silent():
    attached = StepLR(0.5)
    optimizer = sgd(attached)
    alone = StepLR(0.5)
    alone.step()
    alone.lr_at([1, 2])
    assert alone.get_last_lr() == attached.get_lr()
    assert moved(optimizer) == 0.5


# Where private names of others are used


def test_private_names_of_brainstate_and_braintools_stand_in_one_file():
    source = pathlib.Path(brainsched.__file__).parent
    upstream = (source / "link" / "upstream.py").read_text()
    private = r"\.(_lr_scheduler|_current_lr|_base_lr|_trace_state|_value|_write_value|_state)\b"
    assert len(set(re.findall(private, upstream))) >= 5
    for path in source.rglob("*.py"):
        if path.name != "upstream.py":
            text = path.read_text()
            found = re.findall(private, text)
            assert not found, f"{path.name} uses {found}: move it to upstream.py"
            imports = re.findall(r"from (?:brainstate|braintools|optax)\S*\._\S* import", text)
            assert not imports, textwrap.shorten(str(imports), 80)
