"""The page of a trust test: what it says, what it leaves out, and that nothing in a record can break it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from hemascope.report.render_trust import (
    class_rows,
    cost_rows,
    damaged_kinds,
    kinds,
    render_trust,
    shown_sets,
    thousandfold,
    verdict,
)
from hemascope.results import Estimate
from hemascope.trust_results import (
    AttributeResult,
    CalibrationMetrics,
    CalibrationResult,
    ConformalMethod,
    CoverageResult,
    DetectionResult,
    Distance,
    ReliabilityBin,
    SubtypeResult,
    TrustReport,
)
from hemascope.uncertainty.costs import default_costs, measure_cost
from hemascope.uncertainty.selective import measure_selective

METHODS: tuple[ConformalMethod, ...] = ("lac", "aps", "raps")
NAMES = ["basophil", "eosinophil", "erythroblast", "ig", "lymphocyte", "monocyte", "neutrophil", "platelet"]
SECTIONS = ("calibration", "coverage", "detection", "review", "subtypes", "cost", "attributes", "again")
ASSUMED = "This holds for cells of the same laboratory alone."


def near(value: float, half: float = 0.01, n: int = 2051) -> Estimate:
    """With an interval about it."""
    return Estimate(value=value, low=max(0.0, value - half), high=value + half, n=n)


def metrics(ece: float) -> CalibrationMetrics:
    """Fifteen bins, the lower ones empty."""
    edges = np.linspace(0, 1, 16)
    bins = [
        ReliabilityBin(
            low=low,
            high=low + 1 / 15,
            confidence=None if low < 0.3 else low + 0.03,
            accuracy=Estimate(value=None, n=0)
            if low < 0.3
            else Estimate(
                value=min(1.0, low + ece), low=max(0, low - 0.1), high=min(1, low + 0.15), n=int(900 * low**3)
            ),
        )
        for low in edges[:-1]
    ]
    return CalibrationMetrics(
        n=2051,
        ece=near(ece, 0.002),
        adaptive_ece=near(ece, 0.002),
        brier=near(0.02),
        nll=near(0.05),
        class_ece=[near(ece / 4, 0.001)] * 8,
        class_adaptive_ece=[near(ece / 5, 0.001)] * 8,
        class_brier=[near(0.0037)] * 8,
        class_nll=[near(0.0613)] * 7 + [Estimate(value=None, n=0)],
        bins=bins,
    )


def coverage(
    condition: str, level: float, by_class: bool, method: ConformalMethod = "lac", value: float = 0.955
) -> CoverageResult:
    """Monocytes fall short; platelets have no promise."""
    promised: list[tuple[float, float] | None] = [(0.9, 0.99)] * 8 if by_class else [None] * 8
    promised[7] = None
    return CoverageResult(
        condition=condition,
        title="as they are" if condition == "clean" else condition,
        method=method,
        level=level,
        by_class=by_class,
        n=2051,
        coverage=near(value),
        expected=(level - 0.02, level + 0.02),
        kept=value >= level - 0.02,
        class_coverage=[near(0.96, 0.02, 250)] * 5 + [near(0.81, 0.05, 180)] + [near(0.96, 0.02, 250)] * 2,
        class_expected=promised,
        mean_size=Estimate(value=1.012, low=1.008, high=1.02, n=2051),
        class_size=[near(1.01, 0.01, 250)] * 8,
        sizes=[0, 2020, 31],
    )


def foreign(name: str, distance: Distance, value: float) -> DetectionResult:
    """A set told with this AUROC by the score in use, worse by another."""
    return DetectionResult(
        name=name,
        title=name,
        distance=distance,
        n=300,
        auroc={"knn": near(value, 0.003, 300), "energy": near(value - 0.05, 0.003, 300)},
        fpr95={"knn": near(0.03, 0.01, 300), "energy": near(0.1, 0.01, 300)},
        flagged=near(0.97, 0.01, 300),
    )


def full_report(**changes: object) -> TrustReport:
    """With something in every section."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 8, 2051)
    doubt = rng.random(2051) ** 6
    wrong = rng.random(2051) < 0.4 * doubt**6
    predicted = np.where(wrong, (labels + rng.integers(1, 8, 2051)) % 8, labels)
    damage = ("Gaussian noise", "defocus", "JPEG", "stain", "motion blur", "one or two strong layers")
    queue = [measure_selective(doubt, wrong, condition="clean", title="as they are", resamples=50)]
    queue += [
        measure_selective(doubt, rng.random(2051) < 0.3 * doubt, condition=one, title=one, resamples=20)
        for one in damage
    ]
    return TrustReport(
        model="blood8",
        model_sha256="ab" * 32,
        class_names=NAMES,
        part="test",
        n=2051,
        fitted_on=684,
        temperature=1.21,
        ood_score="knn",
        views=("dihedral",),
        calibration=(
            CalibrationResult(condition="clean", title="as they are", before=metrics(0.021), after=metrics(0.006)),
            *(CalibrationResult(condition=one, title=one, before=metrics(0.1), after=metrics(0.07)) for one in damage),
        ),
        coverage=(
            *(
                coverage("clean", level, by_class, method, level + 0.004)
                for method in METHODS
                for by_class in (False, True)
                for level in (0.9, 0.95, 0.99)
            ),
            *(coverage(one, 0.95, True, "lac", 0.84) for one in damage),
            *(coverage(one, 0.95, False, "aps", 0.8) for one in damage),
        ),
        shown_sets=("lac", True, 0.95),
        detection=(
            foreign("smooth textures", "far", 0.999),
            foreign("text", "far", 0.997),
            foreign("two cells", "near", 0.83),
            foreign("another stain", "near", 0.91),
            foreign("defocus", "corrupted", 0.71),
        ),
        selective=tuple(queue),
        subtypes=(
            SubtypeResult(
                subtype="MMY",
                title="metamyelocyte",
                class_name="ig",
                n=120,
                recall=near(0.95, 0.04, 120),
                mistaken_for={"neutrophil": 5, "monocyte": 1},
            ),
        ),
        cost=measure_cost(labels, predicted, default_costs(NAMES), NAMES, resamples=50),
        attributes=(
            AttributeResult(
                attribute="nucleus_shape",
                title="shape of the nucleus",
                values=["bilobed", "round"],
                n=400,
                macro_f1=near(0.9, 0.02, 400),
                accuracy=near(0.93, 0.02, 400),
                published=0.912,
            ),
        ),
        notes=("Under damage: 500 of the cells.",),
        seed=5,
        resamples=1000,
        data_source="pbc",
        data_fingerprint="cd" * 32,
        created="2026-11-23T06:00:00+00:00",
        command="hemascope trust blood8 pbc",
    ).model_copy(update=changes)


def empty_report(**changes: object) -> TrustReport:
    """With nothing measured."""
    return TrustReport(class_names=["a"], n=0, fitted_on=1, temperature=1.0, ood_score="knn").model_copy(update=changes)


class Page(HTMLParser):
    """Text by section, ids, and tags left open."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.text: dict[str, str] = {}
        self.section = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if "id" in given:
            self.ids.append(given["id"] or "")
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag == "section":
            self.section = given.get("id") or "verdict"
        if tag not in ("meta", "link", "input", "br", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "section":
            self.section = ""

    def handle_data(self, data: str) -> None:
        self.text[self.section] = f"{self.text.get(self.section, '')} {data.strip()}"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The page of the full report."""
    path = render_trust(full_report(), tmp_path_factory.mktemp("trust"), assumptions=ASSUMED)
    assert path.name == "report.html"
    return Page(path.read_text(encoding="utf-8"))


def test_the_page_is_whole(whole: Page) -> None:
    """Every tag is closed, every id is there once, links lead to one, and nothing is fetched from outside."""
    assert whole.open == []
    assert len(set(whole.ids)) == len(whole.ids)
    assert set(SECTIONS) <= set(whole.ids)
    assert all(one.startswith("#") and one[1:] in whole.ids for one in whole.addresses)


def test_no_section_is_missing(whole: Page) -> None:
    """Where everything was measured nothing is said to be missing."""
    assert not any("not measured" in text for text in whole.text.values())


def test_the_figures_are_on_the_page(whole: Page) -> None:
    """Each section shows its own numbers, written as the other pages write them."""
    shown = {name: re.sub(r"\s+", " ", text) for name, text in whole.text.items()}
    assert "1.210" in shown["calibration"]
    assert "0.021" in shown["calibration"]
    assert "0.004" in shown["calibration"] and "0.061" in shown["calibration"]
    assert "LAC, cuts for each class" in shown["coverage"]
    assert "2,020 sets of 1 class, 31 sets of 2 classes." in shown["coverage"]
    assert "nearest neighbours" in shown["detection"]
    assert "two cells" in shown["detection"]
    assert "2 % of the cells 41" in shown["review"]
    assert "metamyelocyte (MMY)" in shown["subtypes"]
    assert "neutrophil (5), monocyte (1)" in re.sub(r" ([,)])", r"\1", shown["subtypes"])
    assert "91.2 %" in shown["attributes"]
    assert "bilobed, round" in shown["attributes"]
    assert "hemascope trust blood8 pbc" in shown["again"]


def test_assumptions_stand_beside_every_coverage_figure(whole: Page) -> None:
    """Above the table by class, with the figure by class, with the figure under damage and the tables of it."""
    assert whole.text["coverage"].count(ASSUMED) == 4


def test_a_broken_promise_is_said(whole: Page) -> None:
    """Monocytes below their promised range are named in the verdict and marked; platelets were promised nothing."""
    report = full_report()
    assert "It falls short for monocyte." in verdict(report)
    assert "not kept" in whole.text["coverage"]
    sets = shown_sets(report)
    assert sets is not None
    kept = {row.name: row.kept for row in class_rows(sets, NAMES)}
    assert (kept["monocyte"], kept["ig"], kept["platelet"], kept["all cells"]) == (False, True, None, True)


def test_small_areas_can_be_read() -> None:
    """An area of 0.00125 is 1.25 thousandths, and an end that is not known stays so."""
    found = thousandfold(Estimate(value=0.00125, low=0.001, n=9))
    assert (found.value, found.low, found.high, found.n) == (1.25, 1.0, None, 9)


def test_every_kind_of_set_has_its_row() -> None:
    """Six kinds at three levels, and a gap where one was not measured."""
    results = [one for one in full_report().coverage if one.condition == "clean"]
    rows = kinds(results[:-1])
    assert [name for name, _ in rows][:2] == ["LAC, one cut", "LAC, cuts for each class"]
    assert [[one.level if one else None for one in row] for _, row in rows] == [[0.9, 0.95, 0.99]] * 5 + [
        [0.9, 0.95, None]
    ]


def test_more_coverage_than_promised_breaks_nothing() -> None:
    """A class above its range is kept."""
    sets = coverage("clean", 0.95, True).model_copy(update={"class_expected": [(0.9, 0.95)] * 8})
    assert {row.kept for row in class_rows(sets, NAMES) if row.name != "monocyte"} == {True}


def test_the_shown_sets_are_those_under_damage() -> None:
    """Where the record does not name them; else those by class, nearest to 95 %; None where nothing was measured."""
    shown = shown_sets(full_report(shown_sets=None))
    assert shown is not None
    assert (shown.condition, shown.method, shown.by_class, shown.level) == ("clean", "lac", True, 0.95)
    raps = [coverage("clean", 0.95, False), coverage("clean", 0.9, True, "raps"), coverage("JPEG", 0.9, True, "raps")]
    shown = shown_sets(empty_report(coverage=tuple(raps)))
    assert shown is not None
    assert (shown.condition, shown.method, shown.level) == ("clean", "raps", 0.9)
    assert shown_sets(empty_report()) is None


def test_the_shown_sets_are_those_the_record_names() -> None:
    """Of all kinds, each measured under damage; the figure and the table under damage are of that kind alone."""
    every = [
        coverage(condition, level, by_class, method)
        for condition in ("clean", "JPEG")
        for method in METHODS
        for by_class in (False, True)
        for level in (0.9, 0.99)
    ]
    report = empty_report(coverage=tuple(every), shown_sets=("raps", False, 0.99))
    shown = shown_sets(report)
    assert shown is not None
    assert (shown.condition, shown.method, shown.by_class, shown.level) == ("clean", "raps", False, 0.99)
    tables = damaged_kinds([one for one in every if one.condition != "clean"])
    assert [level for level, _, _ in tables] == [0.9, 0.99]
    level, names, rows = tables[1]
    assert names[0] == "LAC, one cut" and len(names) == 6
    assert [title for title, _ in rows] == ["JPEG"]
    assert all(one is not None and one.level == level for one in rows[0][1])
    assert damaged_kinds([coverage("JPEG", 0.9, True)]) == []


def test_the_verdict_in_words() -> None:
    """One paragraph with the error of the confidence, the sets, the worst foreign images and the review queue."""
    report = full_report()
    said = verdict(report).replace("\N{NO-BREAK SPACE}", " ")
    assert "differs from how often it is right by 0.6 % on average (by 2.1 % before calibration)" in said
    assert "does so: it holds it for 95.4 %, with 1.012 classes on average" in said
    assert "no cells are told apart with an AUROC of 0.997 or better" in said
    assert "Hardest of what is nearly such a cell: two cells, 0.830." in said
    row = report.selective[0].rows[2]
    assert f"at the 2 % most doubtful cells sees {row.errors_caught} of {report.selective[0].errors} errors" in said


def test_nothing_measured_is_said_so(tmp_path: Path) -> None:
    """An empty record makes a whole page on which every section says that it was not measured."""
    page = Page(render_trust(empty_report(), tmp_path).read_text(encoding="utf-8"))
    for name in SECTIONS[:-1]:
        assert "not measured" in page.text[name], name
    assert "Nothing was measured." in page.text["verdict"]
    assert "svg" not in page.open


@pytest.mark.parametrize(
    "kept", ["calibration", "coverage", "detection", "selective", "subtypes", "cost", "attributes"]
)
def test_each_section_stands_alone(tmp_path: Path, kept: str) -> None:
    """A record with one section only makes a page; so does one without its clean condition."""
    report = full_report()
    alone = empty_report(class_names=NAMES, **{kept: getattr(report, kept)})
    page = Page(render_trust(alone, tmp_path).read_text(encoding="utf-8"))
    assert sum("not measured" in text for text in page.text.values()) == 6
    if kept in ("calibration", "coverage", "selective"):
        damaged = tuple(one for one in getattr(report, kept) if one.condition != "clean")
        render_trust(empty_report(class_names=NAMES, **{kept: damaged}), tmp_path)


def test_the_same_record_gives_the_same_page(tmp_path: Path) -> None:
    """Rendering twice gives the same bytes."""
    first = render_trust(full_report(), tmp_path).read_bytes()
    assert render_trust(full_report(), tmp_path).read_bytes() == first


def test_names_cannot_break_the_page(tmp_path: Path) -> None:
    """Markup, quotes and dollar signs in names stay text."""
    evil = '<script>alert("$x$")</script>'
    names = [evil, *NAMES[1:]]
    report = full_report(class_names=names, model=evil, notes=(evil,), command=evil, ood_score=evil)
    html = render_trust(report, tmp_path, assumptions=evil).read_text(encoding="utf-8")
    assert "<script>" not in html
    Page(html)


def test_undefined_values_are_dashes(tmp_path: Path) -> None:
    """Values that could not be measured leave no "nan" and no "None"."""
    unknown = Estimate(value=None, n=0)
    sets = coverage("clean", 0.95, True).model_copy(
        update={"coverage": unknown, "class_coverage": [unknown] * 8, "mean_size": unknown, "class_size": [unknown] * 8}
    )
    far = foreign("text", "far", 0.9).model_copy(update={"auroc": {"knn": unknown}, "fpr95": {}})
    report = empty_report(class_names=NAMES, coverage=(sets,), detection=(far,))
    text = " ".join(Page(render_trust(report, tmp_path).read_text(encoding="utf-8")).text.values())
    assert "nan" not in text.replace("finance", "").split()
    assert "None" not in text


def test_many_classes_have_no_matrix_of_costs() -> None:
    """A table of a hundred classes cannot be read, so there is none; eight classes are shaded by cost."""
    labels = np.zeros(3, dtype=np.int64)
    many = [str(k) for k in range(100)]
    assert cost_rows(measure_cost(labels, labels, default_costs(many), many, resamples=2)) is None
    rows = cost_rows(measure_cost(labels, labels, default_costs(NAMES), NAMES, resamples=2))
    assert rows is not None
    assert [one.shade for one in rows[3]] == [6, 6, 3, 0, 6, 6, 6, 6]
