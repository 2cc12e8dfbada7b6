"""Carry out a study's trials: what is finished is skipped, what was begun goes on, and a failure stops no other."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hemascope.errors import HemascopeError, RunError
from hemascope.progress import Advance, Progress
from hemascope.study.cells import StudyCells
from hemascope.study.places import find_run, is_finished, is_measured
from hemascope.study.plan import Trial

MEMORY_A_JOB = 2 * 2**30
"""Bytes a run of a small network takes with its libraries; more jobs than memory has room for are not started."""

_SECONDS_BETWEEN_LOOKS = 1.0


@dataclass(frozen=True)
class Work:
    """A trial, the cells it is run on, and what is measured of it."""

    trial: Trial
    cells: StudyCells
    metrics: tuple[str, ...]


@dataclass(frozen=True)
class Executed:
    """Run folders by fingerprint, and the reasons of those that failed."""

    runs: Mapping[str, Path]
    failed: Mapping[str, str]


class Engine(Protocol):
    """Who carries out trials: processes of this machine, or a cluster."""

    def submit(self, trial: Trial, cells: Path, output: Path, metrics: tuple[str, ...], command: str) -> Future[Path]:
        """Carry out one trial."""
        ...

    def reported(self) -> Iterable[tuple[str, int]]:
        """Images trained on since last asked, by fingerprint."""
        ...

    def stop(self) -> None:
        """End now."""
        ...

    def close(self) -> None:
        """End when done."""
        ...


def execute(
    work: Sequence[Work],
    output: Path,
    *,
    engine: Callable[[int], Engine],
    command: str = "",
    progress: Progress,
) -> Executed:
    """Carry out every trial of ``work`` that is not finished.

    engine  makes one for a number of trials; not called where there is nothing to do

    Trials with the same fingerprint are one run, measured for each. A trial that fails (its error is a sentence) is
    told and left out; the others go on. Raises RunError where a process was killed from outside.
    """
    runs: dict[str, Path] = {}
    failed: dict[str, str] = {}
    pending = []
    for one in work:
        there = find_run(output, one.trial)
        if is_finished(there) and is_measured(there, one.trial.measure, one.metrics):
            runs[one.trial.fingerprint] = there
        else:
            pending.append(one)
    if len(pending) < len(work):
        progress.note(f"{len(work) - len(pending):,} of {len(work):,} runs are finished and kept.")
    if pending:
        for one, run, error in _carried_out(pending, output, engine(len(pending)), command, progress):
            if run is not None:
                runs[one.trial.fingerprint] = run
            else:
                failed[one.trial.fingerprint] = error
    return Executed(runs, failed)


def _carried_out(
    pending: Sequence[Work], output: Path, engine: Engine, command: str, progress: Progress
) -> Iterator[tuple[Work, Path | None, str]]:
    left = {one.trial.fingerprint: _images(one) for one in pending}
    # A run and its second measurement, of other views, must not be in two processes at once waiting for each other.
    first: dict[str, Work] = {}
    for one in pending:
        first.setdefault(one.trial.fingerprint, one)
    later = [one for one in pending if first[one.trial.fingerprint] is not one]
    whole = sum(left.values())
    try:
        with progress.task(f"{len(pending):,} runs", whole, "images") as advance:
            for batch in (list(first.values()), later):
                futures = {
                    engine.submit(one.trial, one.cells.folder, output, one.metrics, command): one for one in batch
                }
                for future, one in _as_they_come(futures, engine, left, advance):
                    mark = one.trial.fingerprint
                    advance(left.pop(mark, 0))
                    try:
                        run = future.result()
                    except HemascopeError as error:
                        progress.warn(f"{one.trial.label} failed: {error}")
                        yield one, None, str(error)
                        continue
                    progress.note(f"{one.trial.label}: done")
                    yield one, run, ""
        engine.close()
    except BrokenProcessPool as error:
        engine.stop()
        raise RunError(
            "a process of the study was killed, most likely because memory ran out. Run the same command again with "
            "fewer runs at once, such as --jobs 1: what is finished is kept."
        ) from error
    except BaseException:
        engine.stop()
        raise


def _as_they_come(
    futures: Mapping[Future[Path], Work], engine: Engine, left: dict[str, int], advance: Advance
) -> Iterator[tuple[Future[Path], Work]]:
    """Futures as they are done; meanwhile the bar moves with the images the workers report."""
    waiting = set(futures)
    while waiting:
        done, waiting = wait(waiting, timeout=_SECONDS_BETWEEN_LOOKS, return_when=FIRST_COMPLETED)
        for mark, count in engine.reported():
            known = min(count, left.get(mark, 0))
            if known:
                left[mark] -= known
                advance(known)
        for future in done:
            yield future, futures[future]


def _images(work: Work) -> int:
    """Images a trial trains its network on; at least those it sees once."""
    cells = work.cells.counts["train"]
    epochs = sum(stage.epochs for stage in work.trial.config.stages if stage.kind == "images")
    return max(cells, math.ceil(epochs * cells))


def jobs_here(pending: int, asked: int | None, gpus: int) -> tuple[int, int]:
    """How many runs at once, and threads for each, on this machine.

    asked  by the user; None: one a GPU where there are any, else one a core, as far as memory has room
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if asked is None:
        room = max(1, _memory() // MEMORY_A_JOB)
        asked = gpus or min(cores, room)
    jobs = max(1, min(asked, pending))
    return jobs, max(1, cores // jobs)


def _memory() -> int:
    """Bytes of this machine's memory, 8 GiB where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 8 * 2**30
