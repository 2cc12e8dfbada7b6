"""``hemascope estimate``: what a training run would need of a GPU, before there is one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hemascope.cli.manners import PATH, progress_of, say, say_json
from hemascope.errors import UsageError

if TYPE_CHECKING:
    from hemascope.training.estimate import StageEstimate
    from hemascope.workflow.estimating import Estimated


@click.command(short_help="Memory and hours that training would take on a GPU.")
@click.option("--config", "config_file", type=PATH, help="TOML file of settings; see `hemascope config`.")
@click.option("--recipe", metavar="NAME", help="Start from a packaged set of settings; see `hemascope config`.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change one setting; may be repeated.")
@click.option("--gpu", metavar="NAME", help="A GPU by name, such as T4 or A100; `--gpu list` lists them.")
@click.option("--gpu-gib", type=float, metavar="G", help="Memory of another GPU, in GiB.")
@click.option("--gpu-tflops", type=float, metavar="T", help="Its dense peak, in 10^12 operations a second.")
@click.option("--gpu-gbs", type=float, metavar="B", help="The speed of its memory, in GB a second.")
@click.option("--cells", type=int, default=10_000, show_default=True, help="Labelled cells in all, before the split.")
@click.option("--classes", type=int, default=8, show_default=True, help="Classes to tell.")
@click.option("--batch", type=int, help="This batch size in every stage that sees images.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def estimate(
    ctx: click.Context,
    config_file: Path | None,
    recipe: str | None,
    overrides: tuple[str, ...],
    gpu: str | None,
    gpu_gib: float | None,
    gpu_tflops: float | None,
    gpu_gbs: float | None,
    cells: int,
    classes: int,
    batch: int | None,
    as_json: bool,
) -> None:
    """Say what training with these settings would need: memory, computing, and hours on a GPU.

    Nothing is trained, downloaded or read: a step of each stage is taken with tensors that have shapes but no contents,
    and everything it would hold, move and compute is counted.

    \b
    Examples:
      hemascope estimate --recipe convnext_xlarge --gpu T4
      hemascope estimate --set model.backbone=resnet50 --gpu "RTX 4090" --batch 128
      hemascope estimate --config my.toml --gpu-gib 16 --gpu-tflops 44 --gpu-gbs 500
    """
    if gpu == "list":
        _say_gpus()
        return
    from hemascope.config_files import load_config
    from hemascope.workflow.estimating import estimate as estimated

    if batch is not None and any(word.partition("=")[0].endswith(".batch_size") for word in overrides):
        raise UsageError("--batch and --set stages.N.batch_size both say the batch size: give one of them.")
    found = estimated(
        load_config(file=config_file, recipe=recipe, overrides=overrides),
        cells=cells,
        classes=classes,
        gpu=gpu,
        gpu_gib=gpu_gib,
        gpu_tflops=gpu_tflops,
        gpu_gbs=gpu_gbs,
        batch=batch,
        progress=progress_of(ctx),
    )
    if as_json:
        say_json(_as_json(found))
        return
    for line in estimate_lines(found):
        say(line)


def estimate_lines(found: Estimated) -> Iterator[str]:
    """The network, the GPU, each stage, the sum, and what was assumed."""
    from hemascope.training.estimate import ARITHMETIC, TRAFFIC, USABLE

    yield (
        f"{found.backbone}: {found.parameters / 1e6:,.1f} million parameters, {found.gflops:,.1f} GFLOPs forward an "
        f"image at {found.size} pixels (a multiplication with its addition is 2)"
    )
    yield f"Cells: {found.train:,} to train on, {found.validation:,} to validate on"
    gpu = found.gpu
    if gpu is not None:
        traffic = "" if gpu.gbs is None else f", {gpu.gbs:,.0f} GB/s"
        yield (
            f"GPU: {gpu.name}, {gpu.gib:g} GiB, {found.tflops:g} TFLOPS at most in {found.precision}{traffic} "
            f"({gpu.source})"
        )
        if found.precision == "fp32" and not gpu.bf16:
            yield f"  It has no bf16; --set runtime.precision=fp16 computes on its tensor cores ({gpu.half:g} TFLOPS)."
    for stage in found.stages:
        yield ""
        yield from _stage_lines(stage, found)
    yield ""
    total = sum(stage.flops for stage in found.stages)
    spread = found.hours
    if spread is None:
        yield f"In all: {_flops(total)}. Name a GPU (--gpu) to learn what fits and how long it takes."
        return
    slow, expected, fast = spread
    share = total / (expected * 3600 * (found.tflops or 1) * 1e12)
    yield (
        f"In all: {_flops(total)}, {_time(expected)} on this GPU ({_time(fast)} to {_time(slow)}); "
        f"{share:.0%} of its peak"
    )
    moving = f"; its memory {_range(TRAFFIC)} of its speed" if gpu and gpu.gbs else ""
    yield f"Assumed: products reach {_range(ARITHMETIC)} of the peak{moving}."
    yield (
        f"A run may have {100 * USABLE:.0f} % of the memory. No stage stops early, and the GPU never waits for "
        "pictures, which are work for CPU cores."
    )


def _stage_lines(stage: StageEstimate, found: Estimated) -> Iterator[str]:
    memory, usable = stage.memory, found.usable
    seen = "on saved features" if stage.kind == "features" else f"at {stage.size} pixels"
    yield (
        f"Stage {stage.name}: {stage.learning:,} numbers learn {seen}, {stage.epochs:g} epochs, "
        f"batches of {stage.batch_size}"
    )
    parts = {
        "weights": memory.weights,
        "gradients": memory.gradients,
        "optimiser": memory.optimizer,
        "averaged weights": memory.averaged,
        "activations of a batch": memory.batch,
    }
    yield "  memory   " + ", ".join(f"{name} {_bytes(count)}" for name, count in parts.items() if count)
    other = "while the features are computed" if stage.kind == "features" else "in a validation"
    yield f"  at most  {_bytes(memory.step)} in a step, {_bytes(memory.validation)} {other}"
    if usable is not None and stage.largest_batch:
        verdict = "yes, into" if stage.fits(usable) else "no, not into"
        yield f"  fits     {verdict} {_bytes(usable)}; the largest batch that does is {stage.largest_batch:,}"
    elif usable is not None:
        yield f"  fits     no, not into {_bytes(usable)}, and no batch does"
    if stage.kind == "features":
        yield f"  compute  {_flops(stage.flops)}, nearly all of it once"
    else:
        yield f"  compute  {_flops(stage.flops_epoch)} an epoch, {_flops(stage.flops)} in all"
    if stage.seconds is not None:
        slow, expected, fast = (seconds / 3600 for seconds in stage.seconds)
        yield f"  time     {_time(expected)} ({_time(fast)} to {_time(slow)})"
        if stage.kind == "images":
            rate = found.train * stage.epochs / stage.seconds[1]
            each = _time(expected / stage.epochs)
            yield f"           {each} an epoch, where {rate:,.0f} pictures a second are read and augmented for it"


def _as_json(found: Estimated) -> dict[str, object]:
    from dataclasses import asdict

    stages = [
        {**asdict(stage), "memory": {**asdict(stage.memory), "peak": stage.memory.peak}} for stage in found.stages
    ]
    return {**asdict(found), "stages": stages, "usable": found.usable, "hours": found.hours}


def _say_gpus() -> None:
    from hemascope.training.gpus import GPUS

    say(f"{'name':<12} {'GiB':>4} {'fp32':>6} {'half':>6} {'GB/s':>6}  source (peaks in TFLOPS)")
    for gpu in GPUS:
        kind = "bf16, fp16" if gpu.bf16 else "fp16 alone"
        say(f"{gpu.name:<12} {gpu.gib:>4g} {gpu.fp32:>6g} {gpu.half:>6g} {gpu.gbs:>6g}  {gpu.source}; half: {kind}")


def _bytes(count: float) -> str:
    if count >= 0.1 * 2**30:
        return f"{count / 2**30:,.2f} GiB"
    return f"{count / 2**20:,.3g} MiB"


def _range(shares: tuple[float, float, float]) -> str:
    low, middle, high = (f"{100 * share:.0f}" for share in shares)
    return f"{middle} % ({low} to {high} %)"


def _flops(count: float) -> str:
    for unit, scale in (("EFLOPs", 1e18), ("PFLOPs", 1e15), ("TFLOPs", 1e12)):
        if count >= scale:
            return f"{count / scale:,.3g} {unit}"
    return f"{count / 1e9:,.3g} GFLOPs"


def _time(hours: float) -> str:
    if hours >= 1:
        return f"{hours:.1f} hours"
    if hours * 60 >= 2:
        return f"{hours * 60:.1f} minutes"
    return f"{hours * 3600:.0f} s" if hours * 3600 >= 10 else f"{hours * 3600:.1f} s"
