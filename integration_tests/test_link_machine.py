"""Two optimizers and three schedulers, linked in any order: what is reported is what trains.

After every rule each optimizer takes a step on the host and one in a program that was compiled
before all that happened since, and the parameters tell how far they moved. SGD without momentum
moves a parameter by minus rate times gradient; braintools runs Adam on every added group, whose
steps under a constant gradient of 1000 are the rate to within 1e-5.
"""

import copy
import pickle
import warnings

import brainstate
import braintools
import hypothesis
import jax.numpy as jnp
import numpy as np
import pytest
from brainstate.transform import jit
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import brainsched

EXPECTED_WARNINGS = (
    "moves to another optimizer",
    "no optimizer follows this",
    "the checkpoint was saved with another schedule",
    "was restored from a checkpoint, and its",
    "braintools 0.3.0 trains every group that is added by Adam",
)

optimizers = st.sampled_from(["left", "right"])
schedulers = st.sampled_from(["stages", "cosine", "columns"])
rates = st.sampled_from([0.125, 0.375, 0.75])


def built(name):
    if name == "stages":
        return brainsched.PiecewiseConstantSchedule(0.5, [2, 4], [1.0, 0.5, 0.25])
    if name == "cosine":
        return brainsched.CosineAnnealingLR([0.25, 0.5], T_max=8)
    return brainsched.PiecewiseConstantSchedule(0.25, [3], [[1.0, 0.0, 2.0], [0.5, 1.0, 1.0]])


def expect(error, *messages):
    """Raise ``error`` again unless it is one of those that belong here."""
    if not any(message in str(error) for message in messages):
        raise error


class Follower:
    """An optimizer, its parameters, and a training step that is compiled early."""

    def __init__(self, lr):
        self.optimizer = braintools.optim.SGD(lr=lr)
        self.parameters = {("first", "weight"): brainstate.ParamState(jnp.zeros(2))}
        self.optimizer.register_trainable_weights(dict(self.parameters))
        self.compiled = jit(self.step)

    def step(self):
        keys = [*self.parameters]
        gradients = {key: jnp.full(2, 1000.0 if key != keys[0] else 1.0) for key in keys}
        self.optimizer.step(gradients)

    def add(self, lr):
        key = (f"added {len(self.parameters)}", "weight")
        parameter = brainstate.ParamState(jnp.zeros(2))
        self.optimizer.add_param_group({key: parameter}, **({} if lr is None else {"lr": lr}))
        self.parameters[key] = parameter

    def moved(self, step):
        for parameter in self.parameters.values():
            parameter.value = jnp.zeros(2)
        step()
        return [-float(parameter.value[0]) for parameter in self.parameters.values()]

    def reported(self):
        groups = [float(group["lr"].value) for group in self.optimizer.param_groups]
        assert float(self.optimizer.current_lr) == groups[0]
        assert [float(rate) for rate in self.optimizer.lr.get_last_lr()] == groups
        return groups


class Links(RuleBasedStateMachine):
    @initialize(left=schedulers, plain=st.booleans())
    def begin(self, left, plain):
        self.schedulers = {name: built(name) for name in ("stages", "cosine", "columns")}
        self.programs = {}
        self.compile_steps()
        self.followers = {
            "left": Follower(0.5 if plain else self.schedulers[left]),
            "right": Follower(0.625),
        }
        self.saved = {}

    def compile_steps(self):
        for name, scheduler in self.schedulers.items():
            if name not in self.programs or self.programs[name][0] is not scheduler:
                self.programs[name] = scheduler, jit(scheduler.step)

    def follows(self, optimizer):
        """Return the name of the scheduler that an optimizer follows, if it is one of the three."""
        followed = self.followers[optimizer].optimizer.lr
        return next((n for n, s in self.schedulers.items() if s is followed), None)

    @rule(name=schedulers, optimizer=optimizers)
    def attach(self, name, optimizer):
        scheduler, follower = self.schedulers[name], self.followers[optimizer]
        before = scheduler.optimizer, follower.optimizer.lr, scheduler.base_lrs, scheduler.epoch
        try:
            scheduler.attach_optimizer(follower.optimizer)
        except ValueError as error:
            expect(error, "its base rate is", "has no rate")
            after = (scheduler.optimizer, follower.optimizer.lr, scheduler.base_lrs)
            assert after == before[:3]
        else:
            assert scheduler.optimizer is follower.optimizer
            assert follower.optimizer.lr is scheduler
        assert scheduler.epoch == before[3]

    @rule(name=schedulers, optimizer=optimizers)
    def give_to_a_new_optimizer(self, name, optimizer):
        self.followers[optimizer] = Follower(self.schedulers[name])

    @rule(name=schedulers, optimizer=optimizers)
    def only_add(self, name, optimizer):
        scheduler, follower = self.schedulers[name], self.followers[optimizer].optimizer
        if isinstance(follower.lr, brainsched.LRScheduler):
            if follower.lr is not scheduler:
                with pytest.raises(ValueError, match="an optimizer follows one scheduler"):
                    follower.add_scheduler(scheduler)
        else:
            follower.add_scheduler(scheduler)
            with pytest.raises(RuntimeError, match="would report rates that it does not apply"):
                follower.get_last_lr()

    @rule(optimizer=optimizers, rate=rates)
    def attach_one_of_braintools(self, optimizer, rate):
        follower = self.followers[optimizer].optimizer
        if isinstance(follower.lr, brainsched.LRScheduler):
            theirs = braintools.optim.StepLR(rate)
            for use in (lambda: theirs.attach_optimizer(follower), theirs.step):
                with pytest.raises(RuntimeError, match="of brainsched, and would not follow"):
                    use()

    @rule(optimizer=optimizers, rate=rates)
    def build_one_of_the_same_type(self, optimizer, rate):
        new = type(self.followers[optimizer].optimizer)(lr=rate)
        assert type(new) is braintools.optim.SGD
        assert new.current_lr == rate

    @rule(optimizer=optimizers, lr=st.none() | rates)
    def add_a_group(self, optimizer, lr):
        follower = self.followers[optimizer]
        if not isinstance(follower.optimizer.lr, brainsched.LRScheduler):
            return  # braintools' own, whose compiled programs do not notice a new group
        groups = len(follower.parameters)
        try:
            follower.add(lr)
        except ValueError as error:
            expect(error, "its base rate is", "has no rate")
            assert len(follower.optimizer.param_groups) == groups

    @rule(name=schedulers, compiled=st.booleans())
    def step(self, name, compiled):
        scheduler = self.schedulers[name]
        epoch = scheduler.epoch
        (self.programs[name][1] if compiled else scheduler.step)()
        assert scheduler.epoch == epoch + 1
        np.testing.assert_array_equal(scheduler.get_last_lr(), scheduler.lr_at(epoch + 1))

    @rule(name=schedulers, epoch=st.integers(0, 9))
    def jump(self, name, epoch):
        self.schedulers[name].step(epoch)
        np.testing.assert_array_equal(
            self.schedulers[name].get_last_lr(), self.schedulers[name].lr_at(epoch)
        )

    @rule(optimizer=optimizers, rate=rates, way=st.sampled_from(["current_lr", "value", "item"]))
    def set_by_hand(self, optimizer, rate, way):
        follower = self.followers[optimizer]
        if not isinstance(follower.optimizer.lr, brainsched.LRScheduler):
            return
        group = 0 if way == "current_lr" else len(follower.parameters) - 1
        if way == "current_lr":
            follower.optimizer.current_lr = rate
        elif way == "value":
            follower.optimizer.param_groups[group]["lr"].value = jnp.asarray(rate)
        else:
            follower.optimizer.param_groups[group]["lr"] = rate
        assert follower.reported()[group] == rate

    @rule(optimizer=optimizers, rate=rates | st.sampled_from([-0.5, float("nan"), float("inf")]))
    def set_by_hand_in_a_program(self, optimizer, rate):
        follower = self.followers[optimizer]
        scheduler = follower.optimizer.lr
        if not isinstance(scheduler, brainsched.LRScheduler):
            return
        group = len(follower.parameters) - 1

        @jit
        def program(rate):
            follower.optimizer.param_groups[group]["lr"].value = rate

        program(rate)
        if rate not in (0.125, 0.375, 0.75):
            assert not np.isfinite(follower.moved(follower.compiled)[group])
            with pytest.raises(ValueError, match=rf"current_lrs\[{group}\] must be finite and not"):
                scheduler.get_last_lr()
            follower.optimizer.param_groups[group]["lr"].value = rate = 0.5
        assert follower.reported()[group] == rate

    @rule(name=schedulers, rate=rates)
    def rates_cannot_be_changed_in_place(self, name, rate):
        with pytest.raises(TypeError, match="cannot be changed in place"):
            self.schedulers[name].current_lrs.value[0] = rate

    @rule(name=schedulers, factor=st.sampled_from([0.5, 2.0]))
    def apply(self, name, factor):
        scheduler = self.schedulers[name]
        scheduler.apply(lambda rate: rate * factor)
        expected = [np.float32(rate * factor) for rate in scheduler.get_lr()]
        assert scheduler.get_last_lr() == expected

    @rule(name=schedulers)
    def save_a_scheduler(self, name):
        self.saved[name] = pickle.dumps(self.schedulers[name].state_dict())

    @rule(name=schedulers)
    def load_a_scheduler(self, name):
        scheduler = self.schedulers[name]
        if name not in self.saved:
            return
        saved = pickle.loads(self.saved[name])
        before = scheduler.epoch, scheduler.get_last_lr()
        try:
            scheduler.load_state_dict(saved)
        except ValueError as error:
            expect(error, "add the groups to the optimizer first")
            assert (scheduler.epoch, scheduler.get_last_lr()) == before
        else:
            assert scheduler.epoch == saved["last_epoch"]

    @rule(optimizer=optimizers)
    def save_an_optimizer(self, optimizer):
        self.saved[optimizer] = copy.deepcopy(self.followers[optimizer].optimizer.state_dict())

    @rule(optimizer=optimizers)
    def load_an_optimizer(self, optimizer):
        follower = self.followers[optimizer]
        if optimizer not in self.saved:
            return
        if not isinstance(follower.optimizer.lr, brainsched.LRScheduler):
            return
        before = follower.reported()
        try:
            follower.optimizer.load_state_dict(self.saved[optimizer])
        except ValueError as error:
            expect(error, "param groups, but the optimizer has")
            assert follower.reported() == before

    @rule(
        name=schedulers,
        duplicate=st.sampled_from(
            [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s)), brainstate.graph.clone]
        ),
    )
    def replace_a_scheduler_by_its_copy(self, name, duplicate):
        original = self.schedulers[name]
        twin = duplicate(original)
        assert twin.optimizer is None
        assert (twin.epoch, twin.base_lrs) == (original.epoch, original.base_lrs)
        assert twin.get_last_lr() == original.get_last_lr()
        self.schedulers[name] = twin
        self.compile_steps()

    @rule(optimizer=optimizers, duplicate=st.sampled_from([copy.deepcopy, copy.copy, pickle.dumps]))
    def copying_an_optimizer_says_what_to_do(self, optimizer, duplicate):
        original = self.followers[optimizer].optimizer
        if isinstance(original.lr, brainsched.LRScheduler):
            with pytest.raises(TypeError, match=r"cannot be copied or pickled.*state_dict"):
                duplicate(original)

    @rule(optimizer=optimizers)
    def a_clone_through_the_graph_does_not_train(self, optimizer):
        original = self.followers[optimizer].optimizer
        if isinstance(original.lr, brainsched.LRScheduler):
            clone = brainstate.graph.clone(original)
            for use in (lambda: clone.step({}), lambda: clone.current_lr, clone.state_dict):
                with pytest.raises(TypeError, match="a copy through the graph cannot be used"):
                    use()

    @invariant()
    def what_is_reported_is_what_trains(self):
        for follower in getattr(self, "followers", {}).values():
            if not isinstance(follower.optimizer.lr, brainsched.LRScheduler):
                shown = [float(follower.optimizer.current_lr)]
            else:
                shown = follower.reported()
            for step in (follower.step, follower.compiled):
                np.testing.assert_allclose(follower.moved(step), shown, rtol=2e-5, atol=1e-9)

    @invariant()
    def links_have_two_ends(self):
        followers = getattr(self, "followers", {}).values()
        for follower in followers:
            scheduler = follower.optimizer.lr
            if isinstance(scheduler, brainsched.LRScheduler):
                assert scheduler.optimizer is follower.optimizer
                assert isinstance(follower.optimizer, braintools.optim.SGD)
        for scheduler in getattr(self, "schedulers", {}).values():
            followed_by = [f for f in followers if f.optimizer.lr is scheduler]
            if scheduler.optimizer is None:
                assert not followed_by


def test_whatever_happens_to_the_links_the_rate_that_is_reported_is_the_rate_that_trains():
    settings = hypothesis.settings(max_examples=25, stateful_step_count=30)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        hypothesis.stateful.run_state_machine_as_test(Links, settings=settings)
    ours = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
    assert ours
    unexpected = [m for m in ours if not any(known in m for known in EXPECTED_WARNINGS)]
    assert not unexpected
