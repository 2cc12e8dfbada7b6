"""What a stress test found: frozen, torch-free, and as JSON on disk."""

from __future__ import annotations

from typing import Literal

from hemascope.results import Estimate, SavedRecord

Exposure = Literal["trained on", "not trained on", "held out", "not known"]
"""Whether training showed the model this kind of damage. ``held out``: taken out of its augmentation on purpose."""


class Condition(SavedRecord):
    """The test cells under one corruption at one severity, or under a stack of layers.

    severity   1 to 5; 0 for clean and stacked cells
    balanced_accuracy, accuracy  with 95 % intervals over cells
    """

    name: str
    title: str
    family: str
    severity: int
    exposure: Exposure
    balanced_accuracy: Estimate
    accuracy: Estimate


class CorruptionResult(SavedRecord):
    """One corruption over its severities.

    error            balanced error (1 - balanced accuracy), mean over the severities
    relative_error   rCE-like: mean of error minus clean error, in points of balanced accuracy
    be, rbe          error relative to the baseline's, as MedMNIST-C defines them; value None without a baseline, or
                     where its denominator is not above zero
    """

    name: str
    title: str
    family: str
    exposure: Exposure
    error: Estimate
    relative_error: Estimate
    be: Estimate
    rbe: Estimate


class StackResult(SavedRecord):
    """A stacked test: the whole, by the families of layers an image was under, and recall of each class."""

    condition: Condition
    layers: tuple[int, int]
    by_family: dict[str, Estimate]
    recall: list[Estimate]


class Baseline(SavedRecord):
    """What BE and rBE are relative to: its clean error and its mean error of each corruption over the severities."""

    name: str
    clean_error: float
    errors: dict[str, float]
    paired: bool = False


class GateLimit(SavedRecord):
    """One stated limit and what was found. ``bound``: the value itself, or the low end of its interval."""

    name: str
    limit: float
    found: float
    bound: Literal["value", "low"]

    @property
    def passed(self) -> bool:
        """Whether what was found reaches the limit."""
        return self.found >= self.limit


class Example(SavedRecord):
    """A picture beside the report, ``picture`` its file name, and what the model said about it."""

    picture: str
    caption: str
    true_label: str
    predicted_labels: list[str]


class StressReport(SavedRecord):
    """What ``stress.json`` holds.

    means  mean_balanced_accuracy over all corruptions and severities, mean_trained_on and mean_not_trained_on over the
           corruptions of such families (absent where there is none), bBE and rBE over corruptions
    """

    version: int = 1
    model: str
    model_sha256: str
    class_names: list[str]
    n: int
    part: str
    seed: int
    size: int
    views: tuple[str, ...] = ()
    policy: str = ""
    clean: Condition
    clean_recall: list[Estimate]
    conditions: list[Condition]
    corruptions: list[CorruptionResult]
    stacks: list[StackResult]
    means: dict[str, Estimate]
    baseline: Baseline | None = None
    gate: tuple[GateLimit, ...] = ()
    examples: tuple[Example, ...] = ()
    notes: tuple[str, ...] = ()
    data_source: str = ""
    data_fingerprint: str = ""
    created: str = ""
    command: str = ""

    @property
    def passed(self) -> bool | None:
        """Whether every limit of the gate holds; None without a gate."""
        return all(limit.passed for limit in self.gate) if self.gate else None
