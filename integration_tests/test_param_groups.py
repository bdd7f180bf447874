"""Param groups of real braintools optimizers: the applied rate is read off the parameters.

SGD without momentum moves a parameter by minus rate times gradient, in added groups too.
test_every_optimizer.py has the other algorithms.
"""

import copy
import pickle
from typing import Any

import brainstate
import braintools
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brainstate.transform import for_loop, jit

from brainsched import LambdaLR, PiecewiseConstantSchedule

STAGES = [1.0, 0.5, 0.25]


def parameter():
    return brainstate.ParamState(jnp.zeros(2))


class Training:
    """An optimizer over single parameters, one a group, and how far each step moves them."""

    def __init__(self, scheduler, compiled=False, optimizer=None):
        self.optimizer = optimizer or braintools.optim.SGD(lr=scheduler)
        self.parameters = {("first", "weight"): parameter()}
        self.optimizer.register_trainable_weights(dict(self.parameters))
        self.traces = 0
        self._step = jit(self._run) if compiled else self._run

    def add(self, name, /, **kwargs):
        weight = parameter()
        self.optimizer.add_param_group({(name, "weight"): weight}, **kwargs)
        self.parameters[name, "weight"] = weight

    def _run(self):
        self.traces += 1
        self.optimizer.step({name: jnp.ones(2) for name in self.parameters})

    def movements(self):
        """Take one optimizer step and return how far each group's parameter went."""
        before = {name: np.asarray(p.value, float) for name, p in self.parameters.items()}
        self._step()
        return [
            float((before[name] - np.asarray(p.value, float))[0])
            for name, p in self.parameters.items()
        ]

    def reported(self):
        """Return the rates as the scheduler, the groups and the optimizer report them."""
        optimizer = self.optimizer
        shown = [float(group["lr"].value) for group in optimizer.param_groups]
        assert [float(rate) for rate in optimizer.lr.current_lrs.value] == shown
        assert np.float32(optimizer.current_lr) == np.float32(shown[0])
        return shown


def check(training, *rates):
    np.testing.assert_allclose(training.reported(), rates, rtol=1e-7)
    np.testing.assert_allclose(training.movements(), rates, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(training.reported(), rates, rtol=1e-7)


def constant(rate):
    return PiecewiseConstantSchedule(rate, [], [1.0])


on_host_and_compiled = pytest.mark.parametrize("compiled", [False, True], ids=["host", "jit"])


@on_host_and_compiled
def test_first_group_runs_at_its_scheduled_rate_from_the_first_step(compiled):
    scheduler = PiecewiseConstantSchedule(0.1, [2, 4], [0.5, 2.0, 1.0])
    training = Training(scheduler, compiled)
    for rate in (0.05, 0.05, 0.2, 0.2, 0.1, 0.1):
        check(training, rate)
        scheduler.step()


@on_host_and_compiled
def test_group_added_later_is_scheduled_from_its_first_step(compiled):
    scheduler = PiecewiseConstantSchedule(0.1, [1, 3], STAGES)
    training = Training(scheduler, compiled)
    check(training, 0.1)
    scheduler.step()
    training.add("with lr", lr=0.04)
    training.add("without")
    check(training, 0.05, 0.02, 0.05)
    scheduler.step(3)
    check(training, 0.025, 0.01, 0.025)
    assert scheduler.base_lrs == [0.1, 0.04, 0.1]
    if compiled:
        assert training.traces == 2  # once for each set of groups


@on_host_and_compiled
def test_group_takes_its_entry_of_the_base_rates_then_the_last(compiled):
    scheduler = PiecewiseConstantSchedule([0.1, 0.2], [1], [1.0, 0.5])
    training = Training(scheduler, compiled)
    check(training, 0.1)
    training.add("listed")
    training.add("after the last")
    check(training, 0.1, 0.2, 0.2)
    scheduler.step()
    check(training, 0.05, 0.1, 0.1)


def test_lr_equal_to_the_listed_base_rate_is_accepted_in_any_type():
    training = Training(PiecewiseConstantSchedule([0.1, 0.2]))
    training.add("second", lr=np.float32(0.2))
    check(training, 0.1, 0.2)


def test_lr_that_differs_from_the_listed_base_rate_is_refused_and_nothing_is_lost():
    training = Training(PiecewiseConstantSchedule([0.1, 0.2]))
    with pytest.raises(ValueError, match=r"param group 1 .* lr=0\.3, but its base rate is 0\.2"):
        training.add("second", lr=0.3)
    assert len(training.optimizer.param_groups) == 1
    check(training, 0.1)
    training.add("second", lr=0.2)
    check(training, 0.1, 0.2)


@pytest.mark.parametrize("lr", [-0.1, float("nan"), "0.1", True])
def test_bad_lr_of_a_group_is_refused_and_nothing_is_lost(lr):
    training = Training(PiecewiseConstantSchedule(0.1))
    with pytest.raises((TypeError, ValueError), match="lr of param group 1 must be"):
        training.add("second", lr=lr)
    assert len(training.optimizer.param_groups) == 1
    assert len(training.optimizer.lr.current_lrs.value) == 1


KEY = ("second", "weight")
PARAMS = {
    "a list, as in PyTorch": (lambda taken: [parameter()], TypeError, "params must be a dict"),
    "nothing": (lambda taken: {}, TypeError, "of one or more States"),
    "PyTorch's form": (lambda taken: {"params": [parameter()], "lr": 0.1}, TypeError, "'params'"),
    "arrays": (
        lambda taken: {KEY: jnp.zeros(2)},
        TypeError,
        "must be a dictionary of one or more States",
    ),
    "nested": (lambda taken: {KEY: {"w": parameter()}}, TypeError, "of one or more States"),
    "a taken key": (lambda taken: {("first", "weight"): parameter()}, ValueError, "is already in"),
    "a taken state": (lambda taken: {KEY: taken}, ValueError, "is already in a param group"),
    "keys of two kinds": (lambda taken: {KEY: parameter(), 3: parameter()}, ValueError, "sort"),
}
ARGUMENTS = {
    "learning_rate": (
        {"learning_rate": 0.1},
        TypeError,
        r"unexpected keyword argument .learning_r",
    ),
    "momentum": ({"momentum": 0.9}, TypeError, r"unexpected keyword argument .momentum"),
    "weight_decay": ({"weight_decay": "much"}, TypeError, "weight_decay must be a number"),
    "a schedule": ({"lr": PiecewiseConstantSchedule()}, TypeError, "lr of param group 1 must be a"),
    "another name": (
        {"name": "tail"},
        ValueError,
        "group 1 is called .head. in base_lr",
    ),
}


@pytest.mark.parametrize("case", [*PARAMS, *ARGUMENTS])
def test_a_group_that_is_refused_changes_nothing(case):
    training = Training(PiecewiseConstantSchedule({"body": 0.1, "head": 0.2}))
    given: Any = {}
    params: Any
    if case in PARAMS:
        make, error, message = PARAMS[case]
        params = make(training.parameters["first", "weight"])
    else:
        given, error, message = ARGUMENTS[case]
        params = {KEY: parameter()}
    with pytest.raises(error, match=message):
        training.optimizer.add_param_group(params, **given)
    assert len(training.optimizer.param_states.to_pytree()) == 1
    assert len(training.optimizer.param_groups) == 1
    check(training, 0.1)
    training.add("second", name="head")
    check(training, 0.1, 0.2)
    assert training.optimizer.param_groups[1]["name"] == "head"


def test_a_group_that_is_added_before_the_weights_are_registered_is_refused():
    optimizer = braintools.optim.SGD(lr=PiecewiseConstantSchedule(0.1))
    with pytest.raises(ValueError, match="register_trainable_weights must be called before"):
        optimizer.add_param_group({"first": parameter()})
    assert optimizer.param_groups == []


def test_weights_that_are_registered_twice_all_belong_to_the_first_group():
    training = Training(PiecewiseConstantSchedule(0.1))
    training.parameters["more", "weight"] = parameter()
    training.optimizer.register_trainable_weights(
        {("more", "weight"): training.parameters["more", "weight"]}
    )
    np.testing.assert_allclose(training.movements(), [0.1, 0.1], rtol=1e-5)
    training.add("second", lr=0.2)
    # braintools' Trainer registers all weights of a model once more.
    training.optimizer.register_trainable_weights(dict(training.parameters))
    np.testing.assert_allclose(training.movements(), [0.1, 0.1, 0.2], rtol=1e-5)
    with pytest.raises(ValueError, match="register_trainable_weights must be called before add"):
        training.optimizer.register_trainable_weights({("late", "weight"): parameter()})


@on_host_and_compiled
def test_an_added_group_may_be_the_only_one_with_parameters(compiled):
    scheduler = PiecewiseConstantSchedule(0.1, [1], [1.0, 0.5])
    optimizer = braintools.optim.SGD(lr=scheduler)
    optimizer.register_trainable_weights({})
    only = parameter()
    optimizer.add_param_group({"only": only}, lr=0.2)
    step = jit(optimizer.step) if compiled else optimizer.step
    for total in (0.2, 0.3):
        step({"only": jnp.ones(2)})
        np.testing.assert_allclose(only.value, -total, rtol=1e-5)
        scheduler.step()


class Network(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = [brainstate.nn.Linear(3, 3) for _ in range(2)]
        self.head = brainstate.nn.Linear(3, 1)

    def update(self, x):
        for layer in self.layers:
            x = jnp.tanh(layer(x))
        return self.head(x)


@on_host_and_compiled
def test_groups_of_a_models_states_run_at_their_rates_and_a_frozen_one_stays(compiled):
    brainstate.random.seed(0)
    model = Network()
    states = model.states(brainstate.ParamState)
    parts = [{k: s for k, s in states.items() if k[0] == part} for part in ("head", "layers")]
    assert ("layers", 0, "weight") in parts[1]
    scheduler = PiecewiseConstantSchedule([0.5, 0.25], [2], [[1.0, 0.0], [1.0, 0.5]])
    optimizer = braintools.optim.SGD(lr=scheduler)
    optimizer.register_trainable_weights(parts[0])
    optimizer.add_param_group(parts[1])

    def train_step():
        loss = lambda: (model(jnp.ones((4, 3))) ** 2).sum()  # noqa: E731
        gradients = brainstate.transform.grad(loss, states)()
        optimizer.step(gradients)
        return gradients

    step = jit(train_step) if compiled else train_step
    for rates in [(0.5, 0.0), (0.5, 0.0), (0.5, 0.125)]:
        before = {key: jax.tree.map(np.asarray, state.value) for key, state in states.items()}
        gradients = step()
        scheduler.step()
        for part, rate in zip(parts, rates, strict=True):
            for key, state in part.items():
                expected = jax.tree.map(lambda w, g, r=rate: w - r * g, before[key], gradients[key])
                jax.tree.map(
                    lambda new, old: np.testing.assert_allclose(new, old, rtol=1e-5, atol=1e-6),
                    state.value,
                    expected,
                )
                if not rate:
                    jax.tree.map(np.testing.assert_array_equal, state.value, before[key])


def test_a_mixed_run_traces_and_compiles_once_for_each_set_of_groups(compilations):
    scheduler = PiecewiseConstantSchedule(0.1, [2, 4], STAGES)
    training = Training(scheduler)

    @jit(name="train_step")
    def train_step():
        training._run()
        scheduler.step()

    def run():
        for change in (
            scheduler.step,
            lambda: scheduler.step(4),
            lambda: setattr(training.optimizer, "current_lr", 0.5),
            lambda: scheduler.load_state_dict(scheduler.state_dict()),
            lambda: training.optimizer.lr_apply(lambda rate: rate * 2),
            lambda: training.optimizer.load_state_dict(training.optimizer.state_dict()),
        ):
            train_step()
            change()
        train_step()

    run()
    assert training.traces == sum("train_step" in name for name in compilations) == 1
    training.add("second", lr=0.2)
    run()
    assert training.traces == sum("train_step" in name for name in compilations) == 2


def test_adding_groups_compiles_a_users_function_no_more(compilations):
    training = Training(LambdaLR([0.1] * 8, lambda epoch: jnp.exp(-epoch / 10)))
    for group in range(1, 8):
        before = sum("_rounded" in name or "_in_jax" in name for name in compilations)
        training.add(f"group {group}")
        after = sum("_rounded" in name or "_in_jax" in name for name in compilations)
        assert before == after


@on_host_and_compiled
def test_each_group_follows_its_column_and_zero_freezes(compiled):
    values = [[1.0, 0.0], [0.5, 1.0]]
    scheduler = PiecewiseConstantSchedule([0.1, 0.2, 0.3], [2], [[*row, 7.0] for row in values])
    training = Training(scheduler, compiled)
    check(training, 0.1)
    training.add("second")
    check(training, 0.1, 0.0)
    scheduler.step(2)
    check(training, 0.05, 0.2)


def test_more_groups_than_columns_is_refused_when_the_group_is_added():
    training = Training(PiecewiseConstantSchedule(0.1, [2], [[1.0, 0.0], [0.5, 1.0]]))
    training.add("second")
    with pytest.raises(ValueError, match=r"param group 2 has no rate: .* 2 column"):
        training.add("third")
    check(training, 0.1, 0.0)


def test_optimizer_and_scheduler_step_in_one_for_loop():
    scheduler = PiecewiseConstantSchedule(0.5, [1000, 2500], [4.0, 2.0, 1.0])
    training = Training(scheduler)

    def step(_):
        training._run()
        scheduler.step()
        return training.parameters["first", "weight"].value[0]

    after = np.asarray(for_loop(step, jnp.arange(3000)), float)
    moved = -np.diff(after, prepend=0.0)
    expected = np.repeat([2.0, 1.0, 0.5], [1000, 1500, 500])
    np.testing.assert_array_equal(moved, expected)  # halves are exact in float32


@on_host_and_compiled
def test_hand_set_rate_lasts_until_the_next_step(compiled):
    scheduler = PiecewiseConstantSchedule(0.1, [5], [1.0, 0.5])
    training = Training(scheduler, compiled)
    training.add("second", lr=0.2)
    training.optimizer.current_lr = 0.5
    check(training, 0.5, 0.2)
    check(training, 0.5, 0.2)
    training.optimizer.param_groups[1]["lr"].value = 0.7
    check(training, 0.5, 0.7)
    scheduler.step()
    check(training, 0.1, 0.2)
    training.optimizer.lr_apply(lambda rate: rate * 3)
    check(training, 0.3, 0.6)
    scheduler.step()
    check(training, 0.1, 0.2)


def test_hand_set_rate_survives_the_arrival_of_a_group():
    training = Training(PiecewiseConstantSchedule(0.1))
    training.optimizer.current_lr = 0.5
    training.add("second", lr=0.2)
    check(training, 0.5, 0.2)


# An optimizer that was built with a plain rate


def test_attaching_to_an_optimizer_with_a_plain_rate_redirects_the_applied_rate():
    training = Training(None, compiled=True, optimizer=braintools.optim.SGD(lr=0.8))
    np.testing.assert_allclose(training.movements(), [0.8], rtol=1e-5)
    scheduler = PiecewiseConstantSchedule(0.1, [1], [1.0, 0.5])
    scheduler.attach_optimizer(training.optimizer)
    check(training, 0.1)
    scheduler.step()
    check(training, 0.05)
    training.add("later", lr=0.6)
    check(training, 0.05, 0.3)
    training.optimizer.current_lr = 0.7
    check(training, 0.7, 0.3)


def test_attaching_after_braintools_has_added_groups_is_refused_and_nothing_is_lost():
    training = Training(None, compiled=True, optimizer=braintools.optim.SGD(lr=0.8))
    training.add("second", lr=0.4)
    scheduler = PiecewiseConstantSchedule(0.1)
    with pytest.raises(ValueError, match="must be called before add_param_group"):
        scheduler.attach_optimizer(training.optimizer)
    assert scheduler.optimizer is None
    # braintools 0.3.0 and 0.4.0 train groups of tuple keys with the first group, by its rate.
    np.testing.assert_allclose(training.movements(), [0.8, 0.8], rtol=1e-5)


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (PiecewiseConstantSchedule([0.1, 0.2]), r"param group 1 .* lr=0\.4, .* rate is 0\.2"),
        (PiecewiseConstantSchedule(0.1, [1], [[1.0], [0.5]]), "param group 1 has no rate"),
    ],
)
def test_attaching_where_a_group_has_no_rate_or_two_is_refused_and_nothing_is_lost(
    scheduler, message
):
    training = Training(PiecewiseConstantSchedule(0.8), compiled=True)
    training.add("second", lr=0.4)
    with pytest.raises(ValueError, match=message):
        scheduler.attach_optimizer(training.optimizer)
    assert scheduler.optimizer is None
    check(training, 0.8, 0.4)


def test_a_second_scheduler_replaces_the_first():
    first = PiecewiseConstantSchedule(0.1)
    training = Training(first, compiled=True)
    training.add("second", lr=0.2)
    check(training, 0.1, 0.2)
    second = PiecewiseConstantSchedule(0.3, [1], [1.0, 0.5])
    second.attach_optimizer(training.optimizer)
    check(training, 0.3, 0.2)
    second.step()
    check(training, 0.15, 0.1)
    training.add("third")
    check(training, 0.15, 0.1, 0.15)


def test_a_scheduler_that_was_replaced_has_the_base_rates_of_its_groups_for_another_optimizer():
    first = PiecewiseConstantSchedule(0.1)
    training = Training(first)
    training.add("second", lr=0.2)
    constant(0.3).attach_optimizer(training.optimizer)
    again = Training(first)
    assert first.base_lrs == [0.1, 0.2]
    again.add("second")
    check(again, 0.1, 0.2)


@pytest.mark.parametrize("options", [{"momentum": 0.5}, {"grad_clip_norm": 1.0}], ids=str)
def test_a_scheduler_that_replaces_another_leaves_groups_and_their_moments_as_they_are(options):
    training = Training(None, True, braintools.optim.SGD(constant(0.1), **options))
    training.add("second", lr=0.1)
    training.movements()
    saved = training.optimizer.state_dict()
    constant(0.1).attach_optimizer(training.optimizer)
    # By hand: momentum gives 1 + 0.5 times the rate; each group is clipped from sqrt(2) to 1.
    expected = 0.1 * 1.5 if "momentum" in options else 0.1 / np.sqrt(2)
    np.testing.assert_allclose(training.movements(), [expected] * 2, rtol=1e-5)
    training.optimizer.load_state_dict(saved)
    np.testing.assert_allclose(training.movements(), [expected] * 2, rtol=1e-5)


def test_a_scheduler_with_other_names_for_the_groups_is_refused():
    training = Training(constant(0.1), compiled=True)
    training.add("second", name="head")
    other = PiecewiseConstantSchedule({"head": 0.01, "body": 0.5})
    with pytest.raises(ValueError, match=r"group 1 is called .body. in base_lr, got .head."):
        other.attach_optimizer(training.optimizer)
    assert other.optimizer is None
    check(training, 0.1, 0.1)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_copies_keep_added_groups_and_hand_set_rates_and_leave_the_optimizer(duplicate):
    scheduler = PiecewiseConstantSchedule(0.1, [1], [1.0, 0.5])
    training = Training(scheduler)
    training.add("second", lr=0.2)
    scheduler.step()
    training.optimizer.current_lr = 0.7
    other = duplicate(scheduler)
    assert other.optimizer is None
    assert other.base_lrs == [0.1, 0.2]
    assert [float(rate) for rate in other.current_lrs.value] == [np.float32(0.7), np.float32(0.1)]
    again = Training(other)
    again.add("second")
    check(again, 0.7, 0.1)
    check(training, 0.7, 0.1)


# Checkpoints of optimizer and scheduler together


def trained(base_lr=0.1, groups=2):
    scheduler = PiecewiseConstantSchedule(base_lr, [2, 4], STAGES)
    training = Training(scheduler)
    for group in range(1, groups):
        training.add(f"group {group}", lr=0.2 * group)
    return training, scheduler


@pytest.mark.parametrize("scheduler_first", [False, True])
def test_rates_reach_the_optimizer_whichever_of_the_two_is_loaded_first(scheduler_first):
    training, scheduler = trained()
    scheduler.step(3)
    training.optimizer.current_lr = 0.7
    saved = training.optimizer.state_dict(), scheduler.state_dict()
    again, restored = trained()
    if scheduler_first:
        restored.load_state_dict(saved[1])
        check(again, 0.7, 0.1)
    again, restored = trained()
    loads = [
        lambda: again.optimizer.load_state_dict(saved[0]),
        lambda: restored.load_state_dict(saved[1]),
    ]
    for load in reversed(loads) if scheduler_first else loads:
        load()
    check(again, 0.7, 0.1)
    restored.step()
    check(again, 0.025, 0.05)


@pytest.mark.parametrize("scheduler_first", [False, True])
def test_changed_schedule_holds_whichever_of_the_two_is_loaded_first(scheduler_first):
    training, scheduler = trained()
    scheduler.step(3)
    optimizer_state, state = training.optimizer.state_dict(), scheduler.state_dict()
    again, restored = trained(base_lr=0.4)
    if not scheduler_first:
        again.optimizer.load_state_dict(optimizer_state)
    with pytest.warns(UserWarning, match="base_lr changed"):
        restored.load_state_dict(state)
    if scheduler_first:
        again.optimizer.load_state_dict(optimizer_state)
    check(again, 0.2, 0.1)


def test_rates_that_the_scheduler_restored_wait_for_the_groups_of_its_optimizer():
    training, scheduler = trained(base_lr=[0.1, 0.2])
    training.optimizer.param_groups[1]["lr"] = 0.05
    restored = PiecewiseConstantSchedule([0.1, 0.2], [2, 4], STAGES)
    restored.load_state_dict(scheduler.state_dict())
    again = Training(restored)
    again.add("group 1")
    check(again, 0.1, 0.05)


def test_restored_rates_hold_where_the_scheduler_replaces_another_before_the_optimizer_loads():
    training, scheduler = trained()
    training.optimizer.current_lr = 0.7
    saved = training.optimizer.state_dict(), copy.deepcopy(scheduler).state_dict()
    training.optimizer.current_lr = 0.6
    again, former = trained()
    restored = copy.deepcopy(former)
    restored.load_state_dict(saved[1])
    restored.attach_optimizer(again.optimizer)
    again.optimizer.load_state_dict(training.optimizer.state_dict())
    check(again, 0.7, 0.2)


def test_optimizer_checkpoint_alone_restores_its_rates():
    training, _ = trained()
    training.optimizer.current_lr = 0.7
    again, _ = trained()
    again.optimizer.load_state_dict(training.optimizer.state_dict())
    check(again, 0.7, 0.2)


def test_checkpoint_of_more_groups_says_to_add_them_first():
    _, scheduler = trained(groups=3)
    again, restored = trained(groups=2)
    with pytest.raises(ValueError, match=r"3 param group\(s\), .* has 2: add the groups"):
        restored.load_state_dict(scheduler.state_dict())
    check(again, 0.1, 0.2)


def test_whole_state_of_the_graph_is_restored_in_place():
    training, scheduler = trained()
    scheduler.step(3)
    training.optimizer.current_lr = 0.7
    saved = brainstate.graph.treefy_states(training.optimizer)
    scheduler.step(5)
    training.movements()
    brainstate.graph.update_states(training.optimizer, saved)
    assert scheduler.epoch == 3
    check(training, 0.7, 0.1)


def test_whole_state_of_fewer_groups_is_refused():
    training, _ = trained(groups=1)
    saved = brainstate.graph.treefy_states(training.optimizer)
    training.add("second", lr=0.2)
    with pytest.raises(ValueError, match="current_lrs has size 2, one per group, got 1"):
        brainstate.graph.update_states(training.optimizer, saved)
    check(training, 0.1, 0.2)


def test_graph_of_an_optimizer_holds_the_position():
    training, scheduler = trained()
    found = brainstate.graph.states(training.optimizer)
    assert found[("_lr_scheduler", "last_epoch")] is scheduler.last_epoch
    assert found[("_lr_scheduler", "_current_lrs")] is scheduler.current_lrs


def test_repr_of_an_optimizer_shows_the_position():
    training, scheduler = trained()
    scheduler.step(3)
    assert "last_epoch=3" in repr(training.optimizer)


# Sweeps and gradients


def loss_after_training(base_lr, values, steps=6):
    """Train one parameter towards zero and return its loss."""
    weight = brainstate.ParamState(jnp.array([1.0, -2.0]))
    scheduler = PiecewiseConstantSchedule(base_lr, [2, 4], values)
    optimizer = braintools.optim.SGD(lr=scheduler)
    optimizer.register_trainable_weights({"weight": weight})

    def train_step(_):
        gradients = brainstate.transform.grad(
            lambda: 0.5 * (weight.value**2).sum(), {"weight": weight}
        )()
        optimizer.step(gradients)
        scheduler.step()

    for_loop(train_step, jnp.arange(steps))
    return 0.5 * (weight.value**2).sum()


def exact_loss(base_lr, values):
    """Each of two steps a stage shrinks the parameters by 1 - rate."""
    shrunk = np.prod([(1 - base_lr * value) ** 2 for value in values])
    return 0.5 * 5.0 * shrunk**2


@pytest.mark.parametrize("vmap", [jax.vmap, brainstate.transform.vmap])
def test_vmapped_sweep_of_base_rates_equals_separate_runs(vmap):
    base_lrs = jnp.array([0.01, 0.1, 0.3])
    losses = vmap(lambda base_lr: loss_after_training(base_lr, STAGES))(base_lrs)
    expected = [exact_loss(float(base_lr), STAGES) for base_lr in base_lrs]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


@pytest.mark.parametrize("grad", [jax.grad, brainstate.transform.grad])
def test_gradient_of_a_training_run_agrees_with_finite_differences(grad):
    values = np.array(STAGES)
    by_value = grad(lambda v: loss_after_training(0.2, v))(jnp.asarray(values, jnp.float32))
    by_base = grad(lambda base_lr: loss_after_training(base_lr, STAGES))(0.2)
    step = 1e-6
    for i, unit in enumerate(np.eye(3)):
        above, below = (exact_loss(0.2, values + sign * step * unit) for sign in (1, -1))
        np.testing.assert_allclose(by_value[i], (above - below) / (2 * step), rtol=1e-4)
    above, below = (exact_loss(0.2 + sign * step, STAGES) for sign in (1, -1))
    np.testing.assert_allclose(by_base, (above - below) / (2 * step), rtol=1e-4)


def test_a_rate_on_a_device_is_the_entry_of_base_lr_if_it_is_that_very_array():
    given = jnp.asarray(0.2)
    for lr, refused in ((given, False), (jnp.asarray(0.2), True), (0.2, True)):
        training = Training(PiecewiseConstantSchedule([0.1, given], [2, 4], STAGES))
        if refused:
            with pytest.raises(ValueError, match="give one of the two, or the same"):
                training.add("second", lr=lr)
        else:
            training.add("second", lr=lr)
            assert training.optimizer.param_groups[1]["lr"].value == np.float32(0.2)
