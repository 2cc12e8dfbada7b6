"""Device, precision, ranks and seeds. torch is imported inside the functions: reading a config must stay light.

Data-parallel runs are started by torchrun, which tells each process its place through RANK, WORLD_SIZE and
LOCAL_RANK. Without them there is one process, and every collective below returns its argument at once.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, TypeVar

from hemascope.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from hemascope.config import RuntimeConfig

Precision = Literal["fp32", "bf16", "fp16"]
T = TypeVar("T")


@dataclass(frozen=True)
class Runtime:
    """Where this process computes, and its place among the others.

    device      a torch device, such as ``cpu`` or ``cuda:1``
    precision   the type of matrix products and convolutions; weights stay fp32
    rank        this process, 0 to world_size - 1
    world_size  processes in all
    local_rank  this process among those of its machine
    """

    device: str
    precision: Precision
    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and reports progress."""
        return self.rank == 0


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Numbers of glibc's malloc.h."""


_PATIENCE = timedelta(days=1)
"""How long processes wait for each other: the first one reads the cells and measures the model on its own."""


def start_runtime(config: RuntimeConfig) -> Runtime:
    """Choose device and precision, set the CPU threads, and join the process group torchrun announced, once.

    Raises ConfigError for a device this machine does not have, a precision the device does not have, and
    malformed values in torchrun's variables.
    """
    import torch

    rank, world_size, local_rank = _place("RANK", 0), _place("WORLD_SIZE", 1), _place("LOCAL_RANK", 0)
    if world_size < 1 or rank >= world_size:
        raise ConfigError(f"RANK must be below WORLD_SIZE, found RANK={rank} and WORLD_SIZE={world_size}")
    device = choose_device(config.device, local_rank)
    precision = choose_precision(config.precision, device)
    keep_freed_memory()
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
        # The same seed has to give the same numbers: no choosing of algorithms by stopwatch, none that race.
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
    if world_size > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group(
            "nccl" if device.startswith("cuda") else "gloo",
            rank=rank,
            world_size=world_size,
            timeout=_PATIENCE,
        )
    return Runtime(device, precision, rank, world_size, local_rank)


def stop_runtime() -> None:
    """Leave the process group, if one was joined."""
    import torch

    if _grouped():
        torch.distributed.destroy_process_group()


def gpu_count() -> int:
    """CUDA devices torch sees on this machine."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def choose_device(name: str, local_rank: int = 0) -> str:
    """The torch device for ``auto``, ``cpu``, ``mps``, ``cuda`` or ``cuda:N``; auto takes cuda, then mps, then cpu.

    Raises ConfigError where the device named is not there.
    """
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        if gpus:
            return f"cuda:{local_rank % gpus}"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, number = name.partition(":")
    if kind == "cuda":
        index = int(number) if number else local_rank % max(gpus, 1)
        if index >= gpus:
            raise ConfigError(
                f"device {name!r} was asked for, but torch {torch.__version__} sees {gpus} CUDA devices here. "
                "Use device='auto' or 'cpu', or install a CUDA build of torch and its driver."
            )
        return f"cuda:{index}"
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device 'mps' was asked for, but this machine has none. Use device='auto' or 'cpu'.")
    if kind not in ("cpu", "mps"):
        raise ConfigError(f"device must be auto, cpu, mps, cuda or cuda:N, found {name!r}")
    return kind


def choose_precision(name: str, device: str) -> Precision:
    """``auto`` is bf16 on a GPU that computes it, else fp32. Raises ConfigError where the device lacks the type."""
    import torch

    on_cuda = device.startswith("cuda")
    if name == "auto":
        return "bf16" if on_cuda and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if name == "fp16" and device == "cpu":
        raise ConfigError("precision 'fp16' needs a GPU; on a CPU use 'fp32' or 'bf16'.")
    if name == "fp32":
        return "fp32"
    if name == "bf16":
        return "bf16"
    if name == "fp16":
        return "fp16"
    raise ConfigError(f"precision must be auto, fp32, bf16 or fp16, found {name!r}")


def keep_freed_memory() -> None:
    """Let this process keep the memory it frees, where its C library is glibc.

    A network's pass allocates and frees tensors of many megabytes. glibc maps each anew from the system and gives it
    back at once, so that every pass pays for fresh, zeroed pages: half of all CPU time when predicting here. The
    limits are raised for the whole process, whose memory then stays at its peak until it ends.
    """
    import ctypes
    import sys

    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library, with other habits
        return
    mallopt(_M_MMAP_THRESHOLD, 1 << 30)
    mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch on every device."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextmanager
def autocast(runtime: Runtime) -> Iterator[None]:
    """Compute in the runtime's precision: a context for the forward pass. Nothing changes under fp32."""
    if runtime.precision == "fp32":
        yield
        return
    import torch

    dtype = torch.bfloat16 if runtime.precision == "bf16" else torch.float16
    with torch.autocast(runtime.device.partition(":")[0], dtype=dtype):
        yield


def barrier() -> None:
    """Wait until every process is here."""
    import torch

    if _grouped():
        torch.distributed.barrier()


def broadcast_object(value: T) -> T:
    """Rank 0's value, on every rank. It travels pickled between the processes of one run, never from a file."""
    import torch

    if not _grouped():
        return value
    box = [value]
    torch.distributed.broadcast_object_list(box, src=0)
    return box[0]


def all_reduce_sum(tensor: torch.Tensor) -> torch.Tensor:
    """The sum over all processes, of the same shape. The argument is left as it was."""
    import torch

    if not _grouped():
        return tensor
    total = tensor.clone()
    torch.distributed.all_reduce(total)
    return total


def gather_rows(tensor: torch.Tensor) -> torch.Tensor:
    """The rows of every process, in rank order: (n_local, ...) to (sum of n_local, ...).

    n_local may differ between processes: rows are padded for the exchange and cut again.
    """
    import torch

    if not _grouped():
        return tensor
    world_size = torch.distributed.get_world_size()
    count = torch.tensor([len(tensor)], dtype=torch.int64, device=tensor.device)
    counts = [torch.zeros_like(count) for _ in range(world_size)]
    torch.distributed.all_gather(counts, count)
    sizes = [int(size.item()) for size in counts]
    padded = tensor.new_zeros((max(sizes), *tensor.shape[1:]))
    padded[: len(tensor)] = tensor
    parts = [torch.empty_like(padded) for _ in range(world_size)]
    torch.distributed.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def _grouped() -> bool:
    import torch

    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _place(variable: str, default: int) -> int:
    text = os.environ.get(variable, str(default))
    if not text.isdigit():
        raise ConfigError(f"the environment variable {variable} must be a whole number, found {text!r}")
    return int(text)
