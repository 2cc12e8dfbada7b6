"""Generated pages say what the program says."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES: dict[Path, str] = runpy.run_path(str(ROOT / "scripts" / "generate_docs.py"))["pages"]()


@pytest.mark.parametrize("path", sorted(PAGES), ids=lambda path: path.name)
def test_the_page_is_current(path: Path):
    """A page made by `make docs` equals what would be made now."""
    assert path.read_text(encoding="utf-8") == PAGES[path], "run `make docs`"


def test_no_page_names_a_machine():
    """Generated pages hold no path of the machine they were made on."""
    for text in PAGES.values():
        assert str(Path.home()) + "/" not in text
        assert str(ROOT) not in text
