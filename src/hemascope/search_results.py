"""What a search tried and found: frozen, torch-free, and as JSON on disk. Every trial is kept."""

from __future__ import annotations

from typing import Literal

from hemascope.results import SavedRecord

Engine = Literal["halving", "optuna"]


class Tried(SavedRecord):
    """One run of a search.

    number      of the point, 0 for the first drawn
    rung        0 for the smallest budget
    budget      share of the full epochs of the image stages
    settings    dotted keys with their values
    validation  balanced accuracy of the validation cells, None where the run failed
    run         name of the run folder, "" where it failed
    """

    number: int
    rung: int
    budget: float
    settings: dict[str, str | int | float | bool | list[str | int | float | bool]]
    validation: float | None
    run: str


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
        """The best settings as words for ``--set``."""
        import json

        return [] if self.best is None else [f"{key}={json.dumps(value)}" for key, value in self.best.settings.items()]
