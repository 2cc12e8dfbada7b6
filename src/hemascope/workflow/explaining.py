"""Where a model looked, cell by cell, with the figures that say whether the map can be believed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hemascope.atomic import atomic_folder, write_json
from hemascope.augmentation import augmented as damaged
from hemascope.augmentation import position_generator
from hemascope.config import RunConfig
from hemascope.config_files import load_policy
from hemascope.errors import DataError, MissingExtraError, UsageError
from hemascope.explain_results import CellExplanation, ExplainReport, MethodResult, UnreadableImage
from hemascope.manifest import now
from hemascope.names import suggestion
from hemascope.policies import Policy
from hemascope.progress import SILENT, Progress
from hemascope.report.render_explain import render_explain, save_overlay
from hemascope.workflow.cells import cells_of, prepared_for, spread
from hemascope.workflow.evaluation import with_classes_of
from hemascope.workflow.places import check_no_run, check_replaceable
from hemascope.workflow.stressing import fewer, tested_rows

if TYPE_CHECKING:
    from hemascope.models.classifier import Classifier
    from hemascope.predict import Predictor

LIMIT = 50
"""Cells explained where nobody says how many: a page a person still reads."""

RANDOM_MAPS = 3
"""Maps that know nothing a cell's maps are compared with: more move their mean by less than it matters."""

_LEFT_OUT = ("geometry", "occlusion", "deposit", "bubble", "tone")
"""Families of damage an augmented version does without. Those that move or cover the cell would move the map too, and
then a map that lies elsewhere would be right; turned-round tones make a picture no microscope does."""

_AHEAD = 32
"""Images read at a time: a limit is then reached without reading a whole folder."""


@dataclass(frozen=True)
class Explained:
    """A folder with ``overlays/``, ``heatmaps.npz``, ``explain.json`` and ``report.html``."""

    folder: Path
    report: ExplainReport
    page: Path


@dataclass(frozen=True)
class _Asked:
    """n images to explain: ids, pictures uint8 (n, S, S, 3), true names ("" unknown), and what was left out."""

    ids: list[str]
    images: NDArray[np.uint8]
    true_labels: list[str]
    unreadable: tuple[UnreadableImage, ...] = ()
    notes: tuple[str, ...] = ()


def explain(
    run: str | Path,
    inputs: Sequence[str | Path],
    *,
    output: str | Path,
    methods: Sequence[str] = ("rise",),
    augmented: str | None = "robust",
    limit: int = LIMIT,
    seed: int = 0,
    part: str | None = None,
    format: str | None = None,
    class_names: Sequence[str] | None = None,
    command: str = "",
    progress: Progress = SILENT,
) -> Explained:
    """Draw where the model of ``run`` looked in each cell, test each map, and write maps, figures and a page.

    run        a run's or bundle's folder, or the name of a shipped model
    inputs     images, folders or arrays in files; with ``part`` one labelled data set
    methods    of ``hemascope.explain.cams.METHODS``
    augmented  a policy's name or file: each cell is explained a second time, mirrored or turned and damaged by those
               of its operations that leave everything in its place; None: no second version
    limit      at most this many cells: the first ones, or with ``part`` some of each class
    part       test, validation, calibration, train or all of a labelled set

    The class explained is the one predicted, in both versions. ``heatmaps.npz`` holds ``ids`` (n,) as text of fixed
    width and, for each method, float16 (n, S, S) under its name; it loads without pickle.

    Raises UsageError for an unknown method, policy or part, MissingExtraError without grad-cam, SourceError, DataError
    where no image can be read, BundleError, OutputError. Nothing is written where it fails.
    """
    chosen, target = _checked(methods, limit, seed), Path(output)
    check_no_run(target, "an explanation")
    check_replaceable(target, "explain.json", "an explanation")
    policy = None if augmented is None else load_policy(augmented)

    from hemascope.explain.cams import CAMS
    from hemascope.explain.layers import last_spatial_layer
    from hemascope.predict import load_model

    predictor = load_model(run, device="cpu", batch_size=_AHEAD, progress=progress)
    classifier = predictor.bundle.build().eval()
    if set(chosen) & set(CAMS):  # a backbone without maps is said before the work; the other methods need none
        last_spatial_layer(classifier, predictor.bundle.preparation.size)
    if part is None:
        asked = _streamed(predictor, inputs, limit, progress)
    else:
        asked = _from_part(predictor, inputs, part, limit, seed, format, class_names, progress)
    with atomic_folder(target) as temporary:
        cells, heat, sanity = _explained(predictor, classifier, asked, chosen, policy, seed, temporary, progress)
        report = ExplainReport(
            model=predictor.name,
            model_sha256=predictor.bundle.sha256,
            methods=chosen,
            policy="" if policy is None else policy.name,
            part=part or "",
            seed=seed,
            assessed=predictor.assessor is not None,
            class_names=predictor.class_names,
            cells=tuple(cells),
            unreadable=asked.unreadable,
            notes=asked.notes,
            sanity=sanity,
            created=now(),
            command=command,
        )
        arrays: dict[str, Any] = {"ids": np.array(asked.ids, dtype=np.str_), **heat}
        np.savez_compressed(temporary / "heatmaps.npz", **arrays)
        write_json(temporary / "explain.json", report.model_dump(mode="json"))
        render_explain(report, temporary)
    return Explained(target, report, target / "report.html")


def _checked(methods: Sequence[str], limit: int, seed: int) -> tuple[str, ...]:
    """The methods, each once, if grad-cam is there where one needs it."""
    from hemascope.explain.cams import CAMS, METHODS, MISSING

    chosen = tuple(dict.fromkeys(methods))
    if not chosen:
        raise UsageError("no method was named; rise is the usual one.")
    for name in chosen:
        if name not in METHODS:
            raise UsageError(f"there is no method {name!r}; {suggestion(name, METHODS)}")
    if set(chosen) & set(CAMS) and find_spec("pytorch_grad_cam") is None:
        raise MissingExtraError(MISSING)
    if limit < 1:
        raise UsageError(f"a limit must be at least 1, found {limit}.")
    if seed < 0:
        raise UsageError(f"a seed must be at least 0, found {seed}.")
    return chosen


def _streamed(predictor: Predictor, inputs: Sequence[str | Path], limit: int, progress: Progress) -> _Asked:
    """The first ``limit`` images that can be read, and those met on the way that cannot."""
    from hemascope.data.stream import stream_images

    ids: list[str] = []
    images: list[NDArray[np.uint8]] = []
    unreadable: list[UnreadableImage] = []
    notes: list[str] = []
    for batch in stream_images(inputs, predictor.bundle.preparation, batch_size=_AHEAD, progress=progress):
        for name, image, error in zip(batch.ids, batch.images, batch.errors, strict=True):
            if len(ids) == limit:
                notes = [f"The first {limit:,} images were explained; there are more."]
                break
            if error:
                unreadable.append(UnreadableImage(id=name, reason=error))
            else:
                ids.append(name)
                images.append(image.copy())
        if notes:
            progress.note(notes[0])
            break
    if not ids:
        why = f": {unreadable[0].id}: {unreadable[0].reason}" if unreadable else "; name a file or a folder with images"
        raise DataError(f"there is no image that can be read, so nothing can be explained{why}")
    return _Asked(ids, np.stack(images), [""] * len(ids), tuple(unreadable), tuple(notes))


def _from_part(
    predictor: Predictor,
    inputs: Sequence[str | Path],
    part: str,
    limit: int,
    seed: int,
    format: str | None,
    class_names: Sequence[str] | None,
    progress: Progress,
) -> _Asked:
    """Some cells of each class of a part of one labelled set."""
    if len(inputs) != 1:
        raise UsageError(f"a part is of one labelled data set; found {len(inputs)} paths. Name one, or leave part out.")
    config = prepared_for(RunConfig(), predictor.bundle.preparation)
    cells = with_classes_of(
        predictor.class_names,
        cells_of(inputs[0], config, format=format, class_names=class_names, progress=progress),
    )
    rows, _, notes = tested_rows(predictor.folder, cells, part)
    if limit < len(rows):
        some = fewer(cells, rows, limit)
        some = np.sort(some[spread(cells.labels[some], seed)][:limit])  # with more classes than cells there are more
        notes.append(f"{len(some):,} of {len(rows):,} cells were explained, drawn from the classes in proportion.")
        rows = some
    return _Asked(
        [str(cells.ids[row]) for row in rows],
        np.stack([cells.images[row] for row in rows]),
        [cells.class_names[cells.labels[row]] for row in rows],
        tuple(UnreadableImage(id=one.id, reason=one.reason) for one in cells.unreadable),
        tuple(notes),
    )


def _explained(
    predictor: Predictor,
    classifier: Classifier,
    asked: _Asked,
    methods: tuple[str, ...],
    policy: Policy | None,
    seed: int,
    folder: Path,
    progress: Progress,
) -> tuple[list[CellExplanation], dict[str, NDArray[np.float16]], dict[str, float]]:
    """A record a cell, the maps of each method, float16 (n, S, S), and its sanity. Overlays are written on the way."""
    from hemascope.explain.cams import explain_images
    from hemascope.explain.sanity import SANITY_CELLS, likeness, with_new_head

    names = predictor.class_names
    said = predictor.predict_images(asked.images, asked.ids, progress=progress)
    target = said.predicted
    second, again = None, None
    turns: list[tuple[int, bool]] = []
    if policy is not None:
        second, turns = _second_versions(asked.images, policy, seed)
        again = predictor.predict_images(second, asked.ids, progress=progress)
    heat: dict[str, NDArray[np.float32]] = {}
    turned: dict[str, NDArray[np.float32]] = {}
    sanity: dict[str, float] = {}
    few, other = asked.images[:SANITY_CELLS], with_new_head(classifier, seed)
    for method in methods:
        heat[method] = explain_images(classifier, asked.images, method=method, target=target, progress=progress).heat
        if second is not None:
            turned[method] = explain_images(classifier, second, method=method, target=target, progress=progress).heat
        again_few = explain_images(other, few, method=method, target=target[: len(few)]).heat
        sanity[method] = likeness(heat[method][: len(few)], again_few)
    found = []
    (folder / "overlays").mkdir()
    with progress.task("testing the maps", len(asked.ids), "images") as advance:
        for row, name in enumerate(asked.ids):
            label = names[target[row]]
            back = {} if second is None else {key: _undone(maps[row], turns[row]) for key, maps in turned.items()}
            results = _tested(
                classifier, asked.images[row], {key: maps[row] for key, maps in heat.items()}, back,
                int(target[row]), label, seed, sanity,
            )  # fmt: skip
            picture = _picture_name(row, name)
            save_overlay(
                folder / "overlays" / picture,
                asked.images[row],
                [heat[method][row] for method in methods],
                methods=methods,
                trustworthy=[one.trustworthy for one in results],
                augmented=None if second is None else second[row],
                augmented_heat=[turned[method][row] for method in methods] if second is not None else (),
            )
            trust = said.trust
            found.append(
                CellExplanation(
                    id=name,
                    label=label,
                    probability=float(said.probs[row, target[row]]),
                    true_label=asked.true_labels[row],
                    augmented_label="" if again is None else names[again.predicted[row]],
                    augmented_probability=None if again is None else float(again.probs[row, target[row]]),
                    words="" if trust is None else trust.morphology[row],
                    review_reason="" if trust is None else trust.review_reason[row],
                    picture=picture,
                    methods=tuple(results),
                )
            )
            advance(1)
    return found, {method: maps.astype(np.float16) for method, maps in heat.items()}, sanity


def _tested(
    classifier: Classifier,
    image: NDArray[np.uint8],
    heat: dict[str, NDArray[np.float32]],
    back: dict[str, NDArray[np.float32]],
    target: int,
    label: str,
    seed: int,
    sanity: dict[str, float],
) -> list[MethodResult]:
    """A record a method, of one cell: its maps (S, S), and those of its second version turned back."""
    from hemascope.explain.cell_mask import cell_masks
    from hemascope.explain.faithfulness import (
        agreement,
        insertion_deletion,
        random_maps,
        reasons_to_doubt,
        share_inside,
    )

    blind = [
        insertion_deletion(classifier, image, one, target, seed=seed)
        for one in random_maps(len(image), RANDOM_MAPS, seed)
    ]
    random_insertion, random_deletion = np.mean(blind, axis=0).tolist()
    nucleus, cell = cell_masks(image)
    found = []
    for method, one in heat.items():
        insertion, deletion = insertion_deletion(classifier, image, one, target, seed=seed)
        agrees = agreement(one, back[method]) if method in back else None
        reasons = reasons_to_doubt(
            insertion,
            deletion,
            random_insertion,
            random_deletion,
            agrees,
            stays=sanity[method],
            empty=bool(one.min() == one.max()),
        )
        found.append(
            MethodResult(
                method=method,
                target=label,
                insertion=insertion,
                deletion=deletion,
                random_insertion=random_insertion,
                random_deletion=random_deletion,
                in_cell=share_inside(one, cell),
                in_nucleus=share_inside(one, nucleus),
                agreement=agrees,
                trustworthy=not reasons,
                reasons=tuple(reasons),
            )
        )
    return found


def _second_versions(
    images: NDArray[np.uint8], policy: Policy, seed: int
) -> tuple[NDArray[np.uint8], list[tuple[int, bool]]]:
    """Each image (S, S, 3) turned by quarter turns or mirrored, and damaged in place; and how it was turned."""
    in_place = policy.without(_LEFT_OUT)
    changed, turns = np.empty_like(images), []
    for row, image in enumerate(images):
        # One of the seven symmetries that move the picture.
        symmetry = int(position_generator(seed, row).integers(1, 8))
        turn = (symmetry % 4, symmetry >= 4)
        moved = np.ascontiguousarray(_done(image, turn))
        changed[row] = damaged(moved, in_place, position_generator(seed, row, 1))
        turns.append(turn)
    return changed, turns


def _done(image: NDArray[np.uint8], turn: tuple[int, bool]) -> NDArray[np.uint8]:
    """Mirrored if so, then turned by so many quarters."""
    quarters, mirrored = turn
    return np.rot90(image[:, ::-1] if mirrored else image, quarters)


def _undone(heat: NDArray[np.float32], turn: tuple[int, bool]) -> NDArray[np.float32]:
    """A map (S, S) of a turned picture as a map of the picture before."""
    quarters, mirrored = turn
    back = np.rot90(heat, -quarters)
    return np.ascontiguousarray(back[:, ::-1] if mirrored else back)


def _picture_name(row: int, name: str) -> str:
    """A file name that is safe on every system: the cell's place, and what can be kept of its name."""
    stem = re.sub(r"[^A-Za-z0-9_-]+", "_", Path(name).stem)[:40].strip("_")
    return f"{row + 1:04d}_{stem}.png" if stem else f"{row + 1:04d}.png"
