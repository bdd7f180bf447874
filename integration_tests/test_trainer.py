"""SchedulerCheckpoint with braintools' own Trainer."""

import pickle
import subprocess
import sys

import braintools
import jax
import numpy as np
import pytest
from braintools.trainer import ModelCheckpoint, Trainer
from trainer_runs import BATCHES, RATES, Data, Regression, assert_same_bits, end_of, fit

from brainsched import PiecewiseConstantSchedule
from brainsched.trainer import SchedulerCheckpoint


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory):
    return fit(tmp_path_factory.mktemp("never_stopped"), 7)


@pytest.mark.parametrize("given", [True, False], ids=["given_as_lr", "returned_only"])
@pytest.mark.parametrize("stop", [1, 2, 4, 5])
def test_resumed_from_the_last_checkpoint_it_ends_with_the_same_bits(
    never_stopped, tmp_path, stop, given
):
    expected_trainer, expected_model, expected_rates = never_stopped
    _, _, first = fit(tmp_path, stop, given=given)
    trainer, model, rest = fit(tmp_path, 7, given=given, resume_from=tmp_path / "last.ckpt")
    assert first + rest == expected_rates == RATES
    expected, end = end_of(expected_trainer, expected_model), end_of(trainer, model)
    for optimizer in (expected[1], end[1]):
        optimizer.pop("base_lr")  # of a returned scheduler, the optimizer's own plain rate
    assert_same_bits(end, expected)
    assert trainer.schedulers[0].epoch == 7
    assert trainer.global_step == 7 * BATCHES
    assert trainer.max_epochs == 7


@pytest.mark.parametrize("epoch", [1, 3, 4])
def test_the_step_that_a_checkpoint_of_an_epochs_end_lacks_is_made_up_for(
    never_stopped, tmp_path, epoch
):
    fit(tmp_path, 5)
    path = tmp_path / f"checkpoint-{epoch:02d}.ckpt"
    assert braintools.file.msgpack_load(str(path))["brainsched"]["step_pending"]
    trainer, model, rates = fit(tmp_path, 7, resume_from=path)
    assert rates == RATES[epoch + 1 :]
    assert_same_bits(end_of(trainer, model), end_of(never_stopped[0], never_stopped[1]))
    # Epochs count on, so that later checkpoints do not overwrite earlier ones.
    assert model.current_epoch == 6
    assert len(list(tmp_path.glob("checkpoint-*.ckpt"))) == 7


def test_a_resumed_run_can_be_resumed_again(never_stopped, tmp_path):
    last = tmp_path / "last.ckpt"
    fit(tmp_path, 2)
    fit(tmp_path, 3, resume_from=last)
    trainer, model, rates = fit(tmp_path, 7, resume_from=last)
    assert rates == RATES[3:]
    assert_same_bits(end_of(trainer, model), end_of(never_stopped[0], never_stopped[1]))


def test_resumed_at_its_end_it_trains_no_more(never_stopped, tmp_path):
    fit(tmp_path, 7)
    trainer, model, rates = fit(tmp_path, 7, resume_from=tmp_path / "last.ckpt")
    assert rates == []
    assert_same_bits(end_of(trainer, model), end_of(never_stopped[0], never_stopped[1]))


def test_min_and_max_steps_count_the_whole_run(tmp_path):
    fit(tmp_path, 2)
    trainer, _, _ = fit(tmp_path, 7, resume_from=tmp_path / "last.ckpt", max_steps=4 * BATCHES)
    assert trainer.schedulers[0].epoch == 4
    assert (trainer.max_epochs, trainer.min_epochs) == (7, 1)


def test_a_returned_scheduler_is_attached_and_its_rates_are_applied_from_the_first_epoch(tmp_path):
    trainer, _, rates = fit(tmp_path, 5, given=False, callbacks=[SchedulerCheckpoint()])
    assert rates == RATES[:5]
    assert trainer.schedulers[0].optimizer is trainer.optimizers[0]


def test_a_scheduler_without_an_optimizer_beside_it_is_refused(tmp_path):
    class Alone(Regression):
        def configure_optimizers(self):
            optimizer, scheduler = super().configure_optimizers()
            return [optimizer], [scheduler, PiecewiseConstantSchedule(0.1, [2], [1.0, 0.1])]

    with pytest.raises(ValueError, match=r"scheduler 1 that has no optimizer beside it.* 1 optim"):
        fit(tmp_path, 1, model=Alone(True))


def test_what_the_trainer_does_without_the_callback(tmp_path):
    checkpoints = ModelCheckpoint(dirpath=str(tmp_path), save_top_k=-1)
    trainer, _, rates = fit(tmp_path, 3, given=False, callbacks=[checkpoints])
    assert rates == [1e-3] * 3
    assert trainer.schedulers[0].epoch == 3
    saved = braintools.file.msgpack_load(str(tmp_path / "last.ckpt"))
    assert not [key for key in saved if "sched" in key]
    model = Regression(True)
    again = Trainer(max_epochs=5, logger=False, enable_progress_bar=False)
    with pytest.raises(ValueError, match="state_dict\\['opt_state'\\] is not of this Adam"):
        again.fit(model, Data(model), ckpt_path=str(tmp_path / "last.ckpt"))


def test_a_changed_schedule_warns_and_holds_from_the_restored_epoch_on(tmp_path):
    fit(tmp_path, 3)
    with pytest.warns(UserWarning, match="values changed. .* holds from epoch 3 on"):
        _, _, rates = fit(
            tmp_path,
            6,
            model=Regression(True, (1.0, 0.5, 0.25)),
            resume_from=tmp_path / "last.ckpt",
        )
    assert rates == np.array([0.05, 0.025, 0.025], np.float32).tolist()


def test_model_checkpoint_must_come_after(tmp_path):
    callbacks = [ModelCheckpoint(dirpath=str(tmp_path)), SchedulerCheckpoint()]
    with pytest.raises(ValueError, match="must stand before ModelCheckpoint"):
        fit(tmp_path, 1, callbacks=callbacks)


def test_a_checkpoint_without_our_entry_is_refused(tmp_path):
    fit(tmp_path, 1, callbacks=[ModelCheckpoint(dirpath=str(tmp_path))])
    with pytest.raises(ValueError, match=r"last\.ckpt was saved without SchedulerCheckpoint"):
        fit(tmp_path, 2, resume_from=tmp_path / "last.ckpt")


def test_a_checkpoint_within_an_epoch_is_refused(tmp_path):
    within = ModelCheckpoint(
        dirpath=str(tmp_path),
        filename="within",
        every_n_train_steps=1,
        save_on_train_epoch_end=False,
    )
    fit(tmp_path, 2, callbacks=[SchedulerCheckpoint(), within])
    with pytest.raises(ValueError, match="saved within an epoch"):
        fit(tmp_path, 3, resume_from=tmp_path / "within.ckpt")


def test_a_truncated_checkpoint_is_refused(tmp_path):
    fit(tmp_path, 1)
    path = tmp_path / "last.ckpt"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(braintools.file.InvalidCheckpointPath):
        fit(tmp_path, 2, resume_from=path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda entry: entry.pop("epochs_done"), "its entry 'brainsched' must have"),
        (lambda entry: entry["schedulers"]["0"].pop("last_epoch"), "no 'last_epoch'"),
        (lambda entry: entry["schedulers"].clear(), "has 0 schedulers, but this run has 1"),
    ],
)
def test_a_damaged_entry_is_refused_and_changes_nothing(tmp_path, damage, message):
    fit(tmp_path, 2)
    path = str(tmp_path / "last.ckpt")
    checkpoint = braintools.file.msgpack_load(path)
    damage(checkpoint["brainsched"])
    braintools.file.msgpack_save(path, checkpoint, overwrite=True)
    model = Regression(True)
    before = jax.tree.map(np.array, model.state_dict())
    with pytest.raises(ValueError, match=message):
        fit(tmp_path, 3, model=model, resume_from=path)
    jax.tree.map(np.testing.assert_array_equal, model.state_dict(), before)


def test_importing_brainsched_does_not_import_the_bridge():
    code = "import sys, brainsched; sys.exit('brainsched.trainer' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_callback_can_be_pickled_under_its_public_path():
    callback = pickle.loads(pickle.dumps(SchedulerCheckpoint("runs/last.ckpt", interval="step")))
    assert (callback.resume_from, callback.interval) == ("runs/last.ckpt", "step")
    assert SchedulerCheckpoint.__module__ == "brainsched.trainer"
