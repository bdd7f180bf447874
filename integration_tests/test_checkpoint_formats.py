"""What docs/guides/checkpoint-formats.md says: which form of a state each format takes."""

import json
import pickle

import brainstate
import flax.serialization
import jax.numpy as jnp
import msgpack
import numpy as np
import orbax.checkpoint as ocp
import pytest
import yaml
from braintools.file import msgpack_load, msgpack_save
from braintools.optim import Adam

import brainsched


def run():
    """Return a scheduler and its optimizer, in which a rate was set by hand, after 7 updates."""
    scheduler = brainsched.SequentialLR(
        [
            brainsched.WarmupScheduler([0.1, 0.3], 5),
            brainsched.CosineAnnealingLR([0.1, 0.3], 10, eta_min=1e-3),
        ],
        [5],
    )
    optimizer = Adam(lr=scheduler)
    optimizer.register_trainable_weights({"body": brainstate.ParamState(jnp.ones(2))})
    optimizer.add_param_group({"head": brainstate.ParamState(jnp.ones(2))})
    for _ in range(7):
        scheduler.step()
    optimizer.current_lr = 0.7
    return scheduler, optimizer


def orbax(path, save, restore, state):
    with ocp.CheckpointManager(path) as manager:
        manager.save(0, args=save(state))
    with ocp.CheckpointManager(path) as manager:
        return manager.restore(0, args=restore())


def through_braintools(path, state):
    msgpack_save(str(path), state)
    return msgpack_load(str(path), target=state)


def through_flax(path, state):
    saved = flax.serialization.msgpack_serialize(state)
    return flax.serialization.msgpack_restore(saved)


# Each writes a state and reads it again.
KNOW_ARRAYS = {
    "pickle": lambda path, state: pickle.loads(pickle.dumps(state)),
    "flax.msgpack_serialize": through_flax,
    "braintools.msgpack_save": through_braintools,
    "orbax.PyTreeSave": lambda path, state: orbax(
        path, ocp.args.PyTreeSave, ocp.args.PyTreeRestore, state
    ),
}
KNOW_NUMBERS = {
    "json": lambda path, state: json.loads(json.dumps(state)),
    "yaml": lambda path, state: yaml.safe_load(yaml.safe_dump(state)),
    "msgpack": lambda path, state: msgpack.unpackb(msgpack.packb(state)),
    "orbax.JsonSave": lambda path, state: orbax(
        path, ocp.args.JsonSave, ocp.args.JsonRestore, state
    ),
}
FORMS = [(name, False) for name in KNOW_ARRAYS]
FORMS += [(name, True) for name in (*KNOW_ARRAYS, *KNOW_NUMBERS)]


def bits(rates):
    return [np.asarray(rate).tobytes() for rate in rates]


@pytest.mark.parametrize(("name", "plain"), FORMS)
def test_a_state_comes_back_with_the_same_bits(name, plain, tmp_path):
    scheduler, optimizer = run()
    through = {**KNOW_ARRAYS, **KNOW_NUMBERS}[name]
    state = through(tmp_path / "state", scheduler.state_dict(plain=plain))
    restored, other = run()
    restored.step(0)
    restored.load_state_dict(state)  # a schedule that had changed would warn
    assert other.current_lr == optimizer.current_lr == np.float32(0.7)
    for _ in range(5):
        assert restored.epoch == scheduler.epoch
        assert bits(restored.get_last_lr()) == bits(scheduler.get_last_lr())
        restored.step()
        scheduler.step()


@pytest.mark.parametrize(
    ("dump", "error", "message"),
    [
        (json.dumps, TypeError, "ndarray is not JSON serializable"),
        (yaml.safe_dump, yaml.representer.RepresenterError, "cannot represent an object"),
        (msgpack.packb, TypeError, "can not serialize 'numpy.ndarray'"),
    ],
)
def test_formats_of_numbers_take_no_arrays(dump, error, message):
    scheduler, _ = run()
    dump(scheduler.state_dict(plain=True))
    with pytest.raises(error, match=message):
        dump(scheduler.state_dict())


@pytest.mark.parametrize("plain", [False, True])
def test_standard_save_of_orbax_takes_no_strings_and_so_no_config(plain, tmp_path):
    scheduler, _ = run()
    state = scheduler.state_dict(plain=plain)
    with (
        ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer,
        pytest.raises(ValueError, match=r"Unsupported type: <class 'str'> .*'config', 'class'"),
    ):
        checkpointer.save(tmp_path / "whole", args=ocp.args.StandardSave(state))


def test_as_the_bytes_of_its_json_a_state_is_an_array_that_standard_save_takes(tmp_path):
    scheduler, _ = run()
    text = json.dumps(scheduler.state_dict(plain=True))
    array = np.frombuffer(text.encode(), np.uint8)
    tree = orbax(tmp_path, ocp.args.StandardSave, ocp.args.StandardRestore, {"scheduler": array})
    restored, _ = run()
    restored.step(0)
    restored.load_state_dict(json.loads(bytes(np.asarray(tree["scheduler"]))))
    assert bits(restored.get_last_lr()) == bits(scheduler.get_last_lr())


def test_a_plain_state_is_saved_beside_what_standard_save_takes(tmp_path):
    scheduler, _ = run()
    parts = {
        "weights": ocp.args.StandardSave({"body": jnp.ones(2)}),
        "scheduler": ocp.args.JsonSave(scheduler.state_dict(plain=True)),
    }
    with ocp.CheckpointManager(tmp_path) as manager:
        manager.save(7, args=ocp.args.Composite(**parts))
    restore = {"weights": ocp.args.StandardRestore(), "scheduler": ocp.args.JsonRestore()}
    with ocp.CheckpointManager(tmp_path) as manager:
        found = manager.restore(7, args=ocp.args.Composite(**restore))
    restored, _ = run()
    restored.step(0)
    restored.load_state_dict(found["scheduler"])
    assert bits(restored.get_last_lr()) == bits(scheduler.get_last_lr())


def test_orbax_takes_the_applied_rates_themselves_for_a_list_and_gives_either_back(tmp_path):
    scheduler, _ = run()
    rates = scheduler.current_lrs.value
    forms = {"list": list(rates), "rates": rates}
    for saved in forms:
        with ocp.CheckpointManager(tmp_path / saved) as manager:
            manager.save(0, args=ocp.args.PyTreeSave({"lrs": forms[saved]}))
        for target in forms:
            with ocp.CheckpointManager(tmp_path / saved) as manager:
                found = manager.restore(0, args=ocp.args.PyTreeRestore({"lrs": forms[target]}))
            assert type(found["lrs"]) is type(forms[target])
            assert bits(found["lrs"]) == bits(rates)
