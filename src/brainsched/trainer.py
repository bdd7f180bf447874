"""The bridge to ``braintools.trainer``: runs of its Trainer that can be stopped and resumed."""

import os
from typing import Any

from braintools.file import msgpack_from_state_dict, msgpack_load
from braintools.trainer import Callback, ModelCheckpoint

from brainsched import _upstream
from brainsched._base import LRScheduler

__all__ = ["SchedulerCheckpoint"]

_ENTRY = "brainsched"
_KEYS = {"epochs_done", "global_step", "within_epoch", "step_pending", "schedulers"}


class SchedulerCheckpoint(Callback):
    """Put schedulers into the Trainer's checkpoints, and resume a run from one.

    A scheduler that ``configure_optimizers`` returned beside an optimizer is attached to it, so
    that its rates are applied, from the first epoch on. Each checkpoint of ``ModelCheckpoint``
    gets the schedulers' states. With ``resume_from``, ``fit`` goes on after the last epoch of that
    checkpoint, counts epochs from there, and ends where a run that was never stopped ends.

    Without this callback, in braintools 0.3.0: a returned scheduler that was not given to the
    optimizer as ``lr=`` is stepped, but its rates are not applied; checkpoints hold no scheduler,
    and those of an epoch's end are from before its ``scheduler.step()``; ``fit(ckpt_path=...)``
    fails at the first step of an optimizer with a state (``'str' object has no attribute 'mu'``),
    and counts epochs from 0 again; ``on_load_checkpoint`` is never called.

    Parameters
    ----------
    resume_from : path, optional
        A checkpoint that ``ModelCheckpoint`` saved at an epoch's end, or its ``last.ckpt``, in a
        run with this callback.

    Raises
    ------
    ValueError
        From ``fit``, before anything has changed: if a ``ModelCheckpoint`` stands before this
        callback in the Trainer's list, which would save before this one knows that the epoch has
        ended; if a scheduler has no optimizer beside it; if the checkpoint is damaged, was saved
        without this callback or within an epoch, or does not fit the model and optimizers.

    Notes
    -----
    Restored are what the Trainer saves, the model's parameters and the optimizers, and the
    schedulers. Other States of the model and random keys are not in these checkpoints, and the
    order of the data must depend on nothing but ``module.current_epoch``. With
    ``check_val_every_n_epoch`` above 1, the Trainer counts from the resumption.

    Examples
    --------
    ::

        path = "runs/last.ckpt"
        trainer = Trainer(
            max_epochs=90,
            callbacks=[
                SchedulerCheckpoint(resume_from=path if os.path.exists(path) else None),
                ModelCheckpoint(dirpath="runs"),
            ],
        )
        trainer.fit(model, train_loader)
    """

    def __init__(self, resume_from: str | os.PathLike[str] | None = None) -> None:
        super().__init__()
        self.resume_from = resume_from
        self._begin()

    def _begin(self) -> None:
        self._offset = 0
        self._epochs_done = 0
        self._max_epochs = 0
        self._within_epoch = False
        self._step_pending = False

    def on_fit_start(self, trainer: Any, module: Any) -> None:
        """Attach the schedulers, and restore the checkpoint if there is one to resume from."""
        self._begin()
        before = trainer.callbacks[: trainer.callbacks.index(self)]
        if any(isinstance(callback, ModelCheckpoint) for callback in before):
            raise ValueError(
                "SchedulerCheckpoint must stand before ModelCheckpoint in the Trainer's "
                "callbacks, so that it knows what is saved"
            )
        _attach(trainer)
        self._max_epochs = trainer.max_epochs
        if self.resume_from is not None:
            self._resume(trainer, module, os.fspath(self.resume_from))

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        """Count on from the epochs before the resumption, where the Trainer counts from 0."""
        trainer.max_epochs = self._max_epochs
        trainer.state.epoch += self._offset
        module.current_epoch = trainer.state.epoch
        self._within_epoch, self._step_pending = True, False

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        """Note that the epoch has ended, and that the Trainer steps the schedulers later."""
        self._epochs_done = trainer.state.epoch + 1
        self._within_epoch, self._step_pending = False, True

    def on_train_end(self, trainer: Any, module: Any) -> None:
        """Note that the last epoch's step was taken."""
        trainer.max_epochs = self._max_epochs
        trainer.min_epochs += self._offset
        self._step_pending = False

    def on_save_checkpoint(self, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
        """Add the schedulers' states and the position to a checkpoint."""
        checkpoint[_ENTRY] = {
            "epochs_done": self._epochs_done,
            "global_step": trainer.global_step,
            "within_epoch": self._within_epoch,
            "step_pending": self._step_pending,
            "schedulers": {
                str(i): scheduler.state_dict() for i, scheduler in enumerate(_schedulers(trainer))
            },
        }

    def _resume(self, trainer: Any, module: Any, path: str) -> None:
        checkpoint = msgpack_load(path)
        if not isinstance(checkpoint, dict) or _ENTRY not in checkpoint:
            raise ValueError(f"{path} was saved without SchedulerCheckpoint: it has no scheduler")
        saved = checkpoint[_ENTRY]
        if not isinstance(saved, dict) or set(saved) != _KEYS:
            raise ValueError(f"{path} is damaged: its entry {_ENTRY!r} must have {sorted(_KEYS)}")
        if saved["within_epoch"]:
            raise ValueError(
                f"{path} was saved within an epoch, where the Trainer cannot go on: resume from "
                f"a checkpoint of an epoch's end"
            )
        schedulers = _schedulers(trainer)
        if len(saved["schedulers"]) != len(schedulers):
            raise ValueError(
                f"{path} has {len(saved['schedulers'])} schedulers, but this run has "
                f"{len(schedulers)}"
            )
        # Restored into targets first, which raises where something does not fit.
        parameters = msgpack_from_state_dict(
            module.state_dict(), checkpoint["model_state_dict"], "model_state_dict"
        )
        optimizers = msgpack_from_state_dict(
            [optimizer.state_dict() for optimizer in trainer.optimizers],
            checkpoint["optimizer_state_dict"],
            "optimizer_state_dict",
        )
        for i, scheduler in enumerate(schedulers):  # one, as long as the Trainer uses no more
            scheduler.load_state_dict(saved["schedulers"][str(i)])
        module.load_state_dict(parameters)
        for optimizer, state in zip(trainer.optimizers, optimizers, strict=True):
            optimizer.load_state_dict(state)
        if saved["step_pending"]:
            for scheduler in trainer.schedulers:
                scheduler.step()

        self._offset = self._epochs_done = int(saved["epochs_done"])
        trainer.state.global_step = int(saved["global_step"])
        # The Trainer's loop always begins at 0, so it is given what is left.
        trainer.max_epochs -= self._offset
        trainer.min_epochs -= self._offset


def _attach(trainer: Any) -> None:
    for i, scheduler in enumerate(trainer.schedulers):
        if isinstance(scheduler, LRScheduler) and scheduler.optimizer is None:
            if i >= len(trainer.optimizers):
                raise ValueError(
                    f"configure_optimizers returned a scheduler {i} that has no optimizer "
                    f"beside it: it returned {len(trainer.optimizers)} optimizers"
                )
            scheduler.attach_optimizer(trainer.optimizers[i])


def _schedulers(trainer: Any) -> list[LRScheduler]:
    """Return our schedulers that own an optimizer, stepped by the Trainer or not."""
    owners = map(_upstream.scheduler_of, trainer.optimizers)
    return [owner for owner in owners if isinstance(owner, LRScheduler)]
