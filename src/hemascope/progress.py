"""How long work tells that it is still going. Libraries report to a Progress; who draws it is the caller's choice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[[int], None]
"""Call with the number of items done since the last call."""


class Progress(Protocol):
    """A place to report to: a bar in a terminal, plain lines in a log, nothing in a library call."""

    def task(self, title: str, total: int, unit: str) -> AbstractContextManager[Advance]:
        """A stretch of work of ``total`` items. Use as ``with progress.task(...) as advance``."""
        ...

    def note(self, message: str) -> None:
        """One line a person should see now, such as the result of an epoch."""
        ...

    def warn(self, message: str) -> None:
        """One line a person must not miss, such as images that were left out."""
        ...


class SilentProgress:
    """Says nothing. The default of every library call."""

    @contextmanager
    def _silent(self) -> Iterator[Advance]:
        yield lambda count: None

    def task(self, title: str, total: int, unit: str) -> AbstractContextManager[Advance]:
        """A stretch of work nobody watches."""
        return self._silent()

    def note(self, message: str) -> None:
        """Nothing is said."""

    def warn(self, message: str) -> None:
        """Nothing is said."""


SILENT: Progress = SilentProgress()
