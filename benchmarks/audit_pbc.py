"""What the audit says of a real set of cells: a table of the checks, and contact sheets of what it found.

    python benchmarks/audit_pbc.py PATH_TO_CELLS -o audits/pbc [--pictures docs/images]

Nothing is planted. Pictures: the copies it must find, the most suspicious labels, the least typical images.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np
from figures import add_json_option, publish

from hemascope.cells import CellDataset
from hemascope.config import PREPARATIONS, RunConfig
from hemascope.console import make_progress
from hemascope.data.load import load
from hemascope.findings import CHECKS, AuditReport, Finding
from hemascope.workflow import audit

matplotlib.use("agg")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with one folder of images a class")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the audit")
    parser.add_argument("--preparation", default="contest", choices=sorted(PREPARATIONS))
    parser.add_argument("--pictures", type=Path, help="folder for the contact sheets")
    parser.add_argument("--credit", default="", help="whose images they are, written under each sheet")
    add_json_option(parser, "audit_pbc")
    options = parser.parse_args()
    config = RunConfig.model_validate({"data": {"preparation": PREPARATIONS[options.preparation].model_dump()}})
    audited = audit(options.data, config, output=options.output, progress=make_progress(quiet=False))
    report = audited.report
    rows = []
    for result in report.results:
        found = result.not_applicable and f"not applicable: {result.not_applicable}"
        cut = "" if result.cut is None else f"{result.cut:.4f}"
        rows.append([result.check, found or f"{len(result.findings)} findings", cut, f"{result.seconds:.1f} s"])
    figures = {
        "images": len(report),
        "checks": {
            result.check: {
                "findings": len(result.findings),
                "not_applicable": result.not_applicable,
                "cut": result.cut,
                "seconds": round(result.seconds, 2),
                "worst": [finding.id for finding in result.findings[:20]],
            }
            for result in report.results
        },
    }
    publish(options.json, figures, ["check", "found", "cut", "time"], rows)
    if options.pictures is not None:
        cells = load(options.data, preparation=PREPARATIONS[options.preparation])
        draw_sheets(options.pictures, cells, report, options.credit)


def draw_sheets(folder: Path, cells: CellDataset, report: AuditReport, credit: str) -> None:
    """The contact sheets the documentation shows."""
    folder.mkdir(parents=True, exist_ok=True)
    for check, pairs, count in (
        ("exact_duplicate", True, 14),
        ("near_duplicate", True, 14),
        ("label_error", False, 24),
        ("off_topic", False, 24),
        ("outlier", False, 24),
    ):
        findings = report.result(check).findings[:count]
        if findings:
            path = folder / f"pbc_{check}.png"
            draw_sheet(path, cells, findings, CHECKS[check].title, credit, pairs=pairs)
            print(f"Pictures: {path}")


def draw_sheet(
    path: Path, cells: CellDataset, findings: list[Finding], title: str, credit: str, *, pairs: bool
) -> None:
    """One finding a tile; with ``pairs`` the image it was compared with beside it."""
    from matplotlib import pyplot

    row = {name: index for index, name in enumerate(cells.ids)}
    columns = 7 if pairs else 8
    lines = -(-len(findings) // columns)
    figure, axes = pyplot.subplots(lines, columns, figsize=(10, 1.62 * lines + 0.5), squeeze=False, dpi=90)
    for axis in axes.flat:
        axis.axis("off")
    for axis, finding in zip(axes.flat, findings, strict=False):
        shown = cells.images[row[finding.id]]
        if pairs and finding.related in row:
            gap = np.full((shown.shape[0], 4, 3), 255, np.uint8)
            shown = np.concatenate([shown, gap, cells.images[row[finding.related]]], axis=1)
        axis.imshow(shown)
        change = f"{finding.label} → {finding.new_label}" if finding.new_label else finding.label
        axis.set_title(f"{Path(finding.id).stem}\n{change}\n{finding.score:.3f}", fontsize=6)
    figure.suptitle(title, fontsize=10)
    if credit:
        figure.text(0.01, 0.005, credit, fontsize=6)
    figure.tight_layout(rect=(0, 0.02, 1, 0.99))
    figure.savefig(path)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
