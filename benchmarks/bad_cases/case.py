"""What a case is, and the good things that cases spoil: a few cells, settings for a tiny network, a trained run."""

from __future__ import annotations

import importlib
import os
import pkgutil
import resource
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

import hemascope

CLASSES = ("lymphocyte", "neutrophil", "platelet")
PER_CLASS = 10
MANY_PER_CLASS = 40
SIZE = 32
SEED = 5
NOBODY = 65534

TINY = f"""\
[data]
preparation = {{ resizes = [{{ size = {SIZE} }}] }}

[model]
backbone = "test_resnet"
weights = "random"

[runtime]
device = "cpu"
threads = 1
workers = 0

[evaluation]
bootstrap = 100
mistakes = 2

[[stages]]
name = "finetune"
epochs = 1
batch_size = 8
"""

JUDGED = TINY.replace("[data]\n", "[data]\ncalibration = 0.25\nvalidation = 0.1\ntest = 0.2\n")
"""The same, with enough calibration cells of ``many`` that the model says how far to believe it."""


@dataclass(frozen=True)
class Ground:
    """Good material to copy from: ``cells`` is a folder per class, ``run`` a finished run; made when asked for.

    ``many`` and ``judged`` are the same with more cells, so that the model of ``judged`` is calibrated.
    """

    folder: Path
    train: Callable[[Path, Path, Path], None]

    @property
    def cells(self) -> Path:
        """10 synthetic cells of each of 3 classes, 32 x 32, as JPEG files."""
        path = self.folder / "cells"
        if not path.exists():
            from hemascope.data.synthetic import write_synthetic_folder

            write_synthetic_folder(path, dict.fromkeys(CLASSES, PER_CLASS), size=SIZE, seed=SEED)
        return path

    @property
    def config(self) -> Path:
        """Settings for a network of a few thousand weights and one epoch."""
        path = self.folder / "tiny.toml"
        if not path.exists():
            path.write_text(TINY, encoding="utf-8")
        return path

    @property
    def run(self) -> Path:
        """What `hemascope train cells -o run --config tiny.toml` leaves."""
        path = self.folder / "run"
        if not path.exists():
            self.train(self.cells, path, self.config)
        return path

    @property
    def many(self) -> Path:
        """40 synthetic cells of each of 3 classes, 32 x 32, as JPEG files."""
        path = self.folder / "many"
        if not path.exists():
            from hemascope.data.synthetic import write_synthetic_folder

            write_synthetic_folder(path, dict.fromkeys(CLASSES, MANY_PER_CLASS), size=SIZE, seed=SEED + 1)
        return path

    @property
    def judged(self) -> Path:
        """What training on ``many`` leaves with a quarter of the cells for calibration."""
        path = self.folder / "judged"
        if not path.exists():
            config = self.folder / "judged.toml"
            config.write_text(JUDGED, encoding="utf-8")
            self.train(self.many, path, config)
        return path

    @property
    def stressed(self) -> Path:
        """What `hemascope stress run cells -o stressed --limit 6 --corruptions jpeg` leaves, run where both lie."""
        path = self.folder / "stressed"
        if not path.exists():
            from hemascope.workflow.stressing import stress

            stress(self.run, self.cells, output=path, limit=6, corruptions=["jpeg"])
        return path

    def arrays(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """The same number of images of noise, uint8 (30, 32, 32, 3), and their labels, 0 to 2."""
        count = PER_CLASS * len(CLASSES)
        images = np.random.default_rng(SEED).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)
        return images, np.arange(count) % len(CLASSES)


Make = Callable[[Path, Ground], None]


@dataclass(frozen=True)
class Case:
    """One kind of bad input.

    kind     what is tried
    words    the command's words behind `hemascope`; paths are relative to the case's own folder, which holds copies
             of `cells`, `run`, `many`, `judged` and `tiny.toml` where the words name them
    says     what the sentence must contain: what was found, and what to do
    make     makes the bad input in the folder; gets the ground as well
    status   the exit status that is right
    where    where the sentence is: stderr; the line of stdout that holds the first of ``says``; or the column error
             of out.csv
    around   what holds while the command runs, such as a full disk
    leaves   what may be there afterwards that was not before
    process  run the real program in a process of its own; else its entry point in this process
    uses_run whether ``make`` copies a trained run; a word `run` or `judged` in the command is seen without saying
    stdout   where a process's output goes instead of a pipe
    """

    kind: str
    words: str
    says: tuple[str, ...]
    make: Make | None = None
    status: int = 1
    where: Literal["stderr", "stdout", "table"] = "stderr"
    around: Callable[[], AbstractContextManager[None]] = nullcontext
    leaves: tuple[str, ...] = ()
    process: bool = False
    stdout: str | None = None
    uses_run: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def needs_run(self) -> bool:
        """Whether a trained run must be there first."""
        return not {"run", "judged"}.isdisjoint(self.words.split())

    @property
    def is_quick(self) -> bool:
        """Whether it is tried in a moment: no trained run, no training, no process of its own."""
        unfinished = any(name.startswith("new") for name in self.leaves)
        return not (self.needs_run or self.uses_run or self.process or unfinished)

    def prepare(self, here: Path, ground: Ground) -> None:
        """Lay out the case's folder."""
        words = self.words.split()
        for name in ("run", "cells", "judged", "many"):
            if name in words:
                shutil.copytree(getattr(ground, name), here / name)
        if "tiny.toml" in words:
            shutil.copy(ground.config, here)
        if self.make is not None:
            self.make(here, ground)


def write(name: str, content: bytes | str) -> Make:
    """Write ``content`` to the file ``name``."""

    def make(here: Path, ground: Ground) -> None:
        path = here / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    return make


def copy_cell(here: Path, ground: Ground, name: str = "good.jpg") -> bytes:
    """Put one good cell at ``name``; its bytes are returned, to be spoiled."""
    content = (ground.cells / CLASSES[0] / f"{CLASSES[0]}_00000.jpg").read_bytes()
    path = here / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return content


def spoil_byte(path: Path, place: int = -20) -> None:
    """Change one byte."""
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(bytes(content))


_WITH_TORCH = ("__main__", "embeddings", "explain", "models", "predict", "training")
"""Modules that import torch, which no quick case needs; and the program itself."""


@cache
def _load_all() -> None:
    """Import what a verb would import late: nobody may not read a checkout or a Python in somebody's home."""
    import encodings.utf_8_sig  # noqa: F401 - looked up by name when a file is decoded

    from PIL import Image

    Image.init()
    for module in pkgutil.walk_packages(hemascope.__path__, "hemascope."):
        if module.name.split(".")[1] not in _WITH_TORCH:
            importlib.import_module(module.name)


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Permissions count: a superuser, whom they do not stop, works as nobody for a while."""
    if os.geteuid() != 0:
        yield
        return
    _load_all()
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@contextmanager
def no_room(limit: int = 4096) -> Iterator[None]:
    """No file may grow beyond ``limit`` bytes, as on a disk that fills up while it is written."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def train_quietly(cells: Path, output: Path, config: Path) -> None:
    """The trained run that cases copy, made by the library."""
    from hemascope.config_files import load_config
    from hemascope.workflow import train

    place = Path.cwd()
    os.chdir(cells.parent)  # ids begin with the path as given, which cases give in the same way
    try:
        train(cells.name, load_config(file=config), output=output)
    finally:
        os.chdir(place)
