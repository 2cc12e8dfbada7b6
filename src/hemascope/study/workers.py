"""Processes that carry out trials side by side, and what they report on the way."""

from __future__ import annotations

import multiprocessing
import os
import queue
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

from hemascope.progress import Advance
from hemascope.study.plan import Trial

RUNS_A_PROCESS = 16
"""After so many runs a process makes way for a new one: each leaves some 20 MB behind that torch never gives back."""

_SECONDS_BETWEEN_LOOKS = 1.0


class Workers:
    """``jobs`` processes with ``threads`` threads each, on these GPUs where there are any.

    Each process imports torch once and then takes one trial after the other. It ends with its parent, however the
    parent ends, so that a study killed leaves nobody behind who still writes.
    """

    def __init__(self, jobs: int, threads: int, gpus: int = 0) -> None:
        context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
        self._reports: Any = context.Queue()
        devices: Any = context.SimpleQueue()
        for number in range(jobs):
            devices.put(number % gpus if gpus else None)
        self._pool = ProcessPoolExecutor(
            jobs,
            mp_context=context,
            initializer=_start,
            initargs=(threads, devices, self._reports, os.getpid()),
            max_tasks_per_child=RUNS_A_PROCESS,
        )

    def submit(self, trial: Trial, cells: Path, output: Path, metrics: tuple[str, ...], command: str) -> Future[Path]:
        """Carry out a trial; its run folder."""
        return self._pool.submit(_carry_out, trial, cells, output, metrics, command)

    def reported(self) -> Iterator[tuple[str, int]]:
        """What has come in: a trial's fingerprint, and images it has trained on since it last said so."""
        while True:
            try:
                yield self._reports.get_nowait()
            except queue.Empty:
                return

    def stop(self) -> None:
        """End all processes now, in the middle of what they do: what they have saved is what is kept."""
        for process in list((getattr(self._pool, "_processes", None) or {}).values()):
            process.terminate()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """Wait for the processes to end once nothing is left to do."""
        self._pool.shutdown()


_reports: Any = None


def _start(threads: int, devices: Any, reports: Any, parent: int) -> None:
    """Prepare a worker process before torch is loaded in it."""
    global _reports  # noqa: PLW0603 - a worker's own process, set once before it works
    _reports = reports
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    device = devices.get()
    Finalize(None, devices.put, args=(device,), exitpriority=100)  # for the process that comes after this one
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(device)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """Leave at once when the parent has gone: a second study must not meet this one's writers."""
    while os.getppid() == parent:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    os._exit(1)


def _carry_out(trial: Trial, cells: Path, output: Path, metrics: tuple[str, ...], command: str) -> Path:
    from hemascope.study.trial import run_trial

    return run_trial(trial, cells, output, metrics, command, Trained(trial, _reports))


class Trained:
    """A Progress that counts images the network was trained on, and says nothing else."""

    def __init__(self, trial: Trial, reports: Any) -> None:
        self._titles = {f"stage {stage.name}" for stage in trial.config.stages if stage.kind == "images"}
        self._trial, self._reports = trial, reports

    def task(self, title: str, total: int, unit: str) -> AbstractContextManager[Advance]:
        """Report what is done if the network learns in it."""
        return self._task(title)

    @contextmanager
    def _task(self, title: str) -> Iterator[Advance]:
        counts = title in self._titles
        waiting, last = 0, time.monotonic()

        def advance(count: int) -> None:
            nonlocal waiting, last
            waiting += count
            if counts and time.monotonic() - last > _SECONDS_BETWEEN_LOOKS:
                self._reports.put((self._trial.fingerprint, waiting))
                waiting, last = 0, time.monotonic()

        yield advance

    def note(self, message: str) -> None:
        """Nothing is said: many runs at once would talk over each other."""

    def warn(self, message: str) -> None:
        """Nothing is said; warnings are in the run's own report."""
