"""Models made of models: packed to be given away, and averaged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hemascope.config import RunConfig
from hemascope.data.splits import load_splits
from hemascope.errors import BundleError, UsageError
from hemascope.metrics import balanced_accuracy, confusion_matrix
from hemascope.progress import SILENT, Progress
from hemascope.workflow.cells import Data, cells_of

if TYPE_CHECKING:
    from hemascope.models.bundle import ModelBundle
    from hemascope.models.soup import State


@dataclass(frozen=True)
class Packed:
    """A packed bundle: its size in bytes, what stayed in full precision, and how far it was checked."""

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
    progress: Progress = SILENT,
) -> Packed:
    """Write the model of ``run`` as a bundle of its own at ``output``, in half precision unless told otherwise.

    check  cells that both are tried on; a single changed label is a BundleError, and the packed bundle is then removed

    Raises BundleError, DataError, OutputError.
    """
    from hemascope.models.bundle import load_bundle
    from hemascope.models.packing import write_packed
    from hemascope.predict import Predictor

    bundle, target = load_bundle(run), Path(output)
    kept = write_packed(target, bundle, half=half, provenance={"packed": "fp16" if half else "fp32"})
    packed = load_bundle(target)
    checked, difference = 0, None
    if check is not None:
        config = RunConfig()
        config = config.model_copy(update={"data": config.data.model_copy(update={"preparation": bundle.preparation})})
        cells = cells_of(check, config, format=None, class_names=None, progress=progress)
        before, after = (
            Predictor(one).predict_images(cells.images, cells.ids, progress=progress) for one in (bundle, packed)
        )
        checked, difference = len(cells), float(np.abs(before.probs - after.probs).max())
        changed = int((before.predicted != after.predicted).sum())
        if changed:
            import shutil

            shutil.rmtree(target)
            raise BundleError(
                f"{changed} of {checked:,} cells would be named otherwise by the packed model (largest difference of a "
                f"probability {difference:.4f}), so it was not kept. Pack it with --full."
            )
    size = sum(file.stat().st_size for file in target.iterdir())
    return Packed(target, size, tuple(kept), checked, difference)


@dataclass(frozen=True)
class Soup:
    """An averaged model: which of the given it is made of, and the validation scores that chose them, if any."""

    folder: Path
    ingredients: tuple[str, ...]
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

    greedy  the cells the first run was split from: its validation part, never its test part, then chooses which of the
            runs go into the soup (Wortsman et al. 2022); left out: all do, alike

    Raises UsageError for models that are not alike, BundleError, SplitError, OutputError.
    """
    from hemascope.models import soup
    from hemascope.models.bundle import load_bundle
    from hemascope.models.bundle_files import read_state, write_bundle_files
    from hemascope.models.shipped import locate

    bundles = [load_bundle(run) for run in runs]
    soup.check_ingredients(bundles)
    states = [read_state(bundle.weights) for bundle in bundles]
    chosen, score, alone = list(range(len(bundles))), None, None
    if greedy is not None:
        measure = _validation_score(locate(runs[0]).folder, bundles[0], greedy, progress)
        alone = max(measure(state) for state in states)
        chosen, score = soup.greedy(states, measure)
    first = bundles[chosen[0]]
    families = [set(bundles[number].provenance.get("augmentation_families") or []) for number in chosen]
    write_bundle_files(
        Path(output),
        soup.averaged([states[number] for number in chosen]),
        config=first.config,
        class_names=first.class_names,
        preparation=first.preparation,
        calibration=None,  # fitted for one network, not for the mean of several
        provenance={
            **first.provenance,
            "augmentation_families": sorted(set().union(*families)),
            "soup": [{"run": str(runs[number]), "sha256": bundles[number].sha256} for number in chosen],
            "soup_kind": "uniform" if greedy is None else "greedy",
        },
    )
    return Soup(Path(output), tuple(str(runs[number]) for number in chosen), score, alone)


def _validation_score(folder: Path, bundle: ModelBundle, data: Data, progress: Progress) -> Callable[[State], float]:
    """A function from weights to their balanced accuracy on the validation part of the run in ``folder``."""
    import torch

    from hemascope.models.inference import inference_copy

    if not (folder / "splits.json").exists():
        raise UsageError(f"{folder} has no split, so there is no validation part to choose by: leave --greedy out.")
    config = RunConfig()
    config = config.model_copy(update={"data": config.data.model_copy(update={"preparation": bundle.preparation})})
    cells = cells_of(data, config, format=None, class_names=bundle.class_names, progress=progress)
    rows = load_splits(folder / "splits.json", cells).indices("validation")
    images, labels = np.stack([cells.images[row] for row in rows]), cells.labels[rows]
    network, size, classes = bundle.build(), bundle.preparation.size, len(bundle.class_names)

    def measure(state: State) -> float:
        network.load_state_dict(state)
        fast = inference_copy(network, size)
        said = []
        with torch.inference_mode(), progress.task("validating", len(rows), "images") as advance:
            for start in range(0, len(rows), 256):
                pixels = torch.from_numpy(images[start : start + 256]).permute(0, 3, 1, 2)
                said.append(fast(pixels).argmax(dim=1).numpy())
                advance(len(pixels))
        return float(balanced_accuracy(confusion_matrix(labels, np.concatenate(said), classes)))

    return measure
