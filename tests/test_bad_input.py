"""Bad input: the quick cases of benchmarks/bad_input.py get the right answer, and its checker notices wrong ones."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

from bad_cases import CASES  # noqa: E402
from bad_cases.case import Case, Ground  # noqa: E402
from bad_input import Answer, faults, page, try_case  # noqa: E402

QUICK = [case for cases in CASES.values() for case in cases if case.is_quick]
EVERY = [case for cases in CASES.values() for case in cases]


def no_training(cells: Path, output: Path, config: Path) -> None:
    raise AssertionError("a quick case asked for a trained run")


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # cases that work as another user must be able to pass
        yield Ground(Path(folder), no_training)


@pytest.mark.parametrize("case", QUICK, ids=lambda case: case.kind)
def test_bad_input_gets_its_sentence(case: Case, ground: Ground) -> None:
    """One sentence that says what was found and what to do, the right exit status, nothing left behind."""
    answer = try_case(case, ground.folder / "here", ground)
    assert faults(case, answer) == [], answer


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (Answer(1, "", "Traceback (most recent call last):\n  boom\nError: found it, do this."), "a traceback"),
        (Answer(1, "", "Error: something unforeseen went wrong: found it, do this."), "an error nobody foresaw"),
        (Answer(0, "", "Error: found it, do this."), "exit status 0 instead of 1"),
        (Answer(1, "", ""), "no sentence"),
        (Answer(1, "", f"Error: found it, do this.{'x' * 400}"), "425 characters"),
        (Answer(1, "", "Error: found it,\na\nb\ndo this."), "4 lines"),
        (Answer(1, "", "Error: found it."), "does not say 'do this'"),
        (Answer(1, "", "Error: found it, do this.", new=("new/.x.part",)), "left behind: new/.x.part"),
        (Answer(1, "", "Error: found it, do this.", new=("out/.x.part",)), "half-written: out/.x.part"),
    ],
)
def test_checker_notices(answer: Answer, fault: str) -> None:
    """Each kind of wrong answer is called wrong, so that a right one means something."""
    case = Case("kind", "inspect x", ("found it", "do this"), leaves=("out",))
    assert fault in faults(case, answer)
    assert not faults(case, replace(answer, status=1, stderr="Error: found it, do this.", new=("out",)))


def test_table_is_current() -> None:
    """docs/bad_input.md lists the kinds, commands and exit statuses that are tried, in order; at least 40."""
    blank = page({section: [(case, Answer(case.status, "", "")) for case in cases] for section, cases in CASES.items()})
    written = (ROOT / "docs/bad_input.md").read_text(encoding="utf-8")

    def tried(text: str) -> list[list[str]]:
        return [line.split(" | ")[:3] for line in text.splitlines()]

    assert tried(blank) == tried(written)
    assert len(EVERY) >= 40
    assert len({case.kind for case in EVERY}) == len(EVERY)
