"""Fitting, on the calibration part, what says how far to believe a model, and putting it into the model's bundle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from hemascope.assessment import REVIEW_SHARE, TrustRecord, described_by
from hemascope.cells import UNLABELLED, CellDataset
from hemascope.config import RunConfig
from hemascope.data.splits import Splits, load_splits
from hemascope.errors import DataError, SplitError, UsageError
from hemascope.morphology.head import PREFIX
from hemascope.progress import SILENT, Progress
from hemascope.results import Predictions
from hemascope.shift.reference import MOST, fit_embedding, fit_reference
from hemascope.uncertainty.conformal import ConformalCuts, fit_conformal
from hemascope.uncertainty.expected_accuracy import fit_expected_accuracy
from hemascope.uncertainty.out_of_distribution import Detector, fit_detector
from hemascope.uncertainty.selective import doubt_of
from hemascope.uncertainty.temperature import fit_temperature, softmax
from hemascope.workflow.cells import Data, Rows, cells_of, prepared_for, spread
from hemascope.workflow.evaluation import with_classes_of

if TYPE_CHECKING:
    from hemascope.models.bundle import ModelBundle
    from hemascope.morphology.collect import DescribedCells
    from hemascope.predict import Predictor

LEVELS = (0.99, 0.95, 0.90)
"""Of prediction sets, most demanding first. The sets shown are of the first that the calibration cells suffice for."""

METHODS: Final = ("lac", "aps", "raps")

BANK = 10_000
"""At most so many training cells stand for all: of what a new cell is near to, and how far."""

ENOUGH_TO_DAMAGE = 50
"""Calibration cells below which no expected accuracy is fitted: its error could not be told from chance."""

DAMAGED = 200
"""Calibration cells in each damaged set."""

FEWEST = 20
"""Calibration cells below which nothing is fitted: not even a cut at 95 % is to be had from fewer than 19."""


@dataclass(frozen=True)
class Calibrated:
    """A bundle with its calibration. ``record`` as in ``assessment``; ``bytes`` of its arrays."""

    folder: Path
    record: TrustRecord
    bytes: int


def calibrate(
    run: str | Path,
    data: Data,
    *,
    words: str | Path | None = None,
    format: str | None = None,
    class_names: list[str] | None = None,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Calibrated:
    """Fit again what the model of ``run`` says about itself, on the calibration part of the cells it was split from.

    words  a folder of WBCAtt tables, for the head that describes white cells in words; left out: that head stays as
           it is, if there is one

    Every part is computed anew; the bundle is replaced at the end, whole. Raises BundleError, SplitError where these
    are other cells, DataError where too few of them are for calibration.
    """
    from hemascope.models.bundle import load_bundle
    from hemascope.models.shipped import locate

    located = locate(run)
    if located.shipped:
        raise UsageError(
            f"{located.name} comes with hemascope and is calibrated. Pack it into a folder of your own first: "
            f"hemascope pack {located.name} -o my_model"
        )
    bundle = load_bundle(located.folder)
    cells = with_classes_of(
        bundle.class_names,
        cells_of(
            data,
            prepared_for(RunConfig(), bundle.preparation),
            format=format,
            class_names=class_names,
            progress=progress,
        ),
    )
    path = located.folder / "splits.json"
    if not path.exists():
        raise SplitError(
            f"{located.folder} has no splits.json, so which cells are for calibration is not known. Give a run's "
            "folder."
        )
    fitted = fit_trust(bundle, cells, load_splits(path, cells), words=words, seed=seed, progress=progress)
    if fitted is None:
        raise DataError(
            f"{cells.source} has fewer than {FEWEST} labelled cells in the calibration part, which is too few to "
            "calibrate with. Train with more cells, or with a larger data.calibration."
        )
    return fitted


def fit_trust(
    bundle: ModelBundle,
    cells: CellDataset,
    splits: Splits,
    *,
    words: str | Path | None = None,
    device: str = "auto",
    batch_size: int = 256,
    seed: int = 0,
    progress: Progress = SILENT,
) -> Calibrated | None:
    """Fit all that ``assessment.Assessor`` needs and write it into ``bundle``'s folder; None with too few cells.

    Temperature, cuts and the review line are fitted on the calibration part; what new cells are compared with comes
    from the training part. The test part is not looked at.
    """
    from hemascope.models.bundle import load_bundle, rewrite_bundle
    from hemascope.predict import Predictor

    rows = splits.indices("calibration")
    rows = rows[cells.labels[rows] != UNLABELLED]
    if len(rows) < FEWEST:
        progress.warn(
            f"Not calibrated: {len(rows)} cells are for calibration, it takes {FEWEST}. Probabilities are as the "
            "network gives them, and no prediction says whether to believe it."
        )
        return None
    labels = cells.labels[rows].astype(np.int64)
    predictor = Predictor(bundle, device=device, batch_size=batch_size, assess=False)

    described = None if words is None else _described(cells, splits, words)
    bank = training_rows(cells, splits, seed)
    wanted = [rows, bank] if described is None else [rows, bank, described.rows[_used(described)]]
    looked = np.unique(np.concatenate(wanted))  # each cell once, whatever it is needed for
    whole = predictor.predict_images(
        _images(cells, looked), [str(cells.ids[row]) for row in looked], features=True, progress=progress
    )

    def seen(chosen: NDArray[np.integer]) -> Predictions:
        return whole.rows(np.searchsorted(looked, chosen))

    said = seen(rows)
    assert said.features is not None and said.view_agreement is not None
    temperature = fit_temperature(said.logits, labels)
    probs = softmax(said.logits, temperature)
    conformal = tuple(
        fit_conformal(probs, labels, method=method, level=level, by_class=by_class)
        for method in METHODS
        for by_class in (False, True)
        for level in LEVELS
    )
    known = seen(bank)
    assert known.features is not None and known.stages is not None and said.stages is not None
    early = predictor.early
    detector, arrays = fit_detector(
        known.features,
        cells.labels[bank].astype(np.int64),
        calibration_features=said.features,
        calibration_logits=said.logits,
        early=known.stages[:, :early] if early else None,
        calibration_early=said.stages[:, :early] if early else None,
        seed=seed,
    )
    if described is None:
        morphology, more = _kept_words(bundle)
    else:
        morphology, more = _fitted_words(described, seen, cells.class_names, seed, progress)
    accuracy = None
    if len(rows) >= ENOUGH_TO_DAMAGE:
        accuracy = _fitted_accuracy(predictor, cells, rows, said, temperature, seed, progress)
    shift = fit_reference(np.stack([cells.images[row] for row in spread_rows(cells, bank, MOST, seed)]))
    shift_arrays = fit_embedding(Detector.from_saved(detector, arrays).project(said.features))
    record = TrustRecord(
        fitted_on=len(rows),
        views=bundle.views,
        temperature=temperature,
        conformal=conformal,
        sets=_shown(conformal),
        detector=detector,
        doubt_cut=float(np.quantile(doubt_of(probs), 1 - REVIEW_SHARE)),
        bank_ids=tuple(str(cells.ids[row]) for row in bank),
        morphology=morphology,
        shift=shift,
        expected_accuracy=accuracy,
    )
    fitted: dict[str, NDArray[np.generic]] = {**arrays, **more, **shift_arrays}
    rewrite_bundle(bundle, calibration=record.model_dump(mode="json"), trust=fitted)
    folder = bundle.weights.parent
    size = sum(array.nbytes for array in fitted.values())
    return Calibrated(load_bundle(folder).weights.parent, record, size)


def _fitted_accuracy(
    predictor: Predictor,
    cells: CellDataset,
    rows: NDArray[np.intp],
    said: Predictions,
    temperature: float,
    seed: int,
    progress: Progress,
) -> dict[str, Any]:
    """What the expected accuracy of new cells is told from: calibration cells as they are, and damaged."""
    from hemascope.workflow.damaging import POLICIES, ROUNDS, damaged_sets

    few = spread_rows(cells, rows, DAMAGED, seed)
    images, labels = np.stack([cells.images[row] for row in few]), cells.labels[few].astype(np.int64)
    ids = [str(cells.ids[row]) for row in few]
    sets = []
    with progress.task("expected accuracy", len(POLICIES) * len(ROUNDS) * len(few), "images") as advance:
        for _, damaged in damaged_sets(images, seed):
            sets.append((softmax(predictor.predict_images(damaged, ids).logits, temperature), labels))
            advance(len(few))
    return fit_expected_accuracy(softmax(said.logits, temperature), cells.labels[rows].astype(np.int64), sets)


def spread_rows(cells: CellDataset, rows: NDArray[np.intp], most: int, seed: int) -> NDArray[np.intp]:
    """At most ``most`` of labelled rows, every class in turn, sorted."""
    if len(rows) <= most:
        return np.asarray(rows)
    return np.asarray(np.sort(rows[spread(cells.labels[rows], seed)[:most]]))


_Words = tuple[dict[str, Any] | None, dict[str, NDArray[np.generic]]]


def _kept_words(bundle: ModelBundle) -> _Words:
    """The head for words that the bundle has already: its features are those of the same weights."""
    parts = bundle.trust
    if parts is None or parts.record.get("morphology") is None:
        return None, {}
    return dict(parts.record["morphology"]), {
        name: value for name, value in parts.arrays.items() if name.startswith(PREFIX)
    }


def _described(cells: CellDataset, splits: Splits, words: str | Path) -> DescribedCells:
    """The cells that WBCAtt's tables describe."""
    from hemascope.morphology.collect import collect
    from hemascope.morphology.read_wbcatt import read_wbcatt

    return collect(cells, splits.assignment, read_wbcatt(Path(words)))


def _used(described: DescribedCells) -> NDArray[np.bool_]:
    """Those that a head for words is made with: none of the model's test part is among them."""
    return np.asarray(described.fit | described.choose | described.cut)


def _fitted_words(
    described: DescribedCells,
    seen: Callable[[NDArray[np.integer]], Predictions],
    class_names: Sequence[str],
    seed: int,
    progress: Progress,
) -> _Words:
    """A head for words, from what the network sees in the described cells."""
    from hemascope.morphology.fit import fit_attributes

    used = _used(described)
    said = seen(described.rows[used])
    assert said.features is not None and said.stages is not None
    return fit_attributes(
        described_by(said.features, said.stages),
        described.values[used],
        described.labels[used],
        class_names,
        fit=described.fit[used],
        choose=described.choose[used],
        cut=described.cut[used],
        seed=seed,
        progress=progress,
    )


def training_rows(cells: CellDataset, splits: Splits, seed: int) -> NDArray[np.intp]:
    """Labelled cells of the training part, at most BANK, every class in turn, sorted."""
    rows = splits.indices("train")
    rows = rows[cells.labels[rows] != UNLABELLED]
    return spread_rows(cells, rows, BANK, seed)


def _images(cells: CellDataset, rows: NDArray[np.intp]) -> Any:
    return Rows(cells.images, rows)


def _shown(conformal: tuple[ConformalCuts, ...]) -> int:
    """The place of the sets that are shown: LAC, one cut for all classes, the most demanding level with a finite cut.

    LAC gives the smallest sets on average (Sadinle, Lei, Wasserman 2019), and a list of one class is what is read
    fastest; which level there are cells enough for depends on n alone, not on any score.
    """
    places = [place for place, one in enumerate(conformal) if one.method == "lac" and not one.by_class]
    for place in places:
        if all(cut is not None for cut in conformal[place].cuts):
            return place
    return places[-1]
