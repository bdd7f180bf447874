"""Stepping on the host, in compiled code and in a mix of both: same rates, same bits, one trace.

On the host, rates are evaluated for many epochs at once.
"""

import copy
import pickle
import threading
from typing import Any

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brainstate.transform import cond, for_loop, jit, scan, vmap, while_loop

from brainsched import LRScheduler, PiecewiseConstantSchedule, StepLR

STAGES: dict[str, Any] = {"base_lr": 0.1, "boundaries": [3, 5], "values": [1.0, 0.1, 0.01]}
RATES = np.array([0.1] * 3 + [0.01] * 2 + [0.001] * 5, np.float32)  # of epochs 0 to 9


class CosineLR(LRScheduler):
    """A smooth schedule, where float32 arithmetic would show."""

    def __init__(self, base_lr=0.1, period=1000, last_epoch=0):
        self.period = period
        super().__init__(base_lr, last_epoch)

    def formula(self, epoch, base_lrs, xp):
        left = xp.maximum(self.period - epoch, 0)
        return base_lrs * xp.sin(xp.pi / 2 * left / self.period) ** 2


def applied(scheduler):
    return np.asarray(scheduler.get_last_lr()[0])


def test_host_steps_apply_the_rate_of_every_epoch():
    scheduler = PiecewiseConstantSchedule(**STAGES)
    seen = []
    for epoch in range(10):
        assert scheduler.epoch == epoch
        seen.append(applied(scheduler))
        scheduler.step()
    np.testing.assert_array_equal(seen, RATES)


def test_step_epoch_is_step():
    scheduler = PiecewiseConstantSchedule(**STAGES)
    for _ in range(3):
        scheduler.step_epoch()
    assert scheduler.epoch == 3
    assert applied(scheduler) == RATES[3]


def test_a_step_to_an_epoch_goes_there_from_anywhere():
    scheduler = PiecewiseConstantSchedule(**STAGES)
    for epoch in (7, 2, 3, 0, 5):
        scheduler.step(epoch)
        assert scheduler.epoch == epoch
        assert applied(scheduler) == RATES[epoch]


def test_last_epoch_is_where_a_scheduler_begins():
    assert applied(PiecewiseConstantSchedule(**STAGES, last_epoch=4)) == RATES[4]


def test_get_lr_shows_the_schedule_and_get_last_lr_what_is_applied():
    scheduler = PiecewiseConstantSchedule(**STAGES)
    scheduler.apply(lambda rate: rate * 5)
    assert scheduler.get_lr() == [np.float32(0.1)]
    assert scheduler.get_last_lr() == [np.float32(0.5)]
    scheduler.step()
    assert scheduler.get_last_lr() == [np.float32(0.1)]


def test_what_get_last_lr_returns_is_a_copy():
    scheduler = PiecewiseConstantSchedule(**STAGES)
    scheduler.get_last_lr().clear()
    scheduler.get_lr().clear()
    assert scheduler.get_last_lr() == scheduler.get_lr() == [np.float32(0.1)]


def test_compiled_steps_apply_the_rate_of_every_epoch_and_trace_once():
    scheduler = PiecewiseConstantSchedule(**STAGES)
    traces = []

    @jit
    def step():
        traces.append(1)
        rate = scheduler.current_lrs.value[0]
        scheduler.step()
        return rate

    np.testing.assert_array_equal([step() for _ in range(10)], RATES)
    assert len(traces) == 1


def test_for_loop_of_thousands_of_steps_changes_at_exactly_the_boundaries():
    scheduler = PiecewiseConstantSchedule(1.0, [999, 2500, 4096], [8.0, 4.0, 2.0, 1.0])

    def step(_):
        rate = scheduler.current_lrs.value[0]
        scheduler.step()
        return rate

    rates = for_loop(step, jnp.arange(5000))
    expected = np.repeat([8.0, 4.0, 2.0, 1.0], [999, 2500 - 999, 4096 - 2500, 5000 - 4096])
    np.testing.assert_array_equal(rates, expected)
    assert scheduler.epoch == 5000


def test_scan_while_loop_and_cond_step_too():
    scheduler = PiecewiseConstantSchedule(**STAGES)

    def carry_on(carry, _):
        scheduler.step()
        return carry, scheduler.current_lrs.value[0]

    _, rates = scan(carry_on, 0, jnp.arange(4))
    np.testing.assert_array_equal(rates, RATES[1:5])

    def advance(i):
        scheduler.step()
        return i + 1

    while_loop(lambda i: i < 2, advance, 0)
    assert scheduler.epoch == 6

    @jit
    def maybe(flag):
        cond(flag, lambda: scheduler.step(), lambda: scheduler.step(2))

    maybe(True)
    assert scheduler.epoch == 7
    maybe(False)
    assert scheduler.epoch == 2
    assert applied(scheduler) == RATES[2]


def test_compiled_step_to_a_traced_epoch_goes_there():
    scheduler = PiecewiseConstantSchedule(**STAGES)
    go = jit(lambda epoch: scheduler.step(epoch))
    for epoch in (7, 2, 3, 0):
        go(epoch)
        assert scheduler.epoch == epoch
        assert applied(scheduler) == RATES[epoch]
    go(-4)
    assert scheduler.epoch == 0


def test_scheduler_built_inside_vmap_steps_there():
    def last_rate(base_lr):
        scheduler = PiecewiseConstantSchedule(base_lr, [1], [1.0, 0.5])
        scheduler.step()
        return scheduler.current_lrs.value[0]

    expected = np.array([0.05, 0.1], np.float32)
    np.testing.assert_array_equal(jax.vmap(last_rate)(jnp.array([0.1, 0.2])), expected)
    np.testing.assert_array_equal(vmap(last_rate)(jnp.array([0.1, 0.2])), expected)


def test_states_declared_in_out_states_are_batched_by_vmap():
    scheduler = PiecewiseConstantSchedule(**STAGES)
    states = brainstate.graph.states(scheduler)
    vmap(lambda epoch: scheduler.step(epoch), out_states={0: states})(jnp.array([0, 3, 5]))
    np.testing.assert_array_equal(scheduler.last_epoch.value, [0, 3, 5])
    np.testing.assert_array_equal(scheduler.current_lrs.value[0], RATES[[0, 3, 5]])


def test_a_mixed_run_traces_once_and_compiles_once(compilations):
    scheduler = PiecewiseConstantSchedule(**STAGES)
    traces = []

    @jit(name="train_step")
    def train_step():
        traces.append(1)
        rate = scheduler.current_lrs.value[0]
        scheduler.step()
        return rate

    assert train_step() == RATES[0]
    scheduler.step()
    assert train_step() == RATES[2]
    scheduler.step(5)
    assert train_step() == RATES[5]
    scheduler.apply(lambda rate: 0.25)
    assert train_step() == 0.25
    scheduler.load_state_dict(scheduler.state_dict())
    scheduler.last_epoch.value = 3
    scheduler.current_lrs.value = [0.5]
    assert train_step() == 0.5
    scheduler.last_epoch.value += 1
    scheduler.step()
    assert train_step() == RATES[6]
    assert len(traces) == 1
    assert sum("train_step" in name for name in compilations) == 1
    # The scheduler's own kernel: once to advance, once to look the present epoch up.
    assert sum("_in_jax" in name for name in compilations) == 2


@pytest.mark.parametrize("written", [3, np.int64(3), np.array(3), jnp.asarray(3), jnp.int8(3)])
def test_last_epoch_is_a_strongly_typed_int32_whoever_wrote_it(written):
    scheduler = PiecewiseConstantSchedule(**STAGES)
    scheduler.last_epoch.value = written
    aval = jax.typeof(scheduler.last_epoch.value)
    assert (aval.dtype, aval.shape, aval.weak_type) == (np.int32, (), False)
    assert scheduler.get_lr() == [RATES[3]]


def test_last_epoch_on_a_device_must_be_an_integer():
    scheduler = PiecewiseConstantSchedule(**STAGES)
    with pytest.raises(TypeError, match="last_epoch must hold an integer, got an array of float32"):
        scheduler.last_epoch.value = jnp.asarray(3.0)
    assert scheduler.epoch == 0


@pytest.mark.parametrize("written", [1, 0.5, np.float64(0.5), np.array(0.5), jnp.asarray(0.5)])
def test_rates_are_strongly_typed_float32_whoever_wrote_them(written):
    scheduler = PiecewiseConstantSchedule(**STAGES)
    scheduler.current_lrs.value = [written]
    aval = jax.typeof(scheduler.current_lrs.value[0])
    assert (aval.dtype, aval.shape, aval.weak_type) == (np.float32, (), False)
    assert scheduler.get_last_lr() == [np.float32(written)]


def test_host_step_writes_only_what_changes():
    scheduler = PiecewiseConstantSchedule(**STAGES)
    writes = []
    scheduler.current_lrs.register_hook("write_after", lambda context: writes.append(context))
    for _ in range(6):
        scheduler.step()
    assert len(writes) == 2  # at the two boundaries


def test_host_step_leaves_a_position_on_the_device_where_it_is():
    scheduler = PiecewiseConstantSchedule(**STAGES)
    jit(scheduler.step)()
    with jax.transfer_guard_device_to_host("disallow"):
        scheduler.step()
        scheduler.step()
    assert isinstance(scheduler.last_epoch.value, jax.Array)
    assert scheduler.epoch == 3
    assert applied(scheduler) == RATES[3]


def test_host_values_go_where_the_state_is_committed_to():
    device = jax.devices()[0]
    scheduler = PiecewiseConstantSchedule(**STAGES)
    for state in brainstate.graph.states(scheduler).values():
        state.value = jax.device_put(state.value, device)
    scheduler.step(4)
    scheduler.load_state_dict(scheduler.state_dict())
    for state in (scheduler.last_epoch, scheduler.current_lrs):
        for leaf in jax.tree.leaves(state.value):
            assert isinstance(leaf, jax.Array)
            assert leaf.committed


def test_errors_inside_a_formula_reach_the_user():
    class Broken(LRScheduler):
        def formula(self, epoch, base_lrs, xp):
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        Broken()


def test_plain_jax_transformation_is_fine_for_a_scheduler_built_inside():
    @jax.jit
    def rate_after_a_step():
        scheduler = PiecewiseConstantSchedule(**STAGES, last_epoch=2)
        scheduler.step()
        return scheduler.current_lrs.value[0]

    assert rate_after_a_step() == RATES[3]


def test_no_tracer_is_left_behind_by_a_compiled_step():
    scheduler = PiecewiseConstantSchedule(**STAGES)
    with jax.checking_leaks():
        jit(scheduler.step)()
        for_loop(lambda _: scheduler.step(), jnp.arange(2))
    assert scheduler.epoch == 3


def test_x64_gives_float64_rates_and_an_int64_epoch():
    with jax.enable_x64(True):
        scheduler = PiecewiseConstantSchedule(0.1, [2**31 + 5], [1.0, 0.1])
        scheduler.step(2**31 + 4)
        jit(scheduler.step)()
        assert scheduler.epoch == 2**31 + 5
        (rate,) = scheduler.get_last_lr()
        assert rate.dtype == np.float64
        assert rate == 0.1 * 0.1
        assert scheduler.last_epoch.value.dtype == np.int64


def test_graph_states_are_the_schedulers_own():
    scheduler = PiecewiseConstantSchedule(**STAGES)
    found = brainstate.graph.states(scheduler)
    assert set(map(id, found.values())) == {id(scheduler.last_epoch), id(scheduler.current_lrs)}


def test_graph_clone_stands_where_the_original_stood_and_goes_its_own_way():
    scheduler = PiecewiseConstantSchedule(0.1, np.array([3, 5]), np.array([1.0, 0.1, 0.01]))
    scheduler.step(3)
    graphdef, states = brainstate.graph.treefy_split(scheduler)
    again, other = (brainstate.graph.treefy_split(s)[0] for s in (scheduler, copy.copy(scheduler)))
    assert graphdef == again != other
    assert hash(graphdef) == hash(again)
    clone = brainstate.graph.treefy_merge(graphdef, states)
    clone.step(5)
    assert (scheduler.epoch, clone.epoch) == (3, 5)
    assert applied(clone) == RATES[5]


def test_update_states_restores_in_place():
    scheduler = PiecewiseConstantSchedule(**STAGES)
    scheduler.step(3)
    saved = brainstate.graph.treefy_states(scheduler)
    scheduler.step(9)
    brainstate.graph.update_states(scheduler, saved)
    assert scheduler.epoch == 3
    assert applied(scheduler) == RATES[3]


def test_smooth_formula_is_the_float64_value_rounded_once():
    epochs = np.arange(1200)
    exact = 0.1 * np.sin(np.pi / 2 * np.maximum(1000 - epochs, 0) / 1000) ** 2
    np.testing.assert_array_equal(CosineLR().lr_at(epochs)[:, 0], exact.astype(np.float32))


def test_repr_reads_like_the_call_with_the_epoch_and_the_rates():
    scheduler = PiecewiseConstantSchedule(**STAGES)
    scheduler.step(4)
    assert repr(scheduler) == (
        "PiecewiseConstantSchedule(base_lr=0.1, boundaries=[3, 5], values=[1.0, 0.1, 0.01], "
        "last_epoch=4)  # rates: 0.01; no optimizer"
    )


def test_the_base_rate_of_a_class_that_says_nothing_else_is_a_thousandth():
    class Plain(LRScheduler):
        def formula(self, epoch, base_lrs, xp):
            return base_lrs

    assert Plain().base_lrs == [1e-3]


def test_repr_shows_a_keyword_that_differs_from_its_default():
    assert repr(StepLR(0.5, 30, eta_min=0.125)).startswith(
        "StepLR(base_lr=0.5, step_size=30, gamma=0.1, eta_min=0.125, last_epoch=0)"
    )


def test_repr_counts_the_columns_that_wait_for_their_groups():
    scheduler = PiecewiseConstantSchedule(0.1, [3], [[1.0, 0.5, 0.0], [0.1, 0.1, 0.1]])
    assert repr(scheduler).endswith("# rates: 0.1; waiting for param groups: 2; no optimizer")


def test_repr_of_a_class_that_cannot_be_rebuilt_shows_what_it_keeps():
    class Renamed(LRScheduler):
        def __init__(self, base_lr=0.1, factor=0.5, last_epoch=0):
            self.share = factor
            super().__init__(base_lr, last_epoch)

        def formula(self, epoch, base_lrs, xp):
            return base_lrs * self.share

    assert repr(Renamed()).startswith("Renamed(base_lr=0.1, last_epoch=0)  # rates: 0.05")


# The form of the applied rates


def test_the_applied_rates_are_a_list_to_jax_and_to_the_formats_of_checkpoints():
    rates = StepLR([0.5, 0.25]).current_lrs.value
    assert isinstance(rates, list)
    assert rates == [0.5, 0.25]
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(rates)]
    assert paths == ["[0]", "[1]"]
    for copied in (copy.deepcopy(rates), pickle.loads(pickle.dumps(rates)), copy.copy(rates)):
        assert (type(copied), copied) == (list, rates)


def test_the_whole_state_holds_a_list_and_is_restored_from_one():
    scheduler = StepLR([0.5, 0.25])
    scheduler.current_lrs.value = [0.125, 0.375]
    saved = brainstate.graph.treefy_states(scheduler)
    reference = saved["_current_lrs"]
    assert type(reference.value) is list
    scheduler.step()
    reference._been_writen = False  # as of a State that was only read
    brainstate.graph.update_states(scheduler, saved)
    assert scheduler.get_last_lr() == [0.125, 0.375]
    jit(scheduler.step)()
    assert scheduler.get_last_lr() == [0.5, 0.25]


def test_a_plain_list_may_be_written_where_brainstate_checks_structures():
    scheduler = StepLR([0.5, 0.25])
    with brainstate.check_state_value_tree():
        scheduler.current_lrs.value = [0.125, 0.375]
        with pytest.raises(ValueError, match=r"current_lrs\[1\] must be a scalar"):
            scheduler.current_lrs.value = [0.125, [0.25, 0.375]]
    assert scheduler.get_last_lr() == [0.125, 0.375]


# Epochs ahead


class InverseLR(LRScheduler):
    """A rate that is infinite at epoch 50, and NaN beyond."""

    def formula(self, epoch, base_lrs, xp):
        return base_lrs / xp.sqrt(50.0 - epoch)


def inverse(epoch):
    return [np.float32(0.1 / np.sqrt(50 - epoch))]


@pytest.mark.parametrize("step", [1, 7, 63, 127, 128, 129, 200, -1, -7, -128])
def test_steps_of_any_length_forwards_and_backwards_give_the_rates_of_their_epochs(step):
    scheduler = PiecewiseConstantSchedule(0.5, range(1, 2000), np.arange(2000.0))
    for epoch in range(900, 900 + 4 * step, step):
        scheduler.step(epoch)
        assert scheduler.get_last_lr() == [epoch * 0.5]
        scheduler.step()
        assert scheduler.get_last_lr() == [(epoch + 1) * 0.5]


@pytest.mark.parametrize("boundary", [1, 127, 128, 129, 130, 255, 256, 257])
def test_a_stage_begins_at_its_boundary_wherever_the_evaluated_epochs_end(boundary):
    scheduler = PiecewiseConstantSchedule(0.5, [boundary], [1.0, 0.5])
    for epoch in range(300):
        assert scheduler.get_last_lr() == [0.25 if epoch >= boundary else 0.5]
        scheduler.step()


@pytest.mark.parametrize("epoch", [1, 127, 128, 129, 256])
def test_a_stage_of_one_epoch_has_its_rate_wherever_the_evaluated_epochs_end(epoch):
    scheduler = PiecewiseConstantSchedule(0.5, [epoch, epoch + 1], [1.0, 0.25, 1.0])
    rates = []
    for _ in range(300):
        rates += scheduler.applied_rates
        scheduler.step()
    assert rates == [0.125 if at == epoch else 0.5 for at in range(300)]


def test_a_rate_that_stays_is_the_very_same_array():
    scheduler = PiecewiseConstantSchedule(0.5, [400], [1.0, 0.5])
    first = scheduler.get_lr()[0]
    for _ in range(300):
        scheduler.step()
        assert scheduler.get_lr()[0] is first


def test_epochs_that_have_not_come_yet_neither_warn_nor_raise():
    scheduler = InverseLR(0.1)
    for epoch in range(50):
        assert scheduler.get_last_lr() == inverse(epoch)
        if epoch < 49:
            scheduler.step()
    for _ in range(2):
        with pytest.raises(ValueError, match=r"InverseLR gives .* inf at epoch 50"):
            scheduler.step(50)
        assert scheduler.epoch == 49
        assert scheduler.get_last_lr() == inverse(49)
    assert InverseLR(0.1, last_epoch=49).get_last_lr() == inverse(49)


def test_the_first_epochs_have_their_rates_in_float64_too():
    with jax.enable_x64(True):
        scheduler = PiecewiseConstantSchedule([0.3, 0.7], [1], [1.0, 0.25])
        assert scheduler.get_last_lr() == [0.3, 0.7]
        scheduler.step()
        assert scheduler.get_last_lr() == [0.3 * 0.25, 0.7 * 0.25]


def test_it_steps_up_to_the_largest_epoch():
    scheduler = PiecewiseConstantSchedule(0.5, [2**31 - 1], [1.0, 0.5], last_epoch=2**31 - 3)
    assert scheduler.get_last_lr() == [0.5]
    scheduler.step()
    scheduler.step()
    assert scheduler.get_last_lr() == [0.25]
    with pytest.raises(ValueError, match="cannot go beyond 2147483647"):
        scheduler.step()
    assert scheduler.epoch == 2**31 - 1
    assert scheduler.lr_at(jnp.uint32(2**32 - 1)).item() == 0.25
    scheduler.step(jnp.uint32(2**32 - 1))
    assert scheduler.epoch == 2**31 - 1


def test_a_formula_is_never_asked_for_an_epoch_below_zero_or_above_the_largest():
    asked = []

    class AskedLR(LRScheduler):
        def formula(self, epoch, base_lrs, xp):
            if xp is np:
                asked.extend(epoch.ravel().tolist())
            return base_lrs + 0 * epoch

    AskedLR(0.1, last_epoch=2**31 - 3).step()
    assert (min(asked), max(asked)) == (2**31 - 3, 2**31 - 1)


def test_rates_that_were_handed_out_cannot_be_changed_in_place():
    scheduler = PiecewiseConstantSchedule(0.5, [5], [1.0, 0.5])
    for rate in (scheduler.get_lr()[0], scheduler.get_last_lr()[0]):
        with pytest.raises(ValueError, match="read-only"):
            rate[...] = 3.0
    assert scheduler.get_lr() == [0.5]


def test_rates_are_in_the_dtype_of_the_moment():
    scheduler = PiecewiseConstantSchedule(0.1, [5], [1.0, 0.5])
    scheduler.step()
    with jax.enable_x64(True):
        assert scheduler.get_lr()[0].dtype == np.float64
        assert scheduler.get_lr() == [0.1]
    assert scheduler.get_lr()[0].dtype == np.float32


def test_a_table_of_a_users_is_looked_up_to_its_end():
    class TableLR(LRScheduler):
        def __init__(self, base_lr=1.0, last_epoch=0):
            self.table = [0.1 * i for i in range(100)]
            super().__init__(base_lr, last_epoch)

        def formula(self, epoch, base_lrs, xp):
            return base_lrs * xp.asarray(self.table)[epoch.astype(int)]

    scheduler = TableLR()
    for epoch in range(100):
        assert scheduler.get_last_lr() == [np.float32(0.1 * epoch)]
        if epoch < 99:
            scheduler.step()
    with pytest.raises(IndexError):
        scheduler.step()
    assert scheduler.epoch == 99


def test_another_thread_that_looks_at_the_rates_leaves_those_of_the_steps_alone():
    scheduler = PiecewiseConstantSchedule(1.0, range(1, 4000), np.arange(1.0, 4001.0))
    stop = threading.Event()

    def look():
        while not stop.is_set():
            for epoch in (0, 700, 3999):
                scheduler._evaluation._at(epoch)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for epoch in range(3000):
            assert scheduler.get_last_lr() == [epoch + 1.0]
            scheduler.step()
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("boundary", [3, 2**62, 2**63 - 1])
def test_the_last_stage_holds_at_the_largest_epoch_of_64_bits_on_every_path(boundary):
    largest = 2**63 - 1

    def reached(scheduler):
        def present():
            return float(scheduler.get_last_lr()[0]), scheduler.epoch

        scheduler.step(largest - 1)
        scheduler.step()
        yield present()
        scheduler.step(0)
        jit(scheduler.step)(largest)
        yield present()
        jit(scheduler.step)()
        yield present()
        scheduler.step(largest - 1)
        jit(scheduler.step)()
        yield present()
        for rates in (scheduler.lr_at(largest), jit(scheduler.lr_at)(largest)):
            yield float(rates[0]), largest

    with jax.enable_x64(True):
        scheduler, other = (PiecewiseConstantSchedule(0.5, [boundary], [1, 0.5]) for _ in range(2))
        assert set(reached(scheduler)) == {(0.25, largest)}
        scheduler.step(largest)
        other.load_state_dict(scheduler.state_dict())
        assert other.get_lr() == [0.25]
        with pytest.raises(ValueError, match=f"cannot go beyond {largest}"):
            scheduler.step()


@pytest.mark.parametrize("compiled", [False, True], ids=["host", "jit"])
@pytest.mark.parametrize("name", ["last_epoch", "current_lrs"])
def test_a_step_that_is_interrupted_between_its_two_writes_is_mended_by_the_next(name, compiled):
    scheduler = StepLR(0.5, 1, 0.5)

    def interrupt(context):
        raise KeyboardInterrupt

    hook = getattr(scheduler, name).register_hook("write_before", interrupt, priority=1)
    with pytest.raises(KeyboardInterrupt):
        scheduler.step()
    hook.remove()
    assert scheduler.epoch == 0
    assert scheduler.get_lr() == [0.5]
    (jit(scheduler.step) if compiled else scheduler.step)()
    assert (scheduler.epoch, scheduler.get_last_lr()) == (1, [0.25])
