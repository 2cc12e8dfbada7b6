"""A run killed at any moment and resumed equals an unbroken run, bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from training_setup import JITTER, features_stage, image_stage, same_weights, tiny_config, tiny_fit, without_clock

from hemascope import workflow
from hemascope.config import HeadConfig, OptimizerConfig, RunConfig, ScheduleConfig
from hemascope.config_files import dump_config
from hemascope.data.synthetic import write_synthetic_folder
from hemascope.errors import OutputError, RunError
from hemascope.progress import SilentProgress
from hemascope.training import checkpoints
from hemascope.training import stage as stage_module
from hemascope.training.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from hemascope.training.loop import Fitted

OFTEN = {"checkpoint_minutes": 1e-9}
DEEP = HeadConfig(kind="deep", widths=(16,), dropout=0.3, norm="batch")
PLATEAU = ScheduleConfig(name="plateau", patience=0)

CONFIGS = {
    "adamw": tiny_config(
        features_stage(optimizer=OptimizerConfig(lr=1e-2), schedule=PLATEAU, ema=0.9, mixup=0.3),
        image_stage(
            optimizer=OptimizerConfig(lr=1e-3), schedule=PLATEAU, ema=0.9, mixup=0.2, cutmix=0.5, validate_every=1 / 3
        ),
        model={"head": DEEP, "drop_path": 0.2},
        augmentation=JITTER,
        runtime=OFTEN,
    ),
    "lion": tiny_config(
        features_stage(optimizer=OptimizerConfig(name="lion", lr=1e-3)),
        image_stage(optimizer=OptimizerConfig(name="lion", lr=1e-4), accumulate=2, trainable="gradual:2", ema=0.8),
        backbone="test_resnet",
        runtime=OFTEN,
    ),
    "sgd": tiny_config(
        features_stage(optimizer=OptimizerConfig(name="sgd", lr=0.1), oversample=True, early_stopping=1),
        image_stage(optimizer=OptimizerConfig(name="sgd", lr=0.01, layer_decay=0.7), clip_norm=1.0, validate_every=0.5),
        model={"head": DEEP},
        runtime=OFTEN,
    ),
}


class Killed(BaseException):
    """Nothing in the library catches this, as nothing catches a kill."""


class Killer(SilentProgress):
    """Raises at the n-th report of one kind: ("step", stage, n), ("note", "", n) or ("task", title, n)."""

    def __init__(self, kind: str, where: str, number: int) -> None:
        self.kind, self.where, self.left = kind, where, number

    def _count(self, kind: str, where: str) -> None:
        if kind == self.kind and self.where in where:
            self.left -= 1
            if not self.left:
                raise Killed

    def task(self, title: str, total: int, unit: str) -> Any:
        self._count("task", title)
        return self._told(title)

    @contextmanager
    def _told(self, title: str) -> Iterator[Callable[[int], None]]:
        yield lambda count: self._count("step", title) if count else None

    def note(self, message: str) -> None:
        self._count("note", message)


@pytest.fixture(autouse=True)
def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the loss, and so write checkpoints, every second step."""
    monkeypatch.setattr(stage_module, "LOSS_CHECK_STEPS", 2)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Fitted]:
    """Each configuration trained without a break, once, and its history without the clock."""
    found: dict[str, Fitted] = {}

    def train(name: str) -> Fitted:
        if name not in found:
            found[name] = tiny_fit(CONFIGS[name], tmp_path_factory.mktemp(name))
        return found[name]

    return train


def assert_equal(resumed: Fitted, expected: Fitted) -> None:
    assert same_weights(resumed.model, expected.model)
    assert without_clock(resumed.history) == without_clock(expected.history)
    assert resumed.best == expected.best
    assert resumed.price_epochs == expected.price_epochs


def saved_step(folder: Path) -> tuple[int, int] | None:
    """The stage and step of the checkpoint in a run folder."""
    saved = load_checkpoint(folder / "checkpoints" / "last.safetensors")
    return saved and (saved.values["stage"], 0 if saved.values["stage_done"] else saved.values["standing"]["step"])


KILLS = {
    "features": (("task", "features", 1), None),
    "first-steps": (("step", "stage frozen", 2), None),
    "frozen": (("step", "stage frozen", 6), (0, 5)),
    "between-stages": (("task", "stage finetune", 1), (1, 0)),
    "mid-epoch": (("step", "stage finetune", 6), (1, 4)),
    "second-epoch": (("step", "stage finetune", 10), (1, 8)),
    "after-validation": (("note", "stage finetune", 2), (1, 2)),
}
"""Where a run is killed, and the stage and step of the checkpoint it then leaves."""

CASES = [
    *(("adamw", moment) for moment in KILLS),
    *(("lion", moment) for moment in ("between-stages", "second-epoch")),
    *(("sgd", moment) for moment in ("mid-epoch", "after-validation")),
]


@pytest.mark.parametrize(("name", "moment"), CASES, ids=["-".join(case) for case in CASES])
def test_resumed_equals_unbroken(unbroken: Any, tmp_path: Path, name: str, moment: str) -> None:
    """Killed there and resumed: same weights, history, best score and price, bit for bit."""
    kill, left = KILLS[moment]
    with pytest.raises(Killed):
        tiny_fit(CONFIGS[name], tmp_path, Killer(*kill))
    if name == "adamw":
        assert saved_step(tmp_path) == left
    assert_equal(tiny_fit(CONFIGS[name], tmp_path), unbroken(name))


def test_the_rate_is_halved_before_a_kill(unbroken: Any) -> None:
    """The case with plateaus has a halved rate by the eighth step, where the late kill resumes it."""
    epochs = [r for r in unbroken("adamw").history if r["kind"] == "epoch" and r["stage"] == "finetune"]
    assert next(record["lr"] for record in epochs if record["step"] == 8) < epochs[0]["lr"]


def test_killed_again_and_again(unbroken: Any, tmp_path: Path) -> None:
    """A run killed at every fourth step of fine-tuning still arrives at the same numbers."""
    for _ in range(20):
        try:
            resumed = tiny_fit(CONFIGS["adamw"], tmp_path, Killer("step", "stage finetune", 4))
            break
        except Killed:
            continue
    assert_equal(resumed, unbroken("adamw"))


@pytest.mark.parametrize("number", [1, 6])
def test_killed_while_writing_a_checkpoint(
    monkeypatch: pytest.MonkeyPatch, unbroken: Any, tmp_path: Path, number: int
) -> None:
    """Half a checkpoint is never taken for one: the one before it, or none, is gone on from."""
    written = 0

    def half(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
        nonlocal written
        written += 1
        save_file(tensors, path, metadata)
        if written == number:
            os.truncate(path, path.stat().st_size // 2)
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "save_file", half)
        with pytest.raises(Killed):
            tiny_fit(CONFIGS["adamw"], tmp_path)
    assert (saved_step(tmp_path) is None) == (number == 1)
    assert_equal(tiny_fit(CONFIGS["adamw"], tmp_path), unbroken("adamw"))


def test_a_finished_training_is_not_done_again(unbroken: Any, tmp_path: Path) -> None:
    """Called once more on a folder whose last stage is done, fit trains nothing and returns the same."""
    tiny_fit(CONFIGS["sgd"], tmp_path)
    assert_equal(tiny_fit(CONFIGS["sgd"], tmp_path, Killer("task", "", 1)), unbroken("sgd"))


def test_how_often_is_saved_changes_nothing(unbroken: Any, tmp_path: Path) -> None:
    """A run that writes no checkpoint within an epoch has the same history and weights."""
    config = CONFIGS["sgd"]
    rarely = config.model_copy(update={"runtime": config.runtime.model_copy(update={"checkpoint_minutes": 60.0})})
    assert_equal(tiny_fit(rarely, tmp_path), unbroken("sgd"))


def test_a_kill_loses_no_more_than_the_running_epoch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With one validation at the end, no check due and no clock, each pass over the images leaves a checkpoint."""
    monkeypatch.setattr(stage_module, "LOSS_CHECK_STEPS", 1000)
    config = tiny_config(image_stage(validate_every=1000), runtime={"checkpoint_minutes": 1e6})
    with pytest.raises(Killed):
        tiny_fit(config, tmp_path, Killer("step", "stage finetune", 10))
    assert saved_step(tmp_path) == (0, 6)
    unbroken = tiny_fit(config, tmp_path / "unbroken")
    assert_equal(tiny_fit(config, tmp_path), unbroken)


def test_the_history_file_is_the_history(tmp_path: Path) -> None:
    """After a kill and a resume history.jsonl holds each record once."""
    with pytest.raises(Killed):
        tiny_fit(CONFIGS["sgd"], tmp_path, Killer("note", "stage finetune", 2))
    resumed = tiny_fit(CONFIGS["sgd"], tmp_path)
    assert len((tmp_path / "history.jsonl").read_text().splitlines()) == len(resumed.history)
    steps = [(record["stage"], record["kind"], record["step"]) for record in resumed.history]
    assert len(steps) == len(set(steps))


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    """Tensors of every shape and type and nested values survive writing and reading."""
    path = tmp_path / "deep" / "last.safetensors"
    tensors = {"a.b": torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last), "n": torch.tensor(7)}
    save_checkpoint(path, Checkpoint(tensors, {"x": [1, 0.1, None], "name": "Ä"}))
    found = load_checkpoint(path)
    assert found is not None
    assert found.values == {"format": 1, "x": [1, 0.1, None], "name": "Ä"}
    assert all(torch.equal(found.tensors[name], value) for name, value in tensors.items())
    assert [file.name for file in path.parent.iterdir()] == ["last.safetensors"]


def test_a_damaged_checkpoint_is_one_sentence(tmp_path: Path) -> None:
    """A truncated, foreign or future checkpoint is a RunError that says to start again."""
    path = tmp_path / "last.safetensors"
    save_checkpoint(path, Checkpoint({"a": torch.zeros(100)}, {}))
    os.truncate(path, 150)
    with pytest.raises(RunError, match="--force"):
        load_checkpoint(path)
    path.write_bytes(b"no checkpoint at all")
    with pytest.raises(RunError, match="--force"):
        load_checkpoint(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(RunError, match="another version"):
        load_checkpoint(path)
    assert load_checkpoint(tmp_path / "none") is None


def test_a_checkpoint_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    """A folder in the way is an OutputError, and nothing is left behind."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        save_checkpoint(tmp_path / "file" / "last.safetensors", Checkpoint({"a": torch.zeros(1)}, {}))


KILLED_RUN = """
import sys
from hemascope.training import stage
stage.LOSS_CHECK_STEPS = 2
from hemascope.config_files import load_config
from hemascope.workflow import train
from pathlib import Path
train(sys.argv[1], load_config(file=Path(sys.argv[2])), output=sys.argv[3])
"""


def test_a_real_kill_and_resume_give_the_same_bundle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A process killed by SIGKILL in fine-tuning and resumed here writes an unbroken run's weights, byte for byte."""
    monkeypatch.setenv("HEMASCOPE_CACHE", str(tmp_path / "cache"))
    cells = write_synthetic_folder(tmp_path / "cells", 12, size=32)
    config = CONFIGS["adamw"]
    long = config.stages[1].model_copy(update={"epochs": 8.0, "validate_every": 4.0})
    config = RunConfig(**{**dict(config), "stages": (config.stages[0], long)})
    (tmp_path / "config.toml").write_text(dump_config(config))
    run, history = tmp_path / "killed", tmp_path / "killed" / "history.jsonl"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED_RUN, str(cells), str(tmp_path / "config.toml"), str(run)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
    )
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            if history.exists() and history.read_text().count('"finetune"') > 3:
                break
            time.sleep(0.005)
        assert process.poll() is None, "the run ended before it could be killed"
    finally:
        process.send_signal(signal.SIGKILL)
        _, said = process.communicate()
    assert process.returncode == -signal.SIGKILL, said.decode()
    assert not (run / "bundle").exists()
    stopped_at = saved_step(run)
    assert stopped_at is not None
    assert stopped_at[0] == 1

    resumed = workflow.train(cells, config, output=run, resume=True)
    whole = workflow.train(cells, config, output=tmp_path / "whole")
    names = {file.name for file in (run / "bundle").glob("*.safetensors")}
    assert names
    for name in names:
        assert (run / "bundle" / name).read_bytes() == (tmp_path / "whole" / "bundle" / name).read_bytes()
    assert resumed.evaluation == whole.evaluation
    assert not (run / "checkpoints").exists()
