"""The learning rate as a function of how far a stage has come, and what a plateau does to it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hemascope.config import ScheduleConfig

ONECYCLE_START = 0.04
"""Rate at the first step of a one-cycle schedule, as a share of the peak (1/25, Smith and Topin 2018)."""

WARMUP_START = 1e-3
"""Rate at the first step of the other schedules' linear warm-up: a step at 0 would be a step for nothing."""


def schedule_factor(config: ScheduleConfig, progress: float, epoch: float) -> float:
    """Factor on the peak learning rate.

    progress  share of the stage that is done, 0 to 1
    epoch     passes over the training part that are done, fractional

    ``plateau`` and ``halve_on_plateau`` also depend on validation: see PlateauTracker.
    """
    if config.name == "plateau":
        return 1.0
    rise = min(progress / config.warmup, 1.0) if config.warmup else 1.0
    if config.name == "exponential":
        # Decaying from the first epoch on: a decay that began after warming up would start with a jump.
        return max(rise, WARMUP_START) * float(config.decay**epoch)
    if rise < 1 and config.name == "onecycle":
        return ONECYCLE_START + (1 - ONECYCLE_START) * 0.5 * (1 - math.cos(math.pi * rise))
    if rise < 1 or config.name == "constant":
        return max(rise, WARMUP_START)
    rest = (progress - config.warmup) / max(1 - config.warmup, 1e-9)
    fall = 0.5 * (1 + math.cos(math.pi * min(rest, 1.0)))
    return config.final_factor + (1 - config.final_factor) * fall


@dataclass
class PlateauTracker:
    """Cuts the rate when the validation score stalls: ``factor`` after more than ``patience`` without a gain."""

    config: ScheduleConfig
    best: float = -math.inf
    stalled: int = 0
    multiplier: float = 1.0

    def update(self, score: float) -> None:
        """Tell the score of a validation, higher is better."""
        if score > self.best:
            self.best, self.stalled = score, 0
            return
        self.stalled += 1
        watched = self.config.name == "plateau" or (self.config.name == "exponential" and self.config.halve_on_plateau)
        if watched and self.stalled > self.config.patience:
            self.multiplier *= self.config.factor
            self.stalled = 0


def learning_rate(config: ScheduleConfig, peak: float, progress: float, epoch: float, multiplier: float = 1.0) -> float:
    """The rate of the last layer at this point; never below ``min_lr``, unless the peak itself is lower."""
    rate = peak * schedule_factor(config, progress, epoch) * multiplier
    return max(rate, min(config.min_lr, peak))
