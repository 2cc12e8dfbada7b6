"""Which pictures a run has learnt from, so that a later evaluation notices when it meets them again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hemascope.atomic import atomic_path
from hemascope.cells import CellDataset
from hemascope.errors import RunError

FILE = "learnt_from.npy"


def save_content(run: Path, cells: CellDataset, rows: NDArray[np.intp]) -> None:
    """Write the hashes of the decoded pixels of these rows, sorted, as fixed-width text: S (n,)."""
    hashes = np.unique(np.array([cells.content_hash[row] for row in rows], dtype="S"))
    with atomic_path(run / FILE) as temporary, temporary.open("wb") as file:
        np.save(file, hashes, allow_pickle=False)


def known_content(run: Path, cells: CellDataset) -> NDArray[np.bool_] | None:
    """bool (N,): whose pixels the run has learnt from; None where the run did not write them down.

    Only equal pixels are found: the same picture resized or saved again is another one here.
    """
    path = run / FILE
    if not path.exists():
        return None
    try:
        hashes = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise RunError(f"{path} cannot be read ({error}): remove it to go without.") from error
    return np.isin(np.array(list(cells.content_hash), dtype="S"), hashes)
