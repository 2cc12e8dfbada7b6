"""Where results may go: nothing of somebody's gives way to them."""

from __future__ import annotations

from pathlib import Path

import pytest

from hemascope.atomic import atomic_folder, write_json
from hemascope.errors import OutputError
from hemascope.workflow.places import check_free, check_no_run, check_replaceable


def test_only_an_empty_place_is_free(tmp_path: Path) -> None:
    """A missing and an empty folder are free; a full one, a file and a link to nowhere are not."""
    check_free(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    check_free(tmp_path / "empty")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for taken in (tmp_path, tmp_path / "file", tmp_path / "link"):
        with pytest.raises(OutputError, match=f"{taken.name} exists already. Choose another place"):
            check_free(taken)


def test_a_result_replaces_its_own_kind_alone(tmp_path: Path) -> None:
    """Known by the file that such a result holds; a folder of that name in its place is none."""
    check_replaceable(tmp_path / "missing", "stress.json", "a stress test")
    check_replaceable(tmp_path, "stress.json", "a stress test")
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(OutputError, match="is not empty and does not hold a stress test"):
        check_replaceable(tmp_path, "stress.json", "a stress test")
    with pytest.raises(OutputError, match=r"letter\.txt: it is a file"):
        check_replaceable(tmp_path / "letter.txt", "stress.json", "a stress test")
    (tmp_path / "other" / "stress.json").mkdir(parents=True)
    with pytest.raises(OutputError, match="does not hold"):
        check_replaceable(tmp_path / "other", "stress.json", "a stress test")
    (tmp_path / "stress.json").write_text("{}")
    check_replaceable(tmp_path, "stress.json", "a stress test")


def test_a_run_is_no_place_for_an_evaluation(tmp_path: Path) -> None:
    """A run is known by its split, finished or not."""
    check_no_run(tmp_path, "an evaluation")
    (tmp_path / "splits.json").write_text("{}")
    with pytest.raises(OutputError, match="is a run, of which an evaluation would overwrite"):
        check_no_run(tmp_path, "an evaluation")


def test_a_sentence_names_the_folder_that_was_asked_for(tmp_path: Path) -> None:
    """A file that fails inside a folder being filled is named as it was to be called, not by the folder's own name."""
    with (
        pytest.raises(OutputError, match=rf"cannot write {tmp_path}/card/notes/card\.json: "),
        atomic_folder(tmp_path / "card") as temporary,
    ):
        (temporary / "notes").write_text("a file")
        write_json(temporary / "notes" / "card.json", {})
    assert not list(tmp_path.iterdir())
