"""What training images go through: every operation by what it does to known pixels."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from io import BytesIO
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageFilter

from hemascope.augmentation import FUNCTIONS, Augmentation, augmented, operated, position_generator
from hemascope.augmentation.batch import mirror_and_turn, position_draws
from hemascope.augmentation.fill import chosen_fill, covering, ground_colour
from hemascope.augmentation.median import median_filter
from hemascope.config import AugmentationConfig
from hemascope.policies import OPERATIONS, Operation, Policy, policy_names

Image = NDArray[np.uint8]
NOTHING = {"flips": False, "quarter_turns": False}
ARROW = np.arange(2 * 2 * 3, dtype=np.uint8).reshape(2, 2, 3) * 10
SIZES = ((16, 16), (33, 48), (96, 96))
FILLS = ("reflect", "edge", "wrap", "black", "grey", "white", "ground", "noise")


def picture(height: int = 96, width: int = 96, seed: int = 0) -> Image:
    """A dark blob on a pale, uneven ground, as a cell is; read-only, so that nothing can change it unseen."""
    rng = np.random.default_rng(seed)
    coarse = Pillow.fromarray(rng.integers(130, 240, (8, 8, 3), dtype=np.uint8)).resize((width, height))
    y, x = np.mgrid[:height, :width]
    blob = np.hypot((y + 0.5) / height - 0.5, (x + 0.5) / width - 0.45) < 0.3
    image = np.where(blob[:, :, None], np.asarray(coarse) // 2 + [30, 0, 50], coarse).astype(np.uint8)
    image.flags.writeable = False
    return image


def flat(*colour: int, size: int = 32) -> Image:
    """One colour, or one grey level, everywhere."""
    image = np.empty((size, size, 3), dtype=np.uint8)
    image[:] = colour
    image.flags.writeable = False
    return image


def done(name: str, image: Image, strength: float = 0.0, *, seed: int = 0, fill: str = "reflect") -> Image:
    return FUNCTIONS[name](image, strength, np.random.default_rng(seed), fill)


def pixel(name: str, colour: tuple[int, ...], strength: float) -> tuple[int, ...]:
    """What becomes of one colour."""
    return tuple(done(name, flat(*colour, size=4), strength)[2, 2].tolist())


def walked(steps: list[Any], image: Image, count: int) -> list[Image]:
    """``image`` after a policy of ``steps``, drawn ``count`` times."""
    policy = Policy.model_validate({"steps": steps})
    return [augmented(image, policy, position_generator(3, place)) for place in range(count)]


def levels(steps: list[Any], start: int, count: int) -> list[int]:
    """The grey level that a flat image of ``start`` has after ``steps``, drawn ``count`` times."""
    return [int(image[0, 0, 0]) for image in walked(steps, flat(start, size=2), count)]


def offset(by: float, **more: Any) -> dict[str, Any]:
    return {"operation": "offset", "strength": by, **more}


def likely(times: int, count: int, share: float) -> bool:
    """Whether ``times`` of ``count`` is within five standard deviations of a ``share``."""
    return abs(times - count * share) < 5 * (count * share * (1 - share)) ** 0.5


# The contract of every operation


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.filterwarnings("error")
def test_every_operation_keeps_the_contract(name: str, size: tuple[int, int]) -> None:
    """At both ends of bounds and usual range, with every fill: same shape, uint8, input untouched, repeatable."""
    spec, image = OPERATIONS[name], picture(*size)
    kept = image.copy()
    for strength in sorted({spec.low, *spec.usual, spec.high}):
        for fill in (*FILLS, "any") if spec.fills else ("reflect",):
            found = done(name, image, strength, seed=5, fill=fill)
            assert found.shape == image.shape
            assert found.dtype == np.uint8
            assert np.array_equal(found, done(name, image, strength, seed=5, fill=fill))
    assert np.array_equal(image, kept)


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "identity"])
def test_every_operation_does_something(name: str) -> None:
    """At the stronger end of its usual range it changes pixels, and the unit of one without strength is empty."""
    spec, image = OPERATIONS[name], picture()
    assert not np.array_equal(done(name, image, max(spec.usual, key=abs)), image)
    assert (spec.unit == "") == (name in {"identity", "mirror", "quarter_turn", "channel_swap"})


def test_identity_does_nothing() -> None:
    """identity gives the same pixels."""
    assert np.array_equal(done("identity", picture()), picture())


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_view_in_another_order_is_treated_as_its_pixels(name: str) -> None:
    """What mirror and quarter_turn give are views with other strides; the next operation sees the same image."""
    view = np.rot90(picture(40, 40))[:, ::-1]
    strength = max(OPERATIONS[name].usual, key=abs)
    assert np.array_equal(done(name, view, strength), done(name, np.ascontiguousarray(view), strength))


NEUTRAL = {
    **dict.fromkeys(["translate_x", "translate_y", "rotate", "shear_x", "shear_y", "perspective", "warp"], 0.0),
    **dict.fromkeys(["zoom", "aspect", "pixelate", "downscale", "sharpness", "saturation"], 1.0),
    **dict.fromkeys(["brightness", "gamma", "contrast"], 1.0),
    **dict.fromkeys(["cutout", "random_erasing", "grid_mask", "stripes", "gaussian_blur", "offset", "invert"], 0.0),
    **dict.fromkeys(["gaussian_noise", "grey_noise", "speckle_noise", "salt_and_pepper", "equalise"], 0.0),
    **dict.fromkeys(["channel_shift", "channel_gain", "white_balance", "stain_density", "stain_channels"], 0.0),
    **dict.fromkeys(["vignette", "light_gradient", "shading", "stain_deposit", "dust", "bubbles"], 0.0),
    "solarise": 256.0,
    "posterise": 8.0,
}


@pytest.mark.parametrize("name", NEUTRAL)
def test_at_its_neutral_strength_an_operation_changes_nothing(name: str) -> None:
    """Interpolation, tables and masks are exact: no shift, factor 1 or no blots leaves every pixel as it was."""
    for size in SIZES:
        assert np.array_equal(done(name, picture(*size), NEUTRAL[name]), picture(*size))


@pytest.mark.parametrize("name", ["stain_hed", "hue", "saturation_offset"])
def test_colour_spaces_there_and_back_lose_little(name: str) -> None:
    """At strength 0 only rounding is left: 1 level for stains, a few for Pillow's HSV of bytes."""
    change = abs(done(name, picture(), 0).astype(int) - picture())
    assert change.max() <= (1 if name == "stain_hed" else 4)


# Tone and colour: known pixels


@pytest.mark.parametrize(
    ("name", "strength", "before", "after"),
    [
        ("brightness", 1.5, (100, 51, 200), (150, 76, 255)),  # 76.5 to the even neighbour
        ("brightness", 0, (100, 51, 200), (0, 0, 0)),
        ("offset", -60, (100, 51, 200), (40, 0, 140)),
        ("gamma", 2, (100, 0, 255), (39, 0, 255)),  # 255 * (100 / 255) ** 2 = 39.2
        ("gamma", 0.5, (64, 128, 1), (128, 181, 16)),
        ("solarise", 128, (100, 128, 200), (100, 127, 55)),
        ("solarise", 0, (100, 128, 200), (155, 127, 55)),
        ("solarise_add", 50, (20, 100, 250), (70, 105, 0)),
        ("posterise", 2, (63, 64, 200), (0, 64, 192)),
        ("posterise", 2.9, (63, 64, 200), (0, 64, 192)),
        ("posterise", 1, (127, 128, 255), (0, 128, 128)),
        ("invert", 1, (0, 100, 255), (255, 155, 0)),
        ("invert", 0.25, (0, 100, 255), (64, 114, 191)),
        ("contrast", 0, (200, 200, 200), (200, 200, 200)),
        ("saturation", 0, (255, 0, 0), (76, 76, 76)),  # 0.299 of red
        ("saturation_offset", -1, (200, 100, 50), (200, 200, 200)),  # HSV keeps the largest channel
        ("hue", 0.5, (255, 0, 0), (0, 255, 255)),
        ("white_balance", 0.2, (100, 100, 100), (120, 105, 80)),
        ("white_balance", -0.2, (100, 100, 100), (80, 95, 120)),
    ],
)
def test_known_colours(name: str, strength: float, before: tuple[int, ...], after: tuple[int, ...]) -> None:
    """One colour becomes the one worked out by hand."""
    found = pixel(name, before, strength)
    assert max(abs(one - other) for one, other in zip(found, after, strict=True)) <= (3 if name == "hue" else 0), found


def test_contrast_is_about_the_mean_luma() -> None:
    """Half 100 and half 200: doubled contrast is 50 and 250, none is 150 everywhere."""
    image = flat(100).copy()
    image[:, 16:] = 200
    assert set(done("contrast", image, 2).ravel().tolist()) == {50, 250}
    assert set(done("contrast", image, 0).ravel().tolist()) == {150}
    red = flat(200, 0, 0)
    assert pixel("contrast", (200, 0, 0), 0) == (60, 60, 60)  # 0.299 * 200
    assert np.array_equal(done("contrast", red, 1), red)


def test_autocontrast_and_equalise_use_the_whole_range() -> None:
    """A ramp of 50 to 150 reaches 0 to 255; cutting off more stretches more; half of equalise lies half way."""
    ramp = np.repeat(np.linspace(50, 150, 101).astype(np.uint8)[None, :, None], 20, axis=0).repeat(3, axis=2)
    for name, strength in (("autocontrast", 0), ("equalise", 1)):
        found = done(name, ramp, strength)
        assert (found.min(), found.max()) == (0, 255)
        assert (np.diff(found[0, :, 0].astype(int)) >= 0).all()
    cut = done("autocontrast", ramp, 20)
    assert (cut == 0).mean() > (done("autocontrast", ramp, 0) == 0).mean() + 0.1
    half, whole = done("equalise", ramp, 0.5).astype(int), done("equalise", ramp, 1).astype(int)
    assert abs(half - (ramp + whole) / 2).max() <= 1


def test_channels_change_apart() -> None:
    """A shift and a gain draw their own number for each channel, within the strength; a swap is a true permutation."""
    shifts = np.array([done("channel_shift", flat(128), 60, seed=seed)[0, 0] - 128.0 for seed in range(300)])
    gains = np.array([done("channel_gain", flat(100), 0.5, seed=seed)[0, 0] / 100.0 - 1 for seed in range(300)])
    for found, reach in ((shifts, 60), (gains, 0.5)):
        assert abs(found).max() <= reach * 1.02
        assert abs(found).max() > reach * 0.95
        assert abs(found.mean(axis=0)).max() < reach * 0.2
        assert abs(np.corrcoef(found.T)[np.triu_indices(3, 1)]).max() < 0.3
    swapped = {tuple(done("channel_swap", flat(1, 2, 3), 0, seed=seed)[0, 0].tolist()) for seed in range(100)}
    assert swapped == {(1, 3, 2), (2, 1, 3), (2, 3, 1), (3, 1, 2), (3, 2, 1)}


# Stain


class Largest(np.random.Generator):
    """A generator whose uniform numbers are all the largest allowed."""

    def __init__(self) -> None:
        super().__init__(np.random.PCG64(0))

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        return np.full(size, high)


def test_stain_density_is_optical_density() -> None:
    """Twice the density of a half is a quarter of the light, of a quarter a sixteenth; white stays white."""
    for name in ("stain_density", "stain_channels"):
        found = FUNCTIONS[name](flat(127, 63, 255), math.log(2), Largest(), "reflect")
        assert found[3, 3].tolist() == [63, 15, 255]


def test_stain_density_moves_channels_together_and_stain_channels_apart() -> None:
    """On a grey patch the one keeps grey, the other does not; both stay within exp of the strength."""
    for seed in range(20):
        together = done("stain_density", flat(127), 0.5, seed=seed)[0, 0]
        apart = done("stain_channels", flat(127), 0.5, seed=seed)[0, 0]
        assert len(set(together.tolist())) == 1
        assert len(set(apart.tolist())) > 1
        for levels_found in (together, apart):
            density = -np.log((levels_found + 1.0) / 256) / math.log(2)
            assert (abs(np.log(density)) < 0.5 + 0.02).all()


def test_stain_hed_scales_and_shifts_the_three_stains() -> None:
    """With every stain doubled and shifted by a tenth of the mean density, the light is what Beer and Lambert say."""
    image = flat(180, 120, 200)
    vectors = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    density = -np.log((image[0, 0] + 1.0) / 256)
    stains = density @ np.linalg.inv(vectors)
    expected = 256 * np.exp(-((2 * stains + 0.1 * density.mean()) @ vectors)) - 1
    found = FUNCTIONS["stain_hed"](image, 1.0, Largest(), "reflect")[0, 0]
    assert abs(found - expected).max() <= 0.51


# Geometry


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_shift_moves_by_a_share_of_the_side(size: tuple[int, int]) -> None:
    """A dot goes right by a quarter of the width, or down by a third of the height, whole pixels exactly."""
    height, width = size
    image = np.zeros((height, width, 3), dtype=np.uint8)
    image[height // 2, width // 2] = 200
    moved = done("translate_x", image, 0.25, fill="black")
    assert moved[:, :, 0].nonzero()[0].tolist() == [height // 2]
    assert moved[:, :, 0].nonzero()[1].tolist() == [width // 2 + width // 4]
    lower = done("translate_y", image, (height // 3) / height, fill="black")
    assert lower[height // 2 + height // 3, width // 2].tolist() == [200] * 3
    assert (lower > 0).sum() == 3


@pytest.mark.parametrize("fill", FILLS)
def test_a_turn_by_ninety_degrees_is_a_quarter_turn(fill: str) -> None:
    """By 90 degrees an image goes with the clock, by -90 against it as np.rot90 does, within a level, for any fill."""
    image = picture()
    for degrees, turns in ((90, 3), (-90, 1), (180, 2), (-180, 2)):
        found = done("rotate", image, degrees, fill=fill).astype(int)
        assert abs(found - np.rot90(image, turns)).max() <= 1


def square(side: int, inner: int) -> Image:
    """A white square of ``inner`` pixels in the middle of black."""
    image = np.zeros((side, side, 3), dtype=np.uint8)
    start = (side - inner) // 2
    image[start : start + inner, start : start + inner] = 255
    return image


def extent(image: Image) -> tuple[int, int]:
    """Height and width of what is brighter than half."""
    rows, columns = (image[:, :, 0] > 127).nonzero()
    return int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1


def test_a_change_of_size_is_about_the_centre() -> None:
    """A centred square of 16 has 32 at twice the size, 8 at half, and stays centred."""
    for factor, side in ((2, 32), (0.5, 8)):
        grown = done("zoom", square(64, 16), factor, fill="black")
        assert extent(grown) == (side, side)
        assert ((grown[:, :, 0] > 127).sum()) == side * side
        assert np.array_equal(grown, grown[::-1, ::-1])


def test_aspect_and_shear() -> None:
    """An aspect stretches by its root, either way; a shear of 1 slides rows as many pixels as they are apart."""
    # 16 / 1.75 = 9.1, which reaches ten pixels, and 16 * 1.75
    assert extent(done("aspect", square(64, 16), 3.0625, fill="black")) == (10, 28)
    line = np.zeros((33, 33, 3), dtype=np.uint8)
    line[:, 16] = 255
    slanted = done("shear_x", line, 1, fill="black")[:, :, 0]
    assert slanted.argmax(axis=1).tolist() == list(range(32, -1, -1))
    assert done("shear_y", line.transpose(1, 0, 2), 1, fill="black")[:, :, 0].argmax(axis=0).tolist() == list(
        range(32, -1, -1)
    )


def test_mirrors_and_quarter_turns() -> None:
    """mirror draws its three, quarter_turn its three, an oblong image only the half turn."""

    def seen(name: str, image: Image) -> set[bytes]:
        return {done(name, image, seed=seed).tobytes() for seed in range(60)}

    assert seen("mirror", ARROW) == {ARROW[::-1].tobytes(), ARROW[:, ::-1].tobytes(), ARROW[::-1, ::-1].tobytes()}
    assert seen("quarter_turn", ARROW) == {np.rot90(ARROW, turns).tobytes() for turns in (1, 2, 3)}
    assert seen("quarter_turn", picture(33, 48)) == {picture(33, 48)[::-1, ::-1].tobytes()}


@pytest.mark.parametrize("name", ["perspective", "warp"])
def test_a_stronger_distortion_moves_farther(name: str) -> None:
    """On a ramp of one level a pixel, the change is the distance moved: it grows with strength, and has its bound."""
    ramp = np.repeat(np.arange(96, dtype=np.uint8)[None, :, None] + 80, 96, axis=0).repeat(3, axis=2)
    moved = [
        np.mean([abs(done(name, ramp, strength, seed=seed, fill="edge").astype(int) - ramp) for seed in range(10)])
        for strength in (0.02, 0.06, 0.15)
    ]
    assert moved[0] < moved[1] < moved[2]
    # Between its corners a perspective moves a little farther than they do.
    bound = {"warp": 1.0, "perspective": 1.5}[name]
    for seed in range(10):
        change = abs(done(name, ramp, 0.1, seed=seed, fill="edge").astype(int) - ramp)
        assert change.max() <= math.ceil(bound * 0.1 * 96)


def test_a_warp_mixes_the_four_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a field that is the same everywhere, a warp is a shift, by whole pixels or by a quarter and a half."""
    image = picture(40, 40)
    for by in ((3.0, 3.0), (2.25, 4.5)):
        fields = [np.full((40, 40), part / 4, dtype=np.float32) for part in by]  # a tenth of the side is 4 pixels
        monkeypatch.setattr("hemascope.augmentation.geometry.smooth_field", lambda *_, fields=fields: fields.pop(0))
        found = done("warp", image, 0.1)[:30, :30]
        y, x = (math.floor(part) for part in by)
        down, right = (part - math.floor(part) for part in by)
        corners = [image[y + i : y + i + 30, x + j : x + j + 30].astype(float) for i in (0, 1) for j in (0, 1)]
        shares = [(1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right]
        expected = sum(share * corner for share, corner in zip(shares, corners, strict=True))
        assert abs(found - expected).max() <= 0.51


def test_the_field_of_a_warp_has_no_edges() -> None:
    """Neighbouring pixels move alike: on a ramp no step is much larger than the ramp's own."""
    ramp = np.repeat(np.arange(96, dtype=np.uint8)[None, :, None] + 80, 96, axis=0).repeat(3, axis=2)
    for seed in range(5):
        found = done("warp", ramp, 0.05, seed=seed, fill="edge")[:, :, 0].astype(int)
        assert abs(np.diff(found, axis=0)).max() <= 3
        assert abs(np.diff(found, axis=1)).max() <= 4


def test_each_fill_shows_what_it_says() -> None:
    """Half the image moved out to the right: mirrored, repeated, wrapped around, or of its colour, pixel by pixel."""
    image = picture(32, 32)
    ground = ground_colour(image)
    expected: dict[str, Any] = {
        "reflect": image[:, 15::-1],
        "edge": image[:, :1].repeat(16, axis=1),
        "wrap": image[:, 16:],
        "black": 0,
        "grey": 128,
        "white": 255,
        "ground": np.array(ground),
    }
    for fill, outside in expected.items():
        found = done("translate_x", image, 0.5, fill=fill)
        assert np.array_equal(found[:, 16:], image[:, :16]), fill
        assert (found[:, :16] == outside).all(), fill
    noise = done("translate_x", image, 0.5, fill="noise")
    assert np.array_equal(noise[:, 16:], image[:, :16])
    assert 60 < noise[:, :16].std() < 90  # of uniform bytes 74
    rim = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    assert abs(np.median(rim, axis=0) - ground).max() < 1


def test_any_fill_is_each_as_often() -> None:
    """any draws the eight fills alike; a named fill is itself."""
    rng = np.random.default_rng(0)
    drawn = Counter(chosen_fill("any", rng) for _ in range(4000))
    assert set(drawn) == set(FILLS)
    assert all(likely(times, 4000, 1 / 8) for times in drawn.values())
    assert chosen_fill("wrap", rng) == "wrap"


# What covers


def covered(before: Image, after: Image) -> NDArray[np.bool_]:
    """Where black was laid on an image without black."""
    changed: NDArray[np.bool_] = (after != before).any(axis=2)
    assert (after[changed] == 0).all()
    return changed


def test_cutout_covers_a_square_of_the_stated_side() -> None:
    """A quarter of the side is a square of 24 of 96 pixels; near the border a part of it lies outside."""
    image = flat(200, size=96)
    sizes = []
    for seed in range(60):
        where = covered(image, done("cutout", image, 0.25, seed=seed, fill="black"))
        height, width = extent(where[:, :, None].repeat(3, axis=2).astype(np.uint8) * 255)
        assert where.sum() == height * width
        assert max(height, width) <= 24
        assert min(height, width) >= 12
        sizes.append((height, width))
    assert sizes.count((24, 24)) > 20


def test_random_erasing_covers_the_stated_area() -> None:
    """Inside the image a rectangle has a tenth of the area within rounding, and at most three times its width."""
    image = flat(200, size=96)
    whole = []
    for seed in range(80):
        where = covered(image, done("random_erasing", image, 0.1, seed=seed, fill="black"))
        rows, columns = where.nonzero()
        assert where.mean() < 0.1 * 1.06
        if min(rows.min(), columns.min()) > 0 and max(rows.max(), columns.max()) < 95:
            height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
            whole.append(height / width)
            assert where.mean() == pytest.approx(0.1, rel=0.06)
    assert len(whole) > 15
    assert min(whole) < 0.6
    assert max(whole) > 1.6
    assert all(1 / 3.2 < ratio < 3.2 for ratio in whole)


@pytest.mark.parametrize(("name", "share"), [("grid_mask", 0.4**2), ("stripes", 0.4)])
def test_patterns_cover_their_share(name: str, share: float) -> None:
    """Over many angles and phases a grid of 0.4 covers 0.16 of the image, stripes of 0.4 cover 0.4."""
    image = flat(200, size=96)
    found = [covered(image, done(name, image, 0.4, seed=seed, fill="black")).mean() for seed in range(200)]
    assert np.mean(found) == pytest.approx(share, rel=0.06)


def test_what_lies_on_covered_parts() -> None:
    """Each fill covers with its colour: the mean for edge, the ground for reflect, another part for wrap."""
    image, rng = picture(32, 48), np.random.default_rng(0)
    ground = ground_colour(image)
    for fill, colour in (("black", (0,) * 3), ("grey", (128,) * 3), ("white", (255,) * 3), ("ground", ground)):
        assert tuple(covering(fill, image, rng).tolist()) == colour
    assert tuple(covering("reflect", image, rng).tolist()) == ground
    assert abs(covering("edge", image, rng) - image.mean(axis=(0, 1))).max() < 1
    assert np.array_equal(covering("wrap", image, rng)[16:, 24:], image[:16, :24])
    assert covering("noise", image, rng).shape == image.shape


# Detail


@pytest.mark.parametrize("name", ["jpeg", "webp"])
def test_lower_quality_is_less_alike(name: str) -> None:
    """The error grows at every step from quality 95 to 1, and the format itself is the one named."""
    image = picture()
    errors = [np.square(done(name, image, quality).astype(float) - image).mean() for quality in (95, 70, 40, 15, 1)]
    assert all(less < more for less, more in pairwise(errors))
    assert errors[0] < 20
    if name == "jpeg":
        buffer = BytesIO()
        Pillow.fromarray(image).save(buffer, "JPEG", quality=40)
        assert np.array_equal(done("jpeg", image, 40.3), np.asarray(Pillow.open(buffer)))


def test_pixelate_gives_blocks_of_the_mean() -> None:
    """A quarter of the pixels a side: blocks of 4 by 4, each the mean of what it covers."""
    image = picture(32, 32)
    blocks = done("pixelate", image, 0.25).reshape(8, 4, 8, 4, 3)
    assert (blocks == blocks[:, :1, :, :1]).all()
    means = image.reshape(8, 4, 8, 4, 3).mean(axis=(1, 3))
    assert abs(blocks[:, 0, :, 0] - means).max() <= 1


def test_downscale_loses_detail_smoothly() -> None:
    """Fewer pixels lose fine detail, but leave no blocks."""
    image = picture()
    for seed in range(8):
        found = done("downscale", image, 0.25, seed=seed)
        assert len(np.unique(found[40, :, 0])) > 24
        fine = abs(np.diff(found.astype(int), axis=1)).mean() / abs(np.diff(image.astype(int), axis=1)).mean()
        assert fine < 1.1


def impulse(level: int = 255, size: int = 97) -> Image:
    image = np.zeros((size, size, 3), dtype=np.uint8)
    image[size // 2, size // 2] = level
    return image


def test_a_gaussian_blur_has_its_deviation() -> None:
    """An edge between black and white is spread with the stated standard deviation."""
    edge = np.zeros((100, 100, 3), dtype=np.uint8)
    edge[:, 50:] = 255
    slope = np.diff(done("gaussian_blur", edge, 0.03)[50, :, 0].astype(float))
    places = np.arange(99) + 1.0
    mean = (slope * places).sum() / slope.sum()
    deviation = ((slope * (places - mean) ** 2).sum() / slope.sum()) ** 0.5
    assert deviation == pytest.approx(3.0, rel=0.1)


def test_defocus_is_a_disc_and_motion_a_line() -> None:
    """A block of light spreads over a disc of the stated radius, or over a line of the stated length; light is kept."""
    image = np.zeros((101, 101, 3), dtype=np.uint8)
    image[49:52, 49:52] = 255
    total = image[:, :, 0].sum()
    disc = done("defocus_blur", image, 0.08)[:, :, 0].astype(float)
    assert extent(np.repeat((disc > 0)[:, :, None], 3, axis=2).astype(np.uint8) * 255)[0] == pytest.approx(
        2 * 0.08 * 101 + 3, abs=2
    )
    assert disc.sum() == pytest.approx(total, rel=0.05)
    assert np.allclose(disc, disc[::-1], atol=1)
    for seed in range(5):
        line = done("motion_blur", image, 0.2, seed=seed)[:, :, 0].astype(float)
        rows, columns = line.nonzero()
        length = np.hypot(np.ptp(rows), np.ptp(columns))
        assert 0.2 * 101 - 2 < length < 0.2 * 101 + 8
        assert line.sum() == pytest.approx(total, rel=0.05)
        spread = np.linalg.svd(np.stack([rows - rows.mean(), columns - columns.mean()]), compute_uv=False)
        assert spread[0] > 3 * spread[1]  # long and thin


@pytest.mark.parametrize("name", ["gaussian_blur", "defocus_blur", "motion_blur", "median_blur", "sharpness"])
def test_blurs_leave_a_flat_image_alone(name: str) -> None:
    """Kernels sum to one and borders do not darken."""
    image = flat(90, 150, 210)
    assert np.array_equal(done(name, image, OPERATIONS[name].usual[1]), image)


def test_median_removes_a_grain_and_keeps_an_edge() -> None:
    """A lone bright pixel vanishes; a straight edge stays where it is."""
    assert not done("median_blur", impulse(), 0.03).any()
    edge = np.zeros((32, 32, 3), dtype=np.uint8)
    edge[:, 16:] = 255
    assert np.array_equal(done("median_blur", edge, 0.1), edge)


@pytest.mark.parametrize("width", [3, 5, 7, 9, 11])
def test_the_median_equals_pillows(width: int) -> None:
    """The fast selection gives Pillow's medians bit for bit, on noise and at every border."""
    rng = np.random.default_rng(width)
    for size in ((16, 16), (33, 48)):
        image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        expected = np.asarray(Pillow.fromarray(image).filter(ImageFilter.MedianFilter(width)))
        assert np.array_equal(median_filter(image, width), expected)


def test_sharpness_goes_both_ways() -> None:
    """Below 1 neighbouring pixels differ less, above 1 more."""
    steps = [abs(np.diff(done("sharpness", picture(), factor).astype(int))).mean() for factor in (0, 1, 4)]
    assert steps[0] < steps[1] < steps[2]


# Noise and light


def test_noise_has_its_deviation() -> None:
    """Measured on 30,000 values: additive, relative, and by the root of the light."""
    image = flat(128, size=100)
    assert done("gaussian_noise", image, 20).std() == pytest.approx(20, rel=0.03)
    assert done("speckle_noise", image, 0.1).std() == pytest.approx(12.8, rel=0.03)
    assert done("shot_noise", image, 0.5).std() == pytest.approx((128 / 0.5) ** 0.5, rel=0.03)
    assert done("shot_noise", flat(32, size=100), 0.5).std() == pytest.approx((32 / 0.5) ** 0.5, rel=0.03)
    for name, strength in (("gaussian_noise", 20), ("speckle_noise", 0.1), ("shot_noise", 0.5)):
        assert done(name, image, strength).mean() == pytest.approx(128, abs=0.6)
        apart = done(name, image, strength).reshape(-1, 3).T
        assert abs(np.corrcoef(apart)[0, 1]) < 0.05


def test_grey_noise_is_the_same_in_all_channels() -> None:
    """No colour appears, the deviation is the stated one, and the grain is one to four pixels wide."""
    grains = set()
    for seed in range(40):
        found = done("grey_noise", flat(128, size=96), 20, seed=seed)
        assert (found == found[:, :, :1]).all()
        assert found.std() == pytest.approx(20, rel=0.12)
        grains.add(next(grain for grain in (4, 3, 2, 1) if (found[:grain, :grain] == found[0, 0]).all()))
    assert grains == {1, 2, 3, 4}


def test_salt_and_pepper_hits_its_share() -> None:
    """A tenth of the pixels, half of them black and half white, the rest untouched."""
    found = done("salt_and_pepper", flat(128, size=100), 0.1)
    black, white = ((found == level).all(axis=2).sum() for level in (0, 255))
    assert likely(int(black), 10_000, 0.05)
    assert likely(int(white), 10_000, 0.05)
    assert ((found == 128).all(axis=2)).sum() + black + white == 10_000


def test_light_falls_off_as_said() -> None:
    """A vignette darkens corners most, a gradient keeps the mean and spans its strength, shading goes both ways."""
    image = flat(120, size=96)
    for seed in range(5):
        dark = done("vignette", image, 0.8, seed=seed)[:, :, 0]
        assert dark[48, 48] > dark[[0, 0, -1, -1], [0, -1, 0, -1]].max()
        assert dark.max() <= 120
        assert 120 * 0.2 - 1 <= dark.min() < 120 * 0.65
        slope = done("light_gradient", image, 0.5, seed=seed)[:, :, 0].astype(float)
        assert slope.mean() == pytest.approx(120, abs=1)
        ends = np.ptp(slope) / 120  # 2 * 0.5 along an axis, up to sqrt(2) of it along a diagonal
        assert 0.98 < ends < 1.43
        patches = done("shading", image, 0.5, seed=seed)[:, :, 0]
        assert patches.min() < 120 * 0.85
        assert patches.max() > 120 * 1.15
        assert patches.min() >= 60
        assert patches.max() <= 180
        assert abs(np.diff(patches.astype(int))).max() < 14  # no edges


# What lies on the slide


@pytest.mark.parametrize(("name", "few", "many"), [("stain_deposit", 1, 8), ("dust", 2, 25), ("bubbles", 1, 12)])
def test_more_of_it_covers_more(name: str, few: int, many: int) -> None:
    """The share of changed pixels grows with the number, and one alone leaves most of the cell to be seen."""
    image = picture()

    def share(count: int) -> float:
        return float(
            np.mean([(abs(done(name, image, count, seed=seed).astype(int) - image) > 8).mean() for seed in range(30)])
        )

    assert 0 < share(few) < 0.35
    assert share(many) > 2 * share(few)


def test_deposit_is_dark_and_dyed() -> None:
    """Blots on white are darker than the ground and more blue than green."""
    for seed in range(20):
        found = done("stain_deposit", flat(250, size=96), 4, seed=seed)
        spots = found[(found < 200).all(axis=2)]
        assert len(spots) > 5
        assert (spots[:, 2] > spots[:, 1]).mean() > 0.95


def test_bubbles_have_a_dark_rim_and_a_bright_crescent() -> None:
    """On a mid grey, bubbles make some pixels much darker and some brighter."""
    for seed in range(10):
        found = done("bubbles", flat(150, size=96), 6, seed=seed)
        assert found.min() < 120
        assert found.max() > 160


# Walking a policy


def test_probability_is_how_often() -> None:
    """One operation at 0.3, and a sequence at 0.5 around one at 0.5, happen as often as that; 0 never, 1 always."""
    found = Counter(levels([offset(1, probability=0.3)], 100, 2000))
    assert set(found) == {100, 101}
    assert likely(found[101], 2000, 0.3)
    inner = [{"sequence": [offset(1, probability=0.5)], "probability": 0.5}]
    assert likely(Counter(levels(inner, 100, 2000))[101], 2000, 0.25)
    assert set(levels([offset(1, probability=0)], 100, 50)) == {100}
    assert set(levels([offset(1)], 100, 50)) == {101}


def test_steps_and_sequences_are_done_in_order() -> None:
    """Given order: first times two, then plus ten; a random order gives both results alike."""
    steps = [{"operation": "brightness", "strength": 2}, offset(10)]
    assert set(levels(steps, 50, 20)) == {110}
    assert set(levels([{"sequence": steps}], 50, 20)) == {110}
    found = Counter(levels([{"sequence": steps, "order": "random"}], 50, 2000))
    assert set(found) == {110, 120}
    assert likely(found[110], 2000, 0.5)


def test_choose_takes_as_many_as_it_says() -> None:
    """One or two of four: both counts alike, never the same one twice, each one as often."""
    found = Counter(
        value - 100 for value in levels([{"choose": [1, 2], "of": [offset(by) for by in (1, 2, 4, 8)]}], 100, 4000)
    )
    assert set(found) == {1, 2, 4, 8, 3, 5, 9, 6, 10, 12}
    singles = sum(times for value, times in found.items() if value in (1, 2, 4, 8))
    assert likely(singles, 4000, 0.5)
    for bit in (1, 2, 4, 8):
        assert likely(sum(times for value, times in found.items() if value & bit), 4000, 0.375)
    assert set(levels([{"choose": 0, "of": [offset(1)]}], 100, 20)) == {100}


def test_choose_with_replacement_may_repeat() -> None:
    """Three of two with replacement: the binomial of three coins."""
    found = Counter(levels([{"choose": 3, "replace": True, "of": [offset(1), offset(10)]}], 100, 4000))
    shares = {103: 1 / 8, 112: 3 / 8, 121: 3 / 8, 130: 1 / 8}
    assert set(found) == set(shares)
    assert all(likely(found[value], 4000, share) for value, share in shares.items())


def test_weights_say_how_often_each_is_chosen() -> None:
    """Weights of 1, 2 and 5 give an eighth, a quarter and five eighths."""
    found = Counter(levels([{"choose": 1, "weights": [1, 2, 5], "of": [offset(by) for by in (1, 2, 3)]}], 100, 4000))
    for value, share in ((101, 1 / 8), (102, 2 / 8), (103, 5 / 8)):
        assert likely(found[value], 4000, share)


def test_strength_is_uniform_and_turned_around() -> None:
    """Strengths fill their range evenly; either_sign puts half of them on the other side; one number is itself."""
    found = np.array(levels([offset(10, strength=[10, 30])], 100, 2000)) - 100
    assert (found.min(), found.max()) == (10, 30)
    assert found.mean() == pytest.approx(20, abs=0.8)
    assert found.std() == pytest.approx(20 / 12**0.5, rel=0.08)
    both = np.array(levels([offset(0, strength=[10, 30], either_sign=True)], 100, 2000)) - 100
    assert likely(int((both > 0).sum()), 2000, 0.5)
    assert abs(both).min() >= 10
    assert abs(both).max() <= 30


def test_operated_ignores_the_probability() -> None:
    """A preview shows an operation at its strength even where it is rare."""
    node = Operation(operation="offset", strength=(1, 1), probability=0)
    assert operated(flat(100), node, 5, np.random.default_rng(0))[0, 0, 0] == 105


def test_augmix_lies_between_the_image_and_its_chains() -> None:
    """The mix of a flat image and its shifted copy is spread evenly between them for alpha 1, and narrower for 10."""
    mix = {"augmix": 3, "depth": 1, "of": [offset(100)]}
    found = np.array(levels([mix], 100, 1500))
    assert found.min() >= 100
    assert found.max() <= 200
    assert found.mean() == pytest.approx(150, abs=4)
    assert found.std() == pytest.approx(100 / 12**0.5, rel=0.08)  # Beta(1, 1) is uniform
    narrow = np.array(levels([{**mix, "alpha": 10}], 100, 1500))
    assert narrow.std() == pytest.approx(100 / (4 * 21) ** 0.5, rel=0.1)  # Beta(10, 10)


def test_augmix_is_convex_and_chains_have_their_depth() -> None:
    """Every pixel stays between the smallest and largest of its possible chains; two inversions are none."""
    image = picture(24, 24)
    nodes = [{"operation": "solarise", "strength": 120}, {"operation": "posterise", "strength": 2}, offset(-40)]
    rng = np.random.default_rng(0)
    outcomes = np.stack([image, *(operated(image, Operation(**node), node["strength"], rng) for node in nodes)])
    low, high = outcomes.min(axis=0), outcomes.max(axis=0)
    seen = walked([{"augmix": 3, "depth": 1, "of": nodes}], image, 50)
    for found in seen:
        assert (found.astype(int) >= low.astype(int) - 1).all()
        assert (found.astype(int) <= high.astype(int) + 1).all()
    assert len({found.tobytes() for found in seen}) == 50
    for found in walked([{"augmix": 2, "depth": 2, "of": [{"operation": "invert"}]}], image, 10):
        assert abs(found.astype(int) - image).max() <= 1
    deep = levels([{"augmix": 1, "depth": [1, 3], "alpha": 10, "of": [offset(20)]}], 100, 600)
    assert max(deep) > 130  # three in a chain
    assert max(deep) <= 160


@pytest.mark.parametrize("name", policy_names())
@pytest.mark.filterwarnings("error")
def test_every_packaged_policy_runs(name: str) -> None:
    """Thirty draws at each size: no warning, the image's shape, and, but for none, other pixels."""
    policy = Policy.model_validate(name)
    for size in SIZES:
        image = picture(*size)
        found = [augmented(image, policy, position_generator(0, place, 1)) for place in range(30)]
        assert {(one.shape, one.dtype) for one in found} == {(image.shape, np.dtype(np.uint8))}
        assert any(not np.array_equal(one, image) for one in found) == bool(policy.steps)


# Batches


def pictures(count: int = 8, size: int = 16) -> Image:
    images = np.stack([picture(size, size, seed) for seed in range(count)])
    images.flags.writeable = False
    return images


def orientations(config: AugmentationConfig, count: int) -> Counter[bytes]:
    """How often each orientation of ARROW is drawn."""
    turned = mirror_and_turn(np.stack([ARROW] * count), config, position_draws(1, range(count), 3))
    return Counter(image.tobytes() for image in turned)


def symmetries(*, mirrored: bool) -> set[bytes]:
    turns = [np.rot90(ARROW, k) for k in range(4)]
    return {image.tobytes() for turn in turns for image in ([turn, turn[::-1]] if mirrored else [turn])}


def test_the_eight_symmetries_are_equally_likely() -> None:
    """Flips and quarter turns draw each of the square's eight symmetries, each about 500 times in 4,000."""
    found = orientations(AugmentationConfig(), 4000)
    assert set(found) == symmetries(mirrored=True)
    assert all(likely(times, 4000, 1 / 8) for times in found.values())


def test_quarter_turns_alone_never_mirror() -> None:
    """Without flips the four turns are drawn, equally often, and no mirrored one."""
    found = orientations(AugmentationConfig(flips=False), 2000)
    assert set(found) == symmetries(mirrored=False)
    assert all(likely(times, 2000, 1 / 4) for times in found.values())


def test_flips_alone_never_turn_a_quarter() -> None:
    """Without quarter turns the image, its two mirror images and the half turn are drawn, equally often."""
    found = orientations(AugmentationConfig(quarter_turns=False), 2000)
    assert set(found) == {ARROW.tobytes(), ARROW[::-1].tobytes(), ARROW[:, ::-1].tobytes(), ARROW[::-1, ::-1].tobytes()}
    assert all(likely(times, 2000, 1 / 4) for times in found.values())


def test_everything_off_changes_nothing() -> None:
    """A configuration with everything off gives back the same pixels, and needs no work image by image."""
    augmentation = Augmentation(AugmentationConfig(**NOTHING), 0)
    assert np.array_equal(augmentation(pictures(), range(8)), pictures())
    assert not augmentation.image_by_image
    assert Augmentation(AugmentationConfig(policy="robust"), 0).image_by_image


def test_families_held_out_are_never_done() -> None:
    """A policy whose only family is held out changes nothing and asks for no worker."""
    config = AugmentationConfig(**NOTHING, policy="affine", without=("geometry",))
    assert np.array_equal(Augmentation(config, 0)(pictures(), range(8)), pictures())
    assert not Augmentation(config, 0).image_by_image


@pytest.mark.parametrize("settings", [{}, {"policy": "robust"}, {"policy": "winners"}, {**NOTHING, "policy": "augmix"}])
def test_an_image_is_augmented_by_its_position_alone(settings: dict[str, Any]) -> None:
    """A position has the same draw alone, in another batch and in another order; the input is left as it was."""
    images = pictures()
    augmentation = Augmentation(AugmentationConfig(**settings), 2)
    whole = augmentation(images, range(100, 108))
    order = [6, 1, 3]
    assert np.array_equal(augmentation(images[order], [100 + place for place in order]), whole[order])
    for place in range(8):
        assert np.array_equal(augmentation(images[place : place + 1], [100 + place])[0], whole[place])
    assert np.array_equal(Augmentation(AugmentationConfig(**settings), 2)(images, range(100, 108)), whole)
    assert np.array_equal(images, pictures())
    assert whole.shape == images.shape
    assert whole.dtype == np.uint8


def test_positions_and_seeds_differ() -> None:
    """One image at 60 positions, and at one position under 60 seeds, is 60 different images."""
    image = picture(32, 32)
    config = AugmentationConfig(
        policy={"steps": [{"operation": "rotate"}, {"operation": "gaussian_noise", "strength": 9}]}
    )
    by_position = Augmentation(config, 0)(np.stack([image] * 60), range(60))
    by_seed = [Augmentation(config, seed)(image[None], [7])[0] for seed in range(60)]
    assert len({found.tobytes() for found in by_position}) == 60
    assert len({found.tobytes() for found in by_seed}) == 60


def test_mirroring_and_policy_are_drawn_apart() -> None:
    """Whether an image is mirrored says nothing about how the policy's coin falls for it."""
    config = AugmentationConfig(quarter_turns=False, policy={"steps": [offset(5, probability=0.5)]})
    found = Augmentation(config, 0)(np.stack([ARROW] * 2000), range(2000))
    shifted = np.array([image.min() == 5 for image in found])
    mirrored = position_draws(0, range(2000), 3)[:, 0] < 0.5
    assert likely(int(shifted.sum()), 2000, 0.5)
    assert likely(int((shifted & mirrored).sum()), 2000, 0.25)


def test_the_global_random_state_is_left_alone() -> None:
    """Augmenting neither uses nor moves numpy's global random state."""
    augmentation = Augmentation(AugmentationConfig(policy="robust"), 0)
    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    first = augmentation(pictures(), range(8))
    assert np.array_equal(np.random.get_state()[1], before)
    np.random.seed(2)
    assert np.array_equal(augmentation(pictures(), range(8)), first)


def test_draws_are_even_and_unrelated() -> None:
    """Draws of neighbouring positions, of neighbouring seeds and of other streams are uniform and not correlated."""
    draws, others = position_draws(7, range(4000), 2), position_draws(8, range(4000), 2)
    streams = np.array([position_generator(7, place, 1).random() for place in range(4000)])
    assert draws.mean(axis=0) == pytest.approx([0.5, 0.5], abs=0.03)
    assert draws.std(axis=0) == pytest.approx([12**-0.5] * 2, abs=0.02)
    pairs: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = [
        *[(draws[1:, 0], draws[:-1, 0]), (draws[:, 0], draws[:, 1]), (draws[:, 0], others[:, 0])],
        (draws[:, 0], streams),
    ]
    for one, two in pairs:
        assert abs(np.corrcoef(one, two)[0, 1]) < 0.08


def test_far_positions_have_draws_of_their_own() -> None:
    """Positions of a very long stage neither overflow nor repeat the first ones."""
    found = {position_generator(0, place).random() for place in (0, 1, 2**31, 2**32, 2**40, 2**62)}
    assert len(found) == 6


def test_policies_scale_with_the_image() -> None:
    """Lengths are shares of the side: a shift, a blur's spread and a cutout at twice the size are twice as large."""
    sizes: list[Callable[[int], float]] = [
        lambda side: float(done("translate_x", square(side, side // 4), 0.25, fill="black")[side // 2, :, 0].argmax()),
        lambda side: float((done("cutout", flat(200, size=side), 0.25, seed=2, fill="black") == 0).sum() ** 0.5),
    ]
    for size in sizes:
        assert size(96) == pytest.approx(2 * size(48), rel=0.12)
