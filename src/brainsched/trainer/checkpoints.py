"""The checkpoints of braintools' Trainer: which one is the newest, and what comes back from it."""

import contextlib
import copy
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from numbers import Real
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
from brainsched import checks as schedule_checks
from brainsched.link import trainer_upstream
from brainsched.trainer.steps import Steps, schedulers_of

# The key of our entry in a checkpoint of the Trainer, and the keys in the entry.
ENTRY = "brainsched"
_KEYS = {"epochs_done", "global_step", "within_epoch", "step_pending", "schedulers"}
_LATER_KEYS = {"interval", "callbacks"}  # not in the checkpoints of brainsched 0.1.0
# What callbacks remember: the counts (a patience may be infinite), and the types of the rest.
_COUNTS = ("wait_count", "stopped_epoch", "patience")
_TYPES: dict[str, Any] = dict(
    watched=str, best_score=Real | None, best_model_path=str | None, best_k_models=dict
)
_TYPES |= dict.fromkeys(_COUNTS, Real) | {"should_stop": bool}

# The memory of the callbacks


def remembering(trainer: Any) -> Iterator[tuple[str, Any]]:
    """Yield each callback whose memory is saved, and its name there."""
    count: Counter[type] = Counter()
    for callback in trainer.callbacks:
        for cls in (EarlyStopping, ModelCheckpoint):
            if isinstance(callback, cls):
                yield f"{cls.__name__} {count[cls]}", callback
                count[cls] += 1


def memory_of(callback: Any) -> dict[str, Any]:
    """Return what a callback remembers, and of which metric."""
    memory = callback.state_dict() | {"watched": f"{callback.mode} of {callback.monitor}"}
    if isinstance(callback, EarlyStopping):
        memory |= {"should_stop": callback.should_stop, "patience": callback.patience}
    return memory


def _check_memory(name: str, memory: Any, expected: Mapping[str, Any]) -> None:
    if not isinstance(memory, dict) or memory.keys() != expected.keys():
        raise ValueError(f"{name} must be a dict of {sorted(expected)}, got {memory!r}")
    for key, value in memory.items():
        found = checks.unwrap(value)
        right = isinstance(found, _TYPES.get(key, object)) and (key not in _COUNTS or found >= 0)
        scores = found.values() if right and key == "best_k_models" else ()
        if not right or not all(isinstance(checks.unwrap(score), Real) for score in scores):
            raise ValueError(f"{name}: {key!r} cannot be {checks.shown(value)}")


def _remember(callback: Any, memory: Mapping[str, Any]) -> None:
    """Restore the memory, unless the callback watches another metric now."""
    if memory["watched"] == memory_of(callback)["watched"]:
        callback.load_state_dict({key: memory[key] for key in callback.state_dict()})
        if isinstance(callback, EarlyStopping):
            patient = callback.patience > memory["patience"]  # so it may wait longer
            trainer_upstream.stop(callback, memory["should_stop"] and not patient)


# What comes back


def restore(trainer: Any, module: Any, path: Any, checkpoint: Any, steps: Steps) -> None:
    """Restore all but the position from what :func:`read` returned: check all, then write."""
    entry = checkpoint[ENTRY]
    interval = entry.get("interval", "epoch")
    if entry["within_epoch"]:
        raise ValueError(f"{path} was saved within an epoch: resume from the end of one")
    if interval != steps.interval:
        raise ValueError(f"{path} was saved with {interval=}, but this run has {steps.interval!r}")
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
    saved = entry.get("callbacks", {})
    memories = [(each, saved[name]) for name, each in remembering(trainer) if name in saved]
    for callback, memory in memories:
        _check_memory(f"{path}: {type(callback).__name__}", memory, memory_of(callback))

    with contextlib.ExitStack() as undo:  # an optimizer checks its own state, but not the others'
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
    found = checkpoint.get(name)
    _require_like(name, msgpack_to_state_dict(target), found)
    return msgpack_from_state_dict(target, found, name)


def _require_like(name: str, expected: Any, found: Any) -> None:
    if isinstance(expected, Mapping):
        if not isinstance(found, Mapping) or not expected.keys() <= found.keys():
            raise ValueError(
                f"{name} must be a dict of {sorted(expected)}, got {type(found).__name__}"
            )
        for key, value in expected.items():
            _require_like(f"{name}[{key!r}]", value, found[key])
    elif expected is not None and not isinstance(expected, str):
        shape, array = np.shape(expected), np.asarray(found)
        if array.shape != shape or array.dtype.kind in "OSU":
            raise ValueError(f"{name} must hold numbers of shape {shape}, got {found!r}")


# Which one


def read(path: Any) -> dict[str, Any]:
    """Read a checkpoint, and check that it has an entry of ours and that the entry is whole."""
    checkpoint = msgpack_load(path)
    if not isinstance(checkpoint, dict) or ENTRY not in checkpoint:
        raise ValueError(f"{path} was saved without SchedulerCheckpoint: it has no scheduler")
    entry = checkpoint[ENTRY]
    if not isinstance(entry, dict) or set(entry) not in (_KEYS, _KEYS | _LATER_KEYS):
        raise ValueError(f"{path}: {ENTRY!r} must be a dict of {sorted(_KEYS | _LATER_KEYS)}")
    checks.epoch_number(f"{path}: the Trainer's global_step", checkpoint.get("global_step"))
    for key in ("epochs_done", "global_step"):
        checks.epoch_number(f"{path}: {key}", entry[key])
    for key in ("within_epoch", "step_pending"):
        schedule_checks.flag(f"{path}: {key}", entry[key])
    for key in ("schedulers", "callbacks"):
        if not isinstance(entry.get(key, {}), dict):
            raise TypeError(f"{path}: {key} must be a dict, got {entry[key]!r}")
    return checkpoint


def newest(trainer: Any) -> tuple[Any, dict[str, Any]] | None:
    """Return the newest checkpoint that can be resumed, or None where there is none at all."""
    saving = [each for each in trainer.callbacks if isinstance(each, ModelCheckpoint)]
    if not saving:
        raise ValueError("resume_from='auto' needs ModelCheckpoint(dirpath=...) beside it")
    written: dict[Path, int] = {}
    for folder in {Path(callback.dirpath) for callback in saving}:
        for path in folder.glob("*.ckpt"):
            with contextlib.suppress(FileNotFoundError):  # another process may delete files
                if path.is_file():  # to open a FIFO would wait for ever
                    written[path] = path.stat().st_mtime_ns
    best: tuple[Path, dict[str, Any]] | None = None
    refused, within_an_epoch = [], []
    for path in sorted(written, key=written.__getitem__, reverse=True):
        # A file system may count time in whole seconds: of files of one time, the epoch decides.
        if best is not None and written[path] < written[best[0]]:
            break
        try:
            checkpoint = read(path)
        except (ValueError, TypeError, FileNotFoundError, InvalidCheckpointPath) as error:
            if path.exists():
                refused.append(f"{path} ({error})")
            continue
        if checkpoint[ENTRY]["within_epoch"]:
            within_an_epoch.append(f"{path} (saved within an epoch)")
        elif best is None or checkpoint[ENTRY]["epochs_done"] > best[1][ENTRY]["epochs_done"]:
            best = path, checkpoint
    if best is None and (unusable := refused + within_an_epoch):
        raise ValueError(f"no checkpoint can be resumed: {', '.join(unusable)}")
    if best is not None and refused:
        message = f"passed over {', '.join(refused)}, to resume from {best[0]}"
        warnings.warn(message, UserWarning, stacklevel=2)
    return best
