"""Runs of braintools' Trainer that were interrupted and resumed with SchedulerCheckpoint."""

import copy
import os
import pickle
import shutil
import signal
import subprocess
import sys
import warnings
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trainer_runs
from braintools.file import InvalidCheckpointPath, msgpack_load, msgpack_save
from braintools.trainer import Callback, EarlyStopping, Trainer
from hypothesis import given, settings
from hypothesis import strategies as st
from trainer_runs import (
    BATCHES,
    CASES,
    RATES,
    RESUMES_BY_ITSELF,
    Data,
    Interrupt,
    Interrupted,
    Regression,
    assert_same_bits,
    cosine,
    end_of,
    fit,
    run,
    saving,
    stages,
)

from brainsched import ReduceLROnPlateau, StepLR
from brainsched.trainer import SchedulerCheckpoint

DATA = Path(__file__).parent / "data"
pytestmark = pytest.mark.filterwarnings("ignore:2 optimizers were configured:UserWarning")


@cache
def never_stopped(case):
    return end_of(run(Path(mkdtemp()), case))


def interrupt(folder, epoch, case="given_and_returned"):
    with pytest.raises(Interrupted):
        run(folder, case, Interrupt(epoch))


# The bits of a run that was never stopped


@pytest.mark.parametrize("case", CASES)
def test_interrupted_twice_it_ends_with_the_same_bits_and_then_trains_no_more(tmp_path, case):
    for epoch in (1, 4):
        interrupt(tmp_path, epoch, case)
        assert not (tmp_path / "last.ckpt").exists()
    for _ in range(2):
        assert_same_bits(end_of(run(tmp_path, case)), never_stopped(case))


@pytest.mark.parametrize("case", ["returned", "two_optimizers", "once_an_update"])
def test_resumed_from_its_last_checkpoint_it_ends_with_the_same_bits(tmp_path, case):
    run(tmp_path, case, epochs=3)
    end = end_of(run(tmp_path, case, resume_from=tmp_path / "last.ckpt"))
    assert_same_bits(end, never_stopped(case))


@pytest.mark.slow
@pytest.mark.parametrize("case", ["returned", "two_optimizers", "stopped_early"])
def test_killed_in_mid_epoch_it_ends_with_the_same_bits(tmp_path, case):
    command = [sys.executable, trainer_runs.__file__, str(tmp_path), case]
    for epoch in ("0", "3", "5"):
        assert subprocess.run([*command, epoch], check=False).returncode == -signal.SIGKILL
    subprocess.run(command, check=True)
    assert_same_bits(pickle.loads((tmp_path / "end").read_bytes()), never_stopped(case))


def test_it_trains_the_epochs_that_are_left_and_validates_in_those_of_the_whole_run(tmp_path):
    class Recorded(Callback):
        def __init__(self):
            super().__init__()
            self.epochs = []

        def on_validation_epoch_end(self, trainer, module):
            self.epochs.append(trainer.current_epoch)

    given = {"validate": True, "check_val_every_n_epoch": 3}
    with pytest.raises(Interrupted):
        fit(tmp_path, 7, callbacks=[SchedulerCheckpoint(), saving(tmp_path), Interrupt(4)])
    recorded = Recorded()
    callbacks = [SchedulerCheckpoint("auto"), saving(tmp_path), recorded]
    assert fit(tmp_path, 7, callbacks=callbacks, **given)[2] == RATES[4:]
    assert recorded.epochs == [5]
    # Epochs count on, so that later checkpoints do not overwrite earlier ones.
    assert len(list(tmp_path.glob("checkpoint-*.ckpt"))) == 4 + 1


def test_the_epochs_that_are_passed_over_print_no_summary(tmp_path, capsys):
    fit(tmp_path, 3)
    model = Regression()
    callbacks = [SchedulerCheckpoint("auto"), saving(tmp_path)]
    trainer = Trainer(4, callbacks=callbacks, logger=False, default_root_dir=str(tmp_path))
    trainer.fit(model, Data(model))
    printed = capsys.readouterr().out
    assert [epoch for epoch in range(4) if f"Epoch {epoch} Summary" in printed] == [3]


def test_a_checkpoint_of_version_0_1_0_in_braintools_0_3_0_resumes(tmp_path):
    shutil.copy(DATA / "trainer_checkpoint_0.1.0.ckpt", tmp_path)
    assert "interval" not in msgpack_load(str(DATA / "trainer_checkpoint_0.1.0.ckpt"))["brainsched"]
    trainer, _, rates = fit(tmp_path, 7)
    assert rates == RATES[3:]
    # Not bit for bit: it was saved on another machine.
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-5),
        end_of(trainer)["states"][0],
        never_stopped("given_and_returned")["states"][0],
    )


def test_a_changed_schedule_warns_and_holds_from_the_restored_epoch_on(tmp_path):
    fit(tmp_path, 3)
    with pytest.warns(UserWarning, match=r"values changed.* holds from epoch 3 on") as warned:
        _, _, rates = fit(tmp_path, 6, model=Regression(stages((1.0, 0.5, 0.25))))
    assert rates == np.array([0.05, 0.025, 0.025], np.float32).tolist()
    assert len(warned) == 1


@pytest.mark.parametrize(
    ("scheduler", "has", "callback"),
    [
        (stages, {"given": False}, {}),
        (stages, {}, {}),
        (lambda: cosine(7 * BATCHES), {"given": False}, {"interval": "step"}),
        (lambda: ReduceLROnPlateau(0.8, patience=0), {"given": False}, {"monitor": "train_loss"}),
    ],
    ids=["by_the_trainer", "given_as_lr_too", "by_update", "by_metric"],
)
def test_the_trainer_of_braintools_0_4_0_resumes_a_run_by_itself(
    tmp_path, scheduler, has, callback
):
    """With ``fit(ckpt_path=...)``, from what this callback put into the checkpoint."""

    def train(folder, epochs, **kwargs):
        given = [SchedulerCheckpoint(**callback), saving(folder)]
        return fit(folder, epochs, callbacks=given, model=Regression(scheduler(), **has), **kwargs)

    whole, _, rates = train(tmp_path / "whole", 5)
    train(tmp_path, 3)
    for name in ("checkpoint-02.ckpt", "last.ckpt"):
        saved = msgpack_load(str(tmp_path / name))
        assert saved["lr_schedulers"]["0"].keys() == saved["brainsched"]["schedulers"]["0"].keys()
        waits = not callback and name == "checkpoint-02.ckpt"
        assert saved["lr_schedulers_stepped"] is not waits
        if RESUMES_BY_ITSELF:
            trainer, _, rest = train(tmp_path / "o", 5, ckpt_path=str(tmp_path / name))
            assert rest == rates[3:]
            end, expected = end_of(trainer), end_of(whole)
            del end["memories"], expected["memories"]  # which the Trainer leaves alone
            assert_same_bits(end, expected)


def test_without_the_callback_the_trainer_of_braintools_0_4_0_resumes_a_run_as_well(tmp_path):
    def train(folder, epochs, **kwargs):
        return fit(folder, epochs, callbacks=[saving(folder)], **kwargs)

    whole, _, rates = train(tmp_path / "whole", 5)
    train(tmp_path, 3)
    for name in ("checkpoint-02.ckpt", "last.ckpt"):
        trainer, _, rest = train(tmp_path / "o", 5, ckpt_path=str(tmp_path / name))
        if RESUMES_BY_ITSELF:
            assert rest == rates[3:]
            end, expected = end_of(trainer), end_of(whole)
            del end["memories"], expected["memories"]
            assert_same_bits(end, expected)
        else:  # braintools 0.3.0 restores no scheduler, and begins at epoch 0 again
            assert len(rest) == 5


# Early stopping, and the best of ModelCheckpoint


def savers(folder):
    """One whose best fall and rise, one of the other direction, and one without a metric."""
    return [
        saving(folder, monitor="val_loss", save_top_k=2, save_last=False),
        saving(folder, monitor="val_loss", mode="max", filename="worst-{epoch}", save_top_k=3),
        saving(folder, monitor="", filename="newest", save_top_k=3),
    ]


@pytest.mark.parametrize("order", [1, -1], ids=["newest_last", "newest_first"])
@pytest.mark.parametrize("epoch", [1, 3, 6])
def test_the_best_and_the_patience_are_those_of_a_run_never_stopped(tmp_path, epoch, order):
    def train(folder, *more):
        given = [*savers(folder), EarlyStopping(patience=3)][::order]
        given = [SchedulerCheckpoint("auto"), *given, *more]
        return end_of(fit(folder, 8, callbacks=given, validate=True, min_epochs=8)[0])

    whole = train(tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(tmp_path, Interrupt(epoch))
    (tmp_path / "newest.ckpt").unlink()  # so that one of the others is resumed from
    end = train(tmp_path)
    assert_same_bits(end, whole)
    best, stopping = end["memories"][1:5][::order][0], end["memories"][1:5][::order][3]
    assert best["best_model_path"] == "checkpoint-07.ckpt"
    assert best["best_k_models"] == {"checkpoint-03.ckpt": 3.0, "checkpoint-07.ckpt": 2.0}
    # It had seen enough after epoch 6, although epoch 7 was better again.
    assert (stopping["should_stop"], stopping["wait_count"], stopping["best_score"]) == (True, 0, 2)
    names = [{path.name for path in part.glob("*.ckpt")} for part in (tmp_path, tmp_path / "whole")]
    assert names[0] == names[1]


def test_a_run_that_stopped_early_goes_on_once_it_may_wait_longer(tmp_path):
    def train(patience):
        given = [SchedulerCheckpoint("auto"), saving(tmp_path), EarlyStopping(patience=patience)]
        return len(fit(tmp_path, 9, callbacks=given, validate=True)[2])

    assert [train(3), train(3), train(4)] == [7, 0, 2]


def test_the_best_of_another_metric_are_not_restored(tmp_path):
    def train(epochs, **given):
        checkpoint = saving(tmp_path, filename="{epoch}", **given)
        fit(tmp_path, epochs, callbacks=[SchedulerCheckpoint("auto"), checkpoint], validate=True)
        return checkpoint.best_score

    assert train(1, monitor="val_loss") == 5.0
    assert train(2, monitor="val_loss", mode="max") == 4.0  # of its own epoch, below that before


# Which one is the newest


def test_a_damaged_newest_file_is_passed_over_with_a_warning(tmp_path):
    interrupt(tmp_path, 4)
    newest = tmp_path / "checkpoint-03.ckpt"
    newest.write_bytes(newest.read_bytes()[:-40])
    with pytest.warns(UserWarning, match=r"passed over .*-03\.ckpt .*, to resume from .*-02\.ckpt"):
        assert fit(tmp_path, 7)[2] == RATES[3:]


def test_the_time_of_writing_decides_and_among_files_of_one_second_the_epoch(tmp_path):
    fit(tmp_path, 7)
    for path in tmp_path.glob("*.ckpt"):
        os.utime(path, (1000, 1000))
    assert fit(tmp_path, 7)[2] == []
    (tmp_path / "last.ckpt").unlink()
    (tmp_path / "damaged.ckpt").write_bytes(b"half")
    for name in ("checkpoint-02", "checkpoint-01", "damaged"):
        os.utime(tmp_path / f"{name}.ckpt", (2000, 2000))
    with pytest.warns(UserWarning, match=r"passed over .*damaged"):
        assert fit(tmp_path, 7)[2] == RATES[3:]


def test_only_regular_files_are_looked_at(tmp_path):
    interrupt(tmp_path, 2)
    (tmp_path / "dangling.ckpt").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder.ckpt").mkdir()
    (tmp_path / "checkpoint-02.ckpt.tmp-0123").write_bytes(b"half")
    os.mkfifo(tmp_path / "fifo.ckpt")
    assert fit(tmp_path, 7)[2] == RATES[2:]


def test_a_checkpoint_within_an_epoch_is_not_taken_and_refused_where_it_is_named(tmp_path):
    interrupt(tmp_path, 2)
    within = saving(tmp_path / "o", filename="within", every_n_train_steps=1, save_last=False)
    within.save_on_train_epoch_end = False
    fit(tmp_path / "o", 1, callbacks=[SchedulerCheckpoint(), within])
    shutil.copy(tmp_path / "o" / "within.ckpt", tmp_path)  # newer than all others
    assert fit(tmp_path, 7)[2] == RATES[2:]
    with pytest.raises(ValueError, match=r"within\.ckpt \(saved within an epoch"):
        fit(tmp_path / "o", 3)
    with pytest.raises(ValueError, match="saved within an epoch"):
        fit(tmp_path, 3, callbacks=[SchedulerCheckpoint(tmp_path / "within.ckpt")])


def test_where_none_can_be_resumed_it_does_not_begin_anew(tmp_path):
    fit(tmp_path, 1, callbacks=[saving(tmp_path)])
    (tmp_path / "checkpoint-00.ckpt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"(?s)no checkpoint .*saved without SchedulerCheckpoint"):
        fit(tmp_path, 7)


def test_auto_without_a_model_checkpoint_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"needs ModelCheckpoint\(dirpath=...\)"):
        fit(tmp_path, 1, callbacks=[SchedulerCheckpoint("auto")])


# A start that fails, and what is refused


class FailsOnce(Callback):
    def __init__(self, hook):
        super().__init__()
        self.failed = False
        setattr(self, hook, self.fail)

    def fail(self, *args):
        if not self.failed:
            self.failed = True
            raise Interrupted


@pytest.mark.parametrize(
    "hook", ["on_fit_start", "on_train_start", "on_train_batch_end", "on_train_epoch_end"]
)
def test_a_fit_that_fails_can_be_tried_again_and_leaves_the_trainer_as_it_was(tmp_path, hook):
    interrupt(tmp_path, 4)
    model = Regression()
    callbacks = [SchedulerCheckpoint("auto"), saving(tmp_path), FailsOnce(hook)]
    trainer = Trainer(7, 3, callbacks=callbacks, logger=False, enable_progress_bar=False)
    before = set(vars(trainer))
    with pytest.raises(Interrupted):
        trainer.fit(model, Data(model))
    trainer.fit(model, Data(model))
    assert set(vars(trainer)) == before
    assert trainer.schedulers[0].epoch == 7
    jax.tree.map(
        np.testing.assert_array_equal,
        end_of(trainer)["states"],
        never_stopped("given_and_returned")["states"],
    )


WRONG: list[Any] = [
    *(None, True, -1, -5, 2.5, float("nan"), float("inf"), 1e300, 2**62, "abc", "", b"x"),
    *([], {}, [1, 2], {"0": {}}, {"0": {"last_epoch": 3}}, np.zeros(3), np.float32(0.1)),
]


def places(tree, path=()):
    """Yield the way to each key of nested dicts."""
    for key, value in tree.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from places(value, (*path, key))


class Live:
    """A Trainer whose run stands at epoch 2, and a checkpoint of one that came to epoch 4."""

    def __init__(self, folder):
        def build(folder, *more):
            given = [*savers(folder)[:1], EarlyStopping(patience=3)]
            model = Regression(stages(), StepLR(0.8, 1))
            return [SchedulerCheckpoint(), *given, *more], model

        callbacks, model = build(folder / "saved")
        fit(folder / "saved", 4, callbacks=callbacks, model=model, validate=True)
        callbacks, self.model = build(folder / "live")
        self.callback = callbacks[0]
        self.trainer, *_ = fit(
            folder / "live", 2, callbacks=callbacks, model=self.model, validate=True
        )
        self.saved = msgpack_load(str(folder / "saved" / "checkpoint-03.ckpt"))
        self.path = folder / "damaged.ckpt"

    def restore(self, checkpoint):
        msgpack_save(str(self.path), checkpoint, overwrite=True, verbose=False)
        self.resume()

    def disturbed(self):
        """Return all that there is, in which nothing is as in the checkpoint."""
        for optimizer in self.trainer.optimizers:
            optimizer.step_count.value = jnp.asarray(1)
        for scheduler in self.trainer.schedulers:
            scheduler.step(1)
        weight = self.model.linear.weight
        weight.value = jax.tree.map(jnp.zeros_like, weight.value)
        self.trainer.callbacks[2].wait_count = 2
        self.trainer.state.global_step = 1
        return end_of(self.trainer)

    def resume(self):
        self.callback.resume_from = self.path
        self.callback.on_fit_start(self.trainer, self.model)
        self.callback.on_train_end(self.trainer, self.model)


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "2 optimizers were configured")
        return Live(tmp_path_factory.mktemp("live"))


@given(data=st.data())
@settings(max_examples=150)
def test_a_damaged_entry_is_refused_as_a_whole_or_fits(live, data):
    checkpoint = copy.deepcopy(live.saved)
    *path, key = data.draw(st.sampled_from(list(places(checkpoint["brainsched"]))))
    parent = checkpoint["brainsched"]
    for name in path:
        parent = parent[name]
    damage = data.draw(st.sampled_from(["drop", "add", "replace", "replace", "replace", "nest"]))
    if damage == "drop":
        del parent[key]
    elif damage == "add":
        parent[data.draw(st.sampled_from(["momentum", "9", ""]))] = parent[key]
    elif damage == "replace":
        parent[key] = data.draw(st.sampled_from(WRONG))
    else:
        for _ in range(data.draw(st.sampled_from([1, 60]))):
            parent[key] = {"0": parent[key]}
    before = live.disturbed()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the checkpoint was saved with another schedule")
        try:
            live.restore(checkpoint)
        except (ValueError, TypeError):
            assert_same_bits(end_of(live.trainer), before)
        else:
            for scheduler in live.trainer.schedulers:
                assert scheduler.epoch >= 0
                assert all(0 <= rate < 1e38 for rate in scheduler.get_last_lr())
            assert live.trainer.global_step >= 0
            assert live.trainer.callbacks[2].wait_count >= 0


@given(part=st.floats(0, 0.999))
@settings(max_examples=30)
def test_a_truncated_file_is_refused(live, part):
    msgpack_save(str(live.path), live.saved, overwrite=True, verbose=False)
    whole = live.path.read_bytes()
    live.path.write_bytes(whole[: int(part * len(whole))])
    before = live.disturbed()
    with pytest.raises((ValueError, InvalidCheckpointPath)):
        live.resume()
    assert_same_bits(end_of(live.trainer), before)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda c: c.pop("brainsched"), "saved without SchedulerCheckpoint"),
        (lambda c: c["brainsched"].pop("epochs_done"), "'brainsched' has no 'epochs_done'"),
        (lambda c: c["brainsched"].update(epochs_done="abc"), "epochs_done must be .*, got 'abc'"),
        (lambda c: c["brainsched"].update(epochs_done=-5), "epochs_done must not be negative"),
        (lambda c: c["brainsched"].update(interval="step"), "interval='step', but this run has"),
        (lambda c: c["brainsched"]["schedulers"].clear(), "has 0 schedulers, but this run has 2"),
        (lambda c: c["brainsched"]["schedulers"]["1"].pop("last_epoch"), "no 'last_epoch'"),
        (
            lambda c: c["brainsched"]["callbacks"]["EarlyStopping 0"].update(wait_count=-1),
            "wait_count must not be negative, got -1",
        ),
        (lambda c: c.pop("model_state_dict"), r"keys \{.*not present in .* path model_state_dict"),
        (
            lambda c: c["model_state_dict"]["('linear', 'weight')"].update(weight=np.ones(7)),
            r"shape mismatch: expected \(3, 1\), got \(7,\) .*model_state_dict.*weight",
        ),
        (
            lambda c: c["optimizer_state_dict"]["1"].update(opt_state={"0": np.ones(7)}),
            r"got 2 and 1 at path optimizer_state_dict/1/opt_state",
        ),
        (lambda c: c["optimizer_state_dict"].pop("1"), "got 2 and 1 at path optimizer_state_dict"),
        (lambda c: c["optimizer_state_dict"]["1"].update(lr=np.nan), "must be finite"),
        (lambda c: c["optimizer_state_dict"]["1"].update(step_count=-1), "step_count.*negative"),
    ],
)
def test_what_is_refused_is_named(live, damage, message):
    checkpoint = copy.deepcopy(live.saved)
    damage(checkpoint)
    before = live.disturbed()
    with pytest.raises((ValueError, TypeError), match=message):
        live.restore(checkpoint)
    assert_same_bits(end_of(live.trainer), before)


def test_an_undamaged_checkpoint_is_restored(live):
    live.restore(live.saved)
    assert [scheduler.epoch for scheduler in live.trainer.schedulers] == [4, 4]
    assert live.trainer.global_step == 4 * BATCHES
