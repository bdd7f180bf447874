"""A base_lr that names the param groups: a mapping from names to rates, in its order."""

import copy
import json
import pickle
from typing import Any

import brainstate
import braintools
import flax.serialization
import jax.numpy as jnp
import pytest
import yaml

import brainsched
import brainsched.flax
from brainsched import (
    ChainedScheduler,
    CyclicLR,
    PiecewiseConstantSchedule,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)

# Which algorithm an added group gets is measured in test_every_optimizer.py; here, its rate is.
pytestmark = pytest.mark.filterwarnings("ignore:braintools 0.3.0 trains every group:UserWarning")

NAMED = {"head": 0.5, "body": 0.25}  # in another order than the alphabet's


def test_the_groups_are_in_the_order_of_the_mapping():
    scheduler = StepLR(NAMED, step_size=2, gamma=0.5)
    assert scheduler.group_names == ("head", "body")
    assert scheduler.base_lrs == [0.5, 0.25]
    assert scheduler.lr_at([1, 2]).tolist() == [[0.5, 0.25], [0.25, 0.125]]
    assert repr(scheduler).startswith("StepLR(base_lr={'head': 0.5, 'body': 0.25}, step_size=2")
    assert StepLR([0.5, 0.25]).group_names == StepLR(0.5).group_names == ()


def test_a_long_mapping_is_shortened_where_it_is_shown():
    for layers in (5, 9):
        scheduler = StepLR({f"layer {i}": 0.1 for i in range(layers)})
        assert "'layer 3': 0.1, ...}" in repr(scheduler)
    assert "'layer 3': 0.1}" in repr(StepLR({f"layer {i}": 0.1 for i in range(4)}))


@pytest.mark.parametrize(
    "copied",
    [
        lambda s: pickle.loads(pickle.dumps(s)),
        copy.deepcopy,
        lambda s: brainsched.from_config(json.loads(json.dumps(s.config))),
        lambda s: brainsched.from_config(yaml.safe_load(yaml.safe_dump(s.config, sort_keys=False))),
        lambda s: brainstate.graph.clone(s),
    ],
    ids=["pickle", "deepcopy", "JSON", "YAML", "graph"],
)
def test_copies_have_the_same_names_in_the_same_order(copied):
    scheduler = ChainedScheduler([StepLR(NAMED, 2, 0.5), StepLR(1.0, 3, 0.5)])
    found = copied(scheduler)
    assert found.group_names == ("head", "body")
    assert found.lr_at(range(5)).tolist() == scheduler.lr_at(range(5)).tolist()
    assert found.config == scheduler.config


def test_a_group_may_be_called_class():
    scheduler = StepLR({"class": 0.5, "other": 0.25})
    assert brainsched.from_config(scheduler.config).group_names == ("class", "other")


def test_the_mapping_is_a_copy_and_fixed():
    given = dict(NAMED)
    scheduler = StepLR(given)
    given["head"] = 9.0
    assert scheduler.base_lr == NAMED
    fixed: Any = scheduler.base_lr
    for change in (
        lambda: fixed.update(head=9.0),
        lambda: fixed.pop("head"),
        lambda: fixed.__setitem__("head", 9.0),
    ):
        with pytest.raises(TypeError, match="an argument of a scheduler, and fixed"):
            change()


def test_checkpoints_load_where_the_order_is_the_same_and_say_so_where_it_is_not():
    scheduler = StepLR(NAMED, 2)
    scheduler.step(3)
    same = flax.serialization.from_bytes(StepLR(NAMED, 2), flax.serialization.to_bytes(scheduler))
    assert same.epoch == 3
    other = StepLR(dict(reversed(NAMED.items())), 2)
    with pytest.warns(UserWarning, match="base_lrs changed"):
        other.load_state_dict(scheduler.state_dict())


def test_the_groups_of_an_optimizer_have_these_base_rates():
    scheduler = StepLR(NAMED, 2)
    optimizer = braintools.optim.SGD(lr=scheduler)
    optimizer.register_trainable_weights({"a": brainstate.ParamState(jnp.ones(()))})
    optimizer.add_param_group({"b": brainstate.ParamState(jnp.ones(()))})
    assert [group["lr"].value for group in optimizer.param_groups] == [0.5, 0.25]


def test_a_mapping_beside_base_lr_goes_by_its_names():
    scheduler = CyclicLR(NAMED, max_lr={"body": 1.0, "head": 2.0}, step_size_up=1)
    assert scheduler.lr_at(1).tolist() == [2.0, 1.0]
    plateau = ReduceLROnPlateau(NAMED, factor=0.5, patience=0, min_lr={"body": 0.2, "head": 0.1})
    for loss in (1.0, 1.0, 1.0):
        plateau.step(loss)
    assert [round(float(rate), 6) for rate in plateau.get_last_lr()] == [0.125, 0.2]
    with pytest.raises(ValueError, match=r"max_lr must have the names .*\['head', 'body'\], got"):
        CyclicLR(NAMED, max_lr={"body": 1.0, "hed": 2.0})
    with pytest.raises(ValueError, match=r"min_lr must have the names .*, \[\], got \['body'\]"):
        ReduceLROnPlateau(0.1, min_lr={"body": 1.0})


@pytest.mark.parametrize(
    ("base_lr", "error", "message"),
    [
        ({}, ValueError, "base_lr must have at least one rate, got an empty mapping"),
        ({0: 0.1}, TypeError, r"base_lr must have the names of param groups as keys, got 0 \(int"),
        ({"head": "0.1"}, TypeError, r"base_lr\['head'\] must be a number, got '0.1'"),
        ({"head": -0.1}, ValueError, r"base_lr\['head'\] must be finite and not negative"),
    ],
)
def test_a_bad_mapping_raises_and_names_the_entry(base_lr, error, message):
    with pytest.raises(error, match=message):
        StepLR(base_lr)


# Compositions


def test_a_part_with_one_base_rate_has_it_for_all_groups():
    chained = ChainedScheduler([StepLR(NAMED, 1, 0.5), StepLR(1.0, 2, 0.5)])
    assert chained.lr_at(2).tolist() == [0.0625, 0.03125]
    with pytest.warns(UserWarning, match=r"uses the base rate of `schedulers\[0\]`"):
        chained = ChainedScheduler([StepLR(1.0, 2, 0.5), StepLR(NAMED, 1, 0.5)])
    assert chained.group_names == ("head", "body")
    assert chained.base_lrs == [1.0, 1.0]
    assert chained.lr_at(2).tolist() == [0.125, 0.125]  # the base rates are the first part's
    one_by_one = SequentialLR([StepLR(1.0), StepLR(NAMED)], [2])
    assert one_by_one.lr_at([1, 2]).tolist() == [[1.0, 1.0], [0.5, 0.25]]


def test_parts_agree_on_the_groups():
    with pytest.raises(ValueError, match=r"schedulers\[0\] has 2 base rates and schedulers\[2\] h"):
        ChainedScheduler([StepLR(NAMED), StepLR(0.1), StepLR([0.1, 0.2, 0.3])])
    with pytest.raises(ValueError, match=r"name the param groups alike.*\['head', 'body'\] and sc"):
        ChainedScheduler([StepLR(NAMED), StepLR(dict(reversed(NAMED.items())))])
    ones = SequentialLR([StepLR([1.0, 1.0]), StepLR(NAMED)], [3])
    assert ones.group_names == ("head", "body")


def test_a_group_is_frozen_by_a_part_with_a_column_for_each():
    frozen = PiecewiseConstantSchedule(1.0, [3], [[0.0, 1.0], [1.0, 1.0]])
    scheduler = ChainedScheduler([StepLR(NAMED, 2, 0.5), frozen])
    assert scheduler.lr_at([2, 3]).tolist() == [[0.0, 0.125], [0.25, 0.125]]
    optimizer = braintools.optim.SGD(lr=scheduler)
    head, body = (brainstate.ParamState(jnp.zeros(())) for _ in range(2))
    optimizer.register_trainable_weights({"head": head})
    optimizer.add_param_group({"body": body})
    assert [float(rate) for rate in scheduler.get_last_lr()] == [0.0, 0.25]
