"""The page of an audit and the map: honest about every check, safe to open, and able to save a ledger."""

import base64
import hashlib
import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from audit_setup import HOSTILE, cells, report, saved_audit
from PIL import Image

from hemascope.errors import LedgerError, RunError
from hemascope.findings import CHECKS, AuditReport, CheckResult, MapPoints
from hemascope.ledger import decide, from_findings, read_ledger, write_ledger
from hemascope.report import audit_galleries as galleries
from hemascope.report import render_audit, render_map
from hemascope.report.audit_wording import audit_verdict, facts_of, outcome, text_of
from hemascope.report.embedding_map import COLOURS, MapCells, map_view

VOID = {"meta", "img", "input", "br", "link"}


class Page(HTMLParser):
    """Every element as (tag, attributes), scripts' text, and the visible text of elements that have an id."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.scripts: list[tuple[dict[str, str], str]] = []
        self.text = ""
        self.rows: list[list[str]] = []
        self._open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        known = {key: value or "" for key, value in attributes}
        self.elements.append((tag, known))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "script":
            self.scripts.append((known, ""))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        elif "style" not in self._open:
            self.text += data
            if self.rows and self.rows[-1] and ({"td", "th"} & set(self._open)):
                self.rows[-1][-1] += data

    def data(self, name: str) -> Any:
        return json.loads(next(text for known, text in self.scripts if known.get("id") == name))

    def all(self, **wanted: str) -> list[dict[str, str]]:
        return [known for _, known in self.elements if all(known.get(key) == value for key, value in wanted.items())]


@pytest.fixture(scope="module")
def made() -> Any:
    return cells()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, made: Any) -> Path:
    return saved_audit(tmp_path_factory.mktemp("audit"), made, report(made))


@pytest.fixture(scope="module")
def html(folder: Path) -> str:
    return render_audit(folder).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


@pytest.fixture(scope="module")
def map_html(tmp_path_factory: pytest.TempPathFactory, made: Any) -> str:
    first = report(made).map
    assert first is not None
    second = replace(first, position=first.position[::-1].copy(), silhouette=-0.5, title=f"after {HOSTILE}")
    path = tmp_path_factory.mktemp("map") / "map.html"
    assert render_map(made, [first, second], path, title=HOSTILE) == path
    return path.read_text(encoding="utf-8")


def policy(html: str) -> str:
    return next(known for tag, known in Page(html).elements if known.get("http-equiv") == "Content-Security-Policy")[
        "content"
    ]


@pytest.mark.parametrize("which", ["html", "map_html"])
def test_the_policy_allows_exactly_the_one_script(which: str, request: pytest.FixtureRequest) -> None:
    """The only script that can run is the page's own, by the hash of its text; everything else is refused."""
    html = request.getfixturevalue(which)
    runnable = [text for known, text in Page(html).scripts if known.get("type") != "application/json"]
    assert len(runnable) == 1
    digest = base64.b64encode(hashlib.sha256(runnable[0].encode()).digest()).decode()
    rules = dict(rule.strip().split(" ", 1) for rule in policy(html).split(";"))
    assert rules == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": "'unsafe-inline'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "script-src": f"'sha256-{digest}'",
    }


@pytest.mark.parametrize("which", ["html", "map_html"])
def test_nothing_outside_is_requested(which: str, request: pytest.FixtureRequest) -> None:
    """Every address is of data in the page or a place in it, and no element acts by itself."""
    html = request.getfixturevalue(which)
    for tag, known in Page(html).elements:
        assert tag not in {"link", "iframe", "object", "embed", "base", "form", "audio", "video"}
        assert known.get("src", "data:").startswith("data:")
        assert known.get("href", "#").startswith("#")
        assert not [name for name in known if name.startswith("on")]
    styles = "".join(re.findall(r"<style>(.*?)</style>", html, re.S))
    assert "url(" not in styles
    assert "@import" not in styles


@pytest.mark.parametrize("which", ["html", "map_html"])
def test_hostile_text_is_inert(which: str, request: pytest.FixtureRequest) -> None:
    """Ids and labels that are markup stay text: no element of theirs exists, and every element closes."""
    html = request.getfixturevalue(which)
    page = Page(html)
    assert HOSTILE in page.text
    assert "<script>alert" not in html
    assert "<img src=x" not in html
    assert not page.all(src="x")
    for known, text in page.scripts:
        if known.get("type") == "application/json":
            assert not set("<>&") & set(text)
            json.loads(text)
        else:
            assert "innerHTML" not in text
            assert "eval(" not in text
            assert "insertAdjacentHTML" not in text


def outcomes(page: Page) -> dict[str, tuple[str, str]]:
    titles = {check.title: check.code for check in CHECKS.values()}
    return {titles[row[0].strip()]: (row[2].strip(), row[3].strip()) for row in page.rows if row[0].strip() in titles}


def test_every_check_appears_with_its_outcome(page: Page, made: Any) -> None:
    """The table at the top has every check there is; each outcome and number is that of the result."""
    found = outcomes(page)
    assert list(found) == list(CHECKS)
    results = {one.check: one for one in report(made).results}
    for code, (word, _) in found.items():
        if code not in results:
            assert word == "not made"
        elif results[code].findings:
            assert word == f"{len(results[code].findings)} found"
        else:
            assert word == {"dark": "passed", "leakage": "not applicable", "class_imbalance": "found"}.get(
                code, "passed"
            )


def test_not_applicable_is_never_shown_as_passed(page: Page, html: str) -> None:
    """A check that could not be made gives its reason, stands under "Not checked" and nowhere under "Passed"."""
    assert outcomes(page)["leakage"] == ("not applicable", "No split is known.")
    passed = html[html.index('id="h-passed"') : html.index('id="h-left"')]
    left = html[html.index('id="h-left"') : html.index('id="provenance"')]
    assert CHECKS["leakage"].title in left
    assert CHECKS["leakage"].title not in passed
    assert CHECKS["odd_size"].title in left
    assert CHECKS["dark"].title in passed


@pytest.mark.parametrize(
    ("result", "kind"),
    [
        (None, "not-made"),
        (CheckResult("leakage", not_applicable="no split"), "not-applicable"),
        (CheckResult("leakage"), "passed"),
        (CheckResult("shortcut", summary={"verdict": "found", "sentence": "Size tells."}), "found"),
        (CheckResult("shortcut", summary={"verdict": "passed"}), "passed"),
    ],
)
def test_outcomes(result: CheckResult | None, kind: str) -> None:
    """Passed is said of checks that were made and found nothing, and of no others."""
    assert outcome(result).kind == kind


def test_each_finding_has_a_card_with_its_picture_and_decision(page: Page, made: Any) -> None:
    """As many cards as findings, each of its own ledger row, with radio buttons for a keyboard and a name for each."""
    count = len(report(made).findings)
    rows = [int(known["data-row"]) for _, known in page.elements if "data-row" in known]
    assert sorted(rows) == list(range(count))
    ledger = page.data("ledger-data")
    assert len(ledger["rows"]) == count
    assert ledger["whole"] is True
    radios = page.all(type="radio")
    assert {known["name"] for known in radios if known["name"] != "theme"} == {f"d{row}" for row in rows}
    assert len([1 for tag, _ in page.elements if tag == "fieldset"]) == count + 1
    # unreadable has no picture; a pair and a cluster show what they are compared with
    pictures = [known for tag, known in page.elements if tag == "img"]
    assert len(pictures) == count - 1 + 2


def test_nothing_to_accept_is_not_offered(page: Page) -> None:
    """A finding that suggests only a look cannot be accepted; the others can."""
    ledger = page.data("ledger-data")
    place = ledger["columns"].index("suggestion")
    accepting = {int(known["name"][1:]) for known in page.all(type="radio", value="accept")}
    assert accepting == {row for row, cells in enumerate(ledger["rows"]) if cells[place] != "review"}


def test_the_ledger_in_the_page_is_the_ledger(page: Page, made: Any, tmp_path: Path) -> None:
    """The rows that the script saves are those of the CSV, formulas guarded, hashes marked as hashes."""
    given = from_findings(report(made))
    path = write_ledger(tmp_path, given)
    import csv

    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    data = page.data("ledger-data")
    assert data["columns"] == header
    assert data["rows"] == rows
    assert any(row[0].startswith("'=cmd") for row in rows)
    assert all(row[1].startswith("blake2b:") for row in rows if row[1])
    assert len(read_ledger(path)) == len(rows)


def test_decisions_in_the_folder_are_shown(tmp_path: Path, made: Any) -> None:
    """A page made again has what was decided in ledger.csv, checked beside its finding and said in words."""
    given = report(made)
    folder = saved_audit(tmp_path, made, given)
    decided = decide(from_findings(given), ["blurred"], "fine", by="Dr Quill", when="2026-01-01", reason="thick smear")
    write_ledger(folder, decided)
    page = Page(render_audit(folder, tmp_path / "again.html").read_text(encoding="utf-8"))
    assert not (folder / "report.html").exists()
    assert len([known for known in page.all(value="fine") if "checked" in known]) == 2
    assert "Decided before: fine, by Dr Quill: thick smear" in page.text


def test_a_large_ledger_travels_in_part(tmp_path: Path, made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit only the rows shown are in the page, and what is saved is not called the ledger."""
    monkeypatch.setattr(galleries, "MOST_ROWS", 3)
    folder = saved_audit(tmp_path, made, report(made))
    page = Page(render_audit(folder).read_text(encoding="utf-8"))
    data = page.data("ledger-data")
    assert data["whole"] is False
    cards = [known for _, known in page.elements if "data-row" in known]
    assert len(data["rows"]) == len(cards)
    assert "Save decisions.csv" in page.text
    place = data["columns"].index("id")
    assert data["rows"][0][place] == "broken.png"


def test_only_the_worst_are_shown_and_the_rest_is_counted(tmp_path: Path) -> None:
    """Of 70 findings the worst 60 have cards; the page says how many more there are."""
    made = cells(10, 24)
    folder = saved_audit(tmp_path, made, report(made, off_topic=70))
    html = render_audit(folder).read_text(encoding="utf-8")
    section = html[html.index('<section id="off_topic"') :]
    section = section[: section.index("</section>")]
    assert section.count("data-row=") == 60
    assert "10 more are in the ledger" in section
    assert "70 found" in section


def test_the_same_audit_gives_the_same_page(folder: Path, html: str, tmp_path: Path) -> None:
    """Nothing in the page depends on when it is made."""
    assert render_audit(folder, tmp_path / "again.html").read_text(encoding="utf-8") == html


def test_without_script_pictures_text_and_map_are_there(html: str) -> None:
    """What only a script can do is hidden until one runs; a drawing of the map stands in its place."""
    parts = re.findall(r"<[^>]*data-script[^>]*>", html)
    assert parts
    assert all(" hidden" in part for part in parts)
    assert re.search(r'<div class="map-frame"><svg [^>]*role="img">.*?<path d="M', html)


def test_verdicts_count_images_once(made: Any) -> None:
    """An image found twice is proposed once; an unreadable one counts among the images."""
    text = audit_verdict(report(made))
    # off_topic 0-4, exact 11-13, near 21 and the unreadable one; 5 and 6 relabel (4 is dropped); 7 and 8 to look at
    assert text.startswith(f"Of {len(made) + 1} images 10 are proposed for removal")
    assert "2 for another label and 2 more should be looked at" in text
    assert "7 of 9 checks found something; 1 could not be made" in text


def test_an_audit_that_found_nothing_says_so(made: Any) -> None:
    """No findings read as such, not as an empty list."""
    clean = AuditReport(
        [CheckResult("blank")], made.ids, made.content_hash, made.labels, made.class_names, "f", "s", "e"
    )
    assert "nothing was found that should be removed" in audit_verdict(clean)


def test_damaged_audits_and_ledgers_leave_the_old_page(tmp_path: Path, made: Any) -> None:
    """Where audit or ledger cannot be read, one sentence says so and the page there was stays."""
    folder = saved_audit(tmp_path, made, report(made))
    (folder / "report.html").write_text("old")
    (folder / "ledger.csv").write_text("nothing\n1\n")
    with pytest.raises(LedgerError, match="no column"):
        render_audit(folder)
    (folder / "audit.json").write_text("{")
    with pytest.raises(RunError, match="not JSON"):
        render_audit(folder)
    assert (folder / "report.html").read_text() == "old"


def test_the_map_names_its_cells_and_numbers(map_html: str, made: Any) -> None:
    """Two panels with their captions; the data have every cell once, and each panel's points name them."""
    page = Page(map_html)
    data = page.data("map-data")
    assert "silhouette 0.250 · k-NN balanced accuracy 81.2\N{NO-BREAK SPACE}%" in page.text
    assert "silhouette −0.500" in page.text
    assert data["ids"] == list(made.ids)
    assert [data["classes"][label] for label in data["label"]] == [made.class_names[label] for label in made.labels]
    assert [data["splits"][part] for part in data["split"]] == made.split.tolist()
    assert [panel["cells"] for panel in data["panels"]] == [list(range(len(made)))] * 2
    assert data["panels"][0]["x"] == data["panels"][1]["x"][::-1]


def test_a_tile_shows_its_own_cell(made: Any) -> None:
    """The tile of a cell, cut from its sheet, is that cell and no other; rows without a picture have none."""
    many = np.tile(made.images, (6, 1, 1, 1))  # more than one sheet
    ids = [str(k) for k in range(len(many))]

    def picture(row: int) -> Image.Image | None:
        return None if row == 5 else Image.fromarray(many[row])

    known = MapCells(ids, np.zeros(len(many), dtype=np.int64), ["a"], picture)
    points = MapPoints(np.arange(len(many)), np.zeros((len(many), 2), dtype=np.float32), None, None)
    data = json.loads(map_view([points], known).data)
    assert data["picture"][5] == -1
    assert len(data["sheets"]) == 2
    side, columns = data["tile"], data["columns"]
    for row in (0, 17, 280):
        tile = data["picture"][row]
        sheet = Image.open(io.BytesIO(base64.b64decode(data["sheets"][tile // columns**2].split(",")[1])))
        place = tile % columns**2
        left, top = place % columns * side, place // columns * side
        inset = (side - 48) // 2  # smaller pictures lie in the middle of their tile
        cut = sheet.crop((left + inset, top + inset, left + inset + 48, top + inset + 48)).convert("RGB")
        difference = np.abs(np.asarray(cut, dtype=float) - many[row])
        assert difference[8:40, 8:40].mean() < 12


def test_places_keep_their_proportions() -> None:
    """A map twice as wide as high fills its width and half its height, with the second axis upwards."""
    points = MapPoints(np.arange(2), np.array([[0, 0], [2, 1]], dtype=np.float32), None, None)
    known = MapCells(["a", "b"], np.array([-1, -1]), [], lambda row: None)
    panel = json.loads(map_view([points], known).data)["panels"][0]
    assert (panel["x"], panel["y"]) == ([0, 10000], [7500, 2500])


def test_map_colours_are_told_apart_by_everyone(map_html: str) -> None:
    """Within each six colours, light and dark, none are near for full vision or any of three colour blindnesses."""
    style = Page(map_html)  # parsed to be sure the palette is in the page that is shown
    assert style.elements
    blocks = re.findall(r"((?:--map-\d+: #[0-9a-f]{6};\s*){12})", map_html)
    assert len(blocks) >= 2
    for block in set(blocks):
        colours = re.findall(r"#([0-9a-f]{6})", block)
        assert len(colours) == COLOURS
        rgb = np.array([[int(one[i : i + 2], 16) / 255 for i in (0, 2, 4)] for one in colours])
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        for seen in _VISIONS:
            lab = _oklab(np.clip(linear @ np.array(seen).T, 0, 1))
            for six in (slice(0, 6), slice(6, 12)):
                apart = np.linalg.norm(lab[six, None] - lab[None, six], axis=2)
                assert apart[~np.eye(6, dtype=bool)].min() > 0.1


# Machado, Oliveira and Fernandes 2009: full vision, then protanopia, deuteranopia and tritanopia.
_VISIONS = (
    [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
)


def _oklab(linear: np.ndarray) -> np.ndarray:
    """Ottosson 2020."""
    cones = (
        linear
        @ np.array(
            [
                [0.4122214708, 0.5363325363, 0.0514459929],
                [0.2119034982, 0.6806995451, 0.1073969566],
                [0.0883024619, 0.2817188376, 0.6299787005],
            ]
        ).T
    )
    return (
        np.cbrt(cones)
        @ np.array(
            [
                [0.2104542553, 0.7936177850, -0.0040720468],
                [1.9779984951, -2.4285922050, 0.4505937099],
                [0.0259040371, 0.7827717662, -0.8086757660],
            ]
        ).T
    )


def test_summaries_of_any_shape_are_shown() -> None:
    """Numbers become facts, lists of records and mappings small tables, and what stands elsewhere is left out."""
    facts, tables = facts_of(
        {"sentence": "x", "largest_cluster": 1800, "share": 0.12345, "empty": [], "few": ["a", "b"],
         "pairs": [{"left": "a", "score": 0.5}, {"left": "b"}], "parts": {"train": 5}, "deep": {"a": {"n": 1}}}
    )  # fmt: skip
    assert facts == (("Largest cluster", "1,800"), ("Share", "0.1235"), ("Few", "a, b"))
    assert [table.title for table in tables] == ["Pairs", "Parts", "Deep"]
    assert tables[0].rows == (("a", "0.5"), ("b", "–"))
    assert text_of({"a": [True, None]}) == "A: yes, –"


def test_rendering_an_audit_needs_no_torch(folder: Path) -> None:
    """A saved audit is drawn without importing torch."""
    code = (
        "import sys; from pathlib import Path; from hemascope.report import render_audit; "
        f"render_audit(Path({str(folder)!r}), Path({str(folder / 'torchless.html')!r})); "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
