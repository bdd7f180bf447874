"""Warm-ups and WSD: what their reference rows do not show."""

from brainsched import WSD, InverseSqrtLR, PiecewiseLinearSchedule


def test_a_cycle_of_wsd_begins_where_the_one_before_has_ended():
    scheduler = WSD(1.0, 2, 1, 2, warmup_start_lr=0.5, eta_min=0.25, cycles=2)
    expected = [0.5, 0.75, 1, 1, 0.625, 0.5, 0.75, 1, 1, 0.625, 0.25, 0.25]
    assert scheduler.lr_at(range(12)).ravel().tolist() == expected
    assert scheduler.stage_boundaries == [2, 3, 5, 7, 8]


def test_the_stages_of_a_rise_and_of_lines_end_at_their_boundaries():
    assert list(InverseSqrtLR(1.0, 4).stage_boundaries) == [4]
    assert list(PiecewiseLinearSchedule(1.0, [3, 9], [0.0, 1.0]).stage_boundaries) == [3, 9]
