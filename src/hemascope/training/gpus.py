"""Memory and speed of some GPUs, from their maker's data sheets."""

from __future__ import annotations

from dataclasses import dataclass

from hemascope.errors import UsageError


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU.

    gib     memory in GiB
    fp32    dense peak in 10^12 floating-point operations a second, in float32 without tensor cores
    half    the same in bf16 or fp16 on tensor cores, summed in float32, without sparsity
    gbs     memory traffic in 10^9 bytes a second; None where it is not known
    bf16    whether it computes bf16 itself; without it, half is fp16 alone
    source  whose figures these are
    """

    name: str
    gib: float
    fp32: float
    half: float
    gbs: float | None
    bf16: bool
    source: str


GPUS: tuple[Gpu, ...] = (
    Gpu("T4", 16, 8.1, 65, 320, False, "NVIDIA T4 data sheet, 2019"),
    Gpu("V100", 16, 15.7, 125, 900, False, "NVIDIA V100 data sheet, 2020 (SXM2)"),
    Gpu("V100-32GB", 32, 15.7, 125, 900, False, "NVIDIA V100 data sheet, 2020 (SXM2)"),
    Gpu("RTX 3090", 24, 35.6, 71, 936, True, "NVIDIA GA102 white paper, 2021"),
    Gpu("RTX 4090", 24, 82.6, 165.2, 1008, True, "NVIDIA Ada white paper, 2023"),
    Gpu("L4", 24, 30.3, 121, 300, True, "NVIDIA L4 data sheet, 2023 (half of its figure with sparsity)"),
    Gpu("A100", 40, 19.5, 312, 1555, True, "NVIDIA A100 data sheet, 2021 (PCIe)"),
    Gpu("A100-80GB", 80, 19.5, 312, 1935, True, "NVIDIA A100 data sheet, 2021 (PCIe)"),
    Gpu("H100", 80, 67, 989, 3350, True, "NVIDIA H100 data sheet, 2023 (SXM; half of its figure with sparsity)"),
)


def find_gpu(name: str) -> Gpu:
    """The GPU called ``name``, however it is spaced. Raises UsageError, naming the nearest, for one not known."""
    from hemascope.names import suggestion

    wanted = _plain(name)
    for gpu in GPUS:
        if wanted in (_plain(gpu.name), _plain(f"{gpu.name}-{gpu.gib:g}GB")):
            return gpu
    raise UsageError(
        f"no GPU named '{name}' is known; {suggestion(name, [gpu.name for gpu in GPUS])} Of another one give "
        "--gpu-gib and --gpu-tflops."
    )


def _plain(name: str) -> str:
    letters = "".join(letter for letter in name.lower() if letter.isalnum())
    return letters.removeprefix("nvidia").removeprefix("geforce").removeprefix("tesla")
