"""The models that come with hemascope, by name: a name stands wherever a run's or a bundle's folder does."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from hemascope.errors import BundleError
from hemascope.models.bundle_files import WEIGHTS_FILE
from hemascope.names import listed

CARD = "MODEL_CARD.md"


@dataclass(frozen=True)
class Located:
    """Where a model lies, and whether it came with hemascope."""

    folder: Path
    name: str
    shipped: bool


def shipped_folder() -> Path:
    """The folder that holds the shipped bundles, one folder each."""
    return Path(str(files("hemascope") / "shipped"))


def shipped_names() -> tuple[str, ...]:
    """Names of the shipped models, sorted."""
    folder = shipped_folder()
    if not folder.is_dir():
        return ()
    return tuple(sorted(entry.name for entry in folder.iterdir() if (entry / WEIGHTS_FILE).is_file()))


def locate(model: str | Path) -> Located:
    """The folder of a run, a bundle or a shipped model.

    A folder of that name wins over a shipped model, since it is what the user sees. Whether there is a bundle at all
    is seen when it is opened.
    """
    path = Path(model)
    if path.exists() or str(model) not in shipped_names():
        return Located(path, path.name or str(path), shipped=False)
    return Located(shipped_folder() / str(model), str(model), shipped=True)


def model_card(name: str) -> str:
    """The card of a shipped model, as Markdown. Raises BundleError where there is no such model or no card."""
    names = shipped_names()
    if name not in names:
        raise BundleError(f"no model called {name!r} comes with hemascope; there are {listed(names) or 'none'}.")
    path = shipped_folder() / name / CARD
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise BundleError(f"{name} has no card ({error.strerror or error}): install hemascope again.") from error
