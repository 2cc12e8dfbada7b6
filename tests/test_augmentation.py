"""What training images go through."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hemascope.config import AugmentationConfig
from hemascope.data.augmentation import (
    Augmentation,
    image_seed,
    mirror_and_turn,
    position_draws,
    random_affine,
    resize_batch,
    unaugmented,
)

NOTHING = {"flips": False, "quarter_turns": False}
ARROW = np.arange(2 * 2 * 3, dtype=np.uint8).reshape(2, 2, 3) * 10


def noise(count: int = 4, size: int = 16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def orientations(config: AugmentationConfig, count: int) -> dict[bytes, int]:
    """How often each orientation of ARROW is drawn."""
    turned = mirror_and_turn(np.stack([ARROW] * count), config, position_draws(1, range(count), 3))
    found: dict[bytes, int] = {}
    for image in turned:
        found[image.tobytes()] = found.get(image.tobytes(), 0) + 1
    return found


def symmetries(*, mirrored: bool) -> set[bytes]:
    turns = [np.rot90(ARROW, k) for k in range(4)]
    return {image.tobytes() for turn in turns for image in ([turn, turn[::-1]] if mirrored else [turn])}


def test_the_eight_symmetries_are_equally_likely() -> None:
    """Flips and quarter turns draw each of the square's eight symmetries, each about 500 times in 4,000."""
    found = orientations(AugmentationConfig(), 4000)
    assert set(found) == symmetries(mirrored=True)
    assert all(abs(times - 500) < 5 * (4000 * 1 / 8 * 7 / 8) ** 0.5 for times in found.values())


def test_quarter_turns_alone_never_mirror() -> None:
    """Without flips the four turns are drawn, equally often, and no mirrored one."""
    found = orientations(AugmentationConfig(flips=False), 2000)
    assert set(found) == symmetries(mirrored=False)
    assert all(abs(times - 500) < 5 * (2000 * 1 / 4 * 3 / 4) ** 0.5 for times in found.values())


def test_flips_alone_never_turn_a_quarter() -> None:
    """Without quarter turns the image, its two mirror images and the half turn are drawn."""
    expected = {ARROW.tobytes(), ARROW[::-1].tobytes(), ARROW[:, ::-1].tobytes(), ARROW[::-1, ::-1].tobytes()}
    assert set(orientations(AugmentationConfig(quarter_turns=False), 500)) == expected


def test_the_input_is_left_as_it_was() -> None:
    """Mirroring works on a copy: the packed store's memory is never written to."""
    images = noise()
    kept = images.copy()
    Augmentation(AugmentationConfig(rotation=30, occlusion=1, brightness=0.5), 0)(images, range(4))
    assert np.array_equal(images, kept)


def test_everything_off_changes_nothing() -> None:
    """A configuration with everything off gives back the same pixels."""
    images = noise()
    assert torch.equal(Augmentation(AugmentationConfig(**NOTHING), 0)(images, range(4)), unaugmented(images))


@pytest.mark.parametrize("name", ["rotation", "translation", "scale", "shear"])
def test_a_vanishing_range_changes_nothing(name: str) -> None:
    """The interpolation itself is exact: with a range near zero every pixel comes back."""
    images = unaugmented(noise())
    config = AugmentationConfig(**NOTHING, **{name: 1e-7})
    assert torch.equal(random_affine(images, config, position_draws(0, range(4), 6)), images)


def test_a_shift_moves_by_the_share_of_the_side() -> None:
    """The largest draw of a translation by a quarter moves a dot by a quarter of the side."""
    images = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    images[:, :, 8, 8] = 200
    draws = np.array([[0.5, 0.5, 0.5, 0.5, 0.0, 0.5]])  # 0.5 is no change, 0 is the whole range to one side
    moved = random_affine(images, AugmentationConfig(**NOTHING, translation=0.25, fill=0), draws)
    assert moved[0, 0].nonzero().tolist() == [[8, 12]]


def test_a_turn_by_ninety_degrees_is_a_quarter_turn() -> None:
    """Rotation drawn at its full 90 degrees equals np.rot90, one way or the other."""
    images = noise(1)
    draws = np.array([[1.0, 0.5, 0.5, 0.5, 0.5, 0.5]])
    turned = random_affine(unaugmented(images), AugmentationConfig(**NOTHING, rotation=90), draws)
    found = turned[0].permute(1, 2, 0).numpy().astype(int)
    assert min(abs(found - np.rot90(images[0], k).astype(int)).max() for k in (1, 3)) <= 1


def test_a_change_of_size_is_about_the_centre() -> None:
    """A centred square of 4 grows to 6 at one and a half times the size and stays centred."""
    images = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    images[:, :, 6:10, 6:10] = 200
    draws = np.array([[0.5, 0.5, 0.5, 1.0, 0.5, 0.5]])
    grown = random_affine(images, AugmentationConfig(**NOTHING, scale=0.5, fill=0), draws)[0, 0]
    assert (grown[5:11, 5:11] > 90).all()
    assert torch.equal(grown, grown.flip(0))
    assert int((grown > 90).sum()) == 36


def test_the_border_is_filled_or_reflected() -> None:
    """What moves into view is exactly the fill where one is set, and picture where none is."""
    images = np.full((32, 16, 16, 3), 200, dtype=np.uint8)
    filled = Augmentation(AugmentationConfig(**NOTHING, translation=0.5, fill=30), 0)(images, range(32))
    assert int(filled.min()) == 30
    assert int(filled.max()) == 200
    reflected = Augmentation(AugmentationConfig(**NOTHING, translation=0.5, rotation=45), 0)(images, range(32))
    assert int(reflected.min()) == 200


@pytest.mark.parametrize(
    "settings",
    [
        {"randaugment": 2},
        {"brightness": 0.4},
        {"contrast": 0.4},
        {"saturation": 0.4},
        {"hue": 0.2},
        {"occlusion": 1.0},
        {"rotation": 30.0},
        {"shear": 20.0},
        {"scale": 0.3},
        {"translation": 0.2},
    ],
)
def test_every_setting_works_gives_bytes_and_does_something(settings: dict[str, float]) -> None:
    """Each augmentation alone gives uint8 of the input's shape, channels last, changes pixels, and repeats itself."""
    images = noise(8)
    augmentation = Augmentation(AugmentationConfig(**NOTHING, **settings), 3)
    found = augmentation(images, range(8))
    assert found.dtype == torch.uint8
    assert found.shape == (8, 3, 16, 16)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert not torch.equal(found, unaugmented(images))
    assert torch.equal(found, augmentation(images, range(8)))
    assert not torch.equal(found, Augmentation(AugmentationConfig(**NOTHING, **settings), 4)(images, range(8)))


@pytest.mark.parametrize("name", ["rotation", "translation", "shear", "brightness", "contrast", "saturation"])
def test_a_wider_range_changes_more(name: str) -> None:
    """The mean change of pixels grows with the range of the setting."""
    gradient = np.linspace(40, 200, 16)[None, :, None] * np.array([1.0, 0.7, 0.4])
    images = np.repeat(np.broadcast_to(gradient, (16, 16, 3)).astype(np.uint8)[None], 64, axis=0)
    unit = {"rotation": 60, "shear": 40}.get(name, 0.8)
    changes = [
        (Augmentation(AugmentationConfig(**NOTHING, **{name: share * unit}), 0)(images, range(64)).int())
        .sub(unaugmented(images).int())
        .abs()
        .float()
        .mean()
        for share in (0.1, 0.4, 1.0)
    ]
    assert changes[0] < changes[1] < changes[2]


def test_an_image_is_augmented_by_its_position_alone() -> None:
    """A position has the same draw alone, in another batch and in another order."""
    images = noise(8)
    augmentation = Augmentation(AugmentationConfig(rotation=40, brightness=0.5, occlusion=0.5), 2)
    whole = augmentation(images, range(100, 108))
    order = [6, 1, 3]
    assert torch.equal(augmentation(images[order], [100 + place for place in order]), whole[order])


def test_the_global_random_states_are_left_alone() -> None:
    """Augmenting neither uses nor moves the random state of torch or numpy."""
    settings = AugmentationConfig(rotation=10, brightness=0.5, randaugment=2, occlusion=0.5)
    torch.manual_seed(1)
    before, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = Augmentation(settings, 0)(noise(), range(4))
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], before_numpy)
    torch.manual_seed(2)
    assert torch.equal(Augmentation(settings, 0)(noise(), range(4)), first)


def test_draws_are_even_and_unrelated() -> None:
    """Draws of neighbouring positions and of neighbouring seeds are uniform and not correlated."""
    draws, others = position_draws(7, range(4000), 2), position_draws(8, range(4000), 2)
    assert draws.mean(axis=0) == pytest.approx([0.5, 0.5], abs=0.03)
    assert draws.std(axis=0) == pytest.approx([12**-0.5] * 2, abs=0.02)
    for one, two in ((draws[1:, 0], draws[:-1, 0]), (draws[:, 0], draws[:, 1]), (draws[:, 0], others[:, 0])):
        assert abs(np.corrcoef(one, two)[0, 1]) < 0.08


def test_seeds_differ() -> None:
    """Seeds of neighbouring numbers and of the same numbers in another order all differ and are never negative."""
    seeds = {image_seed(a, b) for a in range(30) for b in range(30)}
    assert len(seeds) == 900
    assert min(seeds) >= 0


def test_resizing() -> None:
    """A batch is resized with antialiasing, and left alone where it fits."""
    images = unaugmented(noise(2))
    assert resize_batch(images, 16) is images
    small = resize_batch(images, 4)
    assert small.shape == (2, 3, 4, 4)
    assert small.dtype == torch.uint8
    assert float(small.float().std()) < 0.5 * float(images.float().std())  # averaged, not picked
