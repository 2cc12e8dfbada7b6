"""Trials on a Ray cluster. Every machine must see the study's folder under the same path."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hemascope.errors import MissingExtraError, UsageError
from hemascope.study.plan import Trial

MISSING = "running on a cluster needs Ray: pip install 'hemascope[scale]'"
CORES = 1
"""Cores a trial is given; one thread each makes the most of them, for runs do not wait for each other."""


def check_ray() -> None:
    """Raise MissingExtraError where Ray is not installed."""
    if find_spec("ray") is None:
        raise MissingExtraError(MISSING)


class RayEngine:
    """Hands each trial to the cluster as a task with one core, and a GPU where the cluster has any.

    address  "auto" for the cluster this machine belongs to, "local" for one of its own, or an address
    """

    def __init__(self, address: str) -> None:
        ray = _ray()
        try:
            ray.init(
                address=None if address == "local" else address,
                ignore_reinit_error=True,
                log_to_driver=False,
                include_dashboard=False,
                logging_level=logging.ERROR,
            )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UsageError(
                f"there is no Ray cluster at {address!r}. Start one with ray start --head, or say --ray local for one "
                "on this machine."
            ) from error
        gpus = 1 if ray.cluster_resources().get("GPU") else 0
        # A task that died with its machine is begun again, at its last checkpoint.
        self._task: Any = ray.remote(num_cpus=CORES, num_gpus=gpus, max_retries=3)(_carry_out)
        self._waiting: list[Any] = []

    def submit(self, trial: Trial, cells: Path, output: Path, metrics: tuple[str, ...], command: str) -> Future[Path]:
        """Carry out a trial; its run folder."""
        reference = self._task.remote(trial, cells.resolve(), output.resolve(), metrics, command)
        self._waiting.append(reference)
        future: Future[Path] = Future()
        threading.Thread(target=_fetch, args=(reference, future), daemon=True).start()
        return future

    def reported(self) -> Iterable[tuple[str, int]]:
        """Nothing: the bar moves as runs end."""
        return ()

    def stop(self) -> None:
        """Cancel what is not done, and leave the cluster."""
        ray = _ray()
        for reference in self._waiting:
            ray.cancel(reference, force=True)
        ray.shutdown()

    def close(self) -> None:
        """Leave the cluster."""
        ray = _ray()
        ray.shutdown()


def _ray() -> Any:
    """Ray, whose own annotations are only there where it is installed."""
    import ray

    return ray


def _fetch(reference: Any, future: Future[Path]) -> None:
    ray = _ray()
    try:
        future.set_result(Path(ray.get(reference)))
    except ray.exceptions.RayTaskError as error:  # what was raised there, as its own kind of error
        future.set_exception(error.cause or error)
    except ray.exceptions.RayError as error:
        future.set_exception(error)


def _carry_out(trial: Trial, cells: Path, output: Path, metrics: tuple[str, ...], command: str) -> str:
    os.environ.setdefault("OMP_NUM_THREADS", str(CORES))
    from hemascope.study.trial import run_trial

    return str(run_trial(trial, cells, output, metrics, command))
