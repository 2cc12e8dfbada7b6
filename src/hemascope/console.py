"""What a person sees while work goes on: bars on a terminal, plain lines in a log. All of it goes to stderr.

Results belong on stdout and are printed by the verbs, so ``hemascope predict ... -o - | head`` sees nothing else.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, TextIO

from hemascope.progress import Advance, Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

SECONDS_BETWEEN_LINES = 10.0
"""How often a plain log hears from a long stretch of work."""

_WORTH_A_LINE = 1.0  # seconds a finished bar must have taken to leave a line behind on a terminal


def make_progress(*, quiet: bool = False) -> Progress:
    """The right Progress for where stderr goes. ``quiet`` leaves warnings only.

    In a distributed run every process but the first is quiet: all would say the same.
    """
    if quiet or not is_first_process():
        return QuietProgress()
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        return BarProgress()
    return LineProgress()


def is_first_process() -> bool:
    """Whether this process speaks for the run: rank 0 of torchrun, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def printable(text: str) -> str:
    """``text`` with control characters spelled out: a file's name must not be able to steer the terminal."""
    text = text.replace("\N{NO-BREAK SPACE}", " ")  # not printable by Python's rule, and of no use in a terminal
    return "".join(sign if sign.isprintable() or sign in "\n\t" else ascii(sign)[1:-1] for sign in text)


def duration(seconds: float) -> str:
    """Seconds in words: 0.4 s, 12 s, 3 min 05 s, 2 h 07 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _rate(count: float, seconds: float, unit: str) -> str:
    if seconds <= 0 or count <= 0:
        return ""
    rate = count / seconds
    return f"{rate:,.0f} {unit}/s" if rate >= 10 else f"{rate:.1f} {unit}/s"


class LineProgress:
    """Plain lines on ``stream`` (stderr): one now and then while a task runs, one at its end.

    ``clock`` gives seconds; tests bring their own.
    """

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock

    def task(self, title: str, total: int, unit: str) -> AbstractContextManager[Advance]:
        """Report ``total`` items of work at most every SECONDS_BETWEEN_LINES."""
        return self._task(title, total, unit)

    def note(self, message: str) -> None:
        """Print the message."""
        self._print(message)

    def warn(self, message: str) -> None:
        """Print the message, marked."""
        self._print(f"Warning: {message}")

    def _print(self, text: str) -> None:
        print(printable(text), file=self._stream or sys.stderr, flush=True)

    @contextmanager
    def _task(self, title: str, total: int, unit: str) -> Iterator[Advance]:
        start = last = self._clock()
        done = 0

        def advance(count: int) -> None:
            nonlocal done, last
            done += count
            now = self._clock()
            if now - last >= SECONDS_BETWEEN_LINES and done < total:
                last = now
                left = (total - done) * (now - start) / done if done else 0.0
                parts = [f"{title}: {done:,} of {total:,} {unit} ({done / total:.0%})", _rate(done, now - start, unit)]
                if done:
                    parts.append(f"about {duration(left)} left")
                self._print(", ".join(part for part in parts if part))

        yield advance
        self._print(f"{title}: {done:,} {unit} in {duration(self._clock() - start)}")


class QuietProgress(LineProgress):
    """Warnings only."""

    @contextmanager
    def _task(self, title: str, total: int, unit: str) -> Iterator[Advance]:
        yield lambda count: None

    def note(self, message: str) -> None:
        """Nothing is said."""


class BarProgress:
    """Bars with rate and time left. Tasks within tasks share the screen; a finished one leaves one plain line."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False)
        self._bars: Bars | None = None

    def task(self, title: str, total: int, unit: str) -> AbstractContextManager[Advance]:
        """A bar for ``total`` items of work."""
        return self._task(title, total, unit)

    def note(self, message: str) -> None:
        """Print the message above the bars."""
        self._print(message)

    def warn(self, message: str) -> None:
        """Print the message above the bars, in yellow."""
        self._print(f"Warning: {message}", style="yellow")

    def _print(self, text: str, style: str | None = None) -> None:
        self._console.print(printable(text), style=style, markup=False, soft_wrap=True)

    @contextmanager
    def _task(self, title: str, total: int, unit: str) -> Iterator[Advance]:
        outermost = self._bars is None
        if self._bars is None:
            self._bars = self._new_bars()
            self._bars.start()
        bars = self._bars
        start = time.monotonic()
        done = 0
        task = bars.add_task(printable(title), total=total, rate="")

        def advance(count: int) -> None:
            nonlocal done
            done += count
            bars.update(task, advance=count, rate=_rate(done, time.monotonic() - start, unit))

        try:
            yield advance
        finally:
            bars.remove_task(task)
            if outermost:
                bars.stop()
                self._bars = None
        seconds = time.monotonic() - start
        if seconds >= _WORTH_A_LINE:
            self._print(f"{title}: {done:,} {unit} in {duration(seconds)}")

    def _new_bars(self) -> Bars:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        return Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}", markup=False),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=self._console,
            transient=True,
            refresh_per_second=4,
        )
