"""docs/checks.md: what findings and reports link to is there."""

from __future__ import annotations

import re
from pathlib import Path

from hemascope.findings import CHECKS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "checks.md"


def sections() -> dict[str, str]:
    """Text of each section by its heading, which is also its anchor."""
    parts = re.split(r"^## (.+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], (text.strip() for text in parts[2::2]), strict=True))


def test_every_check_has_its_section_in_order() -> None:
    """The link a check carries leads to a section with something in it, and the page keeps the checks' order."""
    found = sections()
    assert [name for name in found if name in CHECKS] == list(CHECKS)
    for code, check in CHECKS.items():
        assert check.page == f"docs/checks.md#{code}"
        assert len(found[code]) > 100, code


def test_the_page_explains_no_check_that_is_not_there() -> None:
    """A section that is not a check would be a check that was renamed or removed."""
    assert set(sections()) - set(CHECKS) == {"Statistics"}
