"""The checkpoints of braintools' Trainer: which one is the newest, and what comes back from it."""

import contextlib
import copy
import warnings
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Any

from braintools.file import InvalidCheckpointPath, msgpack_from_state_dict, msgpack_load
from braintools.trainer import EarlyStopping, ModelCheckpoint

from brainsched import checks
from brainsched.link import trainer_upstream
from brainsched.trainer.steps import Steps, schedulers_of

# The key of our entry in a checkpoint of the Trainer, and the keys in the entry.
ENTRY = "brainsched"
_LATER = {"interval": "epoch", "callbacks": {}}  # not in the checkpoints of brainsched 0.1.0
_KEYS = ("epochs_done", "global_step", "within_epoch", "step_pending", "schedulers", *_LATER)
# The types of what callbacks remember, but for the counts.
_TYPES: dict[str, Any] = {"watched": str, "best_k_models": dict, "should_stop": bool}
_TYPES |= {"best_score": Real | None, "best_model_path": str | None}

# The memory of the callbacks


def remembering(trainer: Any) -> dict[str, Any]:
    """Return each callback whose memory is saved, by its name there."""
    return {
        f"{cls.__name__} {i}": callback
        for cls in (EarlyStopping, ModelCheckpoint)
        for i, callback in enumerate(each for each in trainer.callbacks if isinstance(each, cls))
    }


def memory_of(callback: Any) -> dict[str, Any]:
    """Return what a callback remembers, and of which metric."""
    memory = callback.state_dict() | {"watched": f"{callback.mode} of {callback.monitor}"}
    if isinstance(callback, EarlyStopping):
        memory |= {"should_stop": callback.should_stop, "patience": callback.patience}
    return memory


def _check_memory(name: str, memory: Any, expected: Mapping[str, Any]) -> None:
    checks.keys(name, memory, expected, "SchedulerCheckpoint")
    for key, value in memory.items():
        if key not in _TYPES:  # a patience may be infinite
            if not checks.real(f"{name}: {key}", value) >= 0:
                raise ValueError(f"{name}: {key} must not be negative, got {value!r}")
        elif not isinstance(checks.unwrap(value), _TYPES[key]):
            raise TypeError(f"{name}: {key} cannot be {checks.shown(value)}")
        for path, score in value.items() if key == "best_k_models" else ():
            checks.real(f"{name}: {key}[{path!r}]", score)


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
    if entry["within_epoch"]:
        raise ValueError(f"{path} was saved within an epoch: resume from the end of one")
    if (interval := entry["interval"]) != steps.interval:
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

    def fitting(name: str, target: Any) -> Any:  # in structure and shapes
        return msgpack_from_state_dict(target, checkpoint.get(name, {}), name)

    parameters = fitting("model_state_dict", module.state_dict())
    optimizers = fitting("optimizer_state_dict", [each.state_dict() for each in trainer.optimizers])
    saved = entry["callbacks"]
    memories = [(each, saved[name]) for name, each in remembering(trainer).items() if name in saved]
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


# Which one


def read(path: Any) -> dict[str, Any]:
    """Read a checkpoint, and check that it has an entry of ours and that the entry is whole."""
    checkpoint = msgpack_load(path)
    if not isinstance(checkpoint, dict) or ENTRY not in checkpoint:
        raise ValueError(f"{path} was saved without SchedulerCheckpoint: it has no scheduler")
    entry = checkpoint[ENTRY] = _LATER | checkpoint[ENTRY]
    checks.keys(f"{path}: {ENTRY!r}", entry, _KEYS, "SchedulerCheckpoint")
    checks.epoch_number(f"{path}: the Trainer's global_step", checkpoint.get("global_step"))
    for key in ("epochs_done", "global_step"):
        checks.epoch_number(f"{path}: {key}", entry[key])
    for key in ("within_epoch", "step_pending"):
        checks.flag(f"{path}: {key}", entry[key])
    for key in ("schedulers", "callbacks"):
        if not isinstance(entry[key], dict):
            raise TypeError(f"{path}: {key} must be a dict, got {entry[key]!r}")
    return checkpoint


def newest(trainer: Any) -> tuple[Any, dict[str, Any]] | None:
    """Return the newest checkpoint that can be resumed, or None where there is none at all."""
    saving = [each for each in trainer.callbacks if isinstance(each, ModelCheckpoint)]
    if not saving:
        raise ValueError("resume_from='auto' needs ModelCheckpoint(dirpath=...) beside it")
    folders = {Path(callback.dirpath) for callback in saving}
    files = [path for folder in folders for path in folder.glob("*.ckpt") if path.is_file()]
    written = {path: path.stat().st_mtime_ns for path in files}
    best: tuple[Path, dict[str, Any]] | None = None
    refused, within_an_epoch = [], []
    for path in sorted(written, key=written.__getitem__, reverse=True):
        # A file system may count time in whole seconds: of files of one time, the epoch decides.
        if best is not None and written[path] < written[best[0]]:
            break
        try:
            checkpoint = read(path)
        except (ValueError, TypeError, InvalidCheckpointPath) as error:
            refused.append(f"{path} ({error})")
            continue
        if checkpoint[ENTRY]["within_epoch"]:
            within_an_epoch.append(f"{path} (saved within an epoch)")
        elif best is None or checkpoint[ENTRY]["epochs_done"] > best[1][ENTRY]["epochs_done"]:
            best = path, checkpoint
    if best is None and (unusable := refused + within_an_epoch):
        raise ValueError(f"no checkpoint can be resumed: {', '.join(unusable)}")
    if refused and best is not None:
        message = f"passed over {', '.join(refused)}, to resume from {best[0]}"
        warnings.warn(message, UserWarning, stacklevel=2)
    return best
