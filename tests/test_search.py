"""Searches: the space, successive halving, Optuna, and what is kept of them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from hemascope.errors import ConfigError, MissingExtraError
from hemascope.report.search_text import search_csv, search_markdown
from hemascope.search_results import SearchResult
from hemascope.study import optuna_search
from hemascope.study.plan import StudyPlan, Trial
from hemascope.study.search import budgets, search, shortened
from hemascope.study.space import draw, read_space

RATE = "stages.finetune.optimizer.lr"


def plan_of(space: dict[str, object] | None = None, **search_fields: object) -> StudyPlan:
    return StudyPlan.model_validate(
        {
            "name": "s",
            "title": "Rates",
            "seeds": [7],
            "search": {"space": space or {RATE: {"low": 1e-4, "high": 1e-1, "log": True}}, **search_fields},
        }
    )


class Bench:
    """Runs nothing: a run's score is how near its rate is to 0.01, more so with more epochs. ``asked`` lists trials."""

    def __init__(self, fail: Sequence[str] = ()) -> None:
        self.asked: list[Trial] = []
        self.rounds: list[int] = []
        self.fail = fail

    def __call__(self, trials: Sequence[Trial]) -> Mapping[str, Path]:
        self.asked += trials
        self.rounds.append(len(trials))
        return {one.fingerprint: Path(one.fingerprint) for one in trials if one.variant not in self.fail}

    def score(self, run: Path) -> float:
        trial = next(one for one in self.asked if one.fingerprint == run.name)
        stage = trial.config.stages[1]
        return float(1 - abs(np.log10(stage.optimizer.lr / 0.01)) / 10 - 0.1 / (1 + stage.epochs))


def searched(plan: StudyPlan, output: Path, bench: Bench, engine: str = "halving", jobs: int = 1) -> SearchResult:
    return search(
        plan,
        execute=bench,
        score=bench.score,
        cells_fingerprint="cells",
        cells={"train": 10},
        output=output,
        engine=engine,  # type: ignore[arg-type]
        jobs=jobs,
    )


def test_the_best_point_goes_through_every_rung(tmp_path: Path) -> None:
    """Of 16 points 16, 8, 4 and 2 are trained with an eighth to all of the epochs, and the one nearest 0.01 wins."""
    plan, bench = plan_of(trials=16, eta=2, rungs=4), Bench()
    found = searched(plan, tmp_path / "search.json", bench)
    assert bench.rounds == [16, 8, 4, 2]
    assert [budget for _, budget in budgets(plan.search)] == [0.125, 0.25, 0.5, 1.0]  # type: ignore[arg-type]
    epochs = {one.variant: one.config.stages[1].epochs for one in bench.asked}
    assert {epochs[f"p{one.number}r{one.rung}"] for one in found.trials if one.rung == 0} == {7 / 8}
    rates = {one.number: float(one.settings[RATE]) for one in found.trials}  # type: ignore[arg-type]
    nearest = min(rates, key=lambda number: abs(np.log10(rates[number] / 0.01)))
    assert found.best is not None and found.best.number == nearest and found.best.budget == 1
    assert found.words() == [f"{RATE}={json.dumps(rates[nearest])}"]
    assert all(trial.seed == 7 and trial.config.seed == 7 for trial in bench.asked)


def test_the_same_plan_proposes_the_same_points(tmp_path: Path) -> None:
    """A search begun again asks for runs with the same fingerprints, which are then found; another seed does not."""
    marks = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        bench = Bench()
        searched(plan_of(trials=6, seed=seed), tmp_path / name, bench)
        marks.append([one.fingerprint for one in bench.asked])
    assert marks[0] == marks[1] != marks[2]


def test_a_failed_point_is_kept_and_goes_no_further(tmp_path: Path) -> None:
    """A run that failed stands in the record without a score and is not among those of the next rung."""
    bench = Bench(fail=["p0r0", "p1r0", "p2r0"])
    found = searched(plan_of(trials=4, eta=2, rungs=2), tmp_path / "search.json", bench)
    assert [one.number for one in found.trials if one.validation is None] == [0, 1, 2]
    assert found.trials[4].number == 3
    saved = SearchResult.model_validate_json((tmp_path / "search.json").read_text(encoding="utf-8"))
    assert saved == found.model_copy(update={"created": saved.created})


def test_only_image_stages_are_shortened() -> None:
    """A budget cuts the epochs of fine-tuning and how often it validates, not the cheap frozen stage."""
    config = plan_of().base_config()
    short = shortened(config, 0.1)
    assert short.stages[0] == config.stages[0]
    assert short.stages[1].epochs == pytest.approx(0.7) and short.stages[1].validate_every == pytest.approx(0.7)
    assert shortened(config, 1.0) == config
    assert shortened(config, 1e-9).stages[1].epochs > 0


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({RATE: {"low": 0.1, "high": 0.01}}, "low must be below high"),
        ({RATE: {"low": 0, "high": 0.1, "log": True}}, "begin above 0"),
        ({RATE: []}, "a list of choices"),
        ({RATE: {"low": 0.1, "high": 1, "step": 2}}, "a list of choices"),
        ({"stages.finetune.optimizer.rate": [0.1]}, "no such key"),
        ({RATE: {"low": 0.1, "high": 100}}, "at most 10"),
        ({"model.head.kind": ["linear", "deap"]}, "did you mean 'deep'"),
        ({"stages.finetune.batch_size": {"low": 1.5, "high": 9, "integer": True}}, "whole ends"),
    ],
)
def test_a_wrong_space_is_one_sentence(space: dict[str, object], said: str, tmp_path: Path) -> None:
    """What cannot be drawn from, or is no setting, is refused before anything runs, with the key named."""
    bench = Bench()
    with pytest.raises(ConfigError) as raised:
        searched(plan_of(space), tmp_path / "search.json", bench)
    assert said in str(raised.value) and not bench.asked


def test_draws_stay_inside_and_short() -> None:
    """A thousand draws lie within the range, have few digits, cover every decade alike, and whole ones are whole."""
    space = read_space({"a": {"low": 0.001, "high": 1, "log": True}, "b": {"low": 1, "high": 3, "integer": True}})
    rng = np.random.default_rng(0)
    drawn = [draw(space, rng) for _ in range(1000)]
    values = np.array([one["a"] for one in drawn])
    assert values.min() >= 0.001 and values.max() <= 1
    assert all(len(f"{value:.9g}".lstrip("0.").replace(".", "")) <= 4 for value in values)
    decades = np.histogram(np.log10(values), bins=3, range=(-3, 0))[0]
    assert decades.min() > 280
    assert {one["b"] for one in drawn} == {1, 2, 3} and all(isinstance(one["b"], int) for one in drawn)


def test_a_search_reads_as_a_table(tmp_path: Path) -> None:
    """The CSV has a line a run with its settings; the document names the best as words for --set."""
    found = searched(plan_of(trials=4, rungs=2), tmp_path / "search.json", Bench())
    rows = list(csv.DictReader(io.StringIO(search_csv(found))))
    assert len(rows) == 6 and float(rows[0][RATE]) == found.trials[0].settings[RATE]
    text = search_markdown(found)
    assert f"--set {RATE}=" in text and "successive halving: 4 points, 6 runs" in text


def test_optuna_finds_more_than_chance_and_says_the_same_again(tmp_path: Path) -> None:
    """After 24 points the best is nearer than the best of the first four, and a second search proposes the same."""
    pytest.importorskip("optuna")
    plan = plan_of(trials=24)
    results = []
    for name in ("a", "b"):
        bench = Bench()
        results.append(searched(plan, tmp_path / name, bench, engine="optuna", jobs=2))
        assert bench.rounds == [2] * 12
    first, second = ([(one.settings, one.validation) for one in result.trials] for result in results)
    assert first == second
    best = results[0].best
    assert best is not None and best.validation is not None
    assert best.validation > max(score for _, score in first[:4] if score is not None)
    assert all(one.budget == 1 for one in results[0].trials)


def test_optuna_takes_choices_whole_numbers_and_failures(tmp_path: Path) -> None:
    """Lists of lists and whole numbers come out as they went in, and a failed point does not end the search."""
    pytest.importorskip("optuna")
    space = {
        "model.head.widths": [[64], [64, 32]],
        "stages.finetune.batch_size": {"low": 8, "high": 64, "integer": True},
    }
    found = searched(plan_of(space, trials=5), tmp_path / "s.json", Bench(fail=["p1r2"]), engine="optuna")
    assert [one.validation is None for one in found.trials] == [False, True, False, False, False]
    assert all(one.settings["model.head.widths"] in ([64], [64, 32]) for one in found.trials)


def test_without_optuna_the_install_line_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking for Optuna where it is not installed says which line installs it."""
    monkeypatch.setattr(optuna_search, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'hemascope\[search\]'"):
        searched(plan_of(), tmp_path / "s.json", Bench(), engine="optuna")
