"""The ten examples of the documentation, on small real models, with the rates of every epoch.

Expected rates are stages written down by hand: first epoch, end, rate. The rate applied in an
epoch is read off the parameters: SGD under a gradient of one moves them by minus the rate.
"""

import pickle

import brainstate
import braintools
import jax.numpy as jnp
import numpy as np

import brainsched


class Model(brainstate.nn.Module):
    """Three layers, each a param group's worth."""

    def __init__(self):
        super().__init__()
        self.bottom = brainstate.nn.Linear(4, 4)
        self.middle = brainstate.nn.Linear(4, 4)
        self.head = brainstate.nn.Linear(4, 2)

    def update(self, x):
        return self.head(jnp.tanh(self.middle(jnp.tanh(self.bottom(x)))))


def weights_of(**layers):
    return {
        name: layer.states(brainstate.ParamState)[("weight",)] for name, layer in layers.items()
    }


def all_weights(model):
    return weights_of(bottom=model.bottom, middle=model.middle, head=model.head)


def trained_at(stages):
    """Return the rate of every epoch, from rows of first epoch, end and rate."""
    return np.concatenate([np.full(end - begin, rate) for begin, end, rate in stages]).astype(
        np.float32
    )


class Probe:
    """A model under SGD, whose every step reports the rate that it moved the parameters by."""

    def __init__(self, scheduler, momentum=0.0):
        self.model = Model()
        self.probe = brainstate.ParamState(jnp.zeros(()))
        self.weights = all_weights(self.model) | {"probe": self.probe}
        self.optimizer = braintools.optim.SGD(lr=scheduler, momentum=momentum)
        self.optimizer.register_trainable_weights(self.weights)
        self.x = jnp.linspace(-1.0, 1.0, 32).reshape(8, 4)
        self.train_step = brainstate.transform.jit(self._train_step)

    def _train_step(self, difficulty=1.0):
        """Take a step on the model's loss, and one of gradient 1 from 0 on the probe."""
        self.probe.value = jnp.zeros(())

        def loss():
            return (self.model(difficulty * self.x) ** 2).mean() + self.probe.value

        self.optimizer.step(brainstate.transform.grad(loss, self.weights)())
        return -self.probe.value


def test_classic_imagenet_training_schedule():
    scheduler = brainsched.PiecewiseConstantSchedule(
        base_lr=0.1,
        boundaries=[30, 60, 80],  # Epochs to decrease LR
        values=[1.0, 0.1, 0.01, 0.001],  # LR multipliers
    )
    model = Model()
    optimizer = braintools.optim.SGD(lr=scheduler, momentum=0.9)
    optimizer.register_trainable_weights(model.states(brainstate.ParamState))
    expected = trained_at([(0, 30, 0.1), (30, 60, 0.01), (60, 80, 0.001), (80, 90, 0.0001)])

    def train_epoch():
        loss = lambda: (model(jnp.ones((2, 4))) ** 2).mean()  # noqa: E731
        states = model.states(brainstate.ParamState)
        optimizer.update(brainstate.transform.grad(loss, states)())

    train_epoch = brainstate.transform.jit(train_epoch)
    printed = []
    for epoch in range(90):
        assert optimizer.current_lr == expected[epoch]
        train_epoch()
        scheduler.step()
        lr = scheduler.get_lr()[0]
        printed.append(f"Epoch {epoch}: LR = {lr:.6f}")
    # Printed after the step: the line of epoch 29 shows the rate of epoch 30.
    assert printed[28:30] == ["Epoch 28: LR = 0.100000", "Epoch 29: LR = 0.010000"]
    assert printed[59] == "Epoch 59: LR = 0.001000"
    assert printed[79] == "Epoch 79: LR = 0.000100"


def test_classic_imagenet_schedule_is_the_one_applied():
    scheduler = brainsched.PiecewiseConstantSchedule(0.1, [30, 60, 80], [1.0, 0.1, 0.01, 0.001])
    probe = Probe(scheduler)
    applied = []
    for _ in range(90):
        applied.append(probe.train_step())
        scheduler.step()
    expected = [(0, 30, 0.1), (30, 60, 0.01), (60, 80, 0.001), (80, 90, 0.0001)]
    np.testing.assert_array_equal(applied, trained_at(expected))


def test_transfer_learning_with_progressive_unfreezing():
    scheduler = brainsched.PiecewiseConstantSchedule(
        base_lr=1e-3,
        boundaries=[5, 10, 15],  # Unfreeze stages
        values=[0.01, 0.1, 0.5, 1.0],  # Gradual increase
    )
    model = Model()
    scale = brainstate.ParamState(jnp.ones(2))
    optimizer = braintools.optim.SGD(lr=scheduler)
    trained = weights_of(head=model.head)
    optimizer.register_trainable_weights(dict(trained))

    def unfreeze(weights):
        trained.update(weights)
        optimizer.add_param_group(weights)

    def train_epoch():
        loss = lambda: ((scale.value * model(jnp.ones((2, 4)))) ** 2).mean()  # noqa: E731
        optimizer.step(brainstate.transform.grad(loss, trained)())

    expected = trained_at([(0, 5, 1e-5), (5, 10, 1e-4), (10, 15, 5e-4), (15, 20, 1e-3)])
    for epoch in range(20):
        if epoch == 5:
            unfreeze(weights_of(middle=model.middle))  # top layers
        elif epoch == 10:
            unfreeze(weights_of(bottom=model.bottom))  # middle layers
        elif epoch == 15:
            unfreeze({"scale": scale})  # all layers

        before = [np.asarray(model.bottom.weight.value["weight"]), np.asarray(scale.value)]
        outputs = np.asarray(model(jnp.ones((2, 4))))
        train_epoch()
        after = [model.bottom.weight.value["weight"], scale.value]
        moved = [not np.array_equal(old, new) for old, new in zip(before, after, strict=True)]
        assert moved == [epoch >= 10, epoch >= 15]
        assert scheduler.get_last_lr() == [expected[epoch]] * len(optimizer.param_groups)
        if epoch == 15:  # SGD, as the other groups: by rate times gradient of the mean square
            gradient = (2 * before[1] * outputs**2).sum(axis=0) / outputs.size
            np.testing.assert_allclose(before[1] - after[1], 1e-3 * gradient, rtol=1e-3, atol=2e-7)
        scheduler.step()


def test_budget_aware_training_schedule():
    scheduler = brainsched.PiecewiseConstantSchedule(
        base_lr=0.01,
        boundaries=[100, 500, 800],
        values=[10.0, 1.0, 0.1, 0.01],  # Aggressive start, careful end
    )
    probe = Probe(scheduler)
    applied = []
    for _ in range(1000):
        applied.append(probe.train_step())
        scheduler.step()
    expected = [(0, 100, 0.1), (100, 500, 0.01), (500, 800, 0.001), (800, 1000, 0.0001)]
    np.testing.assert_array_equal(applied, trained_at(expected))


def test_multi_phase_curriculum_learning():
    scheduler = brainsched.PiecewiseConstantSchedule(
        base_lr=1e-3,
        boundaries=[1000, 3000, 6000, 9000],
        values=[0.1, 0.5, 1.0, 0.5, 0.1],
    )
    curriculum_difficulties = [0.2, 0.4, 0.6, 0.8, 1.0]
    probe = Probe(scheduler)
    applied, difficulties = [], []
    for step in range(10000):
        stage = sum(step >= b for b in scheduler.boundaries)
        difficulty = curriculum_difficulties[stage]
        applied.append(probe.train_step(difficulty))
        difficulties.append(difficulty)
        scheduler.step()
    ends = [(0, 1000), (1000, 3000), (3000, 6000), (6000, 9000), (9000, 10000)]
    rates = [1e-4, 5e-4, 1e-3, 5e-4, 1e-4]
    expected = [(*span, rate) for span, rate in zip(ends, rates, strict=True)]
    np.testing.assert_array_equal(applied, trained_at(expected))
    assert difficulties[999:1001] == [0.2, 0.4]


def test_reproducing_paper_schedules():
    # WideResNet schedule from paper
    scheduler = brainsched.PiecewiseConstantSchedule(
        base_lr=0.1,
        boundaries=[60, 120, 160],  # Specific to WideResNet
        values=[1.0, 0.2, 0.04, 0.008],
    )
    wide_resnet = [(0, 60, 0.1), (60, 120, 0.02), (120, 160, 0.004), (160, 200, 0.0008)]
    check_run(scheduler, wide_resnet)

    # CIFAR training schedule from "Bag of Tricks"
    scheduler = brainsched.PiecewiseConstantSchedule(
        base_lr=0.1, boundaries=[150, 250], values=[1.0, 0.1, 0.01]
    )
    check_run(scheduler, [(0, 150, 0.1), (150, 250, 0.01), (250, 300, 0.001)])


def check_run(scheduler, stages):
    """Train for as long as the stages say, with the scheduler in the compiled step."""
    probe = Probe(scheduler)

    def train_step(_):
        rate = probe._train_step()
        scheduler.step()
        return rate

    applied = brainstate.transform.for_loop(train_step, jnp.arange(stages[-1][1]))
    np.testing.assert_array_equal(applied, trained_at(stages))


def test_step_based_scheduling():
    train_loader = [1.0, 0.5, 0.25]
    steps_per_epoch = len(train_loader)
    epoch_boundaries = [30, 60, 80]  # Desired epoch boundaries
    step_boundaries = [e * steps_per_epoch for e in epoch_boundaries]
    scheduler = brainsched.PiecewiseConstantSchedule(
        base_lr=0.1, boundaries=step_boundaries, values=[1.0, 0.1, 0.01, 0.001]
    )
    probe = Probe(scheduler)
    applied, reported = [], []
    global_step = 0
    for _ in range(90):
        for batch in train_loader:
            applied.append(probe.train_step(batch))
            scheduler.step(global_step)
            reported.append(scheduler.get_lr()[0])
            global_step += 1
    rates = trained_at([(0, 90, 0.1), (90, 180, 0.01), (180, 240, 0.001), (240, 270, 0.0001)])
    np.testing.assert_array_equal(reported, rates)
    # As the example has it, step() names the update that it follows: the next one runs at its rate.
    np.testing.assert_array_equal(applied, [rates[0], *rates[:-1]])


def test_combining_with_warmup():
    warmup_steps = 500
    main_boundaries = [5000, 10000, 15000]
    all_boundaries = [warmup_steps, *main_boundaries]
    all_values = [0.01, 1.0, 0.1, 0.01, 0.001]  # Low start for warmup
    scheduler = brainsched.PiecewiseConstantSchedule(
        base_lr=0.01, boundaries=all_boundaries, values=all_values
    )
    stages = [
        (0, 500, 1e-4),
        (500, 5000, 1e-2),
        (5000, 10000, 1e-3),
        (10000, 15000, 1e-4),
        (15000, 16000, 1e-5),
    ]
    check_run(scheduler, stages)


def test_dynamic_monitoring_and_adjustment():
    scheduler = brainsched.PiecewiseConstantSchedule(
        base_lr=0.1, boundaries=[1000, 2000, 3000], values=[1.0, 0.5, 0.1, 0.01]
    )
    probe = Probe(scheduler, momentum=0.9)
    expected = trained_at(
        [(0, 1000, 0.1), (1000, 2000, 0.05), (2000, 3000, 0.01), (3000, 4001, 1e-3)]
    )

    def momentum_of(name):
        (trace, *_) = probe.optimizer.opt_state.value
        return trace.trace[name]

    def reset_optimizer_momentum():
        values = {name: weight.value for name, weight in probe.weights.items()}
        probe.optimizer.opt_state.value = probe.optimizer.tx.init(values)

    changes, monitored = [], []
    for step in range(4000):
        old_lr = scheduler.get_lr()[0]
        assert old_lr == probe.optimizer.current_lr == expected[step]
        if step % 500 == 499:
            probe.train_step()
        scheduler.step()
        new_lr = scheduler.get_lr()[0]
        if old_lr != new_lr:
            changes.append(f"Step {step}: LR changed from {old_lr:.6f} to {new_lr:.6f}")
            assert momentum_of("probe") != 0
            reset_optimizer_momentum()
            assert momentum_of("probe") == 0
        if step % 100 == 0:
            monitored.append(f"Step {step}: LR = {new_lr:.6f}")
    assert changes == [
        "Step 999: LR changed from 0.100000 to 0.050000",
        "Step 1999: LR changed from 0.050000 to 0.010000",
        "Step 2999: LR changed from 0.010000 to 0.001000",
    ]
    assert monitored[9:11] == ["Step 900: LR = 0.100000", "Step 1000: LR = 0.050000"]


def test_research_experimentation_with_multiple_schedules():
    schedules = {
        "aggressive": brainsched.PiecewiseConstantSchedule(
            base_lr=0.1, boundaries=[10, 20], values=[1.0, 0.01, 0.0001]
        ),
        "conservative": brainsched.PiecewiseConstantSchedule(
            base_lr=0.1, boundaries=[30, 60], values=[1.0, 0.5, 0.1]
        ),
        "multi_stage": brainsched.PiecewiseConstantSchedule(
            base_lr=0.1, boundaries=[10, 20, 30, 40], values=[1.0, 0.8, 0.4, 0.1, 0.01]
        ),
    }
    expected = {
        "aggressive": [(0, 10, 0.1), (10, 20, 0.001), (20, 70, 0.00001)],
        "conservative": [(0, 30, 0.1), (30, 60, 0.05), (60, 70, 0.01)],
        "multi_stage": [
            (0, 10, 0.1),
            (10, 20, 0.08),
            (20, 30, 0.04),
            (30, 40, 0.01),
            (40, 70, 1e-3),
        ],
    }
    for name, scheduler in schedules.items():
        probe = Probe(scheduler)
        applied = []
        for _ in range(70):
            applied.append(probe.train_step())
            scheduler.step()
        np.testing.assert_array_equal(applied, trained_at(expected[name]), err_msg=name)


def test_state_persistence_and_checkpointing(tmp_path):
    def build():
        scheduler = brainsched.PiecewiseConstantSchedule(
            base_lr=0.1, boundaries=[1000, 2000], values=[1.0, 0.1, 0.01]
        )
        return scheduler, Probe(scheduler)

    def run(scheduler, probe, steps):
        applied = []
        for _ in range(steps):
            applied.append(probe.train_step())
            scheduler.step()
        return applied

    scheduler, probe = build()
    applied = run(scheduler, probe, 1500)
    states = probe.model.states(brainstate.ParamState)
    checkpoint = {
        "step": 1500,
        "scheduler_state": scheduler.state_dict(),
        "model_state": {path: state.value for path, state in states.items()},
    }
    (tmp_path / "checkpoint.pkl").write_bytes(pickle.dumps(checkpoint))

    checkpoint = pickle.loads((tmp_path / "checkpoint.pkl").read_bytes())
    scheduler, probe = build()
    scheduler.load_state_dict(checkpoint["scheduler_state"])
    for path, state in probe.model.states(brainstate.ParamState).items():
        state.value = checkpoint["model_state"][path]
    assert scheduler.epoch == checkpoint["step"]
    applied += run(scheduler, probe, 1000)
    expected = [(0, 1000, 0.1), (1000, 2000, 0.01), (2000, 2500, 0.001)]
    np.testing.assert_array_equal(applied, trained_at(expected))
