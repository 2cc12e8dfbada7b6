"""A trained model as a folder: everything prediction needs, nothing that runs when it is opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hemascope.config import ModelConfig, Preparation
from hemascope.errors import BundleError, ConfigError
from hemascope.models.bundle_files import (
    BUNDLE_FILES,
    TRUST_FILE,
    WEIGHTS_FILE,
    Arrays,
    read_arrays,
    read_bundle_files,
    read_state,
    write_bundle_files,
)
from hemascope.models.shipped import locate, shipped_names

if TYPE_CHECKING:
    from hemascope.models.classifier import Classifier


@dataclass(frozen=True)
class TrustParts:
    """What was fitted to say how far to believe a model: numbers and names, and arrays. See ``assessment``."""

    record: Mapping[str, Any]
    arrays: Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True)
class ModelBundle:
    """A model on disk, checked.

    config        the network: backbone and head
    class_names   K names, in the order of the logits
    preparation   what images must go through before the network
    calibration   temperature and cuts fitted on the calibration split, or None; its arrays are in ``trust``
    provenance    where it came from: data, versions, seed
    weights       the safetensors file
    sha256        its digest: the identity of the model
    views         test-time views it predicts with where nobody asks for others; see ``test_time.GROUPS``
    """

    config: ModelConfig
    class_names: tuple[str, ...]
    preparation: Preparation
    calibration: Mapping[str, Any] | None
    provenance: Mapping[str, Any]
    weights: Path
    sha256: str
    views: tuple[str, ...] = ()

    @property
    def trust(self) -> TrustParts | None:
        """``calibration`` with its arrays, read anew; None where they were never fitted. Raises BundleError."""
        path = self.weights.parent / TRUST_FILE
        if self.calibration is None or not path.exists():
            return None
        return TrustParts(self.calibration, read_arrays(path))

    def build(self) -> Classifier:
        """The network with its weights, in evaluation mode on the CPU. Needs nothing but the bundle.

        Raises BundleError where the weights do not fit the network, or where this timm does not know it.
        """
        from hemascope.models.classifier import empty_classifier

        try:
            model = empty_classifier(self.config, len(self.class_names))
        except ConfigError as error:
            raise BundleError(f"{self.weights.parent} cannot be built here: {error}") from error
        try:
            model.load_state_dict(read_state(self.weights))
        except RuntimeError as error:
            first = " ".join(str(error).partition("\n")[2].partition("\n")[0].split()).rstrip(".")  # of torch's list
            raise BundleError(
                f"{self.weights} does not fit the network its bundle describes ({first[:120]}). "
                "Copy the bundle again from its source, or train again."
            ) from error
        return model.eval()


def save_bundle(
    folder: Path,
    model: Classifier,
    *,
    config: ModelConfig,
    class_names: Sequence[str],
    preparation: Preparation,
    provenance: dict[str, Any],
    calibration: dict[str, Any] | None = None,
) -> None:
    """Write ``model`` as a bundle. The folder appears, or is replaced, only when it is whole.

    Raises OutputError where it cannot be written, BundleError where calibration or provenance are not JSON.
    """
    write_bundle_files(
        folder,
        model.state_dict(),
        config=config,
        class_names=tuple(class_names),
        preparation=preparation,
        calibration=calibration,
        provenance=provenance,
    )


def rewrite_bundle(bundle: ModelBundle, *, calibration: Mapping[str, Any], trust: Arrays) -> None:
    """The same weights in the same place with another calibration; other files beside them stay.

    Raises OutputError, BundleError; the bundle is then as it was.
    """
    folder = bundle.weights.parent
    write_bundle_files(
        folder,
        read_state(bundle.weights),
        config=bundle.config,
        class_names=bundle.class_names,
        preparation=bundle.preparation,
        calibration=dict(calibration),
        provenance=dict(bundle.provenance),
        views=bundle.views,
        trust=trust,
        keep=[file for file in sorted(folder.iterdir()) if file.is_file() and file.name not in BUNDLE_FILES],
    )


def copy_bundle(bundle: ModelBundle, folder: Path, *, calibration: Mapping[str, Any], trust: Arrays) -> None:
    """The same weights in another place, with another calibration. Raises OutputError, BundleError."""
    write_bundle_files(
        folder,
        read_state(bundle.weights),
        config=bundle.config,
        class_names=bundle.class_names,
        preparation=bundle.preparation,
        calibration=dict(calibration),
        provenance={**bundle.provenance, "recalibrated_from": bundle.sha256},
        views=bundle.views,
        trust=trust,
    )


def load_bundle(folder: str | Path) -> ModelBundle:
    """The bundle in ``folder``, in the run folder it is, or shipped by that name, after its digests were checked.

    Raises BundleError where it is missing, incomplete, of another version, or differs by a byte.
    """
    found, record = read_bundle_files(locate(folder).folder, shipped_names())
    return ModelBundle(
        config=record.model,
        class_names=record.class_names,
        preparation=record.preparation,
        calibration=record.calibration,
        provenance=record.provenance,
        weights=found / WEIGHTS_FILE,
        sha256=record.weights_sha256,
        views=record.views,
    )
