"""What a search tried and found: frozen, torch-free, and as JSON on disk. Every trial is kept."""

from __future__ import annotations

import json
from typing import Literal

import tomli_w

from hemascope.results import SavedRecord

Engine = Literal["halving", "optuna"]
Status = Literal["finished", "failed", "running"]
Value = str | int | float | bool


class Tried(SavedRecord):
    """One run of a search.

    number      of the point, 0 for the first drawn
    rung        0 for the smallest budget
    budget      share of the full epochs of the image stages
    settings    dotted keys with their values
    status      running: begun and not heard of since, as after a kill
    validation  balanced accuracy of the validation cells, None where it is not finished
    seconds     of training, as the run itself says; None where it does not
    run         name of the run folder, "" where the settings together are no configuration
    problem     why those are none, or why a finished run has no score; a run that failed is told by its own message
    """

    number: int
    rung: int
    budget: float
    settings: dict[str, Value | list[Value]]
    status: Status
    validation: float | None = None
    seconds: float | None = None
    run: str = ""
    problem: str = ""


class SearchResult(SavedRecord):
    """What ``search.json`` holds. ``best`` is the point with the best validation at the full budget, None so far."""

    version: int = 1
    name: str
    title: str
    question: str
    engine: Engine
    command: str
    cells: dict[str, int]
    trials: tuple[Tried, ...]
    best: Tried | None
    created: str

    def words(self) -> list[str]:
        """The best settings as words for ``--set``, one a setting; a shell may need them quoted."""
        best = {} if self.best is None else self.best.settings
        return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in best.items()]

    def toml(self) -> str:
        """The best settings as the ``[set]`` of a study's file, "" where there are none."""
        return "" if self.best is None else tomli_w.dumps({"set": self.best.settings})
