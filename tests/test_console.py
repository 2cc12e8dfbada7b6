"""Progress for people: plain lines now and then, quiet runs, and text that cannot steer a terminal."""

from __future__ import annotations

import io

import pytest

from hemascope.console import BarProgress, LineProgress, QuietProgress, duration, make_progress, printable


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_log_hears_at_most_every_ten_seconds_and_at_the_end():
    """100 items of 1 s each give nine lines in between and one at the end, with rate and time left."""
    clock, stream = Clock(), io.StringIO()
    with LineProgress(stream, clock).task("reading", 100, "images") as advance:
        for _ in range(100):
            clock.now += 1
            advance(1)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[0] == "reading: 10 of 100 images (10%), 1.0 images/s, about 1 min 30 s left"
    assert lines[-1] == "reading: 100 images in 1 min 40 s"


def test_work_that_fails_is_not_said_to_be_done():
    """An exception within a task leaves no line that it ended."""
    stream = io.StringIO()
    with pytest.raises(ValueError, match="no"), LineProgress(stream).task("reading", 2, "images") as advance:
        advance(1)
        raise ValueError("no")
    assert stream.getvalue() == ""


def test_no_items_and_no_time_are_no_division_by_zero():
    """A task of nothing, and one that takes no time, end well."""
    stream = io.StringIO()
    progress = LineProgress(stream, Clock())
    with progress.task("reading", 0, "images") as advance:
        advance(0)
    with progress.task("reading", 5, "images") as advance:
        advance(5)
    assert stream.getvalue().splitlines() == ["reading: 0 images in 0.0 s", "reading: 5 images in 0.0 s"]


def test_quiet_says_warnings_only():
    """Notes and tasks are silent, warnings are not."""
    stream = io.StringIO()
    progress = QuietProgress(stream)
    with progress.task("reading", 1, "images") as advance:
        advance(1)
    progress.note("epoch 1")
    progress.warn("3 images left out")
    assert stream.getvalue() == "Warning: 3 images left out\n"


def test_bars_nest_and_end_after_an_error(capsys: pytest.CaptureFixture[str]):
    """A bar within a bar shares the screen, markup in a title is text, and an error stops both."""
    progress = BarProgress()
    with pytest.raises(ValueError, match="no"), progress.task("epoch [red]", 2, "steps") as outer:
        outer(1)
        with progress.task("validating", 1, "images") as inner:
            inner(1)
        progress.note("between [/nothing]")
        raise ValueError("no")
    with progress.task("again", 1, "steps") as advance:
        advance(1)
    assert "between [/nothing]" in capsys.readouterr().err


def test_who_speaks_depends_on_the_terminal_the_wish_and_the_rank(monkeypatch: pytest.MonkeyPatch):
    """A log gets lines, --quiet and all but the first process of torchrun get warnings only."""
    assert type(make_progress()) is LineProgress
    assert type(make_progress(quiet=True)) is QuietProgress
    monkeypatch.setenv("RANK", "1")
    assert type(make_progress()) is QuietProgress


def test_control_characters_are_spelled_out():
    """A file's name can neither clear the screen nor break the encoding; letters of any script stay."""
    assert printable("a\x1b[2Jb\udc80.png") == "a\\x1b[2Jb\\udc80.png"
    assert printable("Zellen für ß 細胞") == "Zellen für ß 細胞"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7620, "2 h 07 min")],
)
def test_durations_in_words(seconds: float, words: str):
    """Seconds become the unit a person would say."""
    assert duration(seconds) == words
