"""The rows of the table, and what every part of the comparison is given."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from against_others.ours import Ours
from against_others.sets import Base
from against_others.theirs import Theirs

TOLERANCE = 5e-4
"""Measures that differ by less are called equal: half of the last digit shown."""


@dataclass(frozen=True)
class Setting:
    """A run of the comparison.

    work    folder for sets of images and answers
    base    the real cells
    seed    of whatever is planted
    """

    work: Path
    base: Base
    ours: Ours
    theirs: Theirs
    seed: int


@dataclass(frozen=True)
class Row:
    """One line: a task, a measure (higher is better), one tool against ours; seconds of wall clock.

    theirs         None where the tool cannot be run here: ``note`` says why
    their_seconds  with reading and, where they use our embeddings, embedding
    note           for people
    detail         further figures, plain JSON
    """

    task: str
    measure: str
    tool: str
    theirs: float | None
    ours: float
    their_seconds: float | None
    our_seconds: float
    note: str = ""
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def standing(self) -> str:
        """Whether ours is ahead in the measure; where both are equal, in time."""
        if self.theirs is None:
            return "–"
        if abs(self.ours - self.theirs) < TOLERANCE:
            faster = self.their_seconds is not None and self.our_seconds < self.their_seconds
            return "equal, faster" if faster else "equal, slower"
        return "ahead" if self.ours > self.theirs else "BEHIND"

    def record(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)
