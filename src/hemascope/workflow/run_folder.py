"""The folder a run lives in: may it be made, gone on with, replaced?"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hemascope.atomic import output_error, write_text
from hemascope.config import RunConfig
from hemascope.config_files import dump_config
from hemascope.errors import OutputError, RunError, UsageError


def check_folder(folder: Path, config: RunConfig, *, resume: bool, force: bool) -> None:
    """Check that the run folder can be made, or that what is there may be gone on with or replaced."""
    if resume and force:
        raise UsageError("--resume goes on with a run and --force replaces it: give one of them")
    if folder.exists() and not folder.is_dir():
        raise OutputError(
            f"cannot write the run to {folder}: it is a file, not a folder. Choose another place with -o."
        )
    if folder.is_dir() and any(folder.iterdir()):
        is_run = (folder / "config.toml").exists()
        if resume:
            if not is_run:
                raise RunError(f"{folder} holds no run to resume: it has no config.toml. Leave out --resume.")
            if (folder / "config.toml").read_text(encoding="utf-8") != dump_config(config):
                raise RunError(
                    f"the settings are not those {folder} was started with (its config.toml). Resume with "
                    f"--config {folder / 'config.toml'}, or start again with --force."
                )
            if (folder / "report.html").exists() and not (folder / "checkpoints").exists():
                raise RunError(f"{folder} is finished: there is nothing to resume. Start again with --force.")
        elif not force:
            hint = "Go on with it by --resume, replace it by --force, or" if is_run else "Please"
            raise RunError(f"{folder} is not empty. {hint} choose another folder with -o.")
        elif not is_run:
            raise RunError(
                f"{folder} is not a run folder (it has no config.toml), so --force does not empty it. "
                "Choose another folder with -o."
            )
    elif resume and not folder.exists():
        raise RunError(f"there is no run at {folder} to resume. Leave out --resume to start one.")
    existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:  # said now, not when the cells have been read
        raise output_error(folder, error) from error


def make_folder(folder: Path, config: RunConfig, *, force: bool) -> None:
    """The run folder with its config.toml, as ``check_folder`` allowed it; the run there is removed by ``force``."""
    settings = folder / "config.toml"
    if force and settings.exists():
        shutil.rmtree(folder)
    if not settings.exists():
        write_text(settings, dump_config(config))
