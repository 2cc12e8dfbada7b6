"""May a result go where it is asked to go? Results replace what stands at their place, so that is asked first."""

from __future__ import annotations

from pathlib import Path

from hemascope.errors import OutputError


def check_free(target: Path) -> None:
    """Raise OutputError where anything but an empty folder lies at ``target``: a bundle or a store would replace it."""
    if target.is_dir() and not any(target.iterdir()):
        return
    if target.exists() or target.is_symlink():
        raise OutputError(f"{target} exists already. Choose another place with -o, or remove it first.")


def check_replaceable(folder: Path, record: str, what: str) -> None:
    """Raise OutputError unless ``folder`` is missing, empty, or an earlier result of the same kind.

    record  the file by which such a result is known
    what    its name with an article, for the sentence
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"cannot write {what} to {folder}: it is a file. Choose another place with -o.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / record).is_file():
        raise OutputError(f"{folder} is not empty and does not hold {what}. Choose another folder with -o.")


def check_no_run(folder: Path, what: str) -> None:
    """Raise OutputError where ``folder`` is a run: ``what``, named with an article, has files of the same names."""
    if (folder / "splits.json").is_file():
        raise OutputError(
            f"{folder} is a run, of which {what} would overwrite the results. Choose another folder with -o."
        )
