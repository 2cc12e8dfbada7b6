"""What one step of training holds in memory and computes, found by taking it with tensors that have no contents.

torch's meta device knows shapes and types alone, so a network of any size takes a step here in seconds and no memory.
Everything such a step allocates is counted as it comes and goes, forward and backward, as autograd keeps it.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from hemascope.config import ModelConfig, StageConfig
from hemascope.errors import ConfigError
from hemascope.models.classifier import Classifier, empty_classifier
from hemascope.training.freezing import apply_plan
from hemascope.training.step_costs import Pass, StageCosts

if TYPE_CHECKING:
    from hemascope.runtime import Precision


def shapes_of(config: ModelConfig, classes: int) -> Classifier:
    """The network on the meta device: all its shapes, none of its weights. Raises ConfigError."""
    try:
        with torch.device("meta"):
            return empty_classifier(config, classes)
    except (RuntimeError, NotImplementedError):  # a network that computes with numbers while it is built
        return empty_classifier(config, classes).to("meta")


def stage_costs(model: Classifier, stage: StageConfig, size: int, precision: Precision) -> StageCosts:
    """What ``stage`` holds and computes at ``size`` pixels a side; ``model`` is of ``shapes_of``.

    A stage that thaws gradually is taken in its last epoch, where it holds most. Raises ConfigError where the network
    cannot take images of this size.
    """
    apply_plan(model, stage.trainable, math.ceil(stage.epochs) - 1, freeze_batchnorm=stage.freeze_batchnorm)
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    try:
        if stage.kind == "features":
            width = model.backbone.num_features
            learning = _measured(model.head, lambda n: torch.zeros(n, width, device="meta"), precision, learns=True)
        else:
            learning = _measured(model, _images(size), precision, learns=True)
        model.eval()
        looking = _measured(model, _images(size), precision, learns=False)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"{model.backbone.name} cannot take a step at {size} pixels in stage {stage.name!r}: "
            f"{str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__}"
        ) from error
    network = model.head if stage.kind == "features" else model
    return StageCosts(_numbers(model), trainable, _numbers(network), learning, looking)


def _numbers(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _images(size: int) -> Callable[[int], Tensor]:
    return lambda n: torch.zeros(n, 3, size, size, dtype=torch.uint8, device="meta").contiguous(
        memory_format=torch.channels_last
    )


def _measured(network: nn.Module, inputs: Callable[[int], Tensor], precision: Precision, *, learns: bool) -> Pass:
    """Passes of two sizes tell, moment by moment, what grows with the images and what does not."""
    few, more = 2, 4  # a batch norm cannot learn from one
    small, _ = _passed(network, inputs(few), precision, learns=learns)
    large, flops = _passed(network, inputs(more), precision, learns=learns)
    alive = [np.array(one.moments or [0], dtype=np.int64) for one in (small, large)]
    if len(alive[0]) != len(alive[1]):  # a network that goes another way for another batch: its peaks are all there is
        alive = [one.max(keepdims=True) for one in alive]
    image = inputs(1).untyped_storage().nbytes()
    grown = (alive[1] - alive[0]) // (more - few)
    moved = (large.moved - small.moved) // (more - few)
    return Pass(
        fixed=alive[0] - few * grown,
        per_image=grown + image,
        moved_fixed=small.moved - few * moved,
        moved_image=moved,
        operations=large.operations,
        flops=flops // more,
    )


def _passed(network: nn.Module, inputs: Tensor, precision: Precision, *, learns: bool) -> tuple[Watched, int]:
    """What was seen of a pass, without the weights, and the floating-point operations of all its images."""
    from torch.utils.flop_counter import FlopCounterMode

    weights = {value.untyped_storage()._cdata for value in (*network.parameters(), *network.buffers())}
    for parameter in network.parameters():
        parameter.grad = None
    counter = FlopCounterMode(
        display=False, custom_mapping={torch.ops.aten.convolution_backward: _convolution_backward}
    )
    with torch.set_grad_enabled(learns), Watched(weights) as watched, counter:
        with AsAutocast(precision):
            logits: Tensor = network(inputs)
            labels = torch.zeros(len(inputs), dtype=torch.int64, device="meta")
            loss = functional.cross_entropy(logits.float(), labels) if learns else None
        del logits
        if loss is not None:
            loss.backward()  # type: ignore[no-untyped-call]
    for parameter in network.parameters():
        parameter.grad = None
    return watched, counter.get_total_flops()


def _convolution_backward(
    grad_shape: Any, input_shape: Any, weight_shape: Any, *args: Any, out_shape: Any = None, **kwargs: Any
) -> int:
    """As much as the forward pass for each gradient asked for. torch's own count leaves out the groups.

    By position after the shapes: bias sizes, stride, padding, dilation, transposed, output padding, groups, and which
    of the gradients of input, weight and bias are wanted.
    """
    transposed, wanted = args[4], args[7]
    places = math.prod((input_shape if transposed else grad_shape)[2:])
    forward: int = 2 * input_shape[0] * places * math.prod(weight_shape)
    return forward * (bool(wanted[0]) + bool(wanted[1]))


class Watched(TorchDispatchMode):
    """Counts the bytes that operations allocate, from when they come until nothing refers to them any more.

    weights     the storages that are not to be counted
    moments     bytes alive after each allocation
    moved       bytes read and written by all operations that are no mere views
    operations  how many of those there were
    """

    def __init__(self, weights: set[int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.weights = weights
        self.now = self.moved = self.operations = 0
        self.moments: list[int] = []
        self._held: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        made = [value for value in tree_leaves(result) if isinstance(value, Tensor)]
        for value in made:
            self._hold(value)
        if not func.is_view:
            taken = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
            self.operations += 1
            self.moved += sum(value.numel() * value.element_size() for value in (*taken, *made))
        return result

    def _hold(self, value: Tensor) -> None:
        storage = value.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self.weights or key in self._held:
            return

        def gone(_: object) -> None:
            self._held.pop(key, None)
            self.now -= size

        self._held[key] = weakref.ref(storage, gone)
        self.now += size
        self.moments.append(self.now)


_HALF = {
    *(functional.linear, functional.scaled_dot_product_attention),
    *(torch.conv1d, torch.conv2d, torch.conv3d, torch.conv_transpose2d, torch.matmul, torch.bmm, torch.mm),
    *(torch.addmm, torch.baddbmm, torch.einsum, Tensor.matmul, Tensor.__matmul__, Tensor.bmm, Tensor.mm),
}
_FULL = {
    *(functional.layer_norm, functional.group_norm, functional.softmax, functional.log_softmax),
    *(functional.cross_entropy, functional.normalize, torch.softmax, torch.sum, torch.pow, torch.norm),
    *(Tensor.softmax, Tensor.sum, Tensor.pow, Tensor.norm),
}


class AsAutocast(TorchFunctionMode):
    """Changes types as torch.autocast does on a GPU, which the meta device does not know.

    Products and convolutions take half precision, norms, softmax and sums take float32, and each weight is converted
    once a pass (torch's lists: https://docs.pytorch.org/docs/stable/amp.html). Nothing changes under fp32.
    """

    def __init__(self, precision: Precision) -> None:
        super().__init__()
        self.half = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        self._converted: dict[int, Tensor] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if self.half is not None and (func in _HALF or func in _FULL):
            convert = self._to_half if func in _HALF else _to_full
            args, kwargs = tree_map(convert, args), tree_map(convert, kwargs)
        return func(*args, **kwargs)

    def _to_half(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.dtype != torch.float32:
            return value
        if not isinstance(value, nn.Parameter):
            return value.to(self.half)
        return self._converted.setdefault(id(value), value.to(self.half))

    def __exit__(self, *error: Any) -> None:
        self._converted.clear()
        super().__exit__(*error)  # type: ignore[no-untyped-call]


def _to_full(value: Any) -> Any:
    half = isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if half else value
