"""Duplicates: exact copies, copies under two labels, edited copies, and the clusters they form."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from hemascope import render_cells
from hemascope.audit.duplicate_candidates import edited_copy, find_candidates
from hemascope.audit.duplicate_pairs import DuplicatePairs, complete_pairs, duplicate_clusters, linked_groups
from hemascope.audit.exact_duplicates import check_exact_duplicates, content_numbers
from hemascope.audit.material import Material, Measures
from hemascope.audit.near_duplicates import CUT, check_near_duplicates
from hemascope.audit.registration import turned
from hemascope.audit.verification import verify
from hemascope.cells import CellDataset
from hemascope.embeddings import Embeddings, Level
from hemascope.errors import DataError

SIDE = 96


@pytest.fixture(scope="module")
def cells() -> CellDataset:
    return render_cells(2, size=SIDE, seed=11)


def measures(count: int, size: int = SIDE) -> Measures:
    none, text = np.zeros(count, np.float32), [""] * count
    return Measures(
        format=text,
        mode=text,
        file_bytes=np.zeros(count, np.int64),
        file_hash=[f"file {i}" for i in range(count)],
        size=np.full((count, 2), size, np.int32),
        brightness=none,
        darkest=none,
        brightest=none,
        contrast=none,
        sharpness=none,
        entropy=none,
        colour=np.zeros((count, 3), np.float32),
        border=np.zeros((count, 6), np.float32),
        stain=np.zeros((count, 2), np.float32),
        foreground=none,
        metadata=text,
    )


def material(cells: CellDataset, **changes: object) -> Material:
    vectors = np.random.default_rng(0).normal(size=(len(cells), 8)).astype(np.float16)
    embeddings = Embeddings(vectors, [Level("final", 0, 8)], "random")
    return Material(cells, measures(len(cells)), embeddings, **changes)  # type: ignore[arg-type]


def labelled(hashes: list[str], labels: list[int]) -> Material:
    count = len(hashes)
    return material(
        CellDataset(
            images=np.zeros((count, 4, 4, 3), np.uint8),
            labels=np.array(labels),
            class_names=("a", "b"),
            ids=[f"cell {i}" for i in range(count)],
            content_hash=hashes,
        )
    )


def joined(cells: CellDataset, images: list[np.ndarray], labels: list[int]) -> CellDataset:
    return CellDataset(
        images=np.concatenate([cells.images, np.stack(images)]),
        labels=np.concatenate([cells.labels, np.array(labels, dtype=np.int64)]),
        class_names=cells.class_names,
        ids=[*cells.ids, *(f"copy {i}" for i in range(len(images)))],
        content_hash=[*cells.content_hash, *(f"copy {i}" for i in range(len(images)))],
    )


def zoomed(image: np.ndarray, box: tuple[float, float, float, float], side: int = SIDE) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC, box=box))


def pairs(edges: list[tuple[int, int]], count: int) -> DuplicatePairs:
    left, right = (np.array(side, dtype=np.int64) for side in zip(*edges, strict=True))
    return DuplicatePairs(left, right, np.full(len(left), 0.1, np.float32), np.ones(len(left), np.float32), count)


def test_the_first_copy_stays_and_the_others_are_dropped() -> None:
    """Of equal pixels under one label the first stays; every other is a finding that names it and the count."""
    exact, conflict = check_exact_duplicates(labelled(["x", "y", "x", "x", "z"], [0, 1, 0, 0, 1]))
    assert [(f.id, f.related, f.suggestion) for f in exact.findings] == [
        ("cell 2", "cell 0", "drop"),
        ("cell 3", "cell 0", "drop"),
    ]
    assert "one of 3 copies of cell 0" in exact.findings[0].why
    assert exact.scores is not None and exact.scores.tolist() == [1, 1, 0, 0, 1]
    assert conflict.passed


def test_equal_bytes_are_said_to_be_equal_bytes() -> None:
    """A copy whose file is the same byte by byte is told from one that only decodes to the same pixels."""
    data = labelled(["x", "x", "x"], [0, 0, 0])
    data = replace(data, measures=replace(data.measures, file_hash=["f", "f", "g"]))
    found = check_exact_duplicates(data)[0].findings
    assert "byte by byte" in found[0].why and "pixel by pixel" in found[1].why


def test_copies_with_two_labels_are_reviewed_and_never_dropped() -> None:
    """Where equal pixels bear two labels, each copy is to be reviewed and none is proposed for dropping."""
    exact, conflict = check_exact_duplicates(labelled(["x", "x", "x", "y", "y"], [0, 1, 0, 1, 1]))
    assert [f.id for f in exact.findings] == ["cell 4"]
    assert [(f.id, f.suggestion, f.related) for f in conflict.findings] == [
        ("cell 0", "review", "cell 1"),
        ("cell 1", "review", "cell 0"),
        ("cell 2", "review", "cell 1"),
    ]
    assert "2 as a, 1 as b" in conflict.findings[0].why


def test_a_labelled_copy_stays_rather_than_an_unlabelled_one() -> None:
    """No label is not another label: the unlabelled copy is dropped although it comes first."""
    exact, conflict = check_exact_duplicates(labelled(["x", "x"], [-1, 1]))
    assert [(f.id, f.related) for f in exact.findings] == [("cell 0", "cell 1")]
    assert not conflict.findings


def test_without_labels_conflicts_are_not_applicable() -> None:
    """A set without labels has not passed the check for conflicting ones."""
    conflict = check_exact_duplicates(labelled(["x", "x"], [-1, -1]))[1]
    assert conflict.not_applicable and not conflict.passed


def test_unknown_content_is_nobodys_copy() -> None:
    """Images without a hash are not taken for copies of one another."""
    assert len(set(content_numbers(["", "x", "", "x"]).tolist())) == 3
    assert not check_exact_duplicates(labelled(["", ""], [0, 0]))[0].findings


def test_an_empty_set_has_no_duplicates() -> None:
    """No cells: exact duplicates are none, near ones not applicable."""
    nothing = labelled([], [])
    assert check_exact_duplicates(nothing)[0].passed
    assert check_near_duplicates(nothing)[0].not_applicable


@pytest.mark.parametrize("turn", range(8))
def test_every_dihedral_turn_is_recognised_and_named(cells: CellDataset, turn: int) -> None:
    """A copy after any of the eight turns agrees almost wholly, and the turn is the one that was made."""
    channels = [turned(cells.images[..., channel].astype(np.float32), turn) for channel in range(3)]
    images = np.concatenate([cells.images, np.stack(channels, axis=-1).astype(np.uint8)])
    count = len(cells)
    found = verify(images, np.arange(count), np.arange(count) + count)
    assert found.agreement.min() > 0.95
    assert (found.turn == turn).mean() > 0.9  # a round cell on an empty field may fit another turn as well


@pytest.mark.parametrize("corner", [(0, 0), (14, 0), (0, 14), (14, 14), (7, 7)])
def test_crops_to_85_percent_are_recognised(cells: CellDataset, corner: tuple[int, int]) -> None:
    """A crop of 85 % of the side from any corner or the middle is a copy, and its scale comes out right."""
    x, y = corner
    crops = np.stack([zoomed(image, (x, y, x + 82, y + 82)) for image in cells.images])
    count = len(cells)
    found = verify(np.concatenate([cells.images, crops]), np.arange(count), np.arange(count) + count)
    assert found.agreement.min() > 1 - CUT
    assert np.median(np.abs(found.scale - 82 / SIDE)) < 0.01


def test_brightness_coarseness_and_both_directions(cells: CellDataset) -> None:
    """Half the resolution and a fifth less light do not hide a copy, whichever image is named first."""
    coarse = [zoomed(zoomed(image, (0, 0, SIDE, SIDE), 48), (0, 0, 48, 48)) for image in cells.images]
    images = np.concatenate([cells.images, (np.stack(coarse) * 0.8).astype(np.uint8)])
    one, other = np.arange(len(cells)), np.arange(len(cells)) + len(cells)
    there, back = verify(images, one, other), verify(images, other, one)
    assert min(there.agreement.min(), back.agreement.min()) > 1 - CUT


def test_different_cells_stay_far_from_the_cut(cells: CellDataset) -> None:
    """No two different cells agree anywhere near as well as copies do."""
    left, right = np.triu_indices(len(cells), 1)
    assert verify(cells.images, left, right).agreement.max() < 0.7


def test_empty_pictures_are_not_copies_of_one_another() -> None:
    """Two pictures without any structure, or with nothing but different noise, cannot be told to be copies."""
    rng = np.random.default_rng(0)
    blank = np.full((4, SIDE, SIDE, 3), 200, np.uint8)
    blank[2:] += rng.integers(0, 4, (2, SIDE, SIDE, 3), dtype=np.uint8)
    left, right = np.triu_indices(4, 1)
    assert verify(blank, left, right).agreement.max() < 1 - CUT


def test_pictures_of_another_size_than_96_work() -> None:
    """Images of 28 pixels, as in small public sets, and odd sides are compared as well."""
    for side in (28, 65):
        small = render_cells(1, size=side, seed=2).images
        turns = np.ascontiguousarray(np.rot90(small, 1, (1, 2)))
        count = len(small)
        found = verify(np.concatenate([small, turns]), np.arange(count), np.arange(count) + count)
        assert found.agreement.min() > 0.9


def test_clusters_are_complete_and_chains_are_not_followed() -> None:
    """A, B and B, C being copies does not make A, C copies; but no split may separate any of them."""
    chain = pairs([(0, 1), (1, 2), (4, 5), (4, 6), (5, 6)], 7)
    cluster = duplicate_clusters(chain)
    assert cluster[0] != cluster[2] and cluster[1] in (cluster[0], cluster[2])
    assert cluster[4] == cluster[5] == cluster[6] and cluster[3] == 3
    assert len(set(linked_groups(chain)[:3].tolist())) == 1


def test_exact_copies_join_linked_groups() -> None:
    """A group for splits holds exact copies and edited copies of either."""
    group = linked_groups(pairs([(0, 2)], 5), np.array([0, 1, 2, 2, 4]))
    assert group[0] == group[2] == group[3] and len(set(group.tolist())) == 3


def test_only_missing_pairs_are_verified_again() -> None:
    """A chain of three is completed by the one pair nobody proposed; a pair alone needs none."""
    asked: list[tuple[int, int]] = []

    def confirm(left: np.ndarray, right: np.ndarray) -> DuplicatePairs:
        asked.extend(zip(left.tolist(), right.tolist(), strict=True))
        return pairs(asked, 6)

    whole = complete_pairs(pairs([(0, 1), (1, 2), (3, 4)], 6), confirm)
    assert asked == [(0, 2)] and len(set(duplicate_clusters(whole)[:3].tolist())) == 1


def test_pairs_of_rows_that_do_not_exist_are_refused() -> None:
    """A pair must name two of the N images."""
    with pytest.raises(DataError, match="rows 0 to 2"):
        pairs([(0, 3)], 3)


def test_planted_copies_are_found_and_the_largest_original_stays(cells: CellDataset) -> None:
    """Three edited copies of one cell form one cluster; the largest original represents it, the rest are dropped."""
    image, label = cells.images[3], int(cells.labels[3])
    copies = [np.rot90(image, 1), zoomed(image, (4, 4, 90, 90)), (image[:, ::-1] * 0.9).astype(np.uint8)]
    data = material(joined(cells, [np.ascontiguousarray(copy) for copy in copies], [label] * 3))
    size = data.measures.size.copy()
    size[len(cells)] = 300
    data = replace(data, measures=replace(data.measures, size=size))
    result, verified = check_near_duplicates(data, neighbours=len(data.cells))
    assert {f.id for f in result.findings} == {cells.ids[3], "copy 1", "copy 2"}
    assert {f.related for f in result.findings} == {"copy 0"}
    assert {f.suggestion for f in result.findings} == {"drop"}
    assert len(verified) == 6 and result.summary["clusters"] == 1
    assert result.scores is not None
    assert all(f.score <= CUT for f in result.findings)
    assert int((result.scores <= CUT).sum()) == 3  # the representative itself is no finding


def test_copies_with_different_labels_are_reviewed(cells: CellDataset) -> None:
    """An edited copy under another label is not dropped: nobody knows which label is right."""
    other = (int(cells.labels[0]) + 1) % len(cells.class_names)
    data = material(joined(cells, [np.ascontiguousarray(cells.images[0, ::-1])], [other]))
    found = check_near_duplicates(data, neighbours=len(data.cells))[0].findings
    assert [f.suggestion for f in found] == ["review"] and "labels differ" in found[0].why


def test_cells_without_copies_pass(cells: CellDataset) -> None:
    """Different cells of the same classes give no finding."""
    result, verified = check_near_duplicates(material(cells), neighbours=len(cells))
    assert result.passed and len(verified) == 0


def test_exact_copies_are_left_to_their_own_check(cells: CellDataset) -> None:
    """An exact copy is no near duplicate, but has the score of the image it equals."""
    again = joined(cells, [cells.images[0], np.ascontiguousarray(cells.images[0, ::-1])], [int(cells.labels[0])] * 2)
    hashes = list(again.content_hash)
    hashes[len(cells)] = hashes[0]
    result = check_near_duplicates(material(replace(again, content_hash=hashes)), neighbours=len(again))[0]
    assert [(f.id, f.related) for f in result.findings] == [("copy 1", cells.ids[0])]
    assert result.scores is not None and result.scores[len(cells)] == result.scores[0]


def test_the_check_repeats_itself(cells: CellDataset) -> None:
    """Equal material gives equal scores, findings and pairs, threads or not."""
    data = material(joined(cells, [np.ascontiguousarray(np.rot90(cells.images[5]))], [int(cells.labels[5])]))
    one, two = (check_near_duplicates(data, neighbours=5) for _ in range(2))
    np.testing.assert_array_equal(one[0].scores, two[0].scores)
    assert one[0].findings == two[0].findings


class LightNetwork:
    """Stands for an embedder of which most features say how bright an image is, and some what it shows."""

    def __call__(self, images: np.ndarray) -> np.ndarray:
        grey = images.astype(np.float32).mean(axis=3).reshape(len(images), -1)
        light = grey.mean(axis=1, keepdims=True)
        relative = np.quantile(grey / light, np.linspace(0.05, 0.95, 12), axis=1).T
        return np.concatenate([np.sin(light / np.arange(10, 50)), relative], axis=1).astype(np.float16)


def test_the_learnt_space_looks_past_what_edits_change() -> None:
    """Candidates come from features that edits do not move: darker copies are found where brightness misleads."""
    cells = render_cells(6, size=SIDE, seed=4)
    network = LightNetwork()
    count = len(cells)
    data = joined(cells, list((cells.images * 0.8).astype(np.uint8)), cells.labels.tolist())
    embeddings = Embeddings(network(data.images), [Level("final", 0, 52)], "light")
    plain = Material(data, measures(len(data)), embeddings)
    learnt = Material(data, measures(len(data)), embeddings, network)  # type: ignore[arg-type]

    def found(given: Material) -> int:
        proposed = find_candidates(given, np.arange(len(data)), 5)
        return int((proposed.right - proposed.left == count).sum())

    assert found(learnt) > 0.4 * count > 4 * found(plain)


def test_edited_copies_are_seeded_and_keep_their_size(cells: CellDataset) -> None:
    """The copies that the space is learnt from repeat themselves and have the shape of their originals."""
    one, two = (edited_copy(cells.images[0], np.random.default_rng(5)) for _ in range(2))
    assert one.shape == cells.images[0].shape and one.dtype == np.uint8
    np.testing.assert_array_equal(one, two)
