"""What the callback needs of braintools' Trainer beyond its public interface (0.3.0 and 0.4.0).

These are ``_run_train_epoch``, ``_run_validation_epoch`` and ``_cleanup`` of ``Trainer``,
``_should_stop`` of ``EarlyStopping``, and ``_save_checkpoint`` and ``_remove_checkpoint`` of
``ModelCheckpoint``. Both versions have all of them; nothing here asks which version it is.
"""

import contextlib
import copy
import io
from typing import Any

from braintools.trainer import EarlyStopping, ModelCheckpoint


def lend(loan: contextlib.ExitStack, trainer: Any, **attributes: Any) -> None:
    """Give ``trainer`` other attributes until ``loan`` is closed, or until ``fit`` ends."""

    def clean_up() -> None:
        loan.close()
        trainer._cleanup()

    own = vars(trainer)
    # No callback is told of an exception, but every fit ends with this.
    for name, value in {**attributes, "_cleanup": clean_up}.items():
        if name in own:
            loan.callback(own.__setitem__, name, own[name])
        else:
            loan.callback(own.__delitem__, name)  # the method of the class is left
        own[name] = value


def pass_over(loan: contextlib.ExitStack, trainer: Any, module: Any, epochs: int) -> None:
    """Let ``fit``, which begins at epoch 0, pass over its first ``epochs`` epochs.

    braintools 0.4.0 has read ``max_epochs`` by the time it calls ``on_fit_start``, so the number of
    its epochs cannot be changed any more.
    """

    def run_train_epoch(compute_grads: Any, apply_grads: Any, epoch: int) -> None:
        loan.close()
        if epoch >= epochs:
            trainer._run_train_epoch(compute_grads, apply_grads, epoch)
            return
        trainer.state.epoch = module.current_epoch = epochs - 1
        nothing: dict[str, Any] = {"_run_validation_epoch": lambda epoch: None, "schedulers": []}
        lend(loan, trainer, _run_train_epoch=run_train_epoch, **nothing)
        # Else the progress display prints a summary of each.
        loan.enter_context(contextlib.redirect_stdout(io.StringIO()))

    lend(loan, trainer, _run_train_epoch=run_train_epoch)


def stop(stopping: EarlyStopping, should_stop: bool) -> None:
    """Say whether ``stopping`` has seen enough, which its ``load_state_dict`` leaves out."""
    stopping._should_stop = should_stop


def silent_copy(callback: Any) -> Any:
    """Return a copy of a callback that prints nothing, and writes and removes no file."""
    copied = copy.copy(callback)
    copied.verbose = False
    if isinstance(callback, ModelCheckpoint):
        copied.best_k_models = dict(callback.best_k_models)
        vars(copied).update(_save_checkpoint=_do_nothing, _remove_checkpoint=_do_nothing)
    return copied


def after(callback: Any, hook: str, trainer: Any, module: Any) -> Any:
    """Return a silent copy of a callback as it is once ``hook`` of braintools has run."""
    copied = silent_copy(callback)
    cls = ModelCheckpoint if isinstance(callback, ModelCheckpoint) else EarlyStopping
    getattr(cls, hook)(copied, trainer, module)
    return copied


def _do_nothing(*args: Any) -> None:
    return
