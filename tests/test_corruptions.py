"""What the stress test does to images."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from hemascope.corruptions import CORRUPTIONS, LAYERS, SEVERITIES, STACKS, corrupt, severity_strip, stack
from hemascope.corruptions.draws import image_generator
from hemascope.corruptions.pixels import disc_kernel, line_kernel
from hemascope.data.synthetic import render_cell
from hemascope.errors import UsageError
from hemascope.policies import FAMILIES


@pytest.fixture(scope="module")
def cells() -> np.ndarray:
    """Six artificial cells, uint8 (6, 96, 96, 3), that nobody may write to."""
    names = ("basophil", "eosinophil", "erythroblast", "lymphocyte", "neutrophil", "platelet")
    drawn = [Image.fromarray(render_cell(name, size=192, seed=number)) for number, name in enumerate(names)]
    images = np.stack([np.asarray(picture.resize((96, 96))) for picture in drawn])
    images.setflags(write=False)
    return images


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_higher_severity_changes_more(cells: np.ndarray, name: str) -> None:
    """Each corruption keeps shape and type, and its mean change grows from severity 1 to 5."""
    changes = []
    for severity in SEVERITIES:
        found = corrupt(cells, name, severity, seed=3)
        assert (found.shape, found.dtype) == (cells.shape, np.uint8)
        changes.append(np.abs(found.astype(int) - cells).mean())
    assert changes[0] > 0
    assert changes[4] > 1.2 * changes[0]
    if name not in ("stain_deposit", "bubble"):  # those draw other places at every severity
        assert changes == sorted(changes)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_image_is_corrupted_alike_in_any_batch(cells: np.ndarray, name: str) -> None:
    """With ids, neither order nor company of an image changes what is drawn for it."""
    ids = [f"cell {place}" for place in range(len(cells))]
    whole = corrupt(cells, name, 4, seed=3, ids=ids)
    order = [4, 1, 5]
    part = corrupt(cells[order], name, 4, seed=3, ids=[ids[place] for place in order])
    assert np.array_equal(part, whole[order])


def test_seed_severity_and_id_each_draw_otherwise(cells: np.ndarray) -> None:
    """Bubbles lie elsewhere for another seed and for another id."""
    first = corrupt(cells[:1], "bubble", 5, seed=1, ids=["a"])
    assert np.array_equal(first, corrupt(cells[:1], "bubble", 5, seed=1, ids=["a"]))
    assert not np.array_equal(first, corrupt(cells[:1], "bubble", 5, seed=2, ids=["a"]))
    assert not np.array_equal(first, corrupt(cells[:1], "bubble", 5, seed=1, ids=["b"]))


def test_the_test_draws_from_a_stream_of_its_own() -> None:
    """A seed gives other numbers here than numpy's generator of that seed, from which training draws."""
    assert image_generator(0, "bubble 1", "0").random() != np.random.default_rng(0).random()


def test_known_values(cells: np.ndarray) -> None:
    """Brightness multiplies, contrast pulls towards the mean, pixelating averages blocks, saturation is HSV's."""
    grey = np.full((1, 32, 32, 3), 100, dtype=np.uint8)
    assert np.unique(corrupt(grey, "brightness_down", 5, seed=0)).tolist() == [50]
    assert np.unique(corrupt(grey, "brightness_up", 2, seed=0)).tolist() == [120]
    assert np.unique(corrupt(grey, "contrast_down", 5, seed=0)).tolist() == [100]
    blocks = np.zeros((1, 40, 40, 3), dtype=np.uint8)
    blocks[:, ::2] = 200
    assert np.unique(corrupt(blocks, "pixelate", 2, seed=0)).tolist() == [100]
    pixel = np.tile(np.array([200, 150, 100], dtype=np.uint8), (1, 16, 16, 1))
    # S = 0.5 becomes 0.7: value 200 stays, the least falls to 200 * 0.3, the middle stays half-way.
    assert corrupt(pixel, "saturate", 5, seed=0)[0, 0, 0].tolist() == [200, 130, 60]
    assert np.array_equal(severity_strip(cells[0], "jpeg", 0)[:, :96], cells[0])


def test_pixelating_is_pillows_box_resize(cells: np.ndarray) -> None:
    """Severity 4 is a reduction to 0.3 of the side by Pillow's box filter, and blocks of one colour again."""
    small = Image.fromarray(cells[0]).resize((29, 29), Image.Resampling.BOX)
    wanted = np.asarray(small.resize((96, 96), Image.Resampling.BOX))
    assert np.array_equal(corrupt(cells[:1], "pixelate", 4, seed=0)[0], wanted)


def test_saturation_of_grey_and_black() -> None:
    """HSV calls a grey pixel red, so it turns reddish at its value; black has none and stays black."""
    pixels = np.zeros((1, 16, 16, 3), dtype=np.uint8)
    pixels[:, :8] = 200
    found = corrupt(pixels, "saturate", 2, seed=0)[0]
    assert found[0, 0].tolist() == [200, 180, 180]
    assert found[15, 0].tolist() == [0, 0, 0]


def test_parameters_are_the_papers() -> None:
    """The eleven in their order, each with five parameters; those that no formula could catch, literally."""
    assert list(CORRUPTIONS) == [
        "pixelate", "jpeg", "defocus_blur", "motion_blur", "brightness_up", "brightness_down",
        "contrast_up", "contrast_down", "saturate", "stain_deposit", "bubble",
    ]  # fmt: skip
    assert all(len(one.parameters) == len(SEVERITIES) == 5 for one in CORRUPTIONS.values())
    assert CORRUPTIONS["jpeg"].parameters == (50, 30, 15, 10, 7)
    assert [radius for radius, _ in CORRUPTIONS["defocus_blur"].parameters] == [2, 3, 4, 5, 6]
    assert CORRUPTIONS["stain_deposit"].parameters == (1, 2, 3, 3, 3)
    assert [count for count, _ in CORRUPTIONS["bubble"].parameters] == [5, 7, 10, 12, 15]


def test_a_point_spreads_as_far_as_the_parameter_says() -> None:
    """At half the paper's side, radius 6 is a disc of 3 pixels, and a drag of 10 a line of 5 pixels either way."""
    point = np.zeros((1, 112, 112, 3), dtype=np.uint8)
    point[0, 56, 56] = 255
    disc = corrupt(point, "defocus_blur", 5, seed=0)[0, ..., 0]
    away = np.hypot(*(np.argwhere(disc > 0) - 56).T)
    assert 2.8 < away.max() <= 3.7
    assert disc[56, 56] == pytest.approx(255 / (9 * np.pi), abs=1)
    line = np.argwhere(corrupt(point, "motion_blur", 5, seed=0)[0, ..., 0] > 0) - 56
    assert 4 < np.hypot(*line.T).max() < 6.5
    # All on one line through the point: the second singular value is the width, below a pixel each.
    assert np.linalg.svd(line, compute_uv=False)[1] / np.sqrt(len(line)) < 0.8


def test_motion_turns_with_the_id(cells: np.ndarray) -> None:
    """Each image is dragged in a direction of its own."""
    same = np.repeat(cells[:1], 2, axis=0)
    found = corrupt(same, "motion_blur", 5, seed=0, ids=["a", "b"])
    assert not np.array_equal(found[0], found[1])


def test_blots_and_bubbles_look_their_part() -> None:
    """A blot is dark and more blue than green on its part of the field; a bubble has a dark rim and a bright spot."""
    grey = np.full((1, 96, 96, 3), 150, dtype=np.uint8)
    found = corrupt(grey, "stain_deposit", 3, seed=1)[0]
    blot = (found != 150).any(axis=-1)
    assert 0.005 < blot.mean() < 0.25
    dark = found[found[..., 1] < 75].astype(int)
    assert len(dark) > 20
    assert (dark[:, 2] > dark[:, 1]).all()
    found = corrupt(grey, "bubble", 3, seed=1)[0]
    assert found.min() < 110
    assert found.max() > 200
    assert (found == 150).mean() > 0.5


def test_a_bubble_is_a_lens() -> None:
    """Within bubbles black stripes receive light of their neighbours, elsewhere they stay black."""
    black = np.zeros((1, 96, 96, 3), dtype=np.uint8)
    striped = black.copy()
    striped[:, :, 1::2] = 200
    spots = corrupt(black, "bubble", 5, seed=2)[0, :, ::2, 0] > 0  # on black, the bright spots alone are seen
    lit = corrupt(striped, "bubble", 5, seed=2)[0, :, ::2, 0] > 20
    assert 0.02 < (lit & ~spots).mean() < 0.2


def test_kernels_are_what_they_say() -> None:
    """A disc of radius 3 has an area near 9 pi and sums to one; a line of radius 5 at angle 0 lies in one row."""
    disc = disc_kernel(3, 0)
    assert disc.sum() == pytest.approx(1)
    assert 1 / disc.max() == pytest.approx(9 * np.pi, rel=0.05)
    assert disc_kernel(0.3, 0).max() > 0.99  # a fraction of a pixel is nearly nothing
    line = line_kernel(5, 100, 0.0)
    assert line.sum(axis=1).max() == pytest.approx(1)
    assert (line.sum(axis=0) > 1e-3).sum() in (11, 12)


@pytest.mark.parametrize("side", [16, 33, 224])
def test_lengths_follow_the_size(side: int) -> None:
    """Every corruption and layer works at other sizes, and a blur keeps a flat image flat."""
    flat = np.full((1, side, side, 3), 90, dtype=np.uint8)
    for name in ("defocus_blur", "motion_blur"):
        assert np.unique(corrupt(flat, name, 5, seed=0)).tolist() == [90]
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    for layer in LAYERS.values():
        assert layer.function(image, np.random.default_rng(1)).shape == image.shape
    for name in CORRUPTIONS:
        assert corrupt(image[None], name, 5, seed=0).shape == (1, side, side, 3)


@pytest.mark.parametrize("name", LAYERS)
def test_each_layer_is_strong(cells: np.ndarray, name: str) -> None:
    """A layer changes a cell by four grey levels or more on average over draws, and leaves the given image alone."""
    change = [
        np.abs(LAYERS[name].function(cells[k % 6], np.random.default_rng(k)).astype(int) - cells[k % 6]).mean()
        for k in range(12)
    ]
    assert np.mean(change) > (
        1.5 if name in ("ripple", "smooth", "out_of_focus", "dragged", "hairs", "few_bits") else 4
    )


def test_stacks_hold_so_many_layers_of_different_families(cells: np.ndarray) -> None:
    """One or two, and two to four layers; all numbers occur, no family twice on an image, every family somewhere."""
    many = np.repeat(cells, 60, axis=0)[:, ::4, ::4]
    for name, (low, high) in STACKS.items():
        changed, laid = stack(many, name, seed=5)
        assert changed.shape == many.shape
        assert {len(layers) for layers in laid} == set(range(low, high + 1))
        families = [[LAYERS[layer].family for layer in layers] for layers in laid]
        assert all(len(set(one)) == len(one) for one in families)
        assert {family for one in families for family in one} == {layer.family for layer in LAYERS.values()}


def test_stacks_are_drawn_for_each_id(cells: np.ndarray) -> None:
    """The same id gets the same layers and pixels in another batch."""
    ids = [f"cell {place}" for place in range(6)]
    whole, laid = stack(cells, "stacked_2_4", seed=5, ids=ids)
    part, again = stack(cells[[3, 0]], "stacked_2_4", seed=5, ids=[ids[3], ids[0]])
    assert again == [laid[3], laid[0]]
    assert np.array_equal(part, whole[[3, 0]])


def test_families_can_be_left_out_or_chosen(cells: np.ndarray) -> None:
    """``without`` and ``only`` decide which families are drawn; too few left is a usage error."""
    many = np.repeat(cells, 20, axis=0)[:, ::4, ::4]
    _, laid = stack(many, "stacked_1_2", seed=5, only=("noise", "blur"))
    assert {LAYERS[layer].family for layers in laid for layer in layers} == {"noise", "blur"}
    _, laid = stack(many, "stacked_1_2", seed=5, without=("noise", "geometry"))
    assert not {LAYERS[layer].family for layers in laid for layer in layers} & {"noise", "geometry"}
    with pytest.raises(UsageError, match="needs 2 families"):
        stack(many, "stacked_1_2", seed=5, only=("noise",))


def test_unknown_names_are_refused(cells: np.ndarray) -> None:
    """An unknown corruption is answered with the nearest, a severity outside 1 to 5 with the range."""
    with pytest.raises(UsageError, match="did you mean 'jpeg'"):
        corrupt(cells, "jpg", 1, seed=0)
    with pytest.raises(UsageError, match="1 to 5, found 6"):
        corrupt(cells, "jpeg", 6, seed=0)
    with pytest.raises(UsageError, match="stacked_1_2"):
        stack(cells, "stacked_1_3", seed=0)


def test_images_that_are_none_and_ids_of_others_are_refused(cells: np.ndarray) -> None:
    """Levels in 0 to 1, one image without a batch, oblong images and too few ids are each a usage error."""
    for images, found in (
        (cells / 255, "float64"),
        (cells[0], r"\(96, 96, 3\)"),
        (cells[:, :50], r"\(6, 50, 96, 3\)"),
        (cells[..., :1], r"\(6, 96, 96, 1\)"),
    ):
        with pytest.raises(UsageError, match=f"uint8 .N, S, S, 3.*{found}"):
            corrupt(images, "jpeg", 1, seed=0)
        with pytest.raises(UsageError, match=f"uint8 .N, S, S, 3.*{found}"):
            stack(images, "stacked_1_2", seed=0)
    for call in (
        lambda: corrupt(cells, "jpeg", 1, seed=0, ids=["a", "b"]),
        lambda: stack(cells, "stacked_1_2", seed=0, ids=["a", "b"]),
    ):
        with pytest.raises(UsageError, match="6 images need as many ids, found 2"):
            call()


def test_no_images_are_no_images() -> None:
    """An empty batch gives an empty batch."""
    none = np.empty((0, 96, 96, 3), dtype=np.uint8)
    assert corrupt(none, "bubble", 1, seed=0).shape == none.shape
    assert stack(none, "stacked_1_2", seed=0)[1] == []


def test_families_are_those_of_policies() -> None:
    """Corruptions, layers and training policies name damage alike, so a report can say what training has shown."""
    named = {one.family for one in (*CORRUPTIONS.values(), *LAYERS.values())}
    assert named <= set(FAMILIES)
    assert {layer.family for layer in LAYERS.values()} == set(FAMILIES)


def test_one_layer_of_a_family_changes_every_image_by_its_own_draw() -> None:
    """Each family's layer changes the images, the same ids draw the same, and an unknown family is named."""
    from hemascope.corruptions import families, one_layer

    images = np.random.default_rng(0).integers(0, 256, (4, 48, 48, 3), dtype=np.uint8)
    ids = ["a", "b", "c", "d"]
    for family in families():
        found = one_layer(images, family, seed=3, ids=ids)
        assert (found != images).any(axis=(1, 2, 3)).all(), family
        again = one_layer(images[::-1], family, seed=3, ids=ids[::-1])[::-1]
        assert (found == again).all(), family
    with pytest.raises(UsageError, match="no family of layers is called 'blurr'"):
        one_layer(images, "blurr", seed=3)
