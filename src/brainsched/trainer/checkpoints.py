"""The checkpoints of braintools' Trainer: which one is the newest, and what comes back from it."""

import copy
import itertools
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from braintools.file import InvalidCheckpointPath, msgpack_from_state_dict, msgpack_load
from braintools.trainer import EarlyStopping, ModelCheckpoint

from brainsched.trainer.steps import schedulers_of

# Where a checkpoint of the Trainer has what is ours.
ENTRY = "brainsched"
_KEYS = {"epochs_done", "global_step", "within_epoch", "step_pending", "schedulers"}
# Not in the checkpoints of brainsched 0.1.
_LATER_KEYS = {"interval", "early_stopping", "model_checkpoints"}


# What comes back


def restore(
    trainer: Any, module: Any, path: str | os.PathLike[str], checkpoint: dict[str, Any], unit: str
) -> None:
    """Restore all but the position from a checkpoint, which is checked as a whole before.

    Raises
    ------
    TypeError, ValueError
        If it was saved within an epoch, with another interval than ``unit``, or does not fit.
        Nothing has changed then.
    """
    saved = checkpoint[ENTRY]
    if saved["within_epoch"]:
        raise ValueError(
            f"{path} was saved within an epoch, where the Trainer cannot go on: resume from a "
            f"checkpoint of an epoch's end"
        )
    if saved.get("interval", "epoch") != unit:
        raise ValueError(
            f"{path} was saved with interval={saved.get('interval', 'epoch')!r}, and its "
            f"schedulers are at a count of those, but this run has interval={unit!r}"
        )
    schedulers = schedulers_of(trainer)
    if len(saved["schedulers"]) != len(schedulers):
        raise ValueError(
            f"{path} has {len(saved['schedulers'])} schedulers, but this run has {len(schedulers)}"
        )
    states = [saved["schedulers"][str(i)] for i in range(len(schedulers))]
    # Restored into targets and copies first, which raises where something does not fit.
    parameters = msgpack_from_state_dict(
        module.state_dict(), checkpoint["model_state_dict"], "model_state_dict"
    )
    optimizers = msgpack_from_state_dict(
        [optimizer.state_dict() for optimizer in trainer.optimizers],
        checkpoint["optimizer_state_dict"],
        "optimizer_state_dict",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # loading itself warns
        for scheduler, state in zip(schedulers, states, strict=True):
            copy.deepcopy(scheduler).load_state_dict(state)

    for scheduler, state in zip(schedulers, states, strict=True):
        scheduler.load_state_dict(state)
    module.load_state_dict(parameters)
    for optimizer, state in zip(trainer.optimizers, optimizers, strict=True):
        optimizer.load_state_dict(state)
    for i, (_, stopping) in enumerate(callbacks(trainer, EarlyStopping)):
        stopping.load_state_dict(saved.get("early_stopping", {}).get(str(i), {}))
    for i, (_, saving) in enumerate(callbacks(trainer, ModelCheckpoint)):
        memory = saved.get("model_checkpoints", {}).get(str(i))
        if memory is not None and _watched(saving) == memory["watched"]:
            saving.load_state_dict(memory["state"])


def callbacks(trainer: Any, cls: type) -> Iterator[tuple[int, Any]]:
    """Yield each callback of a class, and its position among the callbacks."""
    for position, callback in enumerate(trainer.callbacks):
        if isinstance(callback, cls):
            yield position, callback


def memory_of(
    saving: ModelCheckpoint, hook: str | None, trainer: Any, module: Any
) -> dict[str, Any]:
    """Return what a ``ModelCheckpoint`` remembers of its best, and by which metric.

    It saves a file before it takes it into its best, and others may stand behind it. So where
    ``hook``, in which they save, is running, the memory is that at its end.
    """
    if hook is not None:
        saving = _copy_that_leaves_files_alone(saving)
        getattr(ModelCheckpoint, hook)(saving, trainer, module)
    return {"watched": _watched(saving), "state": saving.state_dict()}


def _copy_that_leaves_files_alone(saving: ModelCheckpoint) -> ModelCheckpoint:
    """Return a copy of a callback that remembers its best by itself, and writes no file."""
    copied = copy.copy(saving)
    copied.best_k_models = dict(saving.best_k_models)
    vars(copied).update(
        _save_checkpoint=lambda *_: None,
        _remove_checkpoint=lambda *_: None,
    )
    return copied


def _watched(saving: ModelCheckpoint) -> str:
    return f"{saving.mode} of {saving.monitor}"


# Which one


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint, and check that it has an entry of ours."""
    checkpoint = msgpack_load(path)
    if not isinstance(checkpoint, dict) or ENTRY not in checkpoint:
        raise ValueError(f"{path} was saved without SchedulerCheckpoint: it has no scheduler")
    saved = checkpoint[ENTRY]
    if not isinstance(saved, dict) or set(saved) - _LATER_KEYS != _KEYS:
        raise ValueError(
            f"{path} is damaged: its entry {ENTRY!r} must have {sorted(_KEYS | _LATER_KEYS)}"
        )
    return checkpoint


def folders(trainer: Any) -> list[Path]:
    """Return where the Trainer's checkpoints are."""
    saving = [each for each in trainer.callbacks if isinstance(each, ModelCheckpoint)]
    if not saving:
        raise ValueError(
            "resume_from='auto' looks into the folder of a ModelCheckpoint, and there is none "
            "among the Trainer's callbacks: add ModelCheckpoint(dirpath=...)"
        )
    return list(dict.fromkeys(Path(callback.dirpath) for callback in saving))


def newest(folders: list[Path]) -> tuple[Path, dict[str, Any]] | None:
    """Return the newest checkpoint that can be resumed, or None where there is none at all."""

    def written(path: Path) -> int:
        return path.stat().st_mtime_ns

    paths = sorted((path for folder in folders for path in folder.glob("*.ckpt")), key=written)
    within_an_epoch = []
    refused = []
    # A file system may count time in whole seconds: of files of one time, the epoch decides.
    for _, together in itertools.groupby(reversed(paths), key=written):
        found = []
        for path in together:
            try:
                checkpoint = read(path)
            except (ValueError, InvalidCheckpointPath) as error:
                refused.append(f"{path.name} ({error})")
                continue
            if checkpoint[ENTRY]["within_epoch"]:
                within_an_epoch.append(f"{path.name} (saved within an epoch)")
            else:
                found.append((path, checkpoint))
        if found:
            path, checkpoint = max(found, key=lambda entry: entry[1][ENTRY]["epochs_done"])
            if refused:
                warnings.warn(
                    f"passed over {', '.join(refused)}, to resume from {path.name}, the newest "
                    f"checkpoint that is whole",
                    stacklevel=2,
                )
            return path, checkpoint
    if paths:
        raise ValueError(
            f"no checkpoint in {', '.join(map(str, folders))} can be resumed: "
            f"{', '.join(refused + within_an_epoch)}. To begin anew, move them away"
        )
    return None
