"""A study as a file: which cells, which base configuration, which variants, which claims; and the trials it means."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hemascope.config import RunConfig
from hemascope.config_files import compose_config, merged
from hemascope.corruptions import families
from hemascope.errors import ConfigError
from hemascope.names import suggestion
from hemascope.study_results import Expectation
from hemascope.toml_text import read_toml

MAX_STUDY_BYTES = 1_000_000
MAX_TRIALS = 10_000
"""A crossing of more runs than this is a slip of the pen."""

FAMILY = "family_"
"""What the metric of one layer of a family begins with."""

_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,60}$"


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class CellPlan(_Table):
    """How many cells each part is cut down to, in the classes' own proportions; left out: all of them."""

    train: int | None = Field(None, ge=8)
    validation: int | None = Field(None, ge=8)
    test: int | None = Field(None, ge=8)
    seed: int = Field(0, ge=0)


class MeasurePlan(_Table):
    """What is measured beyond the clean parts.

    views    test-time views averaged when predicting; left out: the image as it is
    stacked  test cells under each stack of strong layers; 0: none
    families test cells under one layer of each family of damage; 0: none
    """

    views: tuple[str, ...] = ()
    stacked: int = Field(0, ge=0)
    families: int = Field(0, ge=0)


class VariantPlan(_Table):
    """One difference from the base: dotted keys of the configuration, and how it is measured."""

    name: str = Field(pattern=_NAME)
    label: str = ""
    set: dict[str, Any] = {}
    views: tuple[str, ...] | None = None


class ClaimPlan(_Table):
    """An expected difference between two variants, written down before the runs."""

    text: str
    variant: str
    against: str = ""
    metric: str = "test"
    expect: Expectation
    margin: float = Field(0.01, ge=0, lt=1)


class SearchPlan(_Table):
    """A search over fields of the configuration.

    space   dotted key to a list of choices, or to a table ``{ low, high, log, integer }``
    trials  points drawn
    eta     one in so many goes on to the next rung, with so many times the epochs
    rungs   how often; the last has all epochs
    """

    space: dict[str, Any] = Field(min_length=1)
    trials: int = Field(16, ge=2, le=MAX_TRIALS)
    eta: int = Field(2, ge=2, le=10)
    rungs: int = Field(3, ge=1, le=10)
    seed: int = Field(0, ge=0)


class StudyPlan(_Table):
    """A study's file. ``name`` is the file's stem where it is left out.

    said        what the claim's source said, in its own figures
    expected    the time its author expects, in words
    data        the cells, where the call names none; relative to where the call is made
    maps        the variant whose first seed's features are drawn before and after training
    config_file a configuration that ``config`` is put over, relative to the study's file; read with it
    set         dotted keys over ``config``, for every variant
    """

    name: str = Field(pattern=_NAME)
    title: str
    question: str = ""
    said: str = ""
    expected: str = ""
    conclusion: str = ""
    recipe: str | None = None
    data: str | None = None
    maps: str | None = None
    config_file: str | None = None
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1, max_length=100)
    base: str = ""
    cells: CellPlan = CellPlan()
    measure: MeasurePlan = MeasurePlan()
    config: dict[str, Any] = {}
    set: dict[str, Any] = {}
    variants: tuple[VariantPlan, ...] = ()
    cross: dict[str, tuple[VariantPlan, ...]] = {}
    claims: tuple[ClaimPlan, ...] = ()
    search: SearchPlan | None = None
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _sound(self) -> StudyPlan:
        if self.search is None and not self.variants and not self.cross:
            raise ValueError("a study needs [[variants]], a [cross] or a [search]")
        if self.variants and self.cross:
            raise ValueError("a study either lists [[variants]] or crosses axes in [cross]: give one of them")
        if len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise ValueError("seeds must be different whole numbers from 0")
        if any(not axis for axis in self.cross.values()):
            raise ValueError("every axis of [cross] needs at least one entry")
        return self

    def base_config(self) -> RunConfig:
        """The configuration before any variant. Raises ConfigError."""
        return compose_config(recipe=self.recipe, table=self.config, settings=self.set)


@dataclass(frozen=True)
class Variant:
    """A named difference, after axes were crossed."""

    name: str
    label: str
    settings: Mapping[str, Any]
    measure: MeasurePlan


@dataclass(frozen=True)
class Trial:
    """One run of a study: a variant with a seed, as a whole configuration.

    fingerprint  of what the trained network depends on: configuration and cells. Two trials with the same one share
                 their run, within a study and between studies of one folder.
    """

    study: str
    variant: str
    seed: int
    config: RunConfig
    measure: MeasurePlan
    fingerprint: str

    @property
    def folder(self) -> str:
        """A name a person can read; the fingerprint at its end is what it is found by."""
        return f"{self.study}.{self.variant}.s{self.seed}.{self.fingerprint}"

    @property
    def label(self) -> str:
        """For a line of a log."""
        return f"{self.study}: {self.variant}, seed {self.seed}"


def read_study(path: str | Path) -> StudyPlan:
    """The study in a TOML file. Raises ConfigError, naming the key and what is allowed."""
    place = Path(path)
    values = read_toml(place, "study", MAX_STUDY_BYTES)
    try:
        plan = StudyPlan.model_validate({"name": place.stem, **values})
        if plan.config_file is not None:
            below = read_toml(place.parent / plan.config_file, "configuration", MAX_STUDY_BYTES)
            plan = plan.model_copy(update={"config": merged(below, plan.config), "config_file": None})
    except ValidationError as error:
        raise ConfigError(f"{place}: {_problem(error, values)}") from error
    try:
        plan.base_config()
        check_study(plan)
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from error
    return plan


def check_study(plan: StudyPlan) -> None:
    """That every variant is a configuration, and every claim is about variants there are. Raises ConfigError."""
    found = variants(plan)
    names = [one.name for one in found]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(f"two variants are called '{twice}': give each its own name.")
    if len(found) * len(plan.seeds) > MAX_TRIALS:
        raise ConfigError(f"{len(found) * len(plan.seeds):,} runs are planned; at most {MAX_TRIALS:,} are allowed.")
    named = [plan.base, plan.maps, *(name for claim in plan.claims for name in (claim.variant, claim.against))]
    for key in filter(None, named):
        if key not in names:
            raise ConfigError(f"there is no variant '{key}'; {suggestion(key, names)}")
    for claim in plan.claims:
        if claim.metric not in metric_titles(plan):
            raise ConfigError(f"no metric '{claim.metric}'; {suggestion(claim.metric, list(metric_titles(plan)))}")
    for variant in found:
        study_config(plan, variant, plan.seeds[0])


def variants(plan: StudyPlan) -> list[Variant]:
    """The variants as listed, or every combination of the axes, in order."""
    if not plan.cross:
        return [_variant(plan, [one]) for one in plan.variants]
    return [_variant(plan, list(parts)) for parts in itertools.product(*plan.cross.values())]


def base_of(plan: StudyPlan) -> str:
    """The variant the others are compared with: the one named, else the first."""
    return plan.base or next((one.name for one in variants(plan)), "")


def study_config(plan: StudyPlan, variant: Variant, seed: int) -> RunConfig:
    """The whole configuration of one run."""
    return compose_config(
        recipe=plan.recipe, table=plan.config, settings={**plan.set, **variant.settings, "seed": seed}
    )


def variant_trials(plan: StudyPlan, variant: Variant, cells_fingerprint: str) -> list[Trial]:
    """The runs of one variant, one a seed."""
    return [
        make_trial(plan.name, variant.name, seed, study_config(plan, variant, seed), variant.measure, cells_fingerprint)
        for seed in plan.seeds
    ]


def make_trial(
    study: str, variant: str, seed: int, config: RunConfig, measure: MeasurePlan, cells_fingerprint: str
) -> Trial:
    """A trial with its fingerprint."""
    # How many threads compute, and how often a checkpoint is written, leaves the network as it is.
    content = config.model_dump(mode="json", exclude={"runtime": {"threads", "workers", "checkpoint_minutes"}})
    text = json.dumps([content, cells_fingerprint], sort_keys=True)
    return Trial(study, variant, seed, config, measure, hashlib.sha256(text.encode()).hexdigest()[:12])


def metric_titles(plan: StudyPlan) -> dict[str, str]:
    """What is measured, by key, in the order of the table's columns."""
    titles = {
        "test": "clean test",
        "validation": "validation",
        "train": "training cells",
    }
    if plan.measure.stacked:
        titles |= {"stacked_1_2": "one or two layers", "stacked_2_4": "two to four layers"}
    if plan.measure.families:
        titles |= {f"{FAMILY}{name}": name for name in families()}
    return titles


def settings_text(settings: Mapping[str, Any]) -> dict[str, str]:
    """Settings with their values as a person would type them."""
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in settings.items()}


def _variant(plan: StudyPlan, parts: Sequence[VariantPlan]) -> Variant:
    settings: dict[str, Any] = {}
    views = plan.measure.views
    for part in parts:
        settings |= part.set
        views = part.views if part.views is not None else views
    return Variant(
        name="+".join(part.name for part in parts),
        label=", ".join(part.label or part.name for part in parts),
        settings=settings,
        measure=plan.measure.model_copy(update={"views": views}),
    )


def _problem(error: ValidationError, values: Mapping[str, Any]) -> str:
    """One sentence for the first problem pydantic found."""
    problem = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "value_error":
        return f"{key + ': ' if key else ''}{problem['ctx']['error']}."
    if problem["type"] == "missing":
        return f"'{key}' must be given."
    if problem["type"] == "extra_forbidden":
        return f"no such key '{key}'; {suggestion(str(problem['loc'][-1]), list(StudyPlan.model_fields))}"
    return f"'{key}': {problem['msg'][0].lower()}{problem['msg'][1:]}."
