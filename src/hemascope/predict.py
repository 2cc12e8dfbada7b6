"""The one way from pixels to Predictions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from hemascope.cells import UNLABELLED, CellDataset
from hemascope.errors import BundleError, DataError, UsageError
from hemascope.models.bundle import ModelBundle, load_bundle
from hemascope.models.ensemble import Member, check_members, class_order, combined
from hemascope.models.features import WithFeatures
from hemascope.models.inference import inference_copy, traced
from hemascope.models.shipped import Located, hiding, locate
from hemascope.names import listed
from hemascope.progress import SILENT, Progress
from hemascope.results import Predictions, Trust
from hemascope.runtime import Runtime, autocast, choose_device, choose_precision, keep_freed_memory
from hemascope.test_time import test_time_views

if TYPE_CHECKING:
    from hemascope.assessment import Assessor

TRACE_AFTER = 1024
"""Images after which a CPU predicts with a traced graph: making it takes as long as predicting some hundred."""

Inputs = str | Path | Sequence[str | Path] | NDArray[np.uint8] | CellDataset


class _Said(NamedTuple):
    """As ``models.ensemble.Outputs``, of B images in numpy."""

    logits: NDArray[np.float32]
    probs: NDArray[np.float32]
    features: NDArray[np.float32]
    stages: NDArray[np.float32]
    agreement: NDArray[np.float32]


class Predictor:
    """A model ready to predict.

    device      auto, cpu, cuda, cuda:N or mps
    precision   auto (bf16 on GPUs that have it, else fp32), fp32, bf16 or fp16
    batch_size  images at a time
    threads     CPU threads to compute with; None leaves torch's choice
    tta         views of each image whose logits are averaged, see ``test_time.GROUPS``; None: the bundle's own, which
                are none unless it says otherwise
    ensemble    other models of the same classes and preparation: probabilities are averaged over all of them
    located     where the model was found, where it was found by ``load_model``
    assess      False leaves ``Predictions.trust`` out

    ``assessor`` judges each prediction by what was fitted on the calibration part. It is None where nothing was
    fitted, and with views or an ensemble that it was not fitted for: cuts of other probabilities would promise what
    they cannot keep.

    Raises ConfigError for a device or precision that is not there, BundleError for weights that do not fit, UsageError
    for views that are not there and for models that do not go together.
    """

    def __init__(
        self,
        bundle: ModelBundle,
        *,
        device: str = "auto",
        precision: str = "auto",
        batch_size: int = 256,
        threads: int | None = None,
        tta: Sequence[str] | None = None,
        ensemble: Sequence[ModelBundle] = (),
        located: Located | None = None,
        assess: bool = True,
    ) -> None:
        if batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, found {batch_size}")
        if threads is not None:
            if threads < 1:
                raise UsageError(f"threads must be at least 1, found {threads}")
            torch.set_num_threads(threads)
        chosen = choose_device(device)
        keep_freed_memory()
        self.bundle = bundle
        self.batch_size = batch_size
        self.runtime = Runtime(chosen, choose_precision(precision, chosen))
        folder = bundle.weights.parent
        self.located = located or Located(folder, folder.name, shipped=False)
        self.tta = bundle.views if tta is None else tuple(tta)
        bundles = (bundle, *ensemble)
        self._identities = [(str(one.weights.parent), one.sha256) for one in bundles]
        check_members(bundles)
        if tta is None:
            _check_own_views(bundle)
        networks = [inference_copy(one.build(), one.preparation.size).to(chosen) for one in bundles]
        self._width = networks[0].backbone.num_features
        whole = [WithFeatures(network, one.preparation.size) for one, network in zip(bundles, networks, strict=True)]
        self._early = whole[0].early
        self._members = [
            Member(
                network,
                _temperature(one),
                (_as_it_is, *test_time_views(self.tta, one.provenance)),
                class_order(one.class_names, bundle.class_names),
            )
            for one, network in zip(bundles, whole, strict=True)
        ]
        self._stage_width = self._stages()
        self.assessor = self._assessor() if assess else None
        self._until_trace = TRACE_AFTER if chosen == "cpu" and self.runtime.precision == "fp32" else None

    @property
    def name(self) -> str:
        """What to call the model."""
        return self.located.name

    @property
    def folder(self) -> Path:
        """The run or bundle it came from."""
        return self.located.folder

    @property
    def shipped(self) -> bool:
        """Whether it came with hemascope, so that nothing may be written beside it."""
        return self.located.shipped

    @property
    def passes(self) -> int:
        """Times an image goes through a network."""
        return sum(len(member.views) for member in self._members)

    def describe(self) -> dict[str, Any]:
        """For the record of a result: the digest of each model averaged, the views, and the passes of an image."""
        return {
            "tta": list(self.tta),
            "models": [{"name": name, "sha256": digest} for name, digest in self._identities],
            "passes": self.passes,
        }

    @property
    def class_names(self) -> tuple[str, ...]:
        """The K names, in the order of the logits."""
        return self.bundle.class_names

    @property
    def early(self) -> int:
        """How many of the features of the stages are of the early ones."""
        return self._early

    def _stages(self) -> int:
        """How many features the stages of the first network have."""
        network, size = self._members[0].network, self.bundle.preparation.size
        with torch.inference_mode():
            probe = torch.zeros((1, 3, size, size), dtype=torch.uint8, device=self.runtime.device)
            return int(network(probe)[2].shape[1])

    def _assessor(self) -> Assessor | None:
        if len(self._members) > 1 or self.tta != self.bundle.views:
            return None
        parts = self.bundle.trust
        if parts is None:
            return None
        from hemascope.assessment import Assessor

        assessor = Assessor(self.class_names, parts.record, parts.arrays, where=self.bundle.weights.parent)
        assessor.check_widths(self._width, self._stage_width)
        return assessor if assessor.record.views == self.tta else None

    def predict(self, inputs: Inputs, *, features: bool = False, progress: Progress = SILENT) -> Predictions:
        """Predict whatever is given, all at once.

        inputs   a path or paths (files, folders, arrays in npz: read and prepared as the bundle says); uint8
                 (N, H, W, 3) RGB images as they came, which are prepared too; or a CellDataset, which must already
                 be prepared as the bundle says
        features whether to give the features of each image as well

        An image that cannot be read is a row with its error. Raises SourceError for a path that is not there,
        DataError for an array of another shape and for a CellDataset prepared otherwise.
        """
        if isinstance(inputs, CellDataset):
            self._check_preparation(inputs)
            return self.predict_images(
                inputs.images,
                inputs.ids,
                inputs.labels,
                class_names=inputs.class_names,
                features=features,
                progress=progress,
            )
        if isinstance(inputs, np.ndarray):
            return self._predict_raw(inputs, features, progress)
        paths = [inputs] if isinstance(inputs, str | PathLike) else list(inputs)
        return joined(self.predict_batches(paths, features=features, progress=progress), self.class_names)

    def predict_batches(
        self, inputs: Sequence[str | Path], *, features: bool = False, progress: Progress = SILENT
    ) -> Iterator[Predictions]:
        """Predict files, folders and arrays in files, one batch of images after the other, in order.

        Memory does not grow with the number of images. An image that cannot be read is a row with its error.
        """
        from hemascope.data.stream import stream_images

        paths = [fspath(path) for path in inputs]
        for batch in stream_images(paths, self.bundle.preparation, batch_size=self.batch_size, progress=progress):
            errors = list(batch.errors) or [""] * len(batch.ids)
            readable = np.array([not error for error in errors], dtype=bool)
            said = self._forward(batch.images if readable.all() else batch.images[readable])
            trust = self._trust(said)
            yield Predictions(
                list(batch.ids),
                self.class_names,
                _spread(said.logits, readable),
                _spread(said.probs, readable),
                errors=errors,
                trust=None if trust is None else trust.spread_out(readable),
                features=_spread(said.features, readable) if features else None,
                stages=_spread(said.stages, readable) if features else None,
                view_agreement=_spread(said.agreement[:, None], readable)[:, 0] if features else None,
            )

    def predict_images(
        self,
        images: NDArray[np.uint8],
        ids: Sequence[str],
        labels: NDArray[np.int64] | None = None,
        *,
        class_names: Sequence[str] | None = None,
        features: bool = False,
        progress: Progress = SILENT,
    ) -> Predictions:
        """Predict prepared images: uint8 (N, S, S, 3) RGB, in memory or memory-mapped, S as the bundle says.

        labels       int64 (N,), -1 unknown, or None; they travel along
        class_names  what the labels index, where it is not the model's own list; they are matched by name
        features     whether to give the features of each image as well

        Raises DataError for another shape or type, and for labels of a class the model does not know.
        """
        size, count = self.bundle.preparation.size, len(images)
        if images.dtype != np.uint8 or images.shape[1:] != (size, size, 3):
            raise DataError(
                f"this model takes prepared images, uint8 (N, {size}, {size}, 3); found {images.dtype} {images.shape}"
            )
        if len(ids) != count:
            raise DataError(f"ids must have one entry for each of {count} images, found {len(ids)}")
        known = None if labels is None else self._labels(labels, class_names)
        parts = []
        with progress.task("predicting", count, "images") as advance:
            for start in range(0, count, self.batch_size):
                rows = slice(start, min(start + self.batch_size, count))
                parts.append(self._predicted(ids[rows], images[rows], features))
                advance(rows.stop - rows.start)
        whole = joined(parts, self.class_names)
        return replace(whole, ids=ids, labels=known, errors=())

    def _predicted(self, ids: Sequence[str], images: NDArray[np.uint8], features: bool) -> Predictions:
        """Of one batch of prepared images."""
        said = self._forward(images)
        return Predictions(
            ids,
            self.class_names,
            said.logits,
            said.probs,
            trust=self._trust(said),
            features=said.features if features else None,
            stages=said.stages if features else None,
            view_agreement=said.agreement if features else None,
        )

    def _trust(self, said: _Said) -> Trust | None:
        return None if self.assessor is None else self.assessor.assess(*said)

    def _forward(self, images: NDArray[np.uint8]) -> _Said:
        """Of uint8 (N, S, S, 3); never more than a batch at a time."""
        if not len(images):
            none, classes = np.zeros((0, self._width), np.float32), np.zeros((0, len(self.class_names)), np.float32)
            return _Said(classes, classes, none, np.zeros((0, self._stage_width), np.float32), np.zeros(0, np.float32))
        if len(images) > self.batch_size:
            parts = [self._forward(images[i : i + self.batch_size]) for i in range(0, len(images), self.batch_size)]
            return _Said(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
        own = np.array(images, order="C")  # a memory map is read-only, and torch wants to be able to write
        pixels = torch.from_numpy(own).to(self.runtime.device).permute(0, 3, 1, 2)  # channels-last as it is
        self._trace_when_worth_it(pixels)
        try:
            with torch.inference_mode(), autocast(self.runtime):
                said = combined([member.outputs(pixels) for member in self._members])
        except torch.OutOfMemoryError as error:
            raise UsageError(
                f"{self.runtime.device} has too little memory for {len(images)} images at a time. "
                f"Use a batch_size below {self.batch_size}."
            ) from error
        return _Said(*(part.cpu().numpy() for part in said))

    def _trace_when_worth_it(self, pixels: torch.Tensor) -> None:
        if self._until_trace is None:
            return
        self._until_trace -= len(pixels)
        if self._until_trace <= 0:
            self._until_trace = None
            for member in self._members:
                if isinstance(member.network, WithFeatures):
                    member.network = traced(member.network, pixels)

    def _predict_raw(self, images: NDArray[np.uint8], features: bool, progress: Progress) -> Predictions:
        """Images as they came are prepared a batch at a time, so that N may be large."""
        from hemascope.data.prepare import prepare

        if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
            raise DataError(f"images must be uint8 (N, height, width, 3), found {images.dtype} {images.shape}")
        preparation, parts = self.bundle.preparation, []
        with progress.task("predicting", len(images), "images") as advance:
            for start in range(0, len(images), self.batch_size):
                raw = images[start : start + self.batch_size]
                ready = np.stack([prepare(image, preparation) for image in raw])
                ids = [f"array#{start + i}" for i in range(len(raw))]
                parts.append(self._predicted(ids, ready, features))
                advance(len(raw))
        return joined(parts, self.class_names)

    def _check_preparation(self, cells: CellDataset) -> None:
        wanted, size = self.bundle.preparation, cells.images.shape[1:3]
        if size != (wanted.size, wanted.size) or cells.preparation not in ("", wanted.describe()):
            raise DataError(
                f"this model takes images prepared as {wanted.describe()}; these are {size[0]} × {size[1]}, "
                f"prepared as {cells.preparation or 'nobody said'}. Load them again with the model's preparation."
            )

    def _labels(self, labels: NDArray[np.int64], names: Sequence[str] | None) -> NDArray[np.int64]:
        """The labels as indices into the model's own classes."""
        names = self.class_names if names is None else tuple(names)
        if len(labels) and (labels.min() < UNLABELLED or labels.max() >= len(names)):
            raise DataError(
                f"labels must lie in {UNLABELLED} to {len(names) - 1}, found {labels.min()} to {labels.max()}"
            )
        if names == self.class_names:
            return labels
        own = {name: index for index, name in enumerate(self.class_names)}
        unknown = [name for index, name in enumerate(names) if name not in own and (labels == index).any()]
        if unknown:
            raise DataError(
                f"the model does not know the class {unknown[0]!r} of these cells; it knows "
                f"{listed(self.class_names)}. Rename the class or leave its cells out."
            )
        # The last entry is reached by the index -1: unlabelled stays unlabelled.
        table = np.array([*(own.get(name, UNLABELLED) for name in names), UNLABELLED], dtype=np.int64)
        return table[labels]


def load_model(
    path: str | Path,
    *,
    tta: Sequence[str] | None = None,
    ensemble: Sequence[str | Path] = (),
    device: str = "auto",
    precision: str = "auto",
    batch_size: int = 256,
    threads: int | None = None,
    progress: Progress = SILENT,
) -> Predictor:
    """The model in a bundle's or a run's folder, or a shipped one by its name, ready to predict.

    tta       views whose logits are averaged; None: the model's own
    ensemble  other folders or names, whose probabilities are averaged with the first's
    progress  is told how often an image goes through a network, if more than once, and which of two models of one
              name was taken

    Raises BundleError where one is not there or not whole, UsageError where they do not go together.
    """
    located, others = locate(path), [locate(other) for other in ensemble]
    for one in dict.fromkeys((located, *others)):
        if one.hides_shipped:
            progress.note(hiding(one))
    predictor = Predictor(
        load_bundle(located.folder),
        device=device,
        precision=precision,
        batch_size=batch_size,
        threads=threads,
        tta=tta,
        ensemble=[load_bundle(other.folder) for other in others],
        located=located,
    )
    if predictor.passes > 1:
        progress.note(f"Each image goes through a network {predictor.passes} times.")
    return predictor


def _as_it_is(images: torch.Tensor) -> torch.Tensor:
    return images


def _spread(values: NDArray[np.float32], readable: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Rows of the readable images among rows of NaN: (N, C) for bool (N,)."""
    if readable.all():
        return values
    whole = np.full((len(readable), values.shape[1]), np.nan, dtype=np.float32)
    whole[readable] = values
    return whole


def _concatenated(parts: Sequence[NDArray[np.float32] | None]) -> NDArray[np.float32] | None:
    """None where there are none, or one of them is None."""
    known = [part for part in parts if part is not None]
    return np.concatenate(known) if parts and len(known) == len(parts) else None


def joined(parts: Iterable[Predictions], class_names: tuple[str, ...]) -> Predictions:
    """Batches of predictions, without labels, as one."""
    found = list(parts)
    empty = np.empty((0, len(class_names)), dtype=np.float32)
    return Predictions(
        [name for part in found for name in part.ids],
        class_names,
        np.concatenate([empty, *(part.logits for part in found)]),
        np.concatenate([empty, *(part.probs for part in found)]),
        errors=[error for part in found for error in (part.errors or [""] * len(part))],
        trust=Trust.joined(part.trust for part in found),
        features=_concatenated([part.features for part in found]),
        stages=_concatenated([part.stages for part in found]),
        view_agreement=_concatenated([part.view_agreement for part in found]),
    )


def _check_own_views(bundle: ModelBundle) -> None:
    """Raise BundleError where the views a bundle brings are none this version knows."""
    try:
        test_time_views(bundle.views, bundle.provenance)
    except UsageError as error:
        raise BundleError(f"{bundle.weights.parent} asks for views that cannot be had: {error}") from error


def _temperature(bundle: ModelBundle) -> float:
    """The temperature probabilities are scaled by (Guo et al. 2017), 1 where the bundle has none."""
    value = (bundle.calibration or {}).get("temperature", 1.0)
    if not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise BundleError(
            f"the temperature in {bundle.weights.parent} must be a number above 0, found {value!r}. Train again."
        )
    return float(value)
