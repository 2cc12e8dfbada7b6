"""A search's trials as text: Markdown for a document, CSV for a spreadsheet."""

from __future__ import annotations

import csv
import io
import json

from hemascope.search_results import SearchResult, Tried


def search_csv(result: SearchResult) -> str:
    """One line a run, in the order they were made: number, rung, budget, validation, run, then a column a key."""
    keys = list(result.trials[0].settings) if result.trials else []
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["number", "rung", "budget", "validation", "run", *keys])
    for one in result.trials:
        score = "" if one.validation is None else f"{one.validation:.6g}"
        values = [json.dumps(one.settings[key]) for key in keys]
        writer.writerow([one.number, one.rung, f"{one.budget:.6g}", score, one.run, *values])
    return stream.getvalue()


def search_markdown(result: SearchResult) -> str:
    """A section: question, the best settings as words for ``--set``, every trial, best first within a rung."""
    lines = [f"## {result.title}", "", result.question, ""]
    if result.best is not None:
        words = " ".join(f"--set {word}" for word in result.words())
        lines += [f"Best: `{words}`, validation balanced accuracy {result.best.validation:.3f}.", ""]
    keys = list(result.trials[0].settings) if result.trials else []
    short = [key.rsplit(".", 1)[-1] if [k.rsplit(".", 1)[-1] for k in keys].count(key.rsplit(".", 1)[-1]) == 1 else key
             for key in keys]  # fmt: skip
    lines += [f"| point | epochs | {' | '.join(short)} | validation |", "|---:|---:|" + "---:|" * (len(keys) + 1)]
    for one in sorted(result.trials, key=_order):
        values = " | ".join(f"{one.settings[key]}" for key in keys)
        score = "failed" if one.validation is None else f"{one.validation:.3f}"
        lines.append(f"| {one.number} | {one.budget:.0%} | {values} | {score} |")
    count, runs = len({one.number for one in result.trials}), len(result.trials)
    how = "successive halving" if result.engine == "halving" else "Optuna"
    lines += ["", f"{how}: {count} points, {runs} runs. Chosen by validation cells; the test part was not read.", ""]
    return "\n".join(lines)


def _order(one: Tried) -> tuple[int, float, int]:
    return -one.rung, -(-1.0 if one.validation is None else one.validation), one.number
