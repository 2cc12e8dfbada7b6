"""The learning rate over a stage."""

from __future__ import annotations

import math

import pytest

from hemascope.config import ScheduleConfig
from hemascope.training.schedules import ONECYCLE_START, WARMUP_START, PlateauTracker, learning_rate, schedule_factor

EPOCHS = 10


def factor(config: ScheduleConfig, progress: float) -> float:
    return schedule_factor(config, progress, progress * EPOCHS)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # at the start, half-way up, when warm, in the middle of what is left, at the end
        ("constant", (WARMUP_START, 0.5, 1.0, 1.0, 1.0)),
        ("plateau", (1.0, 1.0, 1.0, 1.0, 1.0)),
        ("exponential", (WARMUP_START, 0.5 * 0.9, 0.9**2, 0.9**6, 0.9**10)),
        ("cosine", (WARMUP_START, 0.5, 1.0, 0.505, 0.01)),
        ("onecycle", (ONECYCLE_START, (1 + ONECYCLE_START) / 2, 1.0, 0.505, 0.01)),
    ],
)
def test_each_schedule_at_five_points(name: str, expected: tuple[float, ...]) -> None:
    """Every schedule has the value its formula gives at the start, in and after the warm-up, midway and at the end."""
    config = ScheduleConfig(name=name, warmup=0.2, decay=0.9, final_factor=0.01)
    found = [factor(config, progress) for progress in (0.0, 0.1, 0.2, 0.6, 1.0)]
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("name", ["constant", "exponential", "cosine", "onecycle"])
def test_no_jump_where_the_warm_up_ends(name: str) -> None:
    """The rate just before the end of the warm-up is nearly that just after it."""
    config = ScheduleConfig(name=name, warmup=0.3)
    assert factor(config, 0.3 - 1e-6) == pytest.approx(factor(config, 0.3 + 1e-6), rel=1e-4)


@pytest.mark.parametrize("name", ["constant", "exponential", "cosine", "onecycle"])
def test_without_warm_up_the_first_step_has_the_peak(name: str) -> None:
    """A warm-up of 0 starts at the peak and divides by nothing."""
    assert factor(ScheduleConfig(name=name, warmup=0), 0.0) == 1.0


@pytest.mark.parametrize("name", ["constant", "exponential", "cosine", "onecycle"])
def test_a_stage_that_only_warms_up(name: str) -> None:
    """A warm-up over the whole stage rises to its end."""
    config = ScheduleConfig(name=name, warmup=1.0, decay=1.0)
    values = [factor(config, step / 20) for step in range(21)]
    assert values == sorted(values)
    assert values[-1] == pytest.approx(1.0)


def test_the_reports_exponential_decay() -> None:
    """A decay of exp(-0.03) an epoch has fallen to exp(-0.3) after ten epochs."""
    config = ScheduleConfig(name="exponential", warmup=0, decay=math.exp(-0.03))
    assert schedule_factor(config, 1.0, 10) == pytest.approx(math.exp(-0.3))


@pytest.mark.parametrize("name", ["constant", "plateau", "exponential", "cosine", "onecycle"])
def test_never_below_the_least_rate(name: str) -> None:
    """No schedule and no number of plateaus takes the rate below min_lr."""
    config = ScheduleConfig(name=name, min_lr=1e-4, final_factor=0.0, decay=0.1)
    rates = [learning_rate(config, 1e-3, step / 50, step / 5, multiplier=1e-6) for step in range(51)]
    assert min(rates) == 1e-4


def test_a_peak_below_the_least_rate_is_kept() -> None:
    """min_lr never raises the rate above the peak that was asked for."""
    assert learning_rate(ScheduleConfig(name="constant", min_lr=1e-4), 1e-6, 1.0, 1.0) == 1e-6


@pytest.mark.parametrize(
    ("name", "also", "watched"), [("plateau", False, True), ("exponential", True, True), ("exponential", False, False)]
)
def test_the_rate_is_halved_at_plateaus_where_asked(name: str, also: bool, watched: bool) -> None:
    """The second validation in a row without a gain halves the rate at patience 1, and counting starts anew."""
    tracker = PlateauTracker(ScheduleConfig(name=name, halve_on_plateau=also, patience=1, factor=0.5))
    found = []
    for score in (0.5, 0.6, 0.6, 0.6, 0.5, 0.4, 0.7, 0.7):
        tracker.update(score)
        found.append(tracker.multiplier)
    assert found == ([1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.25] if watched else [1] * 8)


def test_patience_of_zero_halves_at_the_first_stall() -> None:
    """Without patience one validation without a gain is enough, and the first validation never counts as one."""
    tracker = PlateauTracker(ScheduleConfig(name="plateau", patience=0))
    tracker.update(0.2)
    assert tracker.multiplier == 1
    tracker.update(0.2)
    assert tracker.multiplier == 0.5
