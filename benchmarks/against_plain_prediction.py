"""Images a second from files to a CSV: ``hemascope predict`` against a plain timm and torch script.

Both run the network of RUN (the plain script loads the bundle's weights) over all images of FOLDER. Each round runs
three processes, one after the other, the order turned round in every second round:

- ``plain``: plain_prediction.py, timed as a whole on the parent's clock, so that importing torch counts; it also says
  itself how long it worked once everything was imported and its network was built;
- ``hemascope``: ``python -m hemascope predict RUN FOLDER -o out.csv``, timed as a whole by the same clock;
- ``hemascope, in process``: this file with ``--work``, which imports and builds first and then makes the very calls
  of the verb, timed inside: the other half of the rates without start.

A first round, which does not count, fills the system's file cache. Reported are medians over the rounds, and
the ratio of medians. The two tables are then compared: the share of images with the same label, and the largest
difference of a probability.

    python benchmarks/against_plain_prediction.py RUN FOLDER --rounds 5
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from figures import add_json_option, publish

HERE = Path(__file__).parent


def work(run: str, folder: str, output: str) -> None:
    """The verb's calls with import and building outside the clock: one line of JSON on stdout."""
    import hemascope.data.stream  # noqa: F401 - the first batch would import it
    from hemascope.evaluation.table import write_table
    from hemascope.predict import load_model

    predictor = load_model(run)

    started = time.perf_counter()
    rows = write_table(output, predictor.predict_batches([folder]))
    print(json.dumps({"images": rows, "work_seconds": time.perf_counter() - started}), flush=True)


def timed(command: list[str]) -> tuple[float, str]:
    """Seconds of a whole process, and its stdout."""
    started = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"failed with status {done.returncode}: {' '.join(command)}")
    return seconds, done.stdout


def read_table(path: Path) -> dict[str, dict[str, str]]:
    """Rows by the file they are about."""
    with path.open(encoding="utf-8", newline="") as file:
        return {str(Path(row["path"]).resolve()): row for row in csv.DictReader(file)}


def agreement(plain: Path, ours: Path) -> dict[str, Any]:
    """How far two tables say the same of the same images."""
    first, second = read_table(plain), read_table(ours)
    shared = [name for name in first if name in second and not second[name]["error"]]
    classes = [name for name in next(iter(first.values())) if name.startswith("p_")]
    same = sum(first[name]["label"] == second[name]["label"] for name in shared)
    largest = max(
        (abs(float(first[name][k]) - float(second[name][k])) for name in shared for k in classes), default=None
    )
    return {
        "images_plain": len(first),
        "images_hemascope": len(second),
        "images_compared": len(shared),
        "same_label": same,
        "largest_probability_difference": largest,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Image files to a CSV, hemascope and a plain script.")
    parser.add_argument("run", type=Path, help="a run's folder")
    parser.add_argument("folder", type=Path, help="images, in folders of any depth")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", metavar="CSV", help=argparse.SUPPRESS)
    add_json_option(parser, "against_plain_prediction")
    arguments = parser.parse_args()
    run, folder = str(arguments.run), str(arguments.folder)
    if arguments.work:
        work(run, folder, arguments.work)
        return
    bundle = arguments.run / "bundle" if (arguments.run / "bundle").is_dir() else arguments.run
    preparation = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))

    with tempfile.TemporaryDirectory(prefix="hemascope-benchmark-") as name:
        plain_csv, our_csv, work_csv = (Path(name) / f"{who}.csv" for who in ("plain", "hemascope", "work"))
        commands = {
            "plain": [sys.executable, str(HERE / "plain_prediction.py"), str(bundle), folder, str(plain_csv)],
            "hemascope": [sys.executable, "-m", "hemascope", "--quiet", "predict", run, folder, "-o", str(our_csv)],
            "in_process": [sys.executable, __file__, run, folder, "--work", str(work_csv)],
        }
        rounds: list[dict[str, float]] = []
        images = 0
        for number in range(arguments.rounds + 1):
            found: dict[str, float] = {}
            for who in list(commands) if number % 2 else list(commands)[::-1]:
                seconds, said = timed(commands[who])
                if who == "hemascope":
                    found["hemascope_whole"] = seconds
                    continue
                told = json.loads(said.strip().splitlines()[-1])
                images = told["images"]
                found["hemascope_work" if who == "in_process" else "plain_work"] = told["work_seconds"]
                if who == "plain":
                    found["plain_whole"] = seconds
            label = f"round {number}" if number else "not counted"
            print(f"{label}: " + ", ".join(f"{kind} {seconds:.1f} s" for kind, seconds in found.items()), flush=True)
            if number:
                rounds.append(found)
        agreed = agreement(plain_csv, our_csv)

    median = {kind: statistics.median(one[kind] for one in rounds) for kind in rounds[0]}
    rate = {kind: images / seconds for kind, seconds in median.items()}
    ratio = {kind: median[f"plain_{kind}"] / median[f"hemascope_{kind}"] for kind in ("whole", "work")}
    figures = {
        "images": images,
        "preparation": preparation["preparation"],
        "rounds": rounds,
        "median_seconds": median,
        "images_per_second": rate,
        "ratio": ratio,
        "agreement": agreed,
    }
    rows = [
        (title, f"{rate[f'plain_{kind}']:.0f}", f"{rate[f'hemascope_{kind}']:.0f}", f"{ratio[kind]:.2f}")
        for title, kind in (("whole process", "whole"), ("without start and import", "work"))
    ]
    header = (f"{images:,} images", "plain, images/s", "hemascope, images/s", "ratio")
    publish(arguments.json, figures, header, rows)
    print(
        f"Same label: {agreed['same_label']:,} of {agreed['images_compared']:,}; "
        f"largest difference of a probability: {agreed['largest_probability_difference']:.2g}"
    )


if __name__ == "__main__":
    main()
