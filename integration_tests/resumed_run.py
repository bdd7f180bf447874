"""Train small runs, save them through every channel, and go on with them in another process.

    python integration_tests/resumed_run.py save FOLDER     # never stopped; saves on its way
    python integration_tests/resumed_run.py restore FOLDER  # restores each one and goes on

Both write what the runs end with, and the rates that they applied, to FOLDER. Every case of
``CASES`` is built anew in the second process, from the code and the saved files alone.
"""

import copy
import itertools
import pickle
import sys
from pathlib import Path
from typing import Any, NamedTuple

import brainstate
import braintools
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

import brainsched

BOUNDARIES = [4, 7]
EPOCHS = 9
ADDED_AT = 2
BY_HAND = 0.0375


class Case(NamedTuple):
    """One run to stop and to resume."""

    channel: str
    groups: str
    stop: int
    hand: bool


class Run(brainstate.graph.Node):
    """Weights, their optimizer and its scheduler; the head may join later as a group."""

    def __init__(self, groups: str, scheduler: brainsched.LRScheduler | None = None):
        self._groups = groups
        self._scheduler = scheduler or brainsched.PiecewiseConstantSchedule(
            0.1, BOUNDARIES, [1.0, 0.3, 0.03]
        )
        self.body = brainstate.ParamState(jnp.linspace(-1.0, 1.0, 4))
        self.head = brainstate.ParamState(jnp.ones(()))
        self.optimizer = braintools.optim.Adam(lr=self._scheduler)
        first = {"body": self.body}
        if groups == "one":
            first["head"] = self.head
        self.optimizer.register_trainable_weights(first)
        if groups == "several":
            self.add_head()

        @brainstate.transform.jit
        def update(x: Any) -> None:
            def loss() -> Any:
                return ((x @ self.body.value * self.head.value - x.sum(axis=1)) ** 2).mean()

            trained = {"body": self.body, "head": self.head}
            if len(self.optimizer.param_groups) == 1 and groups != "one":
                del trained["head"]
            self.optimizer.step(brainstate.transform.grad(loss, trained)())

        self._update = update

    def add_head(self) -> None:
        self.optimizer.add_param_group({"head": self.head}, lr=0.2)

    def train_epoch(self, epoch: int) -> list[np.ndarray]:
        """Train one epoch, and return the rates that it applied."""
        if self._groups == "midway" and epoch == ADDED_AT:
            self.add_head()
        rates = [np.asarray(rate) for rate in self._scheduler.get_last_lr()]
        x = np.random.default_rng(epoch).normal(size=(8, 4)).astype(np.float32)
        self._update(x)
        self._scheduler.step()
        return rates

    def parts(self) -> dict[str, Any]:
        return {
            "body": self.body.value,
            "head": self.head.value,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self._scheduler.state_dict(),
        }

    def load(self, parts: dict[str, Any]) -> None:
        self.body.value = parts["body"]
        self.head.value = parts["head"]
        self.optimizer.load_state_dict(parts["optimizer"])
        if "scheduler" in parts:
            self._scheduler.load_state_dict(parts["scheduler"])


# Each channel is a pair: save a run to a path, and load a path into a run that was built anew.


def _pickle(run: Run, path: Path) -> None:
    path.write_bytes(pickle.dumps(run.parts()))


def _unpickle(run: Run, path: Path) -> Run:
    run.load(pickle.loads(path.read_bytes()))
    return run


def _msgpack(run: Run, path: Path) -> None:
    braintools.file.msgpack_save(str(path), run.parts())


def _unmsgpack(run: Run, path: Path) -> Run:
    run.load(braintools.file.msgpack_load(str(path), target=run.parts()))
    return run


def _flax(run: Run, path: Path) -> None:
    path.write_bytes(flax.serialization.to_bytes(run.parts()))


def _unflax(run: Run, path: Path) -> Run:
    run.load(flax.serialization.from_bytes(run.parts(), path.read_bytes()))
    return run


def _save_orbax(path: Path, tree: Any, asynchronous: bool) -> None:
    options = ocp.CheckpointManagerOptions(enable_async_checkpointing=asynchronous)
    with ocp.CheckpointManager(path, options=options) as manager:
        manager.save(0, args=ocp.args.PyTreeSave(tree))


def _restore_orbax(path: Path, target: Any) -> Any:
    with ocp.CheckpointManager(path) as manager:
        arguments = ocp.checkpoint_utils.construct_restore_args(target)
        return manager.restore(0, args=ocp.args.PyTreeRestore(target, arguments))


def _orbax(run: Run, path: Path) -> None:
    _save_orbax(path, run.parts(), asynchronous=False)


def _orbax_asynchronous(run: Run, path: Path) -> None:
    _save_orbax(path, run.parts(), asynchronous=True)


def _unorbax(run: Run, path: Path) -> Run:
    run.load(_restore_orbax(path, run.parts()))
    return run


def _values(run: Run) -> dict[str, Any]:
    flat = brainstate.graph.treefy_states(run).to_flat()
    return {".".join(map(str, key)): state.value for key, state in flat.items()}


def _graph(run: Run, path: Path) -> None:
    _save_orbax(path, _values(run), asynchronous=True)


def _ungraph(run: Run, path: Path) -> Run:
    values = _restore_orbax(path, _values(run))
    states = brainstate.graph.treefy_states(run)
    for key, state in states.to_flat().items():
        state.value = values[".".join(map(str, key))]
    brainstate.graph.update_states(run, states)
    return run


def _scheduler_pickled(run: Run, path: Path) -> None:
    parts = run.parts()
    del parts["scheduler"]
    path.write_bytes(pickle.dumps((run._scheduler, parts)))


def _scheduler_copied(run: Run, path: Path) -> None:
    parts = run.parts()
    del parts["scheduler"]
    path.write_bytes(pickle.dumps((copy.deepcopy(run._scheduler), parts)))


def _with_scheduler(run: Run, path: Path, duplicate: Any) -> Run:
    scheduler, parts = pickle.loads(path.read_bytes())
    run = Run(run._groups, duplicate(scheduler))
    if run._groups == "midway":
        run.add_head()
    run.load(parts)
    return run


CHANNELS: dict[str, tuple[Any, Any]] = {
    "pickle": (_pickle, _unpickle),
    "braintools_msgpack": (_msgpack, _unmsgpack),
    "flax_serialization": (_flax, _unflax),
    "orbax": (_orbax, _unorbax),
    "orbax_asynchronous": (_orbax_asynchronous, _unorbax),
    "graph_through_orbax": (_graph, _ungraph),
    "scheduler_pickled": (
        _scheduler_pickled,
        lambda run, path: _with_scheduler(run, path, lambda scheduler: scheduler),
    ),
    "scheduler_copied": (
        _scheduler_copied,
        lambda run, path: _with_scheduler(run, path, copy.deepcopy),
    ),
}
GROUPS = ["one", "several", "midway"]
STOPS = {"one_before_a_boundary": 3, "on_a_boundary": 4, "inside_a_stage": 6}
CASES = [Case(*case) for case in itertools.product(CHANNELS, GROUPS, STOPS.values(), [False, True])]


def end_of(run: Run) -> dict[str, Any]:
    """Return everything that a run ends with, by name, as host arrays."""
    leaves, _ = jax.tree.flatten_with_path((_values(run), run.parts()))
    return {jax.tree_util.keystr(key): np.asarray(leaf) for key, leaf in leaves}


def save(folder: Path) -> dict[Any, Any]:
    ends: dict[Any, Any] = {}
    for groups, stop, hand in itertools.product(GROUPS, STOPS.values(), [False, True]):
        run = Run(groups)
        rates = []
        for epoch in range(EPOCHS):
            if epoch == stop:
                if hand:
                    run.optimizer.current_lr = BY_HAND
                for channel, (write, _) in CHANNELS.items():
                    write(run, folder / f"{channel}-{groups}-{stop}-{hand}")
            rates.append(run.train_epoch(epoch))
        ends[groups, stop, hand] = (end_of(run), rates)
    return ends


def restore(folder: Path) -> dict[Any, Any]:
    ends: dict[Any, Any] = {}
    for case in CASES:
        run = Run(case.groups)
        if case.groups == "midway":
            run.add_head()
        _, read = CHANNELS[case.channel]
        run = read(run, folder / f"{case.channel}-{case.groups}-{case.stop}-{case.hand}")
        rates = [run.train_epoch(epoch) for epoch in range(run._scheduler.epoch, EPOCHS)]
        ends[case] = (end_of(run), rates)
    return ends


if __name__ == "__main__":
    verb, place = sys.argv[1], Path(sys.argv[2]).resolve()
    ends = {"save": save, "restore": restore}[verb](place)
    plain = {tuple(key): end for key, end in ends.items()}
    (place / f"{verb}.ends").write_bytes(pickle.dumps(plain))
