"""Two optimizers and three schedulers, linked in any order: what is reported is what trains.

After every rule, each optimizer takes a step on the host and one in each of three programs that
were compiled before all that happened since. The parameters tell how far they moved, and a model
of the links, in NumPy and by hand, tells how far they should have.
"""

import copy
import pickle
import warnings

import brainstate
import braintools
import hypothesis
import jax.numpy as jnp
import numpy as np
from brainstate.transform import for_loop, jit
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import brainsched

REPLACED = "drives no optimizer any more"

optimizers = st.sampled_from(["left", "right"])
schedulers = st.sampled_from(["stages", "cosine", "columns"])
rates = st.sampled_from([0.125, 0.375, 0.75])


class Model:
    """What a scheduler should show: its plan in NumPy float64, its position, and set rates."""

    def __init__(self, name):
        self.name, self.epoch, self.given, self.by_hand = name, 0, {}, {}
        self.groups = self.listed = 2 if name == "cosine" else 1
        self.warns = False

    def base(self, group):
        listed = {"stages": [0.5], "cosine": [0.25, 0.5], "columns": [0.25]}[self.name]
        return self.given.get(group, listed[min(group, len(listed) - 1)])

    def plan(self, group):
        t, base = self.epoch, self.base(group)
        if self.name == "stages":
            return base * (1.0 if t < 2 else 0.5 if t < 4 else 0.25)
        if self.name == "cosine":
            return base * (1 + np.cos(np.pi * min(t, 8) / 8)) / 2
        return base * ([1.0, 0.0, 2.0] if t < 3 else [0.5, 1.0, 1.0])[group]

    def rates(self):
        return [self.by_hand.get(group, self.plan(group)) for group in range(self.groups)]

    def go_to(self, epoch):
        self.epoch, self.by_hand = epoch, {}

    def accepts(self, given):
        """Whether it can drive groups that were added with these ``lr=``."""
        if self.name == "columns" and len(given) > 3:
            return False
        known = {*range(self.listed), *self.given}
        return all(lr in (None, self.base(g)) or g not in known for g, lr in enumerate(given))

    def drive(self, given):
        for group, lr in enumerate(given):
            if lr is not None and group >= self.listed:
                self.given[group] = lr
        self.by_hand = {group: r for group, r in self.by_hand.items() if group < len(given)}
        self.groups = len(given)


def built(name):
    if name == "stages":
        return brainsched.PiecewiseConstantSchedule(0.5, [2, 4], [1.0, 0.5, 0.25])
    if name == "cosine":
        return brainsched.CosineAnnealingLR([0.25, 0.5], T_max=8)
    return brainsched.PiecewiseConstantSchedule(0.25, [3], [[1.0, 0.0, 2.0], [0.5, 1.0, 1.0]])


class Follower:
    """An optimizer, its parameters, and training steps that are compiled early."""

    def __init__(self, lr):
        self.optimizer = braintools.optim.SGD(lr=lr)
        self.parameters = {("first", "weight"): brainstate.ParamState(jnp.zeros(2))}
        self.optimizer.register_trainable_weights(dict(self.parameters))
        self.given = [None]  # the lr= of each group
        self.saved = None
        self.programs = [jit(self.step), jit(self.reporting_step), jit(self.loop)]

    def step(self):
        self.optimizer.step({key: jnp.ones(2) for key in self.parameters})

    def reporting_step(self):
        self.optimizer.step({key: jnp.ones(2) for key in self.parameters})
        return self.optimizer.current_lr

    def loop(self):
        for_loop(lambda _: self.step(), jnp.arange(2))

    def step_both(self):
        self.step()
        self.optimizer.lr.step()

    def add(self, lr):
        key = (f"added {len(self.parameters)}", "weight")
        parameter = brainstate.ParamState(jnp.zeros(2))
        self.optimizer.add_param_group({key: parameter}, **({} if lr is None else {"lr": lr}))
        self.parameters[key] = parameter
        self.given.append(lr)

    def moved(self, step):
        for parameter in self.parameters.values():
            parameter.value = jnp.zeros(2)
        step()
        return [-float(parameter.value[0]) for parameter in self.parameters.values()]

    def follows_ours(self):
        return isinstance(self.optimizer.lr, brainsched.LRScheduler)


class Links(RuleBasedStateMachine):
    @initialize(left=schedulers, plain=st.booleans())
    def begin(self, left, plain):
        self.schedulers = {name: built(name) for name in ("stages", "cosine", "columns")}
        self.models = {name: Model(name) for name in self.schedulers}
        self.steps = {name: jit(scheduler.step) for name, scheduler in self.schedulers.items()}
        self.followers = {
            "left": Follower(0.5 if plain else self.schedulers[left]),
            "right": Follower(0.625),
        }
        if not plain:
            self.models[left].drive([None])
        self.training = {name: jit(f.step_both) for name, f in self.followers.items()}
        self.saved = {}

    def model_of(self, follower):
        names = [n for n, s in self.schedulers.items() if s is follower.optimizer.lr]
        return self.models[names[0]]

    def stepping(self, name, step):
        """Step a scheduler, which warns exactly if it was replaced since its last step."""
        model = self.models[name]
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            step()
        assert [REPLACED in str(w.message) for w in caught] == [True] * model.warns
        model.warns = False

    @rule(name=schedulers, optimizer=optimizers)
    def attach(self, name, optimizer):
        scheduler, follower = self.schedulers[name], self.followers[optimizer]
        model, former = self.models[name], follower.optimizer.lr
        drives_another = scheduler.optimizer not in (None, follower.optimizer)
        try:
            scheduler.attach_optimizer(follower.optimizer)
        except ValueError:
            assert drives_another or not model.accepts(follower.given)
            assert follower.optimizer.lr is former
        else:
            assert follower.optimizer.lr is scheduler
            assert scheduler.optimizer is follower.optimizer
            assert model.accepts(follower.given)
            assert not drives_another
            if former is not scheduler:
                for other, replaced in self.schedulers.items():
                    if replaced is former:
                        self.models[other].warns = True
                model.warns = False
                model.drive(follower.given)

    @rule(optimizer=optimizers, lr=st.none() | rates)
    def add_a_group(self, optimizer, lr):
        follower = self.followers[optimizer]
        if not follower.follows_ours() or len(follower.given) > 4:
            return  # braintools' own, whose compiled programs do not notice a new group
        model = self.model_of(follower)
        accepted = model.accepts([*follower.given, lr])
        try:
            follower.add(lr)
        except ValueError:
            assert not accepted
        else:
            assert accepted
            model.drive(follower.given)

    @rule(name=schedulers, compiled=st.booleans())
    def step(self, name, compiled):
        self.stepping(name, self.steps[name] if compiled else self.schedulers[name].step)
        self.models[name].go_to(self.models[name].epoch + 1)

    @rule(name=schedulers, epoch=st.integers(0, 9))
    def jump(self, name, epoch):
        self.stepping(name, lambda: self.schedulers[name].step(epoch))
        self.models[name].go_to(epoch)

    @rule(optimizer=optimizers)
    def train_by_a_program_that_steps_whatever_scheduler_there_is(self, optimizer):
        follower = self.followers[optimizer]
        if follower.follows_ours():
            model = self.model_of(follower)
            expected = model.rates()
            moved = follower.moved(self.training[optimizer])
            np.testing.assert_allclose(moved, expected, rtol=1e-6, atol=1e-9)
            model.go_to(model.epoch + 1)

    @rule(
        optimizer=optimizers,
        rate=rates,
        way=st.sampled_from(["current_lr", "value", "item", "a program"]),
    )
    def set_by_hand(self, optimizer, rate, way):
        follower = self.followers[optimizer]
        if not follower.follows_ours():
            return
        group = 0 if way == "current_lr" else len(follower.parameters) - 1
        entry = follower.optimizer.param_groups[group]
        if way == "current_lr":
            follower.optimizer.current_lr = rate
        elif way == "value":
            entry["lr"].value = jnp.asarray(rate)
        elif way == "item":
            entry["lr"] = rate
        else:
            jit(lambda rate: setattr(entry["lr"], "value", rate))(rate)
        self.model_of(follower).by_hand[group] = rate

    @rule(name=schedulers, factor=st.sampled_from([0.5, 2.0]))
    def apply(self, name, factor):
        self.schedulers[name].apply(lambda rate: rate * factor)
        model = self.models[name]
        model.by_hand = {group: model.plan(group) * factor for group in range(model.groups)}

    @rule(name=schedulers, format=st.sampled_from([pickle.dumps, lambda s: s]))
    def save_a_scheduler(self, name, format):
        saved = self.schedulers[name].state_dict(plain=format is not pickle.dumps)
        self.saved[name] = format(saved), copy.deepcopy(self.models[name])

    @rule(name=schedulers)
    def load_a_scheduler(self, name):
        if name not in self.saved:
            return
        saved, then = self.saved[name]
        model = self.models[name]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # other base rates, since a group has another lr=
                self.schedulers[name].load_state_dict(
                    pickle.loads(saved) if isinstance(saved, bytes) else saved
                )
        except ValueError:
            assert then.groups != model.groups
        else:
            assert then.groups == model.groups
            same = [np.float32(then.plan(g)) for g in range(then.groups)]
            model.go_to(then.epoch)
            # A rate that was set by hand is restored where the schedule's own is what it was.
            model.by_hand = {
                group: rate
                for group, rate in then.by_hand.items()
                if np.isclose(same[group], model.plan(group), rtol=1e-6)
                and not np.isclose(rate, same[group], rtol=1e-7)
            }

    @rule(optimizer=optimizers)
    def save_and_load_an_optimizer(self, optimizer):
        follower = self.followers[optimizer]
        if follower.follows_ours():
            saved = copy.deepcopy(follower.optimizer.state_dict())
            rates = self.model_of(follower).rates()
            if follower.saved is not None and len(follower.saved[1]) == len(rates):
                state, then = follower.saved
                before = follower.optimizer.lr.has_restored_rates
                follower.optimizer.load_state_dict(state)
                if not before:
                    self.model_of(follower).by_hand = dict(enumerate(then))
            follower.saved = saved, rates

    @rule(optimizer=optimizers, epoch=st.integers(0, 9))
    def restore_the_whole_state_of_the_graph(self, optimizer, epoch):
        follower = self.followers[optimizer]
        if follower.follows_ours():
            before = brainstate.graph.treefy_states(follower.optimizer)
            follower.optimizer.lr.step(epoch)
            follower.optimizer.current_lr = 0.875
            brainstate.graph.update_states(follower.optimizer, before)

    @rule(name=schedulers, through=st.sampled_from([copy.deepcopy, pickle.dumps]))
    def replace_a_free_scheduler_by_its_copy(self, name, through):
        original = self.schedulers[name]
        twin = through(original)
        twin = pickle.loads(twin) if isinstance(twin, bytes) else twin
        assert twin.optimizer is None
        assert (twin.epoch, twin.get_last_lr()) == (original.epoch, original.get_last_lr())
        if original.optimizer is None:
            self.schedulers[name], self.models[name].warns = twin, False
            self.steps[name] = jit(twin.step)

    @invariant()
    def what_is_reported_is_what_trains(self):
        for follower in getattr(self, "followers", {}).values():
            optimizer = follower.optimizer
            if follower.follows_ours():
                shown = [float(group["lr"].value) for group in optimizer.param_groups]
                assert [float(rate) for rate in optimizer.get_last_lr()] == shown
                assert [float(rate) for rate in optimizer.lr.current_lrs.value] == shown
                assert np.float32(optimizer.current_lr) == np.float32(shown[0])
                np.testing.assert_allclose(shown, self.model_of(follower).rates(), 1e-6, 1e-9)
                assert optimizer.lr.optimizer is optimizer
            else:
                shown = [float(np.float32(optimizer.current_lr))]
            for step in (follower.step, *follower.programs):
                twice = 2 if step is follower.programs[2] else 1
                moved = np.array(follower.moved(step)) / twice
                np.testing.assert_allclose(moved, shown, rtol=1e-6, atol=1e-9)

    @invariant()
    def schedulers_show_their_plan_or_what_was_set_by_hand(self):
        for name, scheduler in getattr(self, "schedulers", {}).items():
            model = self.models[name]
            assert scheduler.epoch == model.epoch
            np.testing.assert_allclose(scheduler.applied_rates, model.rates(), 1e-6, 1e-9)
            planned = [model.plan(group) for group in range(model.groups)]
            np.testing.assert_allclose(scheduler.get_lr(), planned, 1e-6, 1e-9)


def test_whatever_happens_to_the_links_the_rate_that_is_reported_is_the_plans_and_trains():
    settings = hypothesis.settings(
        max_examples=10,
        stateful_step_count=25,
        phases=[hypothesis.Phase.generate],  # to shrink a failure takes minutes of compiling
    )
    hypothesis.stateful.run_state_machine_as_test(Links, settings=settings)
