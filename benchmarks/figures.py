"""How every benchmark ends: a Markdown table on stdout and its figures as JSON, with what they were measured on."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path("benchmarks/results")


def add_json_option(parser: argparse.ArgumentParser, name: str) -> None:
    """``--json PATH``, by default ``benchmarks/results/<name>.json`` below the working directory."""
    parser.add_argument("--json", type=Path, default=RESULTS / f"{name}.json", help="where to write the figures")


def publish(path: Path, figures: dict[str, Any], header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print the table and write ``figures`` (plus date and machine) to ``path``."""
    print("\n" + markdown_table(header, rows), flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"measured": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "machine": describe_machine(), **figures}
    path.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    print(f"\nFigures: {path}", flush=True)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table; numbers are aligned to the right."""
    kinds = ["---:" if isinstance(value, int | float) else "---" for value in (rows[0] if rows else header)]
    lines = [header, kinds, *([_shown(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def describe_machine() -> dict[str, Any]:
    """What the figures depend on: processors, their load now, and versions. No names, no paths."""
    versions = {}
    for package in ("torch", "torchvision", "timm", "numpy", "pillow"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_average": [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "hemascope_commit": _commit(),
        **versions,
    }


def _shown(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4f}" if abs(value) < 2 else f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _commit() -> str | None:
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "../src"], check=False).returncode
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit}+changes" if changed else commit
