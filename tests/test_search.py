"""Searches: the space, successive halving, Optuna, and what is kept of them."""

from __future__ import annotations

import csv
import io
import json
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from hemascope.config_files import compose_config, load_config
from hemascope.errors import ConfigError, MissingExtraError
from hemascope.report.search_text import search_csv, search_markdown
from hemascope.search_results import SearchResult
from hemascope.study import optuna_search
from hemascope.study.halving import budgets, shortened
from hemascope.study.plan import StudyPlan, Trial
from hemascope.study.search import search
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
    """Runs nothing: a run's score is how near its rate is to 0.01, more so with more epochs.

    asked      every trial, in order; ``rounds``: how many at a time
    fail       names of trials that fail
    killed_in  the round in which the search is stopped from outside
    """

    def __init__(self, fail: Sequence[str] = (), killed_in: int | None = None) -> None:
        self.killed_in = killed_in
        self.asked: list[Trial] = []
        self.rounds: list[int] = []
        self.fail = fail

    def __call__(self, trials: Sequence[Trial]) -> Mapping[str, Path]:
        if len(self.rounds) == self.killed_in:
            raise KeyboardInterrupt
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
    """A run that failed stands in the record without a score and is not among the next rung's, though it has room."""
    bench = Bench(fail=["p0r0", "p1r0", "p2r0"])
    found = searched(plan_of(trials=4, eta=2, rungs=2), tmp_path / "search.json", bench)
    assert [one.number for one in found.trials if one.validation is None] == [0, 1, 2]
    assert [one.status for one in found.trials] == ["failed"] * 3 + ["finished"] * 2
    assert [one.variant for one in bench.asked[4:]] == ["p3r1"]
    saved = SearchResult.model_validate_json((tmp_path / "search.json").read_text(encoding="utf-8"))
    assert saved == found.model_copy(update={"created": saved.created})


def test_only_image_stages_are_shortened() -> None:
    """A budget cuts the epochs of fine-tuning and how often it validates, not the cheap frozen stage."""
    config = plan_of().base_config()
    short = shortened(config, 0.1)
    assert short.stages[0] == config.stages[0]
    assert short.stages[1].epochs == pytest.approx(0.7) and short.stages[1].validate_every == pytest.approx(0.7)
    assert shortened(config, 1.0) == config
    assert shortened(config, 1e-9).stages[1].epochs == 0.05
    brief = plan_of({"stages.finetune.epochs": [0.01]}).model_copy(update={"set": {"stages.finetune.epochs": 0.01}})
    assert shortened(brief.base_config(), 0.5).stages[1].epochs == 0.01


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({RATE: {"low": 0.1, "high": 0.01}}, "low must be below high"),
        ({RATE: {"low": 0, "high": 0.1, "log": True}}, "begin above 0"),
        ({RATE: []}, "list of choices is empty"),
        ({RATE: 0.1}, "a list of choices, or a table"),
        ({RATE: {"low": 0.1}}, "'high' is missing"),
        ({RATE: {"low": 0.1, "high": 1, "step": 2}}, "no 'step' in a range"),
        ({RATE: {"low": "0.1", "high": 1}}, "'low' must be a finite number"),
        ({RATE: {"low": 0.1, "high": float("inf")}}, "'high' must be a finite number"),
        ({RATE: {"low": 0.1, "high": 1, "log": "yes"}}, "'log' must be true or false"),
        ({RATE: {"low": -1e308, "high": 1e308}}, "wider than a number"),
        ({RATE: [float("nan")]}, "a choice is a finite number"),
        ({"model.head": [{"kind": "linear"}, {"kind": "deep"}]}, "keys of a table one by one"),
        ({"seed": [1, 2]}, "a seed is not chosen"),
        ({RATE: [0.1], "stages.1.optimizer.lr": [0.2]}, "set the same field"),
        ({"data.preparation": ["plain"], "data.preparation.crop": [64]}, "set the same field"),
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
    assert all(isinstance(one["b"], int) for one in drawn)
    assert min(sum(one["b"] == whole for one in drawn) for whole in (1, 2, 3)) > 280
    narrow = read_space({"a": {"low": 0.9991, "high": 0.9999}})
    assert len({draw(narrow, rng)["a"] for _ in range(200)}) > 100


def test_a_small_space_is_drawn_once(tmp_path: Path) -> None:
    """Where 16 points are asked for and there are six, each is tried once, and half of those go on."""
    bench = Bench()
    space: dict[str, object] = {
        "model.head.kind": ["linear", "deep"],
        "stages.finetune.batch_size": {"low": 30, "high": 32, "integer": True},
    }
    found = searched(plan_of(space, trials=16, rungs=2), tmp_path / "search.json", bench)
    assert bench.rounds == [6, 3]
    assert len({json.dumps(one.settings) for one in found.trials}) == 6


@pytest.mark.parametrize("engine", ["halving", "optuna"])
def test_settings_that_do_not_go_together_are_a_failed_point(engine: str, tmp_path: Path) -> None:
    """Two choices sound alone and unsound together are kept with the reason, never run, and end nothing."""
    if engine == "optuna":
        pytest.importorskip("optuna")
    bench = Bench()
    space: dict[str, object] = {"data.validation": [0.1, 0.6], "data.test": [0.15, 0.5]}
    found = searched(plan_of(space, trials=12, rungs=1), tmp_path / "search.json", bench, engine=engine)
    unsound = [one for one in found.trials if one.settings == {"data.validation": 0.6, "data.test": 0.5}]
    assert unsound and all(one.status == "failed" and "leave cells to train on" in one.problem for one in unsound)
    assert len(bench.asked) == len(found.trials) - len(unsound) and found.best is not None
    assert "leave cells to train on" in search_markdown(found)


def test_a_run_without_a_score_failed(tmp_path: Path) -> None:
    """A score that is no number is kept as a failure with its reason, and the record is still JSON."""
    bench = Bench()
    bench.score = lambda run: float("nan")  # type: ignore[method-assign]
    found = searched(plan_of(trials=4), tmp_path / "search.json", bench)
    assert bench.rounds == [4] and found.best is None and found.toml() == "" and found.words() == []
    assert {one.problem for one in found.trials} == {"its validation cells give no score."}
    assert SearchResult.model_validate_json((tmp_path / "search.json").read_bytes()).trials == found.trials


def test_a_kill_leaves_a_record_of_what_was_begun(tmp_path: Path) -> None:
    """Stopped in the second rung, the record holds the first with its scores and the second as running."""
    output = tmp_path / "search.json"
    with pytest.raises(KeyboardInterrupt):
        searched(plan_of(trials=4, rungs=2), output, Bench(killed_in=1))
    trials = SearchResult.model_validate_json(output.read_bytes()).trials
    assert [one.status for one in trials] == ["finished"] * 4 + ["running"] * 2
    assert all(one.run and one.validation is None for one in trials[4:])


def test_seconds_are_those_of_the_run(tmp_path: Path) -> None:
    """The time in the record is what the run's manifest says; a run without one has none."""
    bench = Bench()

    def execute(trials: Sequence[Trial]) -> Mapping[str, Path]:
        runs = {mark: tmp_path / run for mark, run in bench(trials).items()}
        for run in list(runs.values())[1:]:
            run.mkdir()
            (run / "manifest.json").write_text('{"timing": {"total": 12.5}}', encoding="utf-8")
        return runs

    found = search(
        plan_of(trials=2, rungs=1),
        execute=execute,
        score=bench.score,
        cells_fingerprint="cells",
        cells={},
        output=tmp_path / "search.json",
    )
    assert [one.seconds for one in found.trials] == [None, 12.5]


def test_a_search_reads_as_a_table(tmp_path: Path) -> None:
    """The CSV has a line a run with its settings; the document names the best as words for --set."""
    found = searched(plan_of(trials=4, rungs=2), tmp_path / "search.json", Bench())
    rows = list(csv.DictReader(io.StringIO(search_csv(found))))
    assert len(rows) == 6 and float(rows[0][RATE]) == found.trials[0].settings[RATE]
    assert rows[0]["status"] == "finished"
    text = search_markdown(found)
    assert f"--set {RATE}=" in text and "successive halving: 4 points, 6 runs" in text


def test_the_best_settings_can_be_pasted(tmp_path: Path) -> None:
    """Words for --set, split as a shell splits them, and the TOML of a study both give the best configuration."""
    space: dict[str, object] = {
        "model.head.widths": [[64, 32]],
        "model.head.kind": ["deep"],
        "stages.finetune.clip_norm": ["none", 1.5],
        "augmentation.flips": [False],
        RATE: {"low": 1e-5, "high": 2e-5},
    }
    found = searched(plan_of(space, trials=4, rungs=1), tmp_path / "search.json", Bench())
    assert found.best is not None
    wanted = compose_config(settings=found.best.settings)
    quoted = search_markdown(found).split("Best: `", 1)[1].split("`", 1)[0]
    assert load_config(overrides=[word for word in shlex.split(quoted) if word != "--set"]) == wanted
    study = StudyPlan.model_validate(
        {"name": "s", "title": "s", "variants": [{"name": "a"}], **tomllib.loads(found.toml())}
    )
    assert study.base_config() == wanted


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
    learnt, drawn = ([score for _, score in part if score is not None] for part in (first[8:], first[:4]))
    assert np.median(learnt) > np.median(drawn)
    assert all(one.budget == 1 for one in results[0].trials)


@pytest.mark.parametrize("then", [2, 3])
def test_optuna_goes_on_from_its_record(then: int, tmp_path: Path) -> None:
    """Stopped in its third round, the search first does again the points of its record, then goes on as if never so."""
    pytest.importorskip("optuna")
    plan, output = plan_of(trials=12), tmp_path / "search.json"
    whole = searched(plan, tmp_path / "whole.json", Bench(), engine="optuna", jobs=2)
    with pytest.raises(KeyboardInterrupt):
        searched(plan, output, Bench(killed_in=2), engine="optuna", jobs=2)
    begun = SearchResult.model_validate_json(output.read_bytes()).trials
    assert [one.status for one in begun] == ["finished"] * 4 + ["running"] * 2
    bench = Bench()
    again = searched(plan, output, bench, engine="optuna", jobs=then)
    assert bench.rounds == [6] + [then] * (6 // then)
    assert [one.settings for one in again.trials[:6]] == [one.settings for one in begun]
    assert [one.settings for one in again.trials[:8]] == [one.settings for one in whole.trials[:8]]
    if then == 2:
        assert again.trials == whole.trials


def test_optuna_leaves_the_record_of_another_search(tmp_path: Path) -> None:
    """A record of another base, another range, another engine, or none at all is not taken for this search's own."""
    pytest.importorskip("optuna")
    output, plan = tmp_path / "search.json", plan_of(trials=4)
    fresh = searched(plan, tmp_path / "fresh.json", Bench(), engine="optuna").trials
    others = [
        lambda: searched(plan.model_copy(update={"seeds": (8,)}), output, Bench(), engine="optuna"),
        lambda: searched(plan_of({RATE: {"low": 1.0, "high": 2.0}}, trials=4), output, Bench(), engine="optuna"),
        lambda: searched(plan, output, Bench()),
        lambda: output.write_text("{", encoding="utf-8"),
    ]
    for other in others:
        other()
        bench = Bench()
        assert searched(plan, output, bench, engine="optuna").trials == fresh
        assert bench.rounds == [1] * 4


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
