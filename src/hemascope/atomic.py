"""Writing so that a reader sees the old file, the new file, or none: never half of one."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hemascope.errors import OutputError


def output_error(path: Path, error: OSError) -> OutputError:
    """The one sentence for a write that failed: which file, why, what to do."""
    reason = error.strerror or str(error)
    if error.errno in _NO_SPACE:
        advice = "Free some space or choose another place with -o."
    elif error.errno in _IN_THE_WAY:
        advice = "Something else has that name, or a file stands where a folder must be: choose another place with -o."
    else:
        advice = "Choose a place you may write to with -o."
    return OutputError(f"cannot write {_UNFINISHED.sub(_finished, str(path))}: {reason}. {advice}")


def reason_of(error: OutputError) -> str:
    """Why a write failed, in the system's words, for a sentence with advice of its own."""
    cause = error.__cause__
    return cause.strerror if isinstance(cause, OSError) and cause.strerror else str(error)


_UNFINISHED = re.compile(r"(?:^|(?<=[/\\]))\.([^/\\]+)\.[^/\\.]{8}\.part(?=[/\\])")
"""A folder that is being filled, by the name that ``atomic_folder`` gives it."""


def _finished(folder: re.Match[str]) -> str:
    """What it is to be called: a user did not ask for the other name, and it is gone when the sentence is read."""
    return folder[1]


_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_IN_THE_WAY = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY)


def _sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut, where the system lets a folder be synced."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass  # some network file systems refuse; the rename itself has still happened
    finally:
        os.close(descriptor)


_HERE, _SWAP = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux


def _exchange(first: Path, second: Path) -> bool:
    """Swap two names in one step, so that neither is ever missing; False where the system cannot.

    Linux alone has it, on most of its file systems. Elsewhere a folder is replaced by two renames, and a kill between
    them leaves the old folder beside, under a hidden name.
    """
    try:
        rename = ctypes.CDLL(None).renameat2
    except (OSError, TypeError, AttributeError):
        return False
    return sys.platform == "linux" and not rename(_HERE, os.fsencode(first), _HERE, os.fsencode(second), _SWAP)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` to write to; renamed to ``path`` when the block ends well.

    Raises OutputError where the file cannot be written; whatever was at ``path`` before is then untouched.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside ``path`` to fill; it replaces ``path`` when the block ends well."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                os.chmod(file, 0o666 & ~_umask())  # some writers, as safetensors, let nobody else read
                with file.open("rb+") as written:
                    os.fsync(written.fileno())
        os.chmod(temporary, 0o777 & ~_umask())
        if path.is_dir() and not path.is_symlink() and _exchange(temporary, path):
            pass  # the old folder now has the temporary name, and goes with it
        elif path.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".old", dir=path.parent))
            os.replace(path, old / "old")
            os.replace(temporary, path)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically. NaN and infinity are refused: they are not JSON."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
