"""The report: made of saved records alone, safe to open, the same every time."""

import base64
import io
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from hemascope.errors import OutputError, RunError
from hemascope.report import load_records, render_comparison, render_report
from hemascope.report import wording as words
from hemascope.results import Comparison, Estimate, Evaluation

HOSTILE = "<script>alert(1)</script>"


def estimate(value: float | None, n: int = 100) -> dict[str, Any]:
    return {"value": value, "low": None if value is None else value - 0.01, "high": value, "n": n}


def split(name: str, names: list[str], confusion: list[list[int]]) -> dict[str, Any]:
    """A split whose recall and accuracy follow from its confusion matrix."""
    n = sum(map(sum, confusion))
    recalls = [row[i] / sum(row) if sum(row) else None for i, row in enumerate(confusion)]
    known = [recall for recall in recalls if recall is not None]
    accuracy = sum(row[i] for i, row in enumerate(confusion)) / n
    balanced = sum(known) / len(known)
    classes = [
        {
            "name": name,
            "support": sum(row),
            "precision": estimate(0.9),
            "recall": estimate(recall),
            "f1": estimate(0.9),
            "auroc": estimate(None),
        }
        for name, row, recall in zip(names, confusion, recalls, strict=True)
    ]
    metrics = {"accuracy": estimate(accuracy, n), "balanced_accuracy": estimate(balanced, n), "log_loss": estimate(0.2)}
    return {"split": name, "n": n, "metrics": metrics, "per_class": classes, "confusion": confusion}


def evaluation(names: list[str], **changes: Any) -> dict[str, Any]:
    mistake = {
        "id": "cells/ig/IG_1.jpg",
        "picture": "worst-001.png",
        "true_label": names[0],
        "predicted_label": names[1],
        "probability": 0.987,
        "true_probability": 0.0123,
    }
    return {
        "class_names": names,
        "mistakes_of": "test",
        "worst_mistakes": [mistake],
        "certain_mistakes": [mistake],
        "bootstrap_resamples": 1000,
        "seed": 0,
        **({} if "splits" in changes else {"splits": two_splits(names)}),
        **changes,
    }


def two_splits(names: list[str]) -> dict[str, Any]:
    return {
        "train": split("train", names, [[700, 0], [0, 300]]),
        "test": split("test", names, [[90, 10], [2, 198]]),
    }


def picture(path: Path, colour: tuple[int, int, int] = (200, 60, 120)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "secret of the laboratory")
    Image.new("RGB", (32, 32), colour).save(path, pnginfo=info)


def make_run(folder: Path, names: tuple[str, str] = ("ig", "neutrophil"), **changes: Any) -> Path:
    """A whole run folder, small."""
    folder.mkdir(parents=True)
    (folder / "evaluation.json").write_text(json.dumps(evaluation(list(names), **changes)))
    data = {
        "source": "cells/pbc",
        "fingerprint": "ab" * 32,
        "n": 1300,
        "class_names": list(names),
        "class_counts": [800, 500],
        "grouped": False,
        "split_counts": {"test": [100, 200], "train": [700, 300]},
        "split_notes": ["2 exact duplicates stay on one side"],
        "unreadable": [{"id": "cells/ig/IG_9.jpg", "reason": "the file is empty"}],
        "notes": {"greyscale made RGB": 12},
    }
    manifest = {
        "version": 1,
        "name": "first",
        "command": f"hemascope train {names[0]} -o runs/first",
        "seed": 7,
        "versions": {"torch": "2.13.0"},
        "git_commit": None,
        "data": data,
        "timing": {"forward": 30.0, "backward": 60.0, "total": 100.0},
        "price_epochs": 9.31,
        "best": {"stage": "finetune", "epoch": 1.329436, "balanced_accuracy": 0.9},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "config.toml").write_text(f"# {names[0]}\nseed = 7\n")
    lines = []
    for stage in ("frozen", "finetune"):
        for step in range(1, 9):
            lines.append(
                {"kind": "step", "stage": stage, "epoch": step / 4, "step": step, "loss": 1 / step, "lr": 1e-3}
            )
        lines.append({"kind": "epoch", "stage": stage, "epoch": 2, "validation_balanced_accuracy": 0.9})
    (folder / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    picture(folder / "predictions" / "gallery" / "worst-001.png")
    for kind in ("", "augmented_"):
        picture(folder / "samples" / f"{kind}1_0.png", (10, 200, 30))
    return folder


class Page(HTMLParser):
    """Tags with their attributes, ids and visible text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def ids(self) -> list[str]:
        return [attributes["id"] or "" for _, attributes in self.tags if "id" in attributes]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a run whose class is called like a script."""
    run = make_run(tmp_path_factory.mktemp("hostile") / "run", names=(HOSTILE, "$neu_{trophil}"))
    return render_report(run).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a whole run."""
    return render_report(make_run(tmp_path_factory.mktemp("ordinary") / "run")).read_text(encoding="utf-8")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


@pytest.fixture
def quick_run(run: Path) -> Path:
    """A run without a history: its curves take most of the time of a page."""
    (run / "history.jsonl").unlink()
    return run


def test_a_class_called_like_a_script_stays_text(hostile: str) -> None:
    """Names from outside are escaped everywhere: tables, figures, alt texts, command lines, configuration."""
    assert "<script" not in hostile.lower()
    page = Page(hostile)
    assert page.text.count(HOSTILE) > 10
    assert any(HOSTILE in (image["alt"] or "") for image in page.all("img"))
    assert "$neu_{trophil}" in page.text


def test_the_page_asks_for_nothing_outside_itself(hostile: str) -> None:
    """No address in any attribute or style leads out of the file, and the policy forbids what is not there."""
    page = Page(hostile)
    policy = next(tag["content"] for tag in page.all("meta") if tag.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")
    assert "script-src" not in policy
    for _, attributes in page.tags:
        for key in ("src", "href", "xlink:href", "srcset", "action", "poster", "data"):
            assert (attributes.get(key) or "#").startswith(("#", "data:image/webp;base64,"))
        assert not any(key.startswith("on") for key in attributes)
    assert "@import" not in hostile
    assert "http://" not in hostile and "https://" not in hostile
    assert set(re.findall(r"url\((.)", hostile)) <= {"#"}


def test_ids_are_unique_and_every_reference_has_its_target(hostile: str) -> None:
    """Figures beside each other do not share clip paths or markers."""
    page = Page(hostile)
    assert len(page.ids) == len(set(page.ids))
    targets = set(re.findall(r"url\(#([^)]+)\)", hostile)) | {
        href[1:] for _, tag in page.tags if (href := tag.get("href")) and href.startswith("#")
    }
    assert len(targets) > 10
    assert targets <= set(page.ids)


def test_figures_take_their_colours_from_the_page(hostile: str) -> None:
    """No colour of a figure is fixed, so light and dark both fit."""
    svgs = re.findall(r"<svg.*?</svg>", hostile, re.DOTALL)
    assert len(svgs) == 4
    for svg in svgs:
        assert "var(--ink)" in svg or "var(--muted)" in svg
        assert not re.search(r"#[0-9a-f]{6}\b", svg)
        assert "<style" not in svg
        assert "DejaVu" not in svg


def test_a_name_that_looks_like_a_sentinel_colour_is_left_alone(tmp_path: Path) -> None:
    """Only attributes are rewritten: a class may be called #010203 or url(#x)."""
    html = render_report(make_run(tmp_path / "run", names=("#010203", "url(#x)"))).read_text()
    text = Page(html).text
    assert "#010203" in text
    assert "url(#x)" in text


def test_the_page_is_accessible(hostile: str) -> None:
    """Language, alt texts, names of figures, captions and headers of tables are there."""
    page = Page(hostile)
    assert page.all("html") == [{"lang": "en"}]
    assert all(image.get("alt") for image in page.all("img"))
    assert all(svg["aria-labelledby"] in page.ids for svg in page.all("svg"))
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(header.get("scope") in {"row", "col"} for header in page.all("th"))
    assert len(page.all("figcaption")) == len(page.all("figure")) == 4
    assert len(page.all("h1")) == 1


def test_colours_have_enough_contrast() -> None:
    """Text reaches 4.5 to 1 and figures 3 to 1 on every surface, in light and dark (WCAG 2.2 AA)."""
    source = Path(words.__file__).parent / "templates" / "palette.css"

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(one: str, other: str) -> float:
        high, low = sorted((luminance(one), luminance(other)), reverse=True)
        return (high + 0.05) / (low + 0.05)

    def mixed(one: str, other: str, share: float) -> str:
        pairs = [(int(one[i : i + 2], 16), int(other[i : i + 2], 16)) for i in (1, 3, 5)]
        return "#" + "".join(f"{round(share * a + (1 - share) * b):02x}" for a, b in pairs)

    palettes = re.findall(r"{% set \w+ %}(.*?){% endset %}", source.read_text(), re.DOTALL)
    assert len(palettes) == 2
    for palette in palettes:
        colour = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", palette))
        for surface in ("page", "paper", "raised"):
            for text in ("ink", "muted", "accent"):
                assert contrast(colour[text], colour[surface]) >= 4.5, (text, surface)
        assert contrast(colour["accent"], colour["accent-soft"]) >= 4.5
        for series in range(1, 6):
            assert contrast(colour[f"series-{series}"], colour["paper"]) >= 3, series
        for share in (0.12, 0.20, 0.28, 0.36, 0.44, 0.50):
            assert contrast(colour["ink"], mixed(colour["mistake"], colour["paper"], share)) >= 4.5, share


def test_the_same_records_give_the_same_bytes(run: Path, tmp_path: Path) -> None:
    """Rendering again changes nothing, so reports can be compared and cached."""
    first = render_report(run)
    assert first == run / "report.html"
    second = render_report(run, tmp_path / "elsewhere" / "page.html")
    assert first.read_bytes() == second.read_bytes()
    assert len(first.read_bytes()) < 400_000


def test_the_verdict_is_plain_and_claims_no_more_than_measured(run: Path) -> None:
    """The numbers of the verdict follow from the test split, with its limits beside it."""
    records = load_records(run)
    verdict = words.verdict(records.evaluation, records.manifest.data.split_notes, records.manifest.data.grouped)
    # recall 90/100 and 198/200: balanced 94.5 %; 12 of 300 wrong: 4 of 100
    assert "Of 300 test cells 94.5\N{NO-BREAK SPACE}% were named correctly" in verdict.headline
    assert "about 4.0 of 100 cells would be named wrongly" in verdict.headline
    assert "the weakest class is ig" in verdict.headline
    titles = {card.title: card for card in verdict.cards}
    assert "taken for neutrophil" in titles["is the weakest class"].detail
    limits = " ".join(verdict.limits)
    assert "from the same source" in limits and "says nothing about other laboratories" in limits
    assert "Patients and slides were not known" in limits
    assert "2 exact duplicates stay on one side." in limits
    assert "learnt by heart" in limits  # 100 % on the training cells against 94.5 %


def test_no_mistake_seen_is_not_sold_as_no_mistake() -> None:
    """With every cell right, the rule of three says what cannot be ruled out."""
    perfect = Evaluation.model_validate(
        evaluation(["a", "b"], splits={"test": split("test", ["a", "b"], [[150, 0], [0, 150]])})
    )
    card = next(card for card in words.verdict(perfect).cards if "wrongly" in card.title)
    assert (card.value, card.detail) == ("0", "but up to 1.0 cannot be ruled out from 300 cells")


def test_thin_and_absent_classes_are_said() -> None:
    """A class with few test cells is called rough, one without any is called not measured."""
    thin = Evaluation.model_validate(
        evaluation(["a", "b"], splits={"test": split("test", ["a", "b"], [[20, 1], [0, 0]])})
    )
    limits = " ".join(words.verdict(thin).limits)
    assert "no test cell has the class: b." in limits
    assert "fewer than 50 test cells: a (21)." in limits


def test_cells_of_another_source_are_not_called_the_same_source() -> None:
    """An evaluation on other cells has its own limit, and does not call them a test split."""
    other = Evaluation.model_validate(
        evaluation(["a", "b"], splits={"evaluated": split("evaluated", ["a", "b"], [[90, 9], [0, 99]])}, mistakes_of="")
    )
    limits = " ".join(words.verdict(other).limits)
    assert "same source" not in limits
    assert "also trained on" in limits


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.9837, "98.4"),
        (1.0, "100.0"),
        (0.99964, "99.96"),
        (0.999999, ">\N{NO-BREAK SPACE}99.99"),
        (0.0, "0.0"),
        (0.0002, "0.02"),
        (0.000001, "<\N{NO-BREAK SPACE}0.01"),
        (float("nan"), None),
    ],
)
def test_shares_do_not_round_to_perfection(value: float, shown: str | None) -> None:
    """99.96 % is not shown as 100.0 %, and what is not a number is a dash."""
    assert words.percent(value) == ("–" if shown is None else f"{shown}\N{NO-BREAK SPACE}%")


def test_both_ends_of_an_interval_have_the_same_decimals() -> None:
    """An interval that reaches near 1 keeps its decimals on both sides."""
    assert words.interval(Estimate(value=0.999, low=0.99, high=0.9998, n=9), as_percent=False) == "0.9900–0.9998"
    assert words.interval(Estimate(value=0.98, low=0.97, high=0.99, n=9)) == "97.0–99.0\N{NO-BREAK SPACE}%"
    assert words.interval(Estimate(value=0.98, n=9)) == ""


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.123, "0.12 s"), (38.4, "38 s"), (725, "12 min 5 s"), (12000, "3 h 20 min"), (None, "not recorded")],
)
def test_durations_read_like_durations(seconds: float | None, shown: str) -> None:
    """Seconds are written in the unit a person would choose."""
    assert words.duration(seconds) == shown


def test_the_page_shows_what_the_records_hold(ordinary: str) -> None:
    """Data, what was left out, timing, provenance and how to reproduce are on the page."""
    page = Page(ordinary)
    sections = ["data", "training", "metrics", "confusion", "mistakes", "timing", "provenance", "reproduce"]
    assert [tag["id"] for tag in page.all("section") if "id" in tag] == sections
    text = " ".join(page.text.split())
    for part in (
        "The largest class, ig (800 cells), has 1.6 times as many cells as the smallest, neutrophil (500).",
        "1 image could not be used: the file is empty (1).",
        "greyscale made RGB (12)",
        "ig taken for neutrophil (10, 10.0\N{NO-BREAK SPACE}% of its cells)",
        "1 min 40 s in all.",
        "Price: 9.31 full epochs. That counts passes through the network, scaled by pixels: 1 is one forward and "
        "backward pass of every training image at the prepared size. Validation is counted in.",
        "after 1.33 epochs",
        "Everything else10 s",
        "hemascope train cells/pbc --config",
        "hemascope report",
        "seed = 7",
        "Git commit" + "not recorded",
    ):
        assert part.replace("\N{NO-BREAK SPACE}", " ") in text.replace("\N{NO-BREAK SPACE}", " "), part


def test_every_part_of_the_time_has_its_bar(quick_run: Path) -> None:
    """All parts are shown in the order of the work, parts of other versions behind them, then the rest."""
    path = quick_run / "manifest.json"
    manifest = json.loads(path.read_text())
    parts = "total evaluation validation optimizer backward forward augmenting reading features loading dreaming"
    manifest["timing"] = {name: 100.0 if name == "total" else 5.0 for name in parts.split()}
    path.write_text(json.dumps(manifest))
    html = render_report(quick_run).read_text()
    table = re.search(r'<table class="timing.*?</table>', html, re.DOTALL)
    assert table is not None
    assert re.findall(r'scope="row">([^<]*)<', table[0]) == [
        "Opening the cells",
        "Features of the frozen backbone",
        "Reading images",
        "Augmenting",
        "Forward passes",
        "Backward passes",
        "Steps of the optimiser",
        "Validation",
        "Evaluation",
        "Dreaming",
        "Everything else",
    ]
    assert re.findall(r"width: ([\d.]+)%", table[0]) == ["5.00"] * 10 + ["50.00"]


@pytest.mark.parametrize(("grouped", "said"), [(False, True), (True, False), (None, False)])
def test_unknown_patients_are_said_only_where_that_is_recorded(grouped: bool | None, said: bool) -> None:
    """Runs of older versions do not say whether patients were known, so nothing is claimed about them."""
    saved = Evaluation.model_validate(evaluation(["a", "b"]))
    assert ("Patients and slides were not known" in " ".join(words.verdict(saved, (), grouped).limits)) == said


def test_every_mistake_has_its_own_picture_on_the_page(quick_run: Path) -> None:
    """The pictures of the gallery are embedded beside the mistakes they belong to, ids with quotes escaped."""
    saved = json.loads((quick_run / "evaluation.json").read_text())
    saved["certain_mistakes"] = [{**saved["worst_mistakes"][0], "id": "a\"b'c<i>.jpg", "picture": "certain-001.png"}]
    (quick_run / "evaluation.json").write_text(json.dumps(saved))
    picture(quick_run / "predictions" / "gallery" / "certain-001.png", (20, 20, 250))
    page = Page(render_report(quick_run).read_text())
    shown = [image["src"] for image in page.all("img") if (image["alt"] or "").startswith("Cell labelled")]
    pictures = load_records(quick_run).pictures
    assert shown == [pictures["worst-001.png"], pictures["certain-001.png"]]
    assert len(set(shown)) == 2
    assert "a\"b'c<i>.jpg" in page.text
    assert not page.all("i") or all(tag.get("aria-hidden") for tag in page.all("i"))


def test_the_curves_have_plain_labels(ordinary: str) -> None:
    """The learning rate's axis reads 1e-3, not matplotlib's mathematical markup."""
    assert "1e-3" in ordinary
    assert "mathdefault" not in ordinary


def test_classes_of_one_size_are_not_called_uneven(quick_run: Path) -> None:
    """A balanced set gets no sentence about 1.0 times as many cells."""
    (quick_run / "manifest.json").unlink()
    names = ["a", "b"]
    even = evaluation(names, splits={"evaluated": split("evaluated", names, [[62, 0], [1, 62]])}, mistakes_of="")
    even["worst_mistakes"] = even["certain_mistakes"] = []
    (quick_run / "evaluation.json").write_text(json.dumps(even))
    text = Page(render_report(quick_run).read_text()).text
    assert "The classes are about equally large: 62 to 63 cells each." in text
    assert text.count("None: there were no mistakes, or none were saved.") == 2


def test_only_evaluation_is_needed(run: Path) -> None:
    """Everything else may be missing: the page says so and is still made."""
    for name in ("manifest.json", "config.toml", "history.jsonl"):
        (run / name).unlink()
    for picture_file in [*run.glob("samples/*"), *run.glob("predictions/gallery/*")]:
        picture_file.unlink()
    text = Page(render_report(run).read_text()).text
    for sentence in (
        "this run has no history.jsonl",
        "has no manifest.json",
        "has no config.toml",
        "saved no sample cells",
        "picture not saved",
        "times of this run are not recorded",
    ):
        assert sentence in text


def test_samples_are_named_by_the_number_of_their_class(run: Path) -> None:
    """samples/1_0.png belongs to the second class, its augmented view beside it."""
    (row,) = load_records(run).samples
    assert row.name == "neutrophil"
    assert len(row.originals) == len(row.augmented) == 1


def test_pictures_are_encoded_anew(run: Path) -> None:
    """What is embedded is the picture alone, without the file's metadata."""
    address = load_records(run).pictures["worst-001.png"]
    data = base64.b64decode(address.removeprefix("data:image/webp;base64,"))
    assert b"secret" not in data
    with Image.open(io.BytesIO(data)) as embedded:
        red, _, _ = embedded.convert("RGB").getpixel((16, 16))  # type: ignore[misc]
        assert embedded.size == (32, 32)
        assert abs(red - 200) < 6


@pytest.mark.parametrize(
    "name",
    [
        "../../../secret.png",
        "/etc/passwd",
        "..",
        "",
        "a\\b.png",
        "C:x.png",
        "x\x00.png",
        "link.png",
        "text.png",
        "a" * 999,
    ],
)
def test_pictures_from_elsewhere_are_not_shown(tmp_path: Path, name: str) -> None:
    """Neither a path, nor a link out of the folder, nor a file that is no picture gets onto the page."""
    run = make_run(tmp_path / "run")
    picture(tmp_path / "secret.png")
    gallery = run / "predictions" / "gallery"
    (gallery / "link.png").symlink_to(tmp_path / "secret.png")
    (gallery / "text.png").write_text("not a picture")
    saved = json.loads((run / "evaluation.json").read_text())
    saved["worst_mistakes"][0]["picture"] = saved["certain_mistakes"][0]["picture"] = name
    (run / "evaluation.json").write_text(json.dumps(saved))
    assert load_records(run).pictures == {}


def test_a_gallery_that_is_a_link_out_of_the_run_is_not_followed(run: Path, tmp_path: Path) -> None:
    """The whole folder of pictures may not lead out of the run either."""
    outside = tmp_path / "outside"
    (run / "predictions" / "gallery").rename(outside)
    (run / "predictions" / "gallery").symlink_to(outside)
    assert load_records(run).pictures == {}


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("evaluation.json", "{", "evaluation.json is damaged or of another version"),
        ("evaluation.json", "[]", "evaluation.json is damaged or of another version"),
        ("evaluation.json", b"\xff\xfe", "is not UTF-8 text"),
        ("evaluation.json", '{"class_names": [], "splits": {}, "bootstrap_resamples": 1, "seed": 0}', "no classes"),
        ("manifest.json", '{"seed": "seven"}', r"manifest.json is damaged.*seed"),
        ("manifest.json", '{"data": {"class_names": ["a"], "class_counts": [1, 2]}}', "2 counts where 1 classes"),
        ("manifest.json", '{"data": {"split_counts": {"train": [1]}}}', "contradicts itself"),
        ("manifest.json", '{"data": {"n": -1}}', r"data\.n"),
        ("config.toml", "seed = = 1", "config.toml is damaged"),
        ("history.jsonl", 'nonsense\n{"kind": "note"}\n', "history.jsonl is damaged in line 1"),
        ("history.jsonl", '{"kind": "step", "epoch": "x"}\n', "a step with a field that does not fit"),
        ("history.jsonl", '{"kind": "step", "epoch": 1e300}\n', "is no epoch"),
    ],
)
def test_damaged_records_are_one_sentence(run: Path, name: str, content: str | bytes, sentence: str) -> None:
    """A damaged record is refused by name, and an older report stays as it was."""
    (run / "report.html").write_text("older")
    (run / name).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(RunError, match=sentence) as caught:
        render_report(run)
    assert "\n" not in str(caught.value)
    assert (run / "report.html").read_text() == "older"


def test_a_confusion_matrix_of_another_size_is_refused(run: Path) -> None:
    """Numbers that contradict each other are not drawn."""
    saved = json.loads((run / "evaluation.json").read_text())
    saved["splits"]["test"]["confusion"] = [[1]]
    (run / "evaluation.json").write_text(json.dumps(saved))
    with pytest.raises(RunError, match="confusion matrix of test is not 2 × 2"):
        load_records(run)


def test_what_is_no_run_folder_is_said(tmp_path: Path, run: Path) -> None:
    """A missing folder, a file, a folder of something else and an unfinished run each get their sentence."""
    with pytest.raises(RunError, match="found nothing there"):
        load_records(tmp_path / "absent")
    with pytest.raises(RunError, match="found a file there"):
        load_records(run / "config.toml")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match=r"neither manifest.json nor evaluation.json"):
        load_records(tmp_path / "empty")
    (run / "evaluation.json").unlink()
    with pytest.raises(RunError, match=r"is incomplete: it has no evaluation.json"):
        load_records(run)


def test_a_history_cut_off_by_a_kill_is_read_up_to_there(run: Path) -> None:
    """The last line may be unfinished, unknown kinds are passed over, and of a repeated step the later one counts."""
    with (run / "history.jsonl").open("a") as file:
        file.write('{"kind": "weather", "sky": "blue"}\n{"kind": "note", "message": "stopped early"}\n')
        file.write('{"kind": "step", "stage": "finetune", "epoch": 0.25, "loss": 42.0}\n{"kind": "st')
    records = load_records(run)
    assert records.cut_short
    assert records.notes == ("stopped early",)
    assert [stage.name for stage in records.stages] == ["frozen", "finetune"]
    assert [stage.steps[0].loss for stage in records.stages] == [1.0, 42.0]
    assert "unfinished" in render_report(run).read_text()


def test_losses_that_are_no_numbers_leave_gaps(run: Path) -> None:
    """A history of a run that went astray is still drawn."""
    (run / "history.jsonl").write_text(
        '{"kind": "step", "stage": "a", "epoch": 0.5, "loss": NaN, "lr": 0}\n'
        '{"kind": "step", "stage": "a", "epoch": 1.0, "loss": Infinity, "lr": -1}\n'
        '{"kind": "epoch", "stage": "a", "epoch": 1.0, "validation_loss": null}\n'
    )
    assert "curves-title" in render_report(run).read_text()


def test_many_classes_with_strange_names_are_drawn_or_left_out(tmp_path: Path) -> None:
    """Seventy classes, with names no SVG could hold, give a page with a sentence instead of an unreadable matrix."""
    names = [f"_class {i}\x1b中文 &amp; \"'" for i in range(70)]
    confusion = [[0] * 70 for _ in names]
    for i in range(70):
        confusion[i][i] = 3
        confusion[i][(i + 1) % 70] = 1
    run = make_run(tmp_path / "run")
    (run / "history.jsonl").unlink()
    wide = evaluation(names, splits={"test": split("test", names, confusion)})
    (run / "evaluation.json").write_text(json.dumps(wide))
    assert "70 classes are too many for a matrix" in render_report(run).read_text()
    few = names[:10]
    small = evaluation(few, splits={"test": split("test", few, [row[:10] for row in confusion[:10]])})
    (run / "evaluation.json").write_text(json.dumps(small))
    assert "中文 &amp;amp;" in render_report(run).read_text()


def test_an_unwritable_place_is_an_output_error(quick_run: Path) -> None:
    """A path below a file cannot be written, and is said as such."""
    with pytest.raises(OutputError, match="cannot write"):
        render_report(quick_run, quick_run / "config.toml" / "report.html")


def test_two_runs_compared_on_one_page(tmp_path: Path) -> None:
    """The better run is named when the interval leaves zero out, and none when it does not."""

    def compared(low: float, high: float) -> Comparison:
        return Comparison(
            first=HOSTILE,
            second="runs/b",
            n=300,
            first_metrics={"balanced_accuracy": Estimate(value=0.9, n=300)},
            second_metrics={"balanced_accuracy": Estimate(value=0.92, n=300)},
            difference={"balanced_accuracy": Estimate(value=0.02, low=low, high=high, n=300)},
            only_first_correct=3,
            only_second_correct=9,
            both_correct=270,
            neither_correct=18,
            p_value=0.1459961,
        )

    target = tmp_path / "compare.html"
    render_comparison(compared(0.005, 0.035), target)
    html = target.read_text()
    page = Page(html)
    assert "the second run is better (+2.00 points of balanced accuracy" in page.text
    assert "p = 0.146" in page.text
    assert HOSTILE in page.text and "<script" not in html
    render_comparison(compared(-0.005, 0.045), target)
    assert "no difference can be told from chance" in target.read_text()


def test_rendering_imports_no_torch_and_leaves_matplotlib_as_it_was(run: Path) -> None:
    """A report can be made where torch is not installed, and without touching pyplot or a user's settings."""
    code = (
        "import sys; from pathlib import Path\n"
        "from hemascope.report import render_report\n"
        "assert 'matplotlib' not in sys.modules and 'jinja2' not in sys.modules\n"
        "import matplotlib; before = matplotlib.rcParams.copy()\n"
        f"render_report(Path({str(run)!r}))\n"
        "assert matplotlib.rcParams.copy() == before\n"
        "assert not {'torch', 'matplotlib.pyplot'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=120)
