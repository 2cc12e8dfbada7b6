"""Models made of models: packed to be given away, and averaged."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hemascope.cells import CellDataset
from hemascope.config import RunConfig
from hemascope.data.splits import Splits, load_splits
from hemascope.errors import BundleError, DataError, SplitError
from hemascope.metrics import balanced_accuracy, confusion_matrix
from hemascope.progress import SILENT, Progress
from hemascope.workflow.cells import Data, cells_of, prepared_for, sampled
from hemascope.workflow.evaluation import with_classes_of
from hemascope.workflow.places import check_free

if TYPE_CHECKING:
    from hemascope.models.bundle import ModelBundle
    from hemascope.models.soup import State


@dataclass(frozen=True)
class Packed:
    """A packed bundle.

    bytes               of all its files
    kept_whole          tensors that stayed in full precision
    checked             cells it was tried on, 0 where none were given
    largest_difference  of a probability, from the model it was made of, or None
    """

    folder: Path
    bytes: int
    kept_whole: tuple[str, ...]
    checked: int
    largest_difference: float | None


def pack(
    run: str | Path,
    output: str | Path,
    *,
    half: bool = True,
    check: Data | None = None,
    light: Data | None = None,
    licence: str | None = None,
    views: Sequence[str] | None = None,
    progress: Progress = SILENT,
) -> Packed:
    """Write the model of ``run`` as a bundle of its own at ``output``, in half precision unless told otherwise.

    check    cells that both are tried on; a single changed label is a BundleError, and nothing is written
    light    the cells the run was trained on, for a model that does not know in what light they were (``illuminant`` of
             its provenance, which colour constancy needs): it is measured on the run's training part of them
    licence  of the weights, for the list of models
    views    test-time views it is to predict with where nobody asks for others; left out: those it has

    Raises BundleError, DataError, SplitError, OutputError.
    """
    from hemascope.models.bundle import load_bundle
    from hemascope.models.packing import write_packed
    from hemascope.test_time import test_time_views

    target = Path(output)
    check_free(target)
    bundle = load_bundle(run)
    added: dict[str, Any] = {} if licence is None else {"licence": licence}
    if light is not None:
        added["illuminant"] = _light_of_training(run, bundle, light, progress)
    checked, difference = 0, None
    if check is not None:
        cells = _cells(bundle, check, progress)
        with tempfile.TemporaryDirectory() as scratch:  # nothing lies at the output before it is known to be right
            trial = Path(scratch) / "trial"
            write_packed(trial, bundle, half=half, provenance=added, views=())
            checked, difference = len(cells), _difference(bundle, load_bundle(trial), cells, progress)
    own = None if views is None else tuple(views)
    if own:
        test_time_views(own, {**bundle.provenance, **added})  # refused now, not at the first prediction
    kept = write_packed(target, bundle, half=half, provenance=added, views=own)
    size = sum(file.stat().st_size for file in target.iterdir())
    return Packed(target, size, tuple(kept), checked, difference)


@dataclass(frozen=True)
class Soup:
    """An averaged model.

    ingredients  the runs it is made of, best first if chosen
    left_out     those that would have made it worse on the validation cells
    score        its balanced accuracy there, best_alone that of the best ingredient; None where nothing was chosen
    """

    folder: Path
    ingredients: tuple[str, ...]
    left_out: tuple[str, ...]
    score: float | None
    best_alone: float | None


def make_soup(
    runs: Sequence[str | Path],
    output: str | Path,
    *,
    greedy: Data | None = None,
    progress: Progress = SILENT,
) -> Soup:
    """Average the weights of several runs of one network into a bundle at ``output``.

    greedy  the cells the runs were split from, all alike: their validation part, never the test part, chooses which of
            the runs go into the soup (Wortsman et al. 2022); left out: all do

    Raises UsageError for models that are not alike, BundleError, SplitError, OutputError.
    """
    from hemascope.models import soup
    from hemascope.models.bundle import load_bundle
    from hemascope.models.bundle_files import read_state, write_bundle_files

    target = Path(output)
    check_free(target)
    bundles = [load_bundle(run) for run in runs]
    soup.check_ingredients(bundles)
    states = [read_state(bundle.weights) for bundle in bundles]
    chosen, score, best_alone = list(range(len(bundles))), None, None
    if greedy is not None:
        cells = _cells(bundles[0], greedy, progress)
        measure = _validation_score(bundles[0], cells, _common_split(runs, cells), progress)
        chosen, score, alone = soup.greedy(states, measure)
        best_alone = max(alone)
    used = [bundles[number] for number in chosen]
    write_bundle_files(
        target,
        soup.averaged([states[number] for number in chosen]),
        config=used[0].config,
        class_names=used[0].class_names,
        preparation=used[0].preparation,
        calibration=None,  # fitted for one network, not for the mean of several
        provenance={
            **used[0].provenance,
            **_exposure([one.provenance for one in used]),
            "soup": [{"run": str(runs[number]), "sha256": bundles[number].sha256} for number in chosen],
            "soup_kind": "uniform" if greedy is None else "greedy",
        },
    )
    out = [str(run) for number, run in enumerate(runs) if number not in chosen]
    return Soup(target, tuple(str(runs[number]) for number in chosen), tuple(out), score, best_alone)


def _cells(bundle: ModelBundle, data: Data, progress: Progress) -> CellDataset:
    """The cells as the model takes them, labels counted in its classes."""
    config = prepared_for(RunConfig(), bundle.preparation)
    cells = cells_of(data, config, format=None, class_names=None, progress=progress)
    if not len(cells):
        raise DataError(f"{cells.source} holds no cells. Give some.")
    return cells


def _difference(bundle: ModelBundle, packed: ModelBundle, cells: CellDataset, progress: Progress) -> float:
    """The largest difference of a probability on these cells. Raises BundleError where a label differs."""
    from hemascope.predict import Predictor

    before, after = (
        Predictor(one, tta=()).predict_images(cells.images, cells.ids, progress=progress) for one in (bundle, packed)
    )
    difference = float(np.abs(before.probs - after.probs).max())
    changed = int((before.predicted != after.predicted).sum())
    if changed:
        raise BundleError(
            f"the packed model would name {changed:,} of {len(cells):,} cells otherwise (largest difference of a "
            f"probability {difference:.4f}), so it was not written. Pack it with --full, or without --check."
        )
    return difference


def _light_of_training(run: str | Path, bundle: ModelBundle, data: Data, progress: Progress) -> list[float]:
    from hemascope.models.shipped import locate
    from hemascope.test_time import illuminant

    cells = _cells(bundle, data, progress)
    return illuminant(sampled(cells, _split_of(locate(run).folder, cells).indices("train")))


def _split_of(folder: Path, cells: CellDataset) -> Splits:
    """The split of the run in ``folder``. Raises SplitError where it has none, or one of other cells."""
    if not (folder / "splits.json").exists():
        raise SplitError(
            f"{folder} has no splits.json, so what it was trained on is not known. Give a run's folder, not its bundle."
        )
    return load_splits(folder / "splits.json", cells)


def _common_split(runs: Sequence[str | Path], cells: CellDataset) -> Splits:
    """The one split of all runs; with another, a run may have been trained on what would judge it."""
    from hemascope.models.shipped import locate

    first, *others = (_split_of(locate(run).folder, cells) for run in runs)
    for run, other in zip(runs[1:], others, strict=True):
        if (first.assignment != other.assignment).any():
            raise SplitError(
                f"{run} was split otherwise than {runs[0]}, so it may have been trained on the cells that are to "
                "choose. Leave it or --greedy out, or train it with --splits."
            )
    return first


def _validation_score(
    bundle: ModelBundle, cells: CellDataset, splits: Splits, progress: Progress
) -> Callable[[State], float]:
    """A function from weights to their balanced accuracy on the validation part."""
    import torch

    from hemascope.models.inference import inference_copy
    from hemascope.runtime import choose_device

    cells = with_classes_of(bundle.class_names, cells)
    rows = splits.indices("validation")
    if not len(rows):
        raise SplitError("the runs' split has no validation part to choose by: leave --greedy out.")
    device, classes = choose_device("auto"), len(bundle.class_names)
    network = bundle.build()

    def measure(state: State) -> float:
        network.load_state_dict(dict(state))
        fast = inference_copy(network, bundle.preparation.size).to(device)
        said = []
        with torch.inference_mode(), progress.task("validating", len(rows), "images") as advance:
            for start in range(0, len(rows), _BATCH):
                images = np.stack([cells.images[row] for row in rows[start : start + _BATCH]])
                pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2)
                said.append(fast(pixels).argmax(dim=1).cpu().numpy())
                advance(len(images))
        return float(balanced_accuracy(confusion_matrix(cells.labels[rows], np.concatenate(said), classes)))

    return measure


_BATCH = 256


def _exposure(ingredients: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What kinds of damage a soup has seen: all that any ingredient has; held out is what every one did without.

    Where one ingredient does not say, the soup cannot either, and says None.
    """
    seen = [one.get("augmentation_families") for one in ingredients]
    if None in seen:
        return {"augmentation_families": None, "held_out_families": None}
    union = {family for families in seen for family in families or ()}
    held = set.intersection(*(set(one.get("held_out_families") or ()) for one in ingredients))
    policies = dict.fromkeys(str(one.get("augmentation_policy", "")) for one in ingredients)
    return {
        "augmentation_policy": ", ".join(name for name in policies if name),
        "augmentation_families": sorted(union),
        "held_out_families": sorted(held - union),
    }
