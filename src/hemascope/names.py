"""What to say about an unknown name: the nearest known one, or the choices."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

_SHOWN = 12  # choices listed in full; more would bury the sentence


def listed(names: Sequence[str]) -> str:
    """The names for a sentence, the first few of many: a set may have thousands of classes."""
    if len(names) <= _SHOWN:
        return ", ".join(names)
    return f"{', '.join(names[:_SHOWN])}, … ({len(names):,} in all)"


def suggestion(word: str, names: Sequence[str]) -> str:
    """The end of a sentence about ``word``, which is none of ``names``: "did you mean 'x'?" or the choices."""
    known = {name.lower(): name for name in names}
    close = get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    if close:
        return f"did you mean '{known[close[0]]}'?"
    if not names:
        return "there is none to choose from."
    more = ", …" if len(names) > _SHOWN else "."
    return f"choose from {', '.join(names[:_SHOWN])}{more}"
