"""Device, precision, seeds and ranks."""

import subprocess
import sys
from multiprocessing import get_context

import numpy as np
import pytest
import torch

from hemascope.config import RuntimeConfig
from hemascope.errors import ConfigError
from hemascope.runtime import (
    Runtime,
    all_reduce_sum,
    autocast,
    barrier,
    broadcast_object,
    choose_precision,
    gather_rows,
    seed_everything,
    start_runtime,
    stop_runtime,
)


@pytest.fixture(autouse=True)
def _no_torchrun(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


def test_runtime_module_does_not_import_torch():
    """Reading a configuration stays light: importing the module leaves torch alone."""
    code = "import sys, hemascope.runtime; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_one_process_on_the_cpu_is_the_main_one():
    """Without torchrun there is one process, in fp32 on a CPU, with the threads asked for."""
    before = torch.get_num_threads()
    try:
        runtime = start_runtime(RuntimeConfig(device="cpu", threads=1))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    assert runtime == Runtime("cpu", "fp32", 0, 1, 0)
    assert runtime.is_main
    stop_runtime()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_without_a_gpu_is_one_sentence():
    """Asking for a device that is not there is refused with what to use instead."""
    with pytest.raises(ConfigError, match=r"'cuda:1'.*sees 0 CUDA devices.*'cpu'"):
        start_runtime(RuntimeConfig(device="cuda:1"))


def test_fp16_on_a_cpu_is_refused():
    """A precision the device does not have is refused, not replaced."""
    with pytest.raises(ConfigError, match=r"fp16.*needs a GPU"):
        choose_precision("fp16", "cpu")


@pytest.mark.parametrize(("rank", "size"), [("x", "1"), ("2", "2"), ("0", "-1")])
def test_malformed_ranks_are_refused(monkeypatch, rank, size):
    """torchrun's variables are checked before anything starts."""
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(ConfigError, match=r"RANK|WORLD_SIZE"):
        start_runtime(RuntimeConfig(device="cpu"))


def test_autocast_follows_the_precision():
    """bf16 changes the type of matrix products; fp32 changes nothing."""
    weights = torch.ones(2, 2)
    with autocast(Runtime("cpu", "bf16")):
        assert (weights @ weights).dtype == torch.bfloat16
    with autocast(Runtime("cpu", "fp32")):
        assert (weights @ weights).dtype == torch.float32


def test_seeding_repeats_numpy_and_torch():
    """The same seed draws the same numbers."""
    seed_everything(5)
    first = (np.random.rand(), torch.rand(1).item())
    seed_everything(5)
    assert first == (np.random.rand(), torch.rand(1).item())


def test_collectives_of_one_process_return_their_argument():
    """Code written for many processes runs unchanged in one."""
    tensor = torch.arange(3)
    barrier()
    assert broadcast_object("cells") == "cells"
    assert all_reduce_sum(tensor) is tensor
    assert gather_rows(tensor) is tensor


def _collect(rank, port, queue):
    import os

    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    runtime = start_runtime(RuntimeConfig(device="cpu", threads=1))
    start_runtime(RuntimeConfig(device="cpu"))  # joining twice must not fail
    rows = torch.full((rank + 1, 2), rank)
    own = torch.tensor([rank + 1.0])
    total = all_reduce_sum(own)
    barrier()
    queue.put(
        (rank, runtime.is_main, broadcast_object(f"from {rank}"), own.item(), total.item(), gather_rows(rows).tolist())
    )
    stop_runtime()


def test_two_processes_share_in_rank_order():
    """Two gloo processes with different numbers of rows see the same sums, objects and rows, in rank order."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = get_context("spawn")
    queue = context.Queue()
    processes = [context.Process(target=_collect, args=(rank, port, queue)) for rank in range(2)]
    for process in processes:
        process.start()
    found = sorted(queue.get(timeout=120) for _ in processes)
    for process in processes:
        process.join(30)
    rows = [[0, 0], [1, 1], [1, 1]]
    assert found == [(0, True, "from 0", 1.0, 3.0, rows), (1, False, "from 0", 2.0, 3.0, rows)]
