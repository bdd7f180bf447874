"""The checkpoints of braintools' Trainer: which one is the newest, and what comes back from it."""

import contextlib
import copy
import itertools
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from braintools.file import (
    InvalidCheckpointPath,
    msgpack_from_state_dict,
    msgpack_load,
    msgpack_to_state_dict,
)
from braintools.trainer import EarlyStopping, ModelCheckpoint

from brainsched import checks
from brainsched.link import trainer_upstream
from brainsched.schedules import schedule_checks
from brainsched.trainer.steps import Steps, schedulers_of

# The key of our entry in a checkpoint of the Trainer, and the keys in the entry.
ENTRY = "brainsched"
_KEYS = {"epochs_done", "global_step", "within_epoch", "step_pending", "schedulers"}
_LATER_KEYS = {"interval", "callbacks"}  # not in the checkpoints of brainsched 0.1.0

# The memory of the callbacks


def remembering(trainer: Any) -> Iterator[tuple[str, int, Any]]:
    """Yield each callback with a memory that is saved: its name there, its position, and itself."""
    count: Counter[str] = Counter()
    for position, callback in enumerate(trainer.callbacks):
        for cls in (EarlyStopping, ModelCheckpoint):
            if isinstance(callback, cls):
                yield f"{cls.__name__} {count[cls.__name__]}", position, callback
                count[cls.__name__] += 1


def memory_of(callback: Any) -> dict[str, Any]:
    """Return what a callback remembers, and of which metric."""
    memory = callback.state_dict() | {"watched": f"{callback.mode} of {callback.monitor}"}
    if isinstance(callback, EarlyStopping):
        memory |= {"should_stop": callback.should_stop, "patience": callback.patience}
    return memory


def _check_memory(name: str, memory: Any, callback: Any) -> None:
    expected = memory_of(callback)
    if not isinstance(memory, Mapping) or memory.keys() != expected.keys():
        raise ValueError(f"{name} must be a dict of {sorted(expected)}, got {memory!r}")
    best = memory.get("best_k_models", {})
    if not isinstance(best, Mapping):
        raise TypeError(f"{name}['best_k_models'] must be a dict, got {checks.shown(best)}")
    numbers = {f"best_k_models[{path!r}]": score for path, score in best.items()}
    if memory["best_score"] is not None:
        numbers["best_score"] = memory["best_score"]
    for key, value in numbers.items():
        if np.ndim(value) or np.asarray(value).dtype.kind not in "iuf":
            raise TypeError(f"{name}[{key!r}] must be a number, got {checks.shown(value)}")
    path = memory.get("best_model_path")
    if not isinstance(path, str | None):
        raise TypeError(f"{name}['best_model_path'] must be text, got {checks.shown(path)}")
    if isinstance(callback, EarlyStopping):
        for key in ("wait_count", "stopped_epoch", "patience"):
            checks.epoch_number(f"{name}[{key!r}]", memory[key])
        schedule_checks.flag(f"{name}['should_stop']", memory["should_stop"])


def _remember(callback: Any, memory: Mapping[str, Any]) -> None:
    """Restore the memory, unless the callback watches another metric now."""
    if memory["watched"] == memory_of(callback)["watched"]:
        callback.load_state_dict({key: memory[key] for key in callback.state_dict()})
        if isinstance(callback, EarlyStopping):
            may_wait_longer = callback.patience > memory["patience"]
            trainer_upstream.stop(callback, memory["should_stop"] and not may_wait_longer)


# What comes back


def restore(
    trainer: Any, module: Any, path: str | os.PathLike[str], checkpoint: Any, steps: Steps
) -> None:
    """Restore all but the position from a checkpoint that :func:`read` returned.

    Raises
    ------
    TypeError, ValueError
        If it was saved within an epoch, with another interval, or does not fit. Nothing has
        changed then.
    """
    entry = checkpoint[ENTRY]
    if entry["within_epoch"]:
        raise ValueError(
            f"{path} was saved within an epoch, where the Trainer cannot go on: resume from a "
            f"checkpoint of an epoch's end"
        )
    if entry.get("interval", "epoch") != steps.interval:
        raise ValueError(
            f"{path} was saved with interval={entry.get('interval', 'epoch')!r}, but this run has "
            f"interval={steps.interval!r}"
        )
    schedulers, saved = schedulers_of(trainer), entry["schedulers"]
    if saved.keys() != set(map(str, range(len(schedulers)))):
        raise ValueError(f"{path} has {len(saved)} schedulers, but this run has {len(schedulers)}")
    states = []
    for i, scheduler in enumerate(schedulers):
        trial = copy.deepcopy(scheduler)
        trial.load_state_dict(saved[str(i)])
        if entry["step_pending"] and any(scheduler is each for each in steps.by_trainer):
            trial.step()
        states.append(trial.state_dict())
    parameters = _fitting("model_state_dict", module.state_dict(), checkpoint)
    optimizers = _fitting(
        "optimizer_state_dict", [each.state_dict() for each in trainer.optimizers], checkpoint
    )
    memories = [
        (callback, entry["callbacks"][name])
        for name, _, callback in remembering(trainer)
        if name in entry.get("callbacks", {})
    ]
    for callback, memory in memories:
        _check_memory(f"{path}: {type(callback).__name__}", memory, callback)

    with contextlib.ExitStack() as undo:  # each checks itself as a whole, but not the next one
        for optimizer, state in zip(trainer.optimizers, optimizers, strict=True):
            undo.callback(optimizer.load_state_dict, optimizer.state_dict())
            optimizer.load_state_dict(state)
        undo.pop_all()
    module.load_state_dict(parameters)
    for scheduler, state in zip(schedulers, states, strict=True):
        scheduler.load_state_dict(state)
    for callback, memory in memories:
        _remember(callback, memory)


def _fitting(name: str, target: Any, checkpoint: Mapping[str, Any]) -> Any:
    """Return an entry of a checkpoint with the structure of ``target``."""
    found = checkpoint.get(name)
    _require_like(name, msgpack_to_state_dict(target), found)
    return msgpack_from_state_dict(target, found, name)


def _require_like(name: str, expected: Any, found: Any) -> None:
    if isinstance(expected, Mapping):
        if not isinstance(found, Mapping) or not expected.keys() <= found.keys():
            shown = sorted(found) if isinstance(found, Mapping) else type(found).__name__
            raise ValueError(f"{name} must be a dict of {sorted(expected)}, got {shown}")
        for key, value in expected.items():
            _require_like(f"{name}[{key!r}]", value, found[key])
    elif expected is not None:
        wanted, got = np.asarray(expected), np.asarray(found)
        if wanted.shape != got.shape or (wanted.dtype.kind in "OSU") != (got.dtype.kind in "OSU"):
            raise ValueError(
                f"{name} must be like {wanted.dtype} of shape {wanted.shape}, got {got.dtype} of "
                f"shape {got.shape}"
            )


# Which one


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint, and check that it has an entry of ours and that the entry is whole."""
    checkpoint = msgpack_load(path)
    if not isinstance(checkpoint, dict) or ENTRY not in checkpoint:
        raise ValueError(f"{path} was saved without SchedulerCheckpoint: it has no scheduler")
    entry = checkpoint[ENTRY]
    if not isinstance(entry, dict) or set(entry) not in (_KEYS, _KEYS | _LATER_KEYS):
        raise ValueError(f"{path}: {ENTRY!r} must be a dict of {sorted(_KEYS | _LATER_KEYS)}")
    for key in ("epochs_done", "global_step"):
        checks.epoch_number(f"{path}: {key}", entry[key])
    for key in ("within_epoch", "step_pending"):
        schedule_checks.flag(f"{path}: {key}", entry[key])
    for key in ("schedulers", "callbacks"):
        if not isinstance(entry.get(key, {}), dict):
            raise TypeError(f"{path}: {key} must be a dict, got {checks.shown(entry[key])}")
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


def newest(folders: Sequence[Path]) -> tuple[Path, dict[str, Any]] | None:
    """Return the newest checkpoint that can be resumed, or None where there is none at all.

    Another process may delete files meanwhile: what has vanished is passed over.
    """
    written: dict[Path, int] = {}
    for path in (path for folder in folders for path in folder.glob("*.ckpt")):
        with contextlib.suppress(FileNotFoundError):
            if path.is_file():  # a FIFO would be waited for
                written[path] = path.stat().st_mtime_ns
    refused, within_an_epoch = [], []
    # A file system may count time in whole seconds: of files of one time, the epoch decides.
    order = sorted(written, key=written.__getitem__, reverse=True)
    for _, together in itertools.groupby(order, key=written.__getitem__):
        found = []
        for path in together:
            try:
                checkpoint = read(path)
            except (ValueError, TypeError, FileNotFoundError, InvalidCheckpointPath) as error:
                if path.exists():
                    refused.append(f"{path.name} ({error})")
                continue
            if checkpoint[ENTRY]["within_epoch"]:
                within_an_epoch.append(f"{path.name} (saved within an epoch)")
            else:
                found.append((checkpoint[ENTRY]["epochs_done"], path, checkpoint))
        if found:
            _, path, checkpoint = max(found, key=lambda entry: entry[0])
            if refused:
                warnings.warn(
                    f"{', '.join(refused)} cannot be read. The run resumes from {path.name}, the "
                    f"newest whole checkpoint",
                    UserWarning,
                    stacklevel=2,
                )
            return path, checkpoint
    if refused or within_an_epoch:
        raise ValueError(
            f"no checkpoint in {', '.join(map(str, folders))} can be resumed: "
            f"{', '.join(refused + within_an_epoch)}. To begin anew, move them away"
        )
    return None
