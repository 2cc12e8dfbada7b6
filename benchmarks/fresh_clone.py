"""What a newcomer waits for: ``make install``, ``make demo`` and ``make test`` on a fresh clone, timed apart.

The repository this file stands in is cloned into a temporary folder, as it is committed, with an empty hemascope
cache. pip's own cache of downloads is left in place unless ``--no-pip-cache`` is given, so the time of installing
depends on the network and on what was downloaded before; that is why it is stated apart.

    python benchmarks/fresh_clone.py
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from figures import add_json_option, publish

TARGETS = ("install", "demo", "test")
CLOSING = re.compile(r"\b\d+ (passed|failed|error|errors|skipped)\b.*")


def closing_line(output: str) -> str:
    """pytest's last line of counts, without its frame; "" where there is none."""
    for line in reversed(output.splitlines()):
        found = CLOSING.search(re.sub(r"\x1b\[[0-9;]*m", "", line))
        if found:
            return found[0].rstrip("= ")
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(description="Times make install, make demo and make test on a fresh clone.")
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), help="of make, in this order")
    parser.add_argument("--no-pip-cache", action="store_true", help="download everything anew")
    add_json_option(parser, "fresh_clone")
    arguments = parser.parse_args()

    repository = Path(__file__).resolve().parents[1]
    steps = []
    with tempfile.TemporaryDirectory(prefix="hemascope-benchmark-") as name:
        clone = Path(name) / "hemascope"
        subprocess.run(["git", "clone", "-q", str(repository), str(clone)], check=True)
        commit = subprocess.run(
            ["git", "-C", str(clone), "rev-parse", "HEAD"], stdout=subprocess.PIPE, text=True, check=True
        ).stdout.strip()
        environment = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "PYTHONPATH")}
        environment["HEMASCOPE_CACHE"] = str(Path(name) / "cache")
        if arguments.no_pip_cache:
            environment["PIP_NO_CACHE_DIR"] = "1"
        for target in arguments.targets:
            started = time.perf_counter()
            done = subprocess.run(
                ["make", target],
                cwd=clone,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            seconds = time.perf_counter() - started
            closing = closing_line(done.stdout) if target == "test" else ""
            steps.append({"target": target, "seconds": seconds, "status": done.returncode, "closing_line": closing})
            print(f"make {target}: {seconds:.1f} s, status {done.returncode}", flush=True)
            if done.returncode:
                print("\n".join(done.stdout.splitlines()[-25:]), file=sys.stderr)
                break

    rows = [
        (
            f"make {step['target']}",
            f"{step['seconds']:.1f}",
            "ok" if step["status"] == 0 else f"status {step['status']}",
        )
        for step in steps
    ]
    publish(arguments.json, {"commit": commit, "steps": steps}, ("command", "seconds", "result"), rows)
    if closing := next((step["closing_line"] for step in steps if step["closing_line"]), ""):
        print(closing)
    sys.exit(1 if any(step["status"] for step in steps) else 0)


if __name__ == "__main__":
    main()
