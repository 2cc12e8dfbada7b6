"""Studies: what a file means, what is run, what is kept, and what the table says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hemascope.cells import UNUSED, CellDataset
from hemascope.errors import ConfigError
from hemascope.results import Estimate
from hemascope.study.cells import cut_down
from hemascope.study.intervals import over_seeds_and_cells, seed_values
from hemascope.study.plan import (
    CellPlan,
    MeasurePlan,
    StudyPlan,
    base_of,
    make_trial,
    read_study,
    study_config,
    variants,
)
from hemascope.study.runner import jobs_here
from hemascope.study_results import finding

TINY = """
title = "Tiny"
seeds = [0, 1]
base = "plain"
cells = { train = 24, validation = 16, test = 24 }
measure = { stacked = 16 }

[config]
data.preparation = { name = "tiny", resizes = [{ size = 32 }] }
model = { backbone = "test_efficientnet", weights = "random" }
evaluation = { calibrate = false, mistakes = 0, bootstrap = 100 }
runtime.workers = 0

[[config.stages]]
name = "finetune"
epochs = 2
batch_size = 8
optimizer = { lr = 1e-3 }

[[variants]]
name = "plain"

[[variants]]
name = "slow"
label = "a tenth of the rate"
set = { "stages.finetune.optimizer.lr" = 1e-4 }

[[claims]]
text = "A tenth of the rate is worse"
variant = "slow"
expect = "lower"
"""


def plan_of(**changes: object) -> StudyPlan:
    values: dict[str, object] = {"name": "s", "title": "t", "variants": [{"name": "a"}, {"name": "b"}]}
    return StudyPlan.model_validate(values | changes)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


# --- what a file means ------------------------------------------------------------------------------------------------


def test_crossed_axes_give_every_combination_with_both_changes() -> None:
    """Two axes of two and three give six variants, each with the settings of both."""
    plan = plan_of(
        variants=(),
        cross={
            "size": [{"name": "s1", "set": {"stages.finetune.batch_size": 8}}, {"name": "s2"}],
            "rate": [
                {"name": "r1", "set": {"stages.finetune.optimizer.lr": 1e-4}},
                {"name": "r2"},
                {"name": "r3", "views": ["flips"]},
            ],
        },
    )
    found = variants(plan)
    assert [one.name for one in found] == ["s1+r1", "s1+r2", "s1+r3", "s2+r1", "s2+r2", "s2+r3"]
    config = study_config(plan, found[0], 5)
    assert (config.stages[1].batch_size, config.stages[1].optimizer.lr, config.seed) == (8, 1e-4, 5)
    assert found[2].measure.views == ("flips",)
    assert base_of(plan) == "s1+r1"


def test_a_study_reads_the_configuration_it_names(tmp_path: Path) -> None:
    """``config_file`` lies beside the study, its own tables win, and ``set`` goes over both for every variant."""
    write(tmp_path / "base.toml", "[evaluation]\nbootstrap = 123\nmistakes = 5\n")
    file = write(
        tmp_path / "one.toml",
        'title = "t"\nconfig_file = "base.toml"\nset = { "stages.frozen.epochs" = 3 }\n'
        '[config.evaluation]\nmistakes = 7\n[[variants]]\nname = "a"\n',
    )
    plan = read_study(file)
    config = study_config(plan, variants(plan)[0], 0)
    assert plan.name == "one"
    assert (config.evaluation.bootstrap, config.evaluation.mistakes, config.stages[0].epochs) == (123, 7, 3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("title = 't'", "needs [[variants]]"),
        ("variants = [{name = 'a'}]", "'title' must be given"),
        ("title = 't'\nvariant = []", "did you mean 'variants'"),
        ("title = 't'\nvariants = [{name = 'a'}, {name = 'a'}]", "two variants are called 'a'"),
        ("title = 't'\nvariants = [{name = 'a', set = {'stages.finetune.optimiser.lr' = 1}}]", "optimizer"),
        ("title = 't'\nvariants = [{name = 'a', set = {'stages.finetune.epochs' = -1}}]", "more than 0"),
        ("title = 't'\nbase = 'b'\nvariants = [{name = 'a'}]", "there is no variant 'b'"),
        ("title = 't'\nseeds = [1, 1]\nvariants = [{name = 'a'}]", "different whole numbers"),
        ("title = 't'\nvariants = [{name = 'a/../b'}]", "variants.0.name"),
        ("title = 't'\nconfig_file = 'none.toml'\nvariants = [{name = 'a'}]", "cannot read the configuration"),
        (
            "title = 't'\nvariants = [{name = 'a'}]\nclaims = [{text = 'x', variant = 'a', metric = 'stacked_1_2', "
            "expect = 'higher'}]",
            "no metric 'stacked_1_2'",
        ),
        ("title = 't'\nvariants = [{name='a'}]\ncross = {x = [{name = 'b'}]}", "give one of them"),
        ("title = [", "not valid TOML"),
    ],
)
def test_a_wrong_study_is_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    """Each mistake in a study's file is named with the file and what is allowed."""
    file = write(tmp_path / "wrong.toml", text)
    with pytest.raises(ConfigError) as raised:
        read_study(file)
    assert said in str(raised.value)
    assert "wrong.toml" in str(raised.value) or "none.toml" in str(raised.value)


def test_equal_settings_are_one_run_and_other_cells_another() -> None:
    """The fingerprint follows settings, seed and cells; not names, threads or how it is measured."""
    plan = plan_of()
    config = study_config(plan, variants(plan)[0], 0)
    first = make_trial("s", "a", 0, config, MeasurePlan(), "cells")
    threads = config.model_copy(update={"runtime": config.runtime.model_copy(update={"threads": 3})})
    same = make_trial("other", "b", 0, threads, MeasurePlan(views=("flips",)), "cells")
    assert first.fingerprint == same.fingerprint
    others = [
        make_trial("s", "a", 0, config, MeasurePlan(), "other cells"),
        make_trial("s", "a", 1, study_config(plan, variants(plan)[0], 1), MeasurePlan(), "cells"),
    ]
    assert all(other.fingerprint != first.fingerprint for other in others)


def test_every_shipped_study_is_whole() -> None:
    """Each file under studies/ reads, has three seeds, and claims only about variants it has."""
    folder = Path(__file__).parents[1] / "studies"
    files = sorted(folder.glob("*.toml"))
    assert len(files) >= 10
    for file in files:
        plan = read_study(file)
        assert len(plan.seeds) >= 3, file.name
        assert plan.claims and plan.said and plan.expected and plan.question, file.name


# --- the cells --------------------------------------------------------------------------------------------------------


def test_parts_are_cut_down_in_the_classes_own_proportions() -> None:
    """A part cut to a quarter keeps each class's share and at least one of the rarest; others are left alone."""
    counts = (160, 36, 3)
    labels = np.repeat(np.arange(3), counts)
    n = len(labels)
    cells = CellDataset(
        images=np.zeros((n, 8, 8, 3), np.uint8),
        labels=labels.astype(np.int64),
        class_names=("a", "b", "c"),
        ids=[str(k) for k in range(n)],
        content_hash=[str(k) for k in range(n)],
    )
    assignment = np.array(["train"] * n, dtype="<U11")
    assignment[[0, 160, 196]] = "test"
    cut = cut_down(cells, assignment, CellPlan(train=50))
    kept = np.bincount(labels[cut == "train"], minlength=3)
    assert kept.sum() == 50 and kept[2] >= 1
    assert abs(kept[0] - 50 * 160 / 199) < 2 and abs(kept[1] - 50 * 36 / 199) < 2
    assert (cut == "test").sum() == 3 and (cut == UNUSED).sum() == n - 53
    assert (cut_down(cells, assignment, CellPlan(train=50)) == cut).all()
    assert (cut_down(cells, assignment, CellPlan(train=50, seed=1)) != cut).any()


# --- intervals and findings -------------------------------------------------------------------------------------------


def test_the_interval_covers_the_truth_over_seeds_and_cells() -> None:
    """Of 400 made-up studies with chance in cells and in training, at least 93 % of the intervals hold the truth."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 60)
    inside = 0
    for _ in range(400):
        hardness = rng.beta(8, 2, 240)  # of the cells drawn: mean 0.8
        shift = rng.normal(0, 0.03, (3, 1))  # of the seeds
        right = (rng.random((3, 240)) < np.clip(hardness + shift, 0, 1)).astype(float)
        found = over_seeds_and_cells(right, labels, lowest=0.0)
        assert found.low is not None and found.high is not None
        inside += found.low <= 0.8 <= found.high
    assert 0.93 <= inside / 400 <= 1.0


def test_one_seed_has_an_interval_over_cells_alone() -> None:
    """With one seed the interval is that of a stratified mean, worked out by hand; classes count alike."""
    right = np.array([[1, 1, 1, 0, 1, 0]], dtype=float)
    labels = np.array([0, 0, 0, 0, 1, 1])
    found = over_seeds_and_cells(right, labels, lowest=0.0)
    variance = (0.25 / 4 + 0.5 / 2) / 4
    assert found.value == pytest.approx((0.75 + 0.5) / 2)
    assert found.low == pytest.approx(max(0.0, 0.625 - 1.959964 * variance**0.5), abs=1e-5)
    assert seed_values(right, labels) == pytest.approx((0.625,))


def test_seeds_that_differ_widen_the_interval() -> None:
    """The same mean with seeds apart has a wider interval than with seeds alike."""
    labels = np.zeros(100, dtype=np.int64)
    alike = np.tile(np.repeat([1.0, 0.0], [90, 10]), (3, 1))
    apart = np.stack([np.repeat([1.0, 0.0], [k, 100 - k]) for k in (80, 90, 100)])
    narrow, wide = (over_seeds_and_cells(values, labels, lowest=0.0) for values in (alike, apart))
    assert narrow.low is not None and wide.low is not None
    assert wide.low < narrow.low - 0.05


def test_no_difference_anywhere_is_not_certainty() -> None:
    """Two networks that agree on every cell differ by 0 with an interval around it, not by exactly 0."""
    found = over_seeds_and_cells(np.zeros((3, 40)), np.repeat([0, 1], 20), lowest=-1.0)
    assert found.value == 0 and found.low is not None and found.low < -0.01


@pytest.mark.parametrize(
    ("low", "value", "high", "expect", "said"),
    [
        (0.001, 0.01, 0.02, "higher", "confirmed"),
        (-0.02, -0.01, 0.005, "higher", "not confirmed"),
        (-0.02, 0.01, 0.04, "higher", "cannot tell"),
        (-0.03, -0.02, -0.01, "lower", "confirmed"),
        (-0.009, 0.0, 0.009, "equal", "confirmed"),
        (0.012, 0.02, 0.03, "equal", "not confirmed"),
        (-0.02, 0.0, 0.02, "equal", "cannot tell"),
        (0.001, 0.008, 0.015, "equal", "cannot tell"),
    ],
)
def test_what_an_interval_says_of_an_expectation(low: float, value: float, high: float, expect: str, said: str) -> None:
    """Confirmed and not confirmed need the whole interval; everything between cannot tell."""
    assert finding(Estimate(value=value, low=low, high=high, n=9), expect, 0.01) == said  # type: ignore[arg-type]


def test_nothing_measured_cannot_tell() -> None:
    """A claim whose runs are missing is neither confirmed nor refuted."""
    assert finding(None, "higher", 0.01) == "cannot tell"


def test_jobs_share_the_cores() -> None:
    """Jobs asked for are kept, never more than there is to do, and each has at least one thread."""
    assert jobs_here(1, 8, 0)[0] == 1
    jobs, threads = jobs_here(10, 2, 0)
    assert jobs == 2 and threads >= 1
    assert jobs_here(10, None, 3)[0] == 3
