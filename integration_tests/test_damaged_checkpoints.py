"""Damaged and foreign checkpoints raise, and leave scheduler and optimizer as they were."""

import math
import pickle

import brainstate
import braintools
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

import brainsched

STAGES = (0.1, [3, 5], [1.0, 0.1, 0.01])


def trained(groups=2, scheduler=None, epochs=4):
    """Return a scheduler and its optimizer after some epochs, and a rate set by hand."""
    scheduler = scheduler or brainsched.PiecewiseConstantSchedule(*STAGES)
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


@pytest.fixture(scope="module")
def present():
    return trained(epochs=1)


@pytest.fixture(scope="module")
def saved():
    return trained()[0].state_dict()


def without(key):
    return lambda state: {name: value for name, value in state.items() if name != key}


def replaced(key, value):
    return lambda state: state | {key: value}


DAMAGE = {
    "no_last_epoch": (without("last_epoch"), ValueError, "no 'last_epoch'"),
    "no_base_lrs": (without("base_lrs"), ValueError, "no 'base_lrs'"),
    "no_current_lrs": (without("current_lrs"), ValueError, "no 'current_lrs'"),
    "no_scheduled_lrs": (without("scheduled_lrs"), ValueError, "no 'scheduled_lrs'"),
    "no_config": (without("config"), ValueError, "no 'config'"),
    "extra_key": (replaced("momentum", 0.9), ValueError, "unknown key 'momentum'"),
    "negative_epoch": (replaced("last_epoch", np.array(-1)), ValueError, "last_epoch.*negative"),
    "fractional_epoch": (replaced("last_epoch", 2.5), TypeError, "last_epoch.*integer, got 2.5"),
    "epoch_of_nan": (replaced("last_epoch", math.nan), TypeError, "last_epoch.*integer, got nan"),
    "epoch_of_a_bool": (replaced("last_epoch", True), TypeError, "last_epoch.*integer, got True"),
    "epochs": (replaced("last_epoch", np.array([1, 2])), ValueError, "last_epoch.*scalar"),
    "rates_of_nan": (replaced("current_lrs", [0.1, math.nan]), ValueError, r"lrs'\]\[1\].*nan"),
    "infinite_base": (replaced("base_lrs", [math.inf, 1]), ValueError, r"base_lrs'\]\[0\].*inf"),
    "negative_rate": (replaced("scheduled_lrs", [0.1, -1]), ValueError, r"uled_lrs'\]\[1\].*-1"),
    "rate_of_a_vector": (replaced("current_lrs", [np.ones(2), 1]), TypeError, r"lrs'\]\[0\]"),
    "rate_of_a_string": (replaced("current_lrs", ["0.1", 1]), TypeError, r"lrs'\]\[0\].*'0.1'"),
    "rates_no_list": (replaced("current_lrs", 0.1), TypeError, "current_lrs.*sequence"),
    "config_no_dict": (replaced("config", [1]), TypeError, "config.*dict, got list"),
    "no_dict": (lambda state: list(state), TypeError, "must be a dict, as .* got list"),
    "of_another_class": (
        lambda state: trained(scheduler=brainsched.StepLR(0.1, 3))[0].state_dict(),
        ValueError,
        "is 'StepLR', but this scheduler is a PiecewiseConstantSchedule",
    ),
    "of_braintools_other_class": (
        lambda state: braintools.optim.CyclicLR(0.1, 0.2).state_dict() | {"mode": "x"},
        ValueError,
        "unknown key 'mode'",
    ),
    "of_one_group": (
        lambda state: trained(groups=1)[0].state_dict(),
        ValueError,
        "1 param groups, but the scheduler has 2: add the groups",
    ),
    "of_three_groups": (
        lambda state: trained(groups=3)[0].state_dict(),
        ValueError,
        "3 param groups, but the scheduler has 2: add the groups",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_bad_state_names_what_is_wrong_and_changes_nothing_to_the_bit(present, saved, name):
    damage, error, message = DAMAGE[name]
    before = bits(*present)
    with pytest.raises(error, match=message):
        present[0].load_state_dict(damage(saved))
    assert bits(*present) == before


def unpickled(path, target):
    return pickle.loads(path.read_bytes())


def from_braintools(path, target):
    return braintools.file.msgpack_load(str(path), target=target)


def from_flax(path, target):
    return flax.serialization.from_bytes(target, path.read_bytes())


@pytest.mark.parametrize(
    ("write", "read", "error"),
    [
        (lambda path, s: path.write_bytes(pickle.dumps(s)), unpickled, pickle.UnpicklingError),
        (
            lambda path, s: braintools.file.msgpack_save(str(path), s),
            from_braintools,
            braintools.file.InvalidCheckpointPath,
        ),
        (
            lambda path, s: path.write_bytes(flax.serialization.to_bytes(s)),
            from_flax,
            ValueError,
        ),
    ],
    ids=["pickle", "braintools_msgpack", "flax_serialization"],
)
@pytest.mark.parametrize("part", [0.25, 0.5, 0.95])
def test_a_truncated_file_is_an_error_of_its_format_and_changes_nothing(
    present, saved, tmp_path, write, read, error, part
):
    scheduler, optimizer = present
    path = tmp_path / "state"
    write(path, saved)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    before = bits(scheduler, optimizer)
    with pytest.raises(error):
        scheduler.load_state_dict(read(path, scheduler.state_dict()))
    assert bits(scheduler, optimizer) == before


def test_a_truncated_orbax_checkpoint_is_an_error_and_changes_nothing(present, saved, tmp_path):
    scheduler, optimizer = present
    with ocp.CheckpointManager(tmp_path) as manager:
        manager.save(0, args=ocp.args.PyTreeSave(saved))
    for path in (tmp_path / "0").rglob("*"):
        if path.is_file() and path.stat().st_size > 1:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    before = bits(scheduler, optimizer)
    target = scheduler.state_dict()
    arguments = ocp.checkpoint_utils.construct_restore_args(target)
    with ocp.CheckpointManager(tmp_path) as manager, pytest.raises(ValueError, match=r"."):
        scheduler.load_state_dict(
            manager.restore(0, args=ocp.args.PyTreeRestore(target, arguments))
        )
    assert bits(scheduler, optimizer) == before


def test_a_changed_schedule_warns_by_name_and_reaches_the_optimizer_from_the_restored_epoch(saved):
    changed = brainsched.PiecewiseConstantSchedule(0.1, [3, 6], [1.0, 0.5, 0.01])
    scheduler, optimizer = trained(scheduler=changed, epochs=1)
    with pytest.warns(UserWarning, match=r"boundaries, values changed.* from epoch 4 on"):
        scheduler.load_state_dict(saved)
    applied = []
    for _ in range(3):
        applied.append([optimizer.current_lr, optimizer.param_groups[1]["lr"].value])
        scheduler.step()
    expected = [[0.05, 0.1], [0.05, 0.1], [0.001, 0.002]]
    np.testing.assert_array_equal(applied, np.array(expected, np.float32))
