"""What the callback needs of braintools' Trainer beyond its public interface (0.3.0 and 0.4.0)."""

import contextlib
import copy
from typing import Any

from braintools.trainer import EarlyStopping, ModelCheckpoint


def pass_over(trainer: Any, module: Any, epochs: int) -> contextlib.ExitStack:
    """Let ``fit`` pass over its first ``epochs`` epochs, until what is returned is closed."""
    passing = contextlib.ExitStack()

    def run_train_epoch(compute_grads: Any, apply_grads: Any, epoch: int) -> None:
        if epoch >= epochs:
            passing.close()
            trainer._run_train_epoch(compute_grads, apply_grads, epoch)
            return
        trainer.state.epoch = module.current_epoch = epochs - 1
        # At its end no scheduler is stepped, and nothing is validated or printed.
        passing.callback(setattr, trainer, "val_dataloaders", trainer.val_dataloaders)
        passing.enter_context(contextlib.redirect_stdout(None))
        trainer.schedulers, trainer.val_dataloaders = [], None

    # braintools 0.4.0 has read max_epochs by on_fit_start: it cannot be told to run fewer.
    trainer._run_train_epoch = run_train_epoch
    passing.callback(vars(trainer).pop, "_run_train_epoch")
    return passing


def counted(callback: Any, hook: str, trainer: Any, module: Any) -> Any:
    """Return a copy of a callback after ``hook`` of braintools, which writes no file."""
    copied = copy.copy(callback)
    copied.load_state_dict(callback.state_dict())  # its own dict of the best
    copied.verbose = False
    copied._save_checkpoint = copied._remove_checkpoint = lambda *args: None
    cls = ModelCheckpoint if isinstance(callback, ModelCheckpoint) else EarlyStopping
    getattr(cls, hook)(copied, trainer, module)
    return copied


def stop(stopping: EarlyStopping, should_stop: bool) -> None:
    """Say whether ``stopping`` has seen enough, which its ``load_state_dict`` leaves out."""
    stopping._should_stop = should_stop
