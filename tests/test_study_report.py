"""A study's record as Markdown, CSV and pages."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest

from hemascope.cli.study_wording import study_lines
from hemascope.report.render_study import render_studies, render_study
from hemascope.report.study_figures import forest
from hemascope.report.study_text import studies_markdown, study_csv, study_markdown
from hemascope.results import Estimate
from hemascope.study_results import ClaimResult, Measured, Metric, StudyResult, VariantResult

TEST, STACK = Metric(name="test", title="clean test"), Metric(name="stacked_1_2", title="one or two layers")


def measured(value: float, difference: tuple[float, float, float] | None) -> Measured:
    return Measured(
        mean=Estimate(value=value, low=value - 0.01, high=value + 0.01, n=100),
        per_seed=(value - 0.002, value + 0.002),
        spread=0.003,
        difference=None
        if difference is None
        else Estimate(value=difference[0], low=difference[1], high=difference[2], n=100),
    )


def variant(name: str, label: str = "", **measures: Measured) -> VariantResult:
    return VariantResult(
        name=name,
        label=label,
        settings={"stages.finetune.optimizer.lr": "0.1"},
        seeds=(0, 1),
        measures=measures,
        seconds=61.4,
        price=1.5,
        parameters=3_381_256,
        gflops=0.0627,
        runs=(f"s.{name}.s0.aa", f"s.{name}.s1.bb"),
    )


def study(**changes: object) -> StudyResult:
    values: dict[str, object] = {
        "name": "rates",
        "title": "Rates & <heads>",
        "question": "Does the rate matter?",
        "said": "that it does not",
        "command": "hemascope study run rates.toml",
        "expected": "a minute",
        "conclusion": "",
        "base": "plain",
        "metrics": (TEST, Metric(name="train", title="training cells"), STACK),
        "variants": (
            variant("plain", test=measured(0.95, None), stacked_1_2=measured(0.5, None)),
            variant(
                "fast",
                "ten times | the rate",
                test=measured(0.93, (-0.02, -0.03, -0.012)),
                stacked_1_2=measured(0.51, (0.01, -0.02, 0.04)),
            ),
            variant("=1+1", "<b>wild</b>", test=measured(0.951, (0.001, -0.004, 0.006))),
        ),
        "claims": (
            ClaimResult(
                text="Ten times the rate is worse",
                variant="fast",
                against="plain",
                metric="test",
                expect="lower",
                margin=0.01,
                difference=Estimate(value=-0.02, low=-0.03, high=-0.012, n=100),
                finding="confirmed",
            ),
        ),
        "cells": {"train": 40, "validation": 10, "calibration": 0, "test": 100},
        "class_names": ("a", "b"),
        "data_source": "cells",
        "data_fingerprint": "ff",
        "planned": 6,
        "missing": (),
        "notes": ("A note.",),
        "machine": "x86, 2 cores",
        "created": "2026-11-23T10:00:00+0000",
    }
    return StudyResult.model_validate(values | changes)


def test_the_csv_reads_back_to_the_same_figures() -> None:
    """A line a variant and metric with its numbers; what a spreadsheet would run as a formula is made a text."""
    rows = list(csv.DictReader(io.StringIO(study_csv(study()))))
    assert len(rows) == 5
    fast = next(row for row in rows if row["variant"] == "fast" and row["metric"] == "test")
    assert [float(fast[key]) for key in ("mean", "difference", "difference_low", "difference_high")] == [
        0.93, -0.02, -0.03, -0.012,
    ]  # fmt: skip
    assert fast["excludes_zero"] == "true" and int(fast["parameters"]) == 3_381_256
    assert {row["variant"] for row in rows} == {"plain", "fast", "'=1+1"}
    plain = next(row for row in rows if row["variant"] == "plain" and row["metric"] == "test")
    assert (plain["difference"], plain["excludes_zero"]) == ("", "")


def test_the_document_says_what_was_found() -> None:
    """Claim, finding, difference in points, the base's mark, the cells and what is missing stand in the section."""
    text = study_markdown(study(missing=("fast, seed 1",)))
    assert "Ten times the rate is worse: **confirmed** (−2.0 points (−3.0 to −1.2), clean test)" in text
    assert "plain (base)" in text and "1 of 6 runs are missing" in text
    assert "40 train, 10 validation, 100 test" in text
    assert (
        "| ten times \\| the rate | **0.930** (−2.0, −3.0 to −1.2) | 0.510 (+1.0, −2.0 to +4.0) | 61 | 3.38 M |" in text
    )
    assert "training cells" not in text.split("| variant")[1].split("\n")[0]
    whole = studies_markdown([study(), study(name="two", title="Two")], "# All\n")
    assert whole.startswith("# All") and whole.count("**confirmed**") == 4
    assert "(#rates--heads)" in whole


def test_the_page_escapes_names_and_fetches_nothing(tmp_path: Path) -> None:
    """Labels from a file stay text, every address is within the page, and claims are in words beside their mark."""
    html = render_study(study(), tmp_path).read_text(encoding="utf-8")
    assert "<b>wild</b>" not in html and "&lt;b&gt;wild" in html
    assert "Rates &amp; &lt;heads&gt;" in html
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//", html)
    assert 'class="found confirmed">confirmed<' in html
    assert "Not finished" not in html
    assert "Not finished" in render_study(study(missing=("fast, seed 1",)), tmp_path).read_text(encoding="utf-8")


def test_the_plot_has_a_mark_for_every_difference() -> None:
    """Two variants differ from the base on the clean test, one under layers; filled where zero is excluded."""
    both, one = forest(study(), TEST), forest(study(), STACK)
    assert both is not None and one is not None
    assert "excludes zero for ten times | the rate" in both
    assert "excludes zero for none of them" in one
    assert "wild" in both and "wild" not in one
    only = study(variants=(variant("plain", test=measured(0.9, None)),))
    assert forest(only, TEST) is None


def test_a_study_of_nothing_finished_still_has_a_page(tmp_path: Path) -> None:
    """Variants without a run are shown as missing, in every form."""
    empty = VariantResult(name="plain", label="", settings={}, seeds=(), measures={})
    nothing = study(variants=(empty,), missing=("plain, seed 0",), planned=1, claims=())
    assert "missing" in render_study(nothing, tmp_path).read_text(encoding="utf-8")
    assert "| plain (base) | – | – | – | – | – |" in study_markdown(nothing)
    assert study_csv(nothing).count("\n") == 1
    assert any("missing" in line for line in study_lines(nothing))


def test_the_overview_links_every_study(tmp_path: Path) -> None:
    """One line a claim, and a link to each study's own page beside it."""
    html = render_studies([study(), study(name="two", title="Two", claims=())], tmp_path).read_text(encoding="utf-8")
    assert 'href="rates/report.html"' in html and 'href="two/report.html"' in html
    assert html.count("confirmed") == 1


@pytest.mark.parametrize("value", [None, Estimate(value=0.1, n=3)])
def test_a_difference_without_an_interval_is_told_without_one(value: Estimate | None) -> None:
    """No bracket is made up where no interval was made, and nothing measured is said so."""
    from hemascope.report.study_text import difference_words

    assert difference_words(value) == ("not measured" if value is None else "+10.0 points")
