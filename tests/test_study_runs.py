"""Studies carried out: runs are shared, kept, gone on with after a kill, and their table is made of what they saved."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from hemascope.cli import main
from hemascope.data.synthetic import write_synthetic_folder
from hemascope.errors import HemascopeError, MissingExtraError, RunError, TrainingError, UsageError
from hemascope.evaluation.record import load_predictions, save_predictions
from hemascope.progress import SILENT
from hemascope.results import Predictions
from hemascope.study import studies
from hemascope.study.places import find_run, is_finished, predictions_of
from hemascope.study.plan import Trial, read_study, variant_trials, variants
from hemascope.study.runner import Work, execute
from hemascope.study.trial import run_trial

STUDY = """
title = "Tiny"
said = "that it is so"
seeds = [0, 1]
base = "plain"
cells = { train = 40, validation = 16, test = 24 }
measure = { stacked = 12 }

[config]
data = { preparation = { name = "tiny", resizes = [{ size = 32 }] }, validation = 0.2, test = 0.3, calibration = 0.0 }
model = { backbone = "test_efficientnet", weights = "random" }
evaluation = { calibrate = false, mistakes = 0, bootstrap = 100 }
runtime = { workers = 0, threads = 1 }

[[config.stages]]
name = "finetune"
epochs = 2
batch_size = 8
optimizer = { lr = 1e-3 }
"""

VARIANTS = """
[[variants]]
name = "plain"

[[variants]]
name = "slow"
set = { "stages.finetune.optimizer.lr" = 1e-5 }

[[variants]]
name = "mirrored"
views = ["flips"]

[[claims]]
text = "A hundredth of the rate is worse"
variant = "slow"
expect = "lower"
"""


class Inline:
    """An engine that carries out each trial at once, in this process; ``done`` lists them."""

    def __init__(self, fail: str = "") -> None:
        self.done: list[Trial] = []
        self.fail = fail
        self.stopped = False

    def submit(self, trial: Trial, cells: Path, output: Path, metrics: tuple[str, ...], command: str) -> Future[Path]:
        future: Future[Path] = Future()
        self.done.append(trial)
        try:
            if trial.variant == self.fail:
                raise TrainingError("the loss stopped being finite.")
            future.set_result(run_trial(trial, cells, output, metrics, command))
        except HemascopeError as error:
            future.set_exception(error)
        return future

    def reported(self) -> Iterable[tuple[str, int]]:
        return ()

    def stop(self) -> None:
        self.stopped = True

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cells")
    write_synthetic_folder(folder / "cells", 12, seed=0)
    return folder / "cells"


def work_of(file: Path, data: Path, output: Path) -> list[Work]:
    plan = read_study(file)
    return studies.prepare(plan, file, data, output, format=None, class_names=None, command="", progress=SILENT)


@pytest.fixture(scope="module")
def studied(cells: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Inline]:
    """A study's file, its output folder, and the engine that carried it out."""
    folder = tmp_path_factory.mktemp("studied")
    file = folder / "tiny.toml"
    file.write_text(STUDY + VARIANTS, encoding="utf-8")
    engine = Inline()
    execute(work_of(file, cells, folder / "out"), folder / "out", engine=lambda pending: engine, progress=SILENT)
    return file, folder / "out", engine


def test_equal_runs_are_made_once(studied: tuple[Path, Path, Inline]) -> None:
    """Three variants with two seeds are four runs: looking at mirrored views trains nothing of its own."""
    _, output, _ = studied
    assert len(list((output / "runs").glob("*/bundle"))) == 4
    plan = read_study(output / "tiny" / "study.toml")
    plain, _, mirrored = (variant_trials(plan, one, "x")[0] for one in variants(plan))
    assert plain.fingerprint == mirrored.fingerprint
    assert len(list((output / "cells").glob("*/splits.json"))) == 1


def test_what_is_finished_is_not_done_again(studied: tuple[Path, Path, Inline], cells: Path) -> None:
    """The same study on the same cells again asks the engine for nothing."""
    file, output, _ = studied

    def refuse(pending: int) -> Inline:
        raise AssertionError(f"{pending} runs would be done again")

    done = execute(work_of(file, cells, output), output, engine=refuse, progress=SILENT)
    assert len(done.runs) == 4 and not done.failed


def test_one_failure_stops_no_other_run(cells: Path, tmp_path: Path) -> None:
    """A variant whose training fails is named with its reason; the runs after it are there, and its place is empty."""
    file = tmp_path / "tiny.toml"
    file.write_text(STUDY.replace("[0, 1]", "[0]") + VARIANTS, encoding="utf-8")
    work = work_of(file, cells, tmp_path / "out")
    done = execute(work, tmp_path / "out", engine=lambda pending: Inline(fail="plain"), progress=SILENT)
    assert list(done.failed.values()) == ["the loss stopped being finite."]
    assert any(run.name.startswith("tiny.slow.") for run in done.runs.values())
    table = studies.report_studies(tmp_path / "out").results[0]
    assert "plain, seed 0" in table.missing
    assert table.claims[0].finding == "cannot tell"


def test_the_table_is_made_of_saved_predictions(studied: tuple[Path, Path, Inline]) -> None:
    """Balanced accuracy, seed by seed, is that of the saved predictions; changing one file changes the table."""
    _, output, _ = studied
    table = studies.report_studies(output, ["tiny"]).results[0]
    assert (table.planned, table.missing, table.cells["train"]) == (6, (), 40)
    by_name = {one.name: one for one in table.variants}
    run = output / "runs" / by_name["slow"].runs[1]
    path = run / "predictions" / "test.parquet"
    found = load_predictions(path)
    assert found.labels is not None
    recalls = [(found.predicted[found.labels == k] == k).mean() for k in np.unique(found.labels)]
    assert by_name["slow"].measures["test"].per_seed[1] == pytest.approx(np.mean(recalls))
    assert by_name["slow"].measures["test"].difference is not None
    assert by_name["plain"].measures["test"].difference is None
    assert by_name["plain"].parameters and by_name["plain"].gflops
    assert set(by_name["plain"].measures) == {"test", "validation", "train", "stacked_1_2", "stacked_2_4"}
    assert 12 <= by_name["plain"].measures["stacked_1_2"].mean.n < 24
    right = np.eye(len(found.class_names), dtype=np.float32)[found.labels]
    saved = path.read_bytes()
    try:
        save_predictions(path, Predictions(found.ids, found.class_names, right, right, labels=found.labels))
        again = studies.report_studies(output, ["tiny"]).results[0]
        assert next(one for one in again.variants if one.name == "slow").measures["test"].per_seed[1] == 1.0
    finally:
        path.write_bytes(saved)


def test_views_are_measured_apart_from_the_run(studied: tuple[Path, Path, Inline]) -> None:
    """One network has two files of clean test predictions: its own, and those of the mean over four views."""
    _, output, _ = studied
    plan = read_study(output / "tiny" / "study.toml")
    trials = [next(t for t in work if t.seed == 0) for work in _trials(output, plan)]
    plain, mirrored = (find_run(output, trials[k]) for k in (0, 2))
    assert plain == mirrored
    files = [predictions_of(plain, trials[k].measure, "test") for k in (0, 2)]
    one, four = (load_predictions(file) for file in files)
    assert files[0] != files[1] and list(one.ids) == list(four.ids)
    assert not np.allclose(one.probs, four.probs)


def _trials(output: Path, plan: object) -> list[list[Trial]]:
    import json

    from hemascope.study.plan import StudyPlan

    assert isinstance(plan, StudyPlan)
    about = json.loads((output / plan.name / "cells.json").read_text(encoding="utf-8"))
    return [variant_trials(plan, one, about["cells"][one.name]["fingerprint"]) for one in variants(plan)]


def test_a_study_killed_in_the_middle_goes_on(cells: Path, tmp_path: Path) -> None:
    """SIGKILL while runs are under way: the workers end as well, and the same command finishes what was begun."""
    file = tmp_path / "tiny.toml"
    # Long enough to be met in the middle, and with a checkpoint at every validation.
    text = STUDY.replace("epochs = 2", "epochs = 16\nvalidate_every = 2").replace("stacked = 12", "stacked = 0")
    file.write_text(text + '[[variants]]\nname = "plain"\n', encoding="utf-8")
    output = tmp_path / "out"
    words = [sys.executable, "-m", "hemascope", "study", "run", file, "--data", cells, "-o", output, "--jobs", "2"]
    command = [str(word) for word in words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 120
        while not list(output.glob("runs/*/checkpoints/*")) and time.monotonic() < until:
            assert process.poll() is None, "the study ended before it could be killed"
            time.sleep(0.1)
        begun = sorted(path.parent.name for path in output.glob("runs/*/config.toml"))
        assert begun
        workers = _children_of(process.pid)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    until = time.monotonic() + 30
    while any(map(_alive, workers)) and time.monotonic() < until:
        time.sleep(0.2)
    assert not any(map(_alive, workers)), "a worker outlived the study"
    assert not all(is_finished(output / "runs" / name) for name in begun)
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "2 of 2 runs" in done.stdout
    assert begun == [name for name in begun if is_finished(output / "runs" / name)]
    assert len(list((output / "runs").glob("tiny.*"))) == 2, "a run was begun anew beside the one that was killed"


def _children_of(process: int) -> list[int]:
    """Processes that ``process`` has started; empty where the system does not say."""
    try:
        return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []


def _alive(process: int) -> bool:
    """Whether a process still runs; one that has ended and waits to be collected does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_call_without_cells_says_what_is_missing(tmp_path: Path) -> None:
    """A study that names no cells, run without --data, is a usage error of one sentence, and leaves nothing behind."""
    file = tmp_path / "tiny.toml"
    file.write_text(STUDY + VARIANTS, encoding="utf-8")
    result = CliRunner().invoke(main, ["study", "run", str(file), "-o", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "--data" in result.output and "Traceback" not in result.output
    assert not (tmp_path / "out").exists()


def test_a_folder_without_studies_says_so(tmp_path: Path) -> None:
    """The report of an empty folder, or of a name that is not there, is one sentence."""
    with pytest.raises(RunError, match="holds no study"):
        studies.report_studies(tmp_path)
    (tmp_path / "one").mkdir()
    with pytest.raises(RunError, match="no study called 'two'"):
        studies.report_studies(tmp_path, ["two"])


def test_names_that_would_overwrite_each_other_are_refused(tmp_path: Path, cells: Path) -> None:
    """Two files of one name, and the names of the shared folders, are refused before anything is read."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tiny.toml").write_text(STUDY + VARIANTS, encoding="utf-8")
    files = [tmp_path / name / "tiny.toml" for name in ("a", "b")]
    with pytest.raises(UsageError, match="two studies are called 'tiny'"):
        studies.run_studies(files, output=tmp_path / "out", data=cells)
    shared = tmp_path / "runs.toml"
    shared.write_text(STUDY + VARIANTS, encoding="utf-8")
    with pytest.raises(UsageError, match="cannot be called 'runs'"):
        studies.run_studies([shared], output=tmp_path / "out", data=cells)


def test_without_ray_the_install_line_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking for a cluster without Ray says which line installs it."""
    from hemascope.study import on_ray

    monkeypatch.setattr(on_ray, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'hemascope\[scale\]'"):
        studies.engine_of(None, "auto")


def test_a_worker_sees_its_own_gpu_and_its_own_threads() -> None:
    """Before torch is loaded a worker takes one GPU of those handed out, and as many threads as it was given."""
    code = (
        "import os, queue; from hemascope.study.workers import _start; devices = queue.Queue(); devices.put(3); "
        "_start(5, devices, None, os.getppid()); "
        "print(os.environ['CUDA_VISIBLE_DEVICES'], os.environ['OMP_NUM_THREADS'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["3", "5"]


def test_processes_are_replaced_and_hand_their_gpu_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one task a process and one GPU, three tasks are done by three processes, each with that GPU."""
    from hemascope.study import workers

    monkeypatch.setattr(workers, "RUNS_A_PROCESS", 1)
    pool = workers.Workers(1, 1, gpus=1)
    try:
        submit = pool._pool.submit
        found = [(submit(os.getpid).result(60), submit(os.getenv, "CUDA_VISIBLE_DEVICES").result(60))]
        found.append((submit(os.getpid).result(60), "0"))
        pool.close()
    finally:
        pool.stop()
    assert found[0][0] != found[1][0] and found[0][1] == "0"
