"""What a study found: frozen, torch-free, and as JSON on disk. Made anew from the runs' saved results at any time."""

from __future__ import annotations

from typing import Literal

from hemascope.results import Estimate, SavedRecord

Finding = Literal["confirmed", "not confirmed", "cannot tell"]
Expectation = Literal["higher", "lower", "equal"]


class Metric(SavedRecord):
    """One thing measured, such as balanced accuracy on the clean test cells.

    name   a key, such as ``test`` or ``stacked_1_2``
    title  in words
    """

    name: str
    title: str


class Measured(SavedRecord):
    """One metric of one variant.

    mean        over seeds, with an interval over seeds and cells; value None where nothing is finished
    per_seed    one value a finished seed, in the order of the variant's seeds
    spread      standard deviation over seeds, None with one
    difference  mean minus the base's, paired by seed and cell, with its interval; None for the base itself
    """

    mean: Estimate
    per_seed: tuple[float, ...]
    spread: float | None = None
    difference: Estimate | None = None

    @property
    def differs(self) -> bool | None:
        """Whether the interval of the difference excludes zero; None without a difference or an interval."""
        return excludes_zero(self.difference)


class VariantResult(SavedRecord):
    """One variant over its finished seeds.

    settings    dotted keys that differ from the base configuration, with their values as text
    measures    by metric name
    seconds     mean wall-clock of training a run, as this machine was; None where it was not finished
    price       mean epochs' worth of training at full size
    parameters, gflops  of the network; floating-point operations of one image, forward, in 10^9
    runs        names of the run folders, one a finished seed
    """

    name: str
    label: str
    settings: dict[str, str]
    seeds: tuple[int, ...]
    measures: dict[str, Measured]
    seconds: float | None = None
    price: float | None = None
    parameters: int | None = None
    gflops: float | None = None
    runs: tuple[str, ...] = ()


class ClaimResult(SavedRecord):
    """A claim, told in advance as an expected difference, and what was found.

    expect      variant's metric is higher or lower than against's, or equal within ``margin``
    difference  variant minus against, paired; None where runs are missing
    """

    text: str
    variant: str
    against: str
    metric: str
    expect: Expectation
    margin: float
    difference: Estimate | None
    finding: Finding


class StudyResult(SavedRecord):
    """What ``study.json`` holds. Pure JSON; the pages are made of nothing else.

    cells     number of cells by part
    planned   number of runs the study is made of, shared ones counted once a variant
    missing   ``variant, seed N`` of those not finished
    expected  the time its author expects, in words
    """

    version: int = 1
    name: str
    title: str
    question: str
    said: str
    command: str
    expected: str
    conclusion: str
    base: str
    metrics: tuple[Metric, ...]
    variants: tuple[VariantResult, ...]
    claims: tuple[ClaimResult, ...]
    cells: dict[str, int]
    class_names: tuple[str, ...]
    data_source: str
    data_fingerprint: str
    planned: int
    missing: tuple[str, ...]
    notes: tuple[str, ...]
    machine: str
    created: str


def excludes_zero(difference: Estimate | None) -> bool | None:
    """Whether an interval lies on one side of zero; None where there is none."""
    if difference is None or difference.low is None or difference.high is None:
        return None
    return difference.low > 0 or difference.high < 0


def finding(difference: Estimate | None, expect: Expectation, margin: float) -> Finding:
    """What an interval says about an expectation.

    ``higher``: confirmed where all of it is above 0, not confirmed where all of it is below ``margin``. ``lower`` is
    its mirror. ``equal``: confirmed where all of it is within ``margin`` of 0 (two one-sided tests, Schuirmann 1987),
    not confirmed where it excludes 0 and reaches past the margin with its mean. Else these cells cannot tell.
    """
    if difference is None or difference.value is None or difference.low is None or difference.high is None:
        return "cannot tell"
    value, low, high = difference.value, difference.low, difference.high
    if expect == "lower":
        value, low, high = -value, -high, -low
    if expect == "equal":
        if -margin < low and high < margin:
            return "confirmed"
        return "not confirmed" if excludes_zero(difference) and abs(value) > margin else "cannot tell"
    if low > 0:
        return "confirmed"
    return "not confirmed" if high < margin else "cannot tell"
