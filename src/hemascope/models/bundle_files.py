"""The files of a model bundle: written at once, and refused when a single byte has changed.

model.safetensors   every parameter and buffer; no pickle
bundle.json         what is needed to build the network, prepare images and read its output
trust.safetensors   arrays that say how far to believe it, where they have been fitted; see ``assessment``
SHA256SUMS          digests of them all, in the form ``sha256sum --check`` reads
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hemascope.atomic import atomic_folder
from hemascope.config import ModelConfig, Preparation
from hemascope.errors import BundleError, OutputError

if TYPE_CHECKING:
    import torch

WEIGHTS_FILE, RECORD_FILE, SUMS_FILE = "model.safetensors", "bundle.json", "SHA256SUMS"
TRUST_FILE = "trust.safetensors"
BUNDLE_FILES = (WEIGHTS_FILE, RECORD_FILE, TRUST_FILE, SUMS_FILE)
_RECORD_LIMIT = 16 * 2**20
_TRUST_LIMIT = 256 * 2**20
Arrays = Mapping[str, NDArray[np.generic]]
_ADVICE = "Copy the bundle again from its source, or train again."


class BundleRecord(BaseModel):
    """What ``bundle.json`` holds."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)

    format: Literal["hemascope-bundle"] = "hemascope-bundle"
    version: Literal[1] = 1
    weights_sha256: str = Field(pattern="^[0-9a-f]{64}$")
    model: ModelConfig
    class_names: tuple[str, ...] = Field(min_length=1, max_length=100_000)
    preparation: Preparation
    calibration: dict[str, Any] | None = None
    provenance: dict[str, Any] = {}
    views: tuple[str, ...] = ()


def bundle_folder(path: Path, shipped_names: Sequence[str] = ()) -> Path:
    """The bundle at ``path``: the folder itself, or ``bundle`` inside a run's folder.

    shipped_names  what could have been meant instead, for the sentence of the BundleError
    """
    if not path.exists():
        shipped = ", ".join(shipped_names)
        also = f", or the name of a model that comes with hemascope ({shipped})" if shipped else ""
        raise BundleError(
            f"no model bundle at {path}: there is no such folder. Give a bundle's or a run's folder{also}."
        )
    for folder in (path, path / "bundle"):
        if (folder / RECORD_FILE).is_file():
            return folder
    raise BundleError(
        f"no model bundle at {path}: neither it nor {path / 'bundle'} holds {RECORD_FILE}. "
        "Give a bundle's folder, or that of a run that has finished training."
    )


def write_bundle_files(
    folder: Path,
    state: Mapping[str, torch.Tensor],
    *,
    config: ModelConfig,
    class_names: tuple[str, ...],
    preparation: Preparation,
    calibration: dict[str, Any] | None,
    provenance: dict[str, Any],
    views: tuple[str, ...] = (),
    trust: Arrays | None = None,
    keep: Sequence[Path] = (),
) -> None:
    """Write the files as one folder, replacing what was there only when all of them are whole.

    views  test-time views the model predicts with where nobody asks for others
    trust  arrays that belong to ``calibration``
    keep   other files to copy into the folder

    Raises OutputError where it cannot be written, BundleError where calibration or provenance are not JSON.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with atomic_folder(folder) as temporary:
        weights = temporary / WEIGHTS_FILE
        try:
            save_file(
                {name: value.detach().cpu().contiguous() for name, value in state.items()},
                weights,
                metadata={"format": "pt"},
            )
        except SafetensorError as error:  # safetensors wraps a full disk in its own class
            raise OutputError(f"cannot write {folder}: {error}. Free some space or choose another place.") from error
        digest = _sha256(weights)
        record = BundleRecord(
            weights_sha256=digest,
            model=config,
            class_names=class_names,
            preparation=preparation,
            calibration=calibration,
            provenance=provenance,
            views=views,
        )
        try:
            # As given, not as pydantic writes it: that would turn NaN into null without a word.
            # Without views the key is left out, so that an older hemascope reads the bundle.
            left_out = {"calibration", "provenance"} | (set() if views else {"views"})
            whole = record.model_dump(mode="json", exclude=left_out)
            whole |= {"calibration": calibration, "provenance": provenance}
            text = json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        except (ValueError, TypeError, RecursionError) as error:
            raise BundleError(f"calibration and provenance of a bundle must be JSON: {error}") from error
        (temporary / RECORD_FILE).write_text(text, encoding="utf-8", newline="\n")
        if trust is not None:
            _write_arrays(temporary / TRUST_FILE, trust)
        for file in keep:
            shutil.copy(file, temporary)
        names = (RECORD_FILE, WEIGHTS_FILE, *(() if trust is None else (TRUST_FILE,)))
        sums = "".join(f"{digest if name == WEIGHTS_FILE else _sha256(temporary / name)}  {name}\n" for name in names)
        (temporary / SUMS_FILE).write_text(sums, encoding="ascii", newline="\n")


def _write_arrays(path: Path, arrays: Arrays) -> None:
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        save_file({name: np.ascontiguousarray(value) for name, value in arrays.items()}, path)
    except SafetensorError as error:
        raise OutputError(f"cannot write {path}: {error}. Free some space or choose another place.") from error


def read_bundle_files(path: Path, shipped_names: Sequence[str] = ()) -> tuple[Path, BundleRecord]:
    """The bundle's folder and its record, after every byte has been checked. Raises BundleError."""
    folder = bundle_folder(path, shipped_names)
    try:
        sums = _read_sums(folder / SUMS_FILE)
        record_file = folder / RECORD_FILE
        if record_file.stat().st_size > _RECORD_LIMIT:
            raise BundleError(f"{record_file} is larger than {_RECORD_LIMIT >> 20} MiB. {_ADVICE}")
        content = record_file.read_bytes()
        _compare(record_file, sums[RECORD_FILE], hashlib.sha256(content).hexdigest())
        found = _sha256(folder / WEIGHTS_FILE)
        trust = folder / TRUST_FILE
        if TRUST_FILE in sums:
            _compare(trust, sums[TRUST_FILE], _sha256(trust))
        elif trust.exists():
            raise BundleError(f"{trust} is not among the digests of {folder / SUMS_FILE}. {_ADVICE}")
    except OSError as error:
        raise BundleError(
            f"cannot read the bundle {folder}: {error.filename}: {error.strerror or error}. {_ADVICE}"
        ) from error
    _compare(folder / WEIGHTS_FILE, sums[WEIGHTS_FILE], found)
    try:
        raw = json.loads(content)
        if isinstance(raw, dict) and raw.get("version", 1) != 1:
            raise BundleError(
                f"{record_file} is of bundle version {raw['version']}; this hemascope reads version 1. "
                "Install a newer hemascope."
            )
        record = BundleRecord.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"{record_file} is malformed at {place or 'its top'}: {first['msg']}. {_ADVICE}") from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{record_file} is not JSON: {error}. {_ADVICE}") from error
    _compare(folder / WEIGHTS_FILE, record.weights_sha256, found)
    return folder, record


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file, on the CPU. Raises BundleError where it is not one."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path, device="cpu")
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{path} is not a whole safetensors file: {error}. {_ADVICE}") from error


def read_arrays(path: Path) -> dict[str, NDArray[np.generic]]:
    """The arrays of a bundle's ``trust.safetensors``. Raises BundleError where it is not one, or too large."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        if path.stat().st_size > _TRUST_LIMIT:
            raise BundleError(f"{path} is larger than {_TRUST_LIMIT >> 20} MiB. {_ADVICE}")
        return dict(load_file(path))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{path} is not a whole safetensors file: {error}. {_ADVICE}") from error


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes in a safetensors file; neither the numbers nor torch are loaded. Raises BundleError."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        raise BundleError(f"{path} is not a whole safetensors file: {error}. {_ADVICE}") from error


def _read_sums(path: Path) -> dict[str, str]:
    try:
        lines = path.read_bytes()[:4096].decode("ascii").splitlines()
        sums = {name: digest for digest, name in (line.split("  ") for line in lines)}
    except ValueError as error:
        raise BundleError(f"{path} is not a list of SHA-256 digests. {_ADVICE}") from error
    needed = {RECORD_FILE, WEIGHTS_FILE}
    if not needed <= sums.keys() <= needed | {TRUST_FILE}:
        raise BundleError(
            f"{path} must hold the digests of {RECORD_FILE}, {WEIGHTS_FILE} and, where there is one, {TRUST_FILE} "
            f"alone. {_ADVICE}"
        )
    return sums


def _compare(path: Path, expected: str, found: str) -> None:
    if expected != found:
        raise BundleError(
            f"{path} is not what was saved: its SHA-256 is {found[:12]}…, expected {expected[:12]}…. {_ADVICE}"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
