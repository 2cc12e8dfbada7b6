"""A search's trials as text: Markdown for a document, CSV for a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
import shlex

from hemascope.search_results import SearchResult, Tried


def search_csv(result: SearchResult) -> str:
    """One line a run, in the order they were made: what was tried, how it ended, then a column a key.

    Columns: number, rung, budget (share of the epochs), status, validation (balanced accuracy), seconds, run, problem.
    """
    keys = list(result.trials[0].settings) if result.trials else []
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["number", "rung", "budget", "status", "validation", "seconds", "run", "problem", *keys])
    for one in result.trials:
        score = "" if one.validation is None else f"{one.validation:.6g}"
        values = [json.dumps(one.settings[key]) for key in keys]
        seconds = "" if one.seconds is None else f"{one.seconds:.1f}"
        said = [one.status, score, seconds, one.run, one.problem]
        writer.writerow([one.number, one.rung, f"{one.budget:.6g}", *said, *values])
    return stream.getvalue()


def search_markdown(result: SearchResult) -> str:
    """A section: question, the best settings for ``--set`` and as TOML, every trial, best first within a rung."""
    lines = [f"## {result.title}", "", result.question, ""]
    if result.best is not None:
        words = " ".join(f"--set {shlex.quote(word)}" for word in result.words())
        lines += [f"Best: `{words}`, validation balanced accuracy {result.best.validation:.3f}.", ""]
        lines += ["```toml", result.toml().strip(), "```", ""]
    keys = list(result.trials[0].settings) if result.trials else []
    short = [key.rsplit(".", 1)[-1] if [k.rsplit(".", 1)[-1] for k in keys].count(key.rsplit(".", 1)[-1]) == 1 else key
             for key in keys]  # fmt: skip
    lines += [f"| point | epochs | {' | '.join(short)} | validation | seconds |", "|" + "---:|" * (len(keys) + 4)]
    for one in sorted(result.trials, key=_order):
        # A bar would end the cell: a name of the user's own may hold one.
        values = " | ".join(str(one.settings[key]).replace("|", "\\|") for key in keys)
        score = one.status if one.validation is None else f"{one.validation:.3f}"
        seconds = "" if one.seconds is None else f"{one.seconds:.0f}"
        lines.append(f"| {one.number} | {one.budget:.0%} | {values} | {score} | {seconds} |")
    count, runs = len({one.number for one in result.trials}), len(result.trials)
    how = "successive halving" if result.engine == "halving" else "Optuna"
    lines += ["", f"{how}: {count} points, {runs} runs. Chosen by validation cells; the test part had no say.", ""]
    problems = [one for one in result.trials if one.problem]
    lines += [f"- Point {one.number}: {one.problem}" for one in problems] + ([""] if problems else [])
    return "\n".join(lines)


def _order(one: Tried) -> tuple[int, float, int]:
    return -one.rung, -(-1.0 if one.validation is None else one.validation), one.number
