"""What the command line answers to bad input: every kind is tried, and docs/bad_input.md is the table of answers.

Each case makes its own bad input, in a folder of its own, from seeded synthetic cells, and runs one command there.
An answer is wrong, and this script ends with status 1, where there is a traceback, another exit status than the case
asks for, no sentence, one longer than 400 characters or 3 lines, one that does not say what was found and what to do,
or where something is left behind.

    python benchmarks/bad_input.py                     # all of it, a few minutes; writes docs/bad_input.md
    python benchmarks/bad_input.py --only manifest     # those whose kind or section holds the word; writes nothing
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from bad_cases import CASES
from bad_cases.case import Case, Ground, train_quietly

TABLE = Path(__file__).resolve().parent.parent / "docs/bad_input.md"
LONGEST_MESSAGE = 400
MOST_LINES = 3
PATIENCE = 900
"""Seconds for a process of its own: importing torch alone takes minutes where others have the cores."""

UNFORESEEN = "something unforeseen went wrong"


@dataclass(frozen=True)
class Answer:
    """What came of a command: exit status, both streams, what is new in the folder, the column error of out.csv."""

    status: int
    stdout: str
    stderr: str
    new: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()

    def message(self, case: Case) -> str:
        """What the user reads about the bad input."""
        if case.where == "stdout":
            return "\n".join(line.strip() for line in self.stdout.splitlines() if case.says[0] in line)
        said = self.stderr.strip()
        return "\n".join([said, *(f"Column error: {error}" for error in self.errors[:1])]) if self.errors else said


def faults(case: Case, answer: Answer) -> list[str]:
    """What is wrong with an answer; nothing where it is as it should be."""
    found = []
    message = answer.message(case)
    if "Traceback (most recent call last)" in answer.stderr + answer.stdout:
        found.append("a traceback")
    if UNFORESEEN in answer.stderr:
        found.append("an error nobody foresaw")
    if answer.status != case.status:
        found.append(f"exit status {answer.status} instead of {case.status}")
    if not message:
        found.append("no sentence")
    if len(message) > LONGEST_MESSAGE:
        found.append(f"{len(message)} characters")
    if message.count("\n") >= MOST_LINES:
        found.append(f"{message.count(chr(10)) + 1} lines")
    found += [f"does not say {words!r}" for words in case.says if words not in message]
    if left := [name for name in answer.new if name.split("/")[0] not in case.leaves]:
        found.append(f"left behind: {', '.join(left[:5])}")
    if unfinished := [name for name in answer.new if name.endswith((".part", ".old"))]:
        found.append(f"half-written: {', '.join(unfinished[:5])}")
    return found


def try_case(case: Case, folder: Path, ground: Ground) -> Answer:
    """Lay out the case in ``folder``, which is emptied first, run its command there, and say what came of it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    case.prepare(folder, ground)
    folder.chmod(0o777)  # cases that work as another user must be able to write here
    before = _contents(folder)
    words = ["--quiet", *shlex.split(case.words)]
    with _inside(folder, case.environment), case.around():
        status, stdout, stderr = (_in_process_of_its_own if case.process else _in_this_process)(words, case)
    new = sorted(name for name, size in _contents(folder).items() if before.get(name) != size)
    errors = _column_error(folder / "out.csv") if case.where == "table" else ()
    return Answer(status, _stable(stdout, folder), _stable(stderr, folder), tuple(new), errors)


def page(answers: Mapping[str, Sequence[tuple[Case, Answer]]]) -> str:
    """The table of all answers as a Markdown page."""
    count = sum(len(rows) for rows in answers.values())
    lines = [
        "# Bad input",
        "",
        "<!-- Made by benchmarks/bad_input.py: change the cases there. -->",
        "",
        f"{count} kinds of bad input, each tried through the command line (with `--quiet`, which leaves results and",
        "warnings), and what the user reads. No answer is a traceback, and nothing half-written is left behind. Exit",
        "status: 0 done, 1 the work failed, 2 the call was wrong. An image that cannot be read is a row of the table",
        "of predictions with its reason in the column `error`; the others are still named.",
        "",
        "    python benchmarks/bad_input.py",
    ]
    for section, rows in answers.items():
        lines += ["", f"## {section}", "", "| tried | command | exit | answer |", "|---|---|---:|---|"]
        for case, answer in rows:
            message = "<br>".join(map(_cell, answer.message(case).splitlines()))
            lines.append(f"| {_cell(case.kind)} | `{_cell(_command(case), code=True)}` | {answer.status} | {message} |")
    return "\n".join(lines) + "\n"


def _command(case: Case) -> str:
    settings = "".join(f"{name}={value} " for name, value in case.environment.items())
    return f"{settings}hemascope {case.words}{f' > {case.stdout}' if case.stdout else ''}"


def _cell(text: str, *, code: bool = False) -> str:
    escaped = text.replace("|", "\\|")
    return escaped if code else escaped.replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")


def _contents(folder: Path) -> dict[str, int]:
    """Every path below ``folder`` to the size of its content, links not followed."""
    found = {}
    for path in folder.rglob("*"):
        status = path.lstat()
        found[path.relative_to(folder).as_posix()] = -1 if path.is_dir() else status.st_size
    return found


@contextmanager
def _inside(folder: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """Work in ``folder``, with a cache that cases share unless they say otherwise."""
    place, before = Path.cwd(), dict(os.environ)
    cache = folder.parent / "cache"
    cache.mkdir(exist_ok=True)
    cache.chmod(0o777)
    os.environ.update({"HEMASCOPE_CACHE": str(cache), **environment})
    os.environ.pop("HEMASCOPE_DEBUG", None)
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(place)
        os.environ.clear()
        os.environ.update(before)


def _in_this_process(words: list[str], case: Case) -> tuple[int, str, str]:
    from hemascope.cli import main

    with (
        _streams() as (stdout, stderr),
        redirect_stdout(stdout),
        redirect_stderr(stderr),
        warnings.catch_warnings(),
    ):
        try:
            main(words)
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        stdout.flush()
        stderr.flush()
        texts = []
        for stream in (stdout, stderr):
            stream.seek(0)
            texts.append(stream.read())
    return status, texts[0], texts[1]


@contextmanager
def _streams() -> Iterator[tuple[io.TextIOWrapper, io.TextIOWrapper]]:
    """Files in place of both streams, also below Python, so that what a C library complains about is seen."""
    with tempfile.TemporaryFile("w+b") as first, tempfile.TemporaryFile("w+b") as second:
        kept = [os.dup(1), os.dup(2)]
        os.dup2(first.fileno(), 1)
        os.dup2(second.fileno(), 2)
        try:
            yield io.TextIOWrapper(first, encoding="utf-8"), io.TextIOWrapper(second, encoding="utf-8")
        finally:
            for number, descriptor in enumerate(kept, start=1):
                os.dup2(descriptor, number)
                os.close(descriptor)


def _in_process_of_its_own(words: list[str], case: Case) -> tuple[int, str, str]:
    program = [sys.executable, "-m", "hemascope", *words]
    if case.stdout is None:
        done = subprocess.run(program, capture_output=True, text=True, timeout=PATIENCE, check=False)
        return done.returncode, done.stdout, done.stderr
    with Path(case.stdout).open("w", encoding="utf-8") as sink:
        done = subprocess.run(program, stdout=sink, stderr=subprocess.PIPE, text=True, timeout=PATIENCE, check=False)
    return done.returncode, "", done.stderr


def _column_error(table: Path) -> tuple[str, ...]:
    if not table.is_file():
        return ()
    with table.open(encoding="utf-8", newline="") as file:
        return tuple(row["error"] for row in csv.DictReader(file) if row["error"])


def _stable(text: str, folder: Path) -> str:
    """``text`` without what differs from run to run: the folder for temporary files, a store's key in the cache."""
    text = text.replace(f"{folder}{os.sep}", "").replace(str(folder.parent), "TMP")
    text = re.sub(r"\bstores/[0-9a-f]{32}", "stores/KEY", text)
    return re.sub(r"\b[0-9a-f]{12}…", "DIGEST…", text)


def main() -> int:
    parser = argparse.ArgumentParser(description="What the command line answers to bad input.")
    parser.add_argument("--only", metavar="WORD", help="try those whose section or kind holds the word; write nothing")
    parser.add_argument("--table", type=Path, default=TABLE, help="where to write the table")
    arguments = parser.parse_args()
    answers: dict[str, list[tuple[Case, Answer]]] = {}
    wrong = tried = 0
    with tempfile.TemporaryDirectory(prefix="hemascope-bad-input-") as temporary:
        home = Path(temporary)
        home.chmod(0o755)
        ground = Ground(home, train_quietly)
        for section, cases in CASES.items():
            for case in cases:
                if arguments.only and arguments.only.lower() not in f"{section} {case.kind}".lower():
                    continue
                answer = try_case(case, home / "here", ground)
                answers.setdefault(section, []).append((case, answer))
                tried += 1
                if found := faults(case, answer):
                    wrong += 1
                    print(
                        f"WRONG  {case.kind}: {'; '.join(found)}\n       {_command(case)}\n       {answer}", flush=True
                    )
                elif arguments.only:
                    print(f"right  {case.kind}\n       {_command(case)}\n       {answer.message(case)}", flush=True)
    print(f"{tried} kinds of bad input tried, {wrong} answers wrong")
    if not arguments.only:
        arguments.table.write_text(page(answers), encoding="utf-8")
        print(f"Table: {arguments.table}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
