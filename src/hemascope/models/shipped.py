"""The models that come with hemascope, by name: a name stands wherever a run's or a bundle's folder does."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from hemascope.errors import BundleError
from hemascope.models.bundle_files import WEIGHTS_FILE, read_bundle_files, tensor_shapes
from hemascope.names import listed

CARD = "MODEL_CARD.md"
_NOT_LEARNT = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class Located:
    """Where a model lies, whether it came with hemascope, and whether it hides one that did."""

    folder: Path
    name: str
    shipped: bool
    hides_shipped: bool = False


@dataclass(frozen=True)
class ShippedModel:
    """What a list says of a shipped model.

    size        side in pixels of the images it takes
    parameters  learnt numbers: running statistics and the constants of normalisation are not counted
    bytes       of all its files
    licence     as its provenance says, "" where it does not
    card        its model card, or None
    """

    name: str
    backbone: str
    class_names: tuple[str, ...]
    size: int
    parameters: int
    bytes: int
    licence: str
    card: Path | None


def shipped_folder() -> Path:
    """The folder that holds the shipped bundles, one folder each."""
    return Path(str(files("hemascope") / "shipped"))


def shipped_names() -> tuple[str, ...]:
    """Names of the shipped models, sorted."""
    folder = shipped_folder()
    if not folder.is_dir():
        return ()
    return tuple(sorted(entry.name for entry in folder.iterdir() if (entry / WEIGHTS_FILE).is_file()))


def shipped_models() -> tuple[ShippedModel, ...]:
    """Each shipped model, after its digests were checked. Raises BundleError where one is damaged."""
    found = []
    for name in shipped_names():
        folder, record = read_bundle_files(shipped_folder() / name)
        shapes = tensor_shapes(folder / WEIGHTS_FILE)
        learnt = [
            shape
            for tensor, shape in shapes.items()
            if tensor not in ("mean", "std") and not tensor.endswith(_NOT_LEARNT)
        ]
        found.append(
            ShippedModel(
                name=name,
                backbone=record.model.backbone,
                class_names=record.class_names,
                size=record.preparation.size,
                parameters=sum(math.prod(shape) for shape in learnt),
                bytes=sum(file.stat().st_size for file in folder.iterdir() if file.is_file()),
                licence=str(record.provenance.get("licence", "")),
                card=folder / CARD if (folder / CARD).is_file() else None,
            )
        )
    return tuple(found)


def locate(model: str | Path) -> Located:
    """The folder of a run, a bundle or a shipped model.

    A folder of that name wins over a shipped model, since it is what the user sees; ``hides_shipped`` then says so.
    Whether there is a bundle at all is seen when it is opened.
    """
    path, known = Path(model), str(model) in shipped_names()
    if path.exists() or not known:
        return Located(path, path.name or str(path), shipped=False, hides_shipped=known)
    return Located(shipped_folder() / str(model), str(model), shipped=True)


def hiding(located: Located) -> str:
    """The sentence for a folder that has the name of a shipped model."""
    return (
        f"{located.folder} here is taken, not the model of that name that comes with hemascope; "
        "work in another folder to have that."
    )


def model_card(name: str) -> str:
    """The card of a shipped model, as Markdown. Raises BundleError where there is no such model or no card."""
    names = shipped_names()
    if name not in names:
        there = f"there is {listed(names)}" if names else "this installation has none"
        raise BundleError(f"no model called {name!r} comes with hemascope; {there}.")
    path = shipped_folder() / name / CARD
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise BundleError(f"{name} has no card that can be read ({why}): install hemascope again.") from error
