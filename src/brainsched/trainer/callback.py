"""The bridge to ``braintools.trainer``: runs of its Trainer that can be stopped and resumed."""

import contextlib
import os
from typing import Any

from braintools.trainer import Callback, ModelCheckpoint

from brainsched import checks
from brainsched.link import trainer_upstream
from brainsched.trainer import checkpoints, steps
from brainsched.trainer.steps import Steps


class SchedulerCheckpoint(Callback):
    """Put schedulers into the Trainer's log and checkpoints, and resume a run from one.

    A scheduler that ``configure_optimizers`` returned beside an optimizer is attached to it before
    the first epoch. The rates of all param groups are logged. Each checkpoint of
    ``ModelCheckpoint`` gets the states of all schedulers, returned or given as ``lr=`` alone.

    Parameters
    ----------
    resume_from : path or 'auto', optional
        A checkpoint that ``ModelCheckpoint`` saved at an epoch's end, or its ``last.ckpt``, in a
        run with this callback. With ``'auto'``, the newest such file in the folder of the
        ``ModelCheckpoint`` beside this callback, by its time of modification; the run begins at
        epoch 0 if there is none. A damaged newer file is passed over, with a warning.
    interval : {'epoch', 'step'}
        When a returned scheduler is stepped: once an epoch, by the Trainer, or once an update of
        the optimizer, by this callback.
    monitor : str, optional
        The metric in ``trainer.callback_metrics`` that a returned ``ReduceLROnPlateau`` is stepped
        with, once an epoch: after the epoch's training if its name begins with ``train_``, else
        after its validation.

    Raises
    ------
    TypeError, ValueError
        If ``interval`` is neither of the two. From ``fit``, before anything has changed: if a
        ``ModelCheckpoint`` stands before this callback; if a scheduler has no optimizer beside it,
        or a ``ReduceLROnPlateau`` no ``monitor``; if the checkpoint is damaged, was saved without
        this callback, within an epoch or with another ``interval``, or does not fit; if ``'auto'``
        finds only such files. Within ``fit``: if the metric ``monitor`` was not logged.

    Notes
    -----
    Resuming restores the model's parameters, the optimizers, the schedulers, and the memory of
    ``EarlyStopping`` and ``ModelCheckpoint``. It does not restore other States of the model or
    random keys, and the order of the data must depend on ``module.current_epoch`` alone.

    Examples
    --------
    Started again after an interruption, at whatever moment, the same program goes on::

        callbacks = [
            SchedulerCheckpoint(resume_from="auto"),
            ModelCheckpoint(dirpath="runs", monitor="val_loss"),  # the best three
            ModelCheckpoint(dirpath="runs", monitor="", filename="newest"),
        ]
        Trainer(max_epochs=90, callbacks=callbacks).fit(model, train_loader, val_loader)
    """

    def __init__(
        self,
        resume_from: str | os.PathLike[str] | None = None,
        interval: str = "epoch",
        monitor: str | None = None,
    ) -> None:
        super().__init__()
        self.resume_from = resume_from
        self.interval = checks.one_of("interval", interval, ["epoch", "step"])
        self.monitor = monitor
        self._begin([])

    def _begin(self, returned: list[Any]) -> None:
        self._steps = Steps(returned, self.interval, self.monitor)
        self._epochs_done, self._phase = 0, ""  # "training" in an epoch, then "ending"
        self._passing = contextlib.ExitStack()
        # What the callbacks behind this one will remember at the end of the present hook.
        self._memories: dict[str, Any] = {}

    def on_fit_start(self, trainer: Any, module: Any) -> None:
        """Attach the schedulers, and restore the checkpoint if there is one to resume from."""
        self._passing.close()  # what a fit that failed left
        self._begin(trainer.schedulers)
        before = trainer.callbacks[: trainer.callbacks.index(self)]
        if any(isinstance(callback, ModelCheckpoint) for callback in before):
            raise ValueError("SchedulerCheckpoint must stand before ModelCheckpoint in callbacks")
        self._steps.attach(trainer)
        path = self.resume_from
        if path is None:
            return
        found = checkpoints.newest(trainer) if path == "auto" else (path, checkpoints.read(path))
        if found is not None:
            path, checkpoint = found
            checkpoints.restore(trainer, module, path, checkpoint, self._steps)
            entry = checkpoint[checkpoints.ENTRY]
            trainer.state.global_step = int(entry["global_step"])
            module.global_step = int(checkpoint["global_step"])  # braintools 0.3.0 leaves it at 0
            self._epochs_done = int(entry["epochs_done"])
            self._passing = trainer_upstream.pass_over(trainer, module, self._epochs_done)

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        """Give the Trainer back the schedulers that it did not step."""
        trainer.schedulers = self._steps.returned
        self._phase, self._memories = "training", {}

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int) -> None:
        """Log the rates that the batch is trained at."""
        for name, rate in steps.named_rates(trainer):
            module.log(name, rate, prog_bar=True)

    def on_after_optimizer_step(self, trainer: Any, module: Any, optimizer: Any) -> None:
        """Step the schedulers that count updates."""
        for scheduler in self._steps.by_update:
            scheduler.step()

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        """Step the schedulers whose metric is known, and let the Trainer step none of ours."""
        self._epochs_done, self._phase = trainer.current_epoch + 1, "ending"
        self._steps.after(trainer, validation=False)
        trainer.schedulers = self._steps.by_trainer
        self._look_ahead(trainer, module, "on_train_epoch_end")

    def on_validation_epoch_end(self, trainer: Any, module: Any) -> None:
        """Step the schedulers that depend on what was validated."""
        if self._phase == "ending":
            self._steps.after(trainer, validation=True)
            self._look_ahead(trainer, module, "on_validation_epoch_end")

    def on_train_end(self, trainer: Any, module: Any) -> None:
        """Note that the last epoch's step was taken."""
        self._passing.close()
        trainer.schedulers = self._steps.returned
        self._phase, self._memories = "", {}

    def on_save_checkpoint(self, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
        """Add the schedulers' states and the position to a checkpoint."""
        by_trainer = bool(self._steps.by_trainer)
        # What fit(ckpt_path=...) of braintools 0.4.0 reads: here, for those that we step, too.
        checkpoint["lr_schedulers_stepped"] = not (by_trainer and self._phase)
        checkpoint["lr_schedulers"] = {
            str(i): each.state_dict()
            for i, each in enumerate(self._steps.returned)
            if hasattr(each, "state_dict")
        }
        schedulers = steps.schedulers_of(trainer)
        checkpoint[checkpoints.ENTRY] = {
            "epochs_done": self._epochs_done,
            "global_step": trainer.global_step,
            "within_epoch": self._phase == "training",
            "step_pending": by_trainer and self._phase == "ending",
            "interval": self.interval,
            "schedulers": {str(i): each.state_dict() for i, each in enumerate(schedulers)},
            "callbacks": {
                name: self._memories.get(name) or checkpoints.memory_of(callback)
                for name, callback in checkpoints.remembering(trainer).items()
            },
        }

    def _look_ahead(self, trainer: Any, module: Any, hook: str) -> None:
        """Note what the callbacks behind this one will remember after ``hook``.

        ``ModelCheckpoint`` saves a file before it counts it among its best, and before the
        callbacks behind it have seen the metric.
        """
        seen = trainer.callbacks[: trainer.callbacks.index(self)]
        self._memories = {
            name: checkpoints.memory_of(trainer_upstream.counted(each, hook, trainer, module))
            for name, each in checkpoints.remembering(trainer).items()
            if each not in seen
        }
