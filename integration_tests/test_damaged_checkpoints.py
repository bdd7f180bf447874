"""Damaged and foreign checkpoints are refused, and scheduler and optimizer are as they were.

Hypothesis damages what each format gives back. Whatever is refused, the next step is bit-equal to
that of a twin that was never loaded.
"""

import copy
import json
import math
import pickle
import tempfile
import warnings
from typing import Any

import brainstate
import braintools
import flax.serialization
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from hypothesis import strategies as st

import brainsched


def trained(groups=2, scheduler=None, epochs=4):
    """Return a scheduler and its optimizer after some epochs, and a rate set by hand."""
    scheduler = scheduler or brainsched.PiecewiseConstantSchedule(0.1, [3, 5], [1.0, 0.1, 0.01])
    optimizer = braintools.optim.Adam(lr=scheduler)
    weights = [brainstate.ParamState(jnp.ones(3)) for _ in range(groups)]
    optimizer.register_trainable_weights({"group 0": weights[0]})
    for group in range(1, groups):
        optimizer.add_param_group({f"group {group}": weights[group]}, lr=0.2 * group)
    for _ in range(epochs):
        optimizer.step({f"group {group}": jnp.ones(3) for group in range(groups)})
        scheduler.step()
    optimizer.current_lr = 0.0375
    return scheduler, optimizer


def bits(scheduler, optimizer):
    leaves, structure = jax.tree.flatten((scheduler.state_dict(), optimizer.state_dict()))
    leaves = [leaf if isinstance(leaf, str) else np.asarray(leaf) for leaf in leaves]
    return structure, [
        leaf if isinstance(leaf, str) else (leaf.dtype, leaf.shape, leaf.tobytes())
        for leaf in leaves
    ]


def bits_after_a_step(scheduler, optimizer):
    optimizer.step({key: jnp.ones(3) for key in optimizer.param_states.to_pytree()})
    scheduler.step()
    return bits(scheduler, optimizer)


def through_orbax(state):
    with tempfile.TemporaryDirectory() as folder, ocp.CheckpointManager(folder) as manager:
        manager.save(0, args=ocp.args.PyTreeSave(state))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sharding info not provided", UserWarning)
            return manager.restore(0, args=ocp.args.PyTreeRestore())  # without a target


def through_flax(state):
    plain = flax.serialization.to_state_dict(state)
    return flax.serialization.msgpack_restore(flax.serialization.msgpack_serialize(plain))


FORMATS = {
    "scheduler as is": (0, lambda s: s.state_dict()),
    "scheduler plain": (0, lambda s: s.state_dict(plain=True)),
    "scheduler JSON": (0, lambda s: json.loads(json.dumps(s.state_dict(plain=True)))),
    "scheduler msgpack": (0, lambda s: through_flax(s.state_dict())),
    "scheduler Orbax": (0, lambda s: through_orbax(s.state_dict())),
    "optimizer as is": (1, lambda o: o.state_dict()),
    "optimizer pickle": (1, lambda o: pickle.loads(pickle.dumps(jax.device_get(o.state_dict())))),
    "optimizer msgpack": (1, lambda o: through_flax(o.state_dict())),
    "optimizer Orbax": (1, lambda o: through_orbax(o.state_dict())),
}


@pytest.fixture(scope="module")
def saved():
    """What each format gives back of a run of 4 epochs."""
    run = trained()
    return {name: read(run[which]) for name, (which, read) in FORMATS.items()}


@pytest.fixture(scope="module")
def present():
    return trained(epochs=1)


@pytest.fixture(scope="module")
def stepped():
    """What a twin that was never loaded has after one more step."""
    return bits_after_a_step(*trained(epochs=1))


@pytest.mark.parametrize("name", FORMATS)
def test_a_state_that_is_whole_loads_from_every_format_with_the_same_bits(saved, name):
    straight, resumed = trained(), trained(epochs=1)
    which = FORMATS[name][0]
    if which == 0:
        resumed[0].load_state_dict(saved[name])
        resumed[1].load_state_dict(straight[1].state_dict())
    else:
        resumed[0].load_state_dict(straight[0].state_dict())
        resumed[1].load_state_dict(saved[name])
    assert bits(resumed[0], resumed[1])[1][-1] == bits(*straight)[1][-1]
    for key, weight in resumed[1].param_states.to_pytree().items():
        weight.value = straight[1].param_states.to_pytree()[key].value
    assert bits_after_a_step(*resumed) == bits_after_a_step(*straight)


# Damages


WRONG: list[Any] = [
    None,
    "x",
    "0.1",
    True,
    -1,
    2.5,
    math.nan,
    math.inf,
    10**400,
    2**70,
    1j,
    b"",
    [],
    {},
]
WRONG += [(1, 2), [[1]], {"a": 1}, np.ones(2), np.array("x"), np.array(math.nan), -1e-3, 1e300]
WRONG += [jnp.ones((2, 2)), np.array(True), object()]


def places(tree, path=()):
    """Yield the way to every entry of nested dicts and lists."""
    entries: Any = tree.items() if isinstance(tree, dict) else ()
    if isinstance(tree, list | tuple) and not hasattr(tree, "_fields"):
        entries = enumerate(tree)
    for key, entry in entries:
        yield (*path, key)
        yield from places(entry, (*path, key))


def without_tuples(tree):
    """Return a copy in which every container can be changed; named tuples stay."""
    if isinstance(tree, dict):
        return {key: without_tuples(entry) for key, entry in tree.items()}
    if isinstance(tree, list | tuple) and not hasattr(tree, "_fields"):
        return [without_tuples(entry) for entry in tree]
    return tree


@st.composite
def damages(draw):
    """Draw a function that damages one place of a state."""
    where = draw(st.integers(0, 10**6))
    wrong = draw(st.sampled_from(range(len(WRONG))))
    how = draw(st.sampled_from(["drop", "add", "replace", "truncate", "reverse", "nest"]))

    def damage(state):
        state = without_tuples(state)
        found = sorted(places(state), key=repr)
        *way, last = found[where % len(found)]
        holder = state
        for key in way:
            holder = holder[key]
        if how == "drop":
            del holder[last]
        elif how == "add" and isinstance(holder, dict):
            holder["another"] = WRONG[wrong]
        elif how == "add":
            holder.append(WRONG[wrong])
        elif how == "truncate":
            whole = holder[last]
            half: Any = None
            if isinstance(whole, dict | list | str):
                half = list(whole)[: len(whole) // 2]
            holder[last] = {key: whole[key] for key in half} if isinstance(whole, dict) else half
        elif how == "reverse" and isinstance(holder[last], list):
            holder[last].reverse()
        else:
            holder[last] = {"nested": holder[last]} if how == "nest" else WRONG[wrong]
        return state

    return damage


@pytest.mark.parametrize("name", FORMATS)
@hypothesis.settings(max_examples=60, phases=[hypothesis.Phase.generate])
@hypothesis.given(damage=damages())
def test_a_damaged_state_is_refused_as_a_whole(saved, present, name, damage):
    which, _ = FORMATS[name]
    damaged = damage(saved[name])
    before, refusal = bits(*present), None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            present[which].load_state_dict(damaged)
    except (TypeError, ValueError) as error:
        refusal = str(error)
    if refusal is not None:
        assert len(refusal) > 20
        assert bits(*present) == before
    else:
        # What is accepted says the same, or something else that can be trained with.
        run = trained(epochs=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run[which].load_state_dict(damaged)
        bits_after_a_step(*run)
        assert all(0 <= rate < math.inf for rate in run[0].applied_rates)
        present[0].load_state_dict(trained(epochs=1)[0].state_dict())
        present[1].load_state_dict(trained(epochs=1)[1].state_dict())


def test_after_every_refusal_the_next_step_is_that_of_a_twin_that_was_never_loaded(saved, stepped):
    run = trained(epochs=1)
    refused = 0
    for name, (which, _) in FORMATS.items():
        for place in places(without_tuples(saved[name])):
            for wrong in ({"nested": 1}, np.array(math.nan), "x"):
                state = without_tuples(saved[name])
                holder = state
                for key in place[:-1]:
                    holder = holder[key]
                holder[place[-1]] = wrong
                if "config" in place and len(place) > 1:
                    continue  # which is what the schedule was: said by a warning, and loaded
                with pytest.raises((TypeError, ValueError)):
                    run[which].load_state_dict(state)
                refused += 1
    assert refused > 200
    assert bits_after_a_step(*run) == stepped


FOREIGN = {
    "of another class": (
        lambda: brainsched.StepLR([0.1, 0.2], 3).state_dict(),
        r"is 'StepLR', but this scheduler is a PiecewiseConstantSchedule: .*step\(0\)",
    ),
    "of braintools' other class": (
        lambda: braintools.optim.CyclicLR(0.1, 0.2).state_dict() | {"mode": "x"},
        "unknown key 'mode'",
    ),
    "of one group": (
        lambda: trained(groups=1)[0].state_dict(),
        r"1 param group\(s\), but the scheduler has 2: load, then add",
    ),
    "of three groups": (
        lambda: trained(groups=3)[0].state_dict(),
        r"3 param group\(s\), but the scheduler has 2: add the groups",
    ),
    "of the optimizer": (lambda: trained()[1].state_dict(), "that scheduler.state_dict"),
    "a list": (lambda: [1], "must be a dict, as .* got list"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_state_of_a_scheduler_names_what_is_wrong_and_changes_nothing(present, name):
    make, message = FOREIGN[name]
    before = bits(*present)
    with pytest.raises((TypeError, ValueError), match=message):
        present[0].load_state_dict(make())
    assert bits(*present) == before


def another_optimizer(name="Adam", key="group 0", size=3):
    optimizer = getattr(braintools.optim, name)(lr=brainsched.StepLR(0.1))
    optimizer.register_trainable_weights({key: brainstate.ParamState(jnp.ones(size))})
    return optimizer


@pytest.mark.parametrize(
    "make",
    [
        lambda: trained(groups=1)[1],
        lambda: trained(groups=3)[1],
        lambda: another_optimizer("Lion"),
        lambda: another_optimizer(key="other"),
        lambda: another_optimizer(size=4),
    ],
)
def test_a_state_of_another_optimizer_is_refused_and_changes_nothing(present, make):
    before = bits(*present)
    with pytest.raises(ValueError, match=r"state_dict has (no entry|an unknown|float)"):
        present[1].load_state_dict(make().state_dict())
    assert bits(*present) == before


def test_loading_before_the_weights_are_registered_says_so():
    optimizer = braintools.optim.Adam(lr=brainsched.StepLR(0.1))
    with pytest.raises(ValueError, match="register_trainable_weights must be called before load"):
        optimizer.load_state_dict(another_optimizer().state_dict())


@pytest.mark.parametrize("part", [0.25, 0.5, 0.95])
def test_a_truncated_file_is_an_error_of_its_format(part):
    state = trained()[0].state_dict()
    whole = pickle.dumps(state)
    with pytest.raises(pickle.UnpicklingError):
        pickle.loads(whole[: int(part * len(whole))])
    whole = flax.serialization.to_bytes(state)
    with pytest.raises(ValueError, match="incomplete"):
        flax.serialization.from_bytes(state, whole[: int(part * len(whole))])


def test_a_changed_schedule_warns_by_name_and_reaches_the_optimizer_from_the_restored_epoch():
    saved = trained()[0].state_dict()
    changed = brainsched.PiecewiseConstantSchedule(0.1, [3, 6], [1.0, 0.5, 0.01])
    scheduler, optimizer = trained(scheduler=changed, epochs=1)
    with pytest.warns(UserWarning, match=r"boundaries, values changed.* from epoch 4 on"):
        scheduler.load_state_dict(copy.deepcopy(saved))
    applied = []
    for _ in range(3):
        applied.append(optimizer.get_last_lr())
        scheduler.step()
    expected = [[0.05, 0.1], [0.05, 0.1], [0.001, 0.002]]
    np.testing.assert_array_equal(applied, np.array(expected, np.float32))
