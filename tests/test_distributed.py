"""Two processes train what one process trains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from training_setup import JITTER, features_stage, image_stage, tiny_config, tiny_fit

from hemascope.config import OptimizerConfig, RunConfig

HERE = Path(__file__).parent

WORKER = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from safetensors.torch import save_file
from test_distributed import config
from training_setup import tiny_cells, tiny_splits
from hemascope.runtime import start_runtime, stop_runtime
from hemascope.training.loop import fit

settings, out = config(), Path(sys.argv[2])
runtime = start_runtime(settings.runtime)
# A folder for each process shows who writes.
fitted = fit(tiny_cells(), tiny_splits(tiny_cells()), settings, out / f"folder{runtime.rank}", runtime)
state = {name: value.contiguous() for name, value in fitted.model.state_dict().items()}
save_file(state, out / f"rank{runtime.rank}.safetensors")
(out / f"rank{runtime.rank}.json").write_text(json.dumps([fitted.history, fitted.price_epochs]))
stop_runtime()
"""


def config() -> RunConfig:
    """Both kinds of stage with augmentation, class weights, averaging and accumulation; batch norms frozen."""
    return tiny_config(
        features_stage(optimizer=OptimizerConfig(lr=1e-2), class_weights="balanced"),
        image_stage(
            freeze_batchnorm=True,
            accumulate=2,
            ema=0.9,
            oversample=True,
            optimizer=OptimizerConfig(name="sgd", lr=0.02),
        ),
        augmentation=JITTER,
    )


def test_two_processes_equal_one(tmp_path: Path) -> None:
    """Two gloo processes reach the scores of one and its weights within 1e-4; only the first writes."""
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    answer = subprocess.run(
        [*command, str(HERE), str(tmp_path)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr[-3000:]

    one = tiny_fit(config(), tmp_path / "one")
    expected = one.model.state_dict()
    for rank in (0, 1):
        found = load_file(tmp_path / f"rank{rank}.safetensors")
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert torch.allclose(found[name].float(), value.float(), atol=1e-4), name
    history, price = json.loads((tmp_path / "rank0.json").read_text())
    assert price == one.price_epochs
    assert len(history) == len(one.history)
    for two_processes, one_process in zip(history, one.history, strict=True):
        if two_processes["kind"] == "epoch":
            for score in ("validation_accuracy", "validation_balanced_accuracy"):
                assert two_processes[score] == one_process[score]
            assert abs(two_processes["train_loss"] - one_process["train_loss"]) < 1e-3
            assert abs(two_processes["validation_loss"] - one_process["validation_loss"]) < 1e-3
    assert (tmp_path / "folder0" / "history.jsonl").exists()
    assert (tmp_path / "folder0" / "checkpoints").exists()
    assert not (tmp_path / "folder1").exists()
