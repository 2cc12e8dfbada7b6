"""Which images make up a step."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from training_setup import JITTER

from hemascope.augmentation import Augmentation
from hemascope.config import AugmentationConfig
from hemascope.training.batches import ImageSteps, SampleOrder, read_rows, step_batches, worker_count
from hemascope.training.pixels import channels_first, image_seed, resize_batch

LABELS = np.repeat(np.arange(3), (40, 8, 2))


def steps(*, rank: int = 0, world_size: int = 1, size: int = 8) -> ImageSteps:
    """60 images of 8 pixels, of which rows 10 to 59 are for training; every image holds its own number."""
    images = np.broadcast_to(np.arange(60, dtype=np.uint8)[:, None, None, None], (60, 8, 8, 3)).copy()
    images[:, 0, 0, 0] += 100
    return ImageSteps(
        images,
        np.concatenate([np.zeros(10, dtype=np.int64), LABELS]),
        np.arange(10, 60),
        SampleOrder(LABELS, seed=4, oversample=False),
        batch_size=8,
        size=size,
        augmentation=Augmentation(AugmentationConfig(**JITTER), 9),
        rank=rank,
        world_size=world_size,
    )


def test_each_pass_covers_every_image_once() -> None:
    """Three passes in a row are three different permutations of the training part."""
    order = SampleOrder(LABELS, seed=0, oversample=False)
    passes = [order(range(start, start + 50)) for start in (0, 50, 100)]
    assert all(sorted(found) == list(range(50)) for found in passes)
    assert not np.array_equal(passes[0], passes[1])
    assert not np.array_equal(passes[1], passes[2])


def test_steps_cross_from_one_pass_to_the_next() -> None:
    """Taken in steps of 7, which does not divide 50, the stream is the same."""
    order = SampleOrder(LABELS, seed=0, oversample=False)
    by_steps = np.concatenate([order(range(7 * step, 7 * step + 7)) for step in range(30)])
    assert np.array_equal(by_steps, order(range(210)))


def test_the_order_depends_on_the_seed_alone() -> None:
    """The same seed gives the same stream, also after pickling; another seed another."""
    order = SampleOrder(LABELS, seed=1, oversample=False)
    assert np.array_equal(order(range(50)), pickle.loads(pickle.dumps(order))(range(50)))
    assert not np.array_equal(order(range(50)), SampleOrder(LABELS, seed=2, oversample=False)(range(50)))


def test_oversampling_draws_each_class_equally_often() -> None:
    """Of 6,000 draws each of three very unequal classes gets a third, within five standard deviations."""
    drawn = LABELS[SampleOrder(LABELS, seed=0, oversample=True)(range(6000))]
    expected, deviation = 2000, (6000 * (1 / 3) * (2 / 3)) ** 0.5
    assert (abs(np.bincount(drawn) - expected) < 5 * deviation).all()


def test_oversampling_reaches_every_image() -> None:
    """Within a class the images are drawn alike: none of the 50 is left out of 6,000 draws."""
    assert len(np.unique(SampleOrder(LABELS, seed=0, oversample=True)(range(6000)))) == 50


def test_rows_come_in_the_order_asked_for() -> None:
    """Reading in file order does not change the order of the result, repeats included."""
    images = np.arange(10 * 4 * 4 * 3, dtype=np.uint8).reshape(10, 4, 4, 3)
    rows = np.array([7, 2, 2, 9, 0])
    assert np.array_equal(read_rows(images, rows), images[rows])


def test_a_step_has_the_labels_of_its_images() -> None:
    """Images and labels of a step belong together, are resized, and come from the training rows alone."""
    plain = steps()
    plain.augmentation = None
    batch = plain[3]
    numbers = batch.images[:, 0, 4, 4].numpy().astype(int)
    assert batch.images.shape == (8, 3, 8, 8)
    assert (numbers >= 10).all()
    assert np.array_equal(batch.labels.numpy(), LABELS[numbers - 10])
    assert steps(size=16)[3].images.shape == (8, 3, 16, 16)


def test_processes_share_a_step_without_changing_it() -> None:
    """The shares of two processes, put together, are the step of one process, augmentation included."""
    whole, shares = steps()[5], [steps(rank=rank, world_size=2)[5] for rank in (0, 1)]
    for rank, share in enumerate(shares):
        assert torch.equal(share.images, whole.images[rank::2])
        assert torch.equal(share.labels, whole.labels[rank::2])


def test_seeds_differ() -> None:
    """Seeds of neighbouring numbers and of the same numbers in another order all differ and are never negative."""
    seeds = {image_seed(a, b) for a in range(30) for b in range(30)}
    assert len(seeds) == 900
    assert min(seeds) >= 0


def test_channels_come_first_without_a_change() -> None:
    """The tensor has the pixels of the array, channels last in memory as the network wants them."""
    images = np.random.default_rng(0).integers(0, 256, (2, 6, 6, 3), dtype=np.uint8)
    for given in (images, images[:, ::-1]):  # also from a view that runs backwards
        found = channels_first(given)
        assert found.dtype == torch.uint8
        assert found.is_contiguous(memory_format=torch.channels_last)
        assert np.array_equal(found.permute(0, 2, 3, 1).numpy(), given)


def test_resizing() -> None:
    """A batch is resized with antialiasing, and left alone where it fits."""
    images = channels_first(np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8))
    assert resize_batch(images, 16) is images
    small = resize_batch(images, 4)
    assert small.shape == (2, 3, 4, 4)
    assert small.dtype == torch.uint8
    assert float(small.float().std()) < 0.5 * float(images.float().std())  # averaged, not picked


def test_worker_processes_change_nothing() -> None:
    """Batches prepared by one worker process are those prepared here, from any first step."""
    here = list(step_batches(steps(), start=2, stop=6, workers=0, pin=False))
    there = list(step_batches(steps(), start=2, stop=6, workers=1, pin=False))
    assert len(here) == len(there) == 4
    for one, two in zip(here, there, strict=True):
        assert torch.equal(one.images, two.images)
        assert torch.equal(one.labels, two.labels)


@pytest.mark.parametrize(
    ("asked", "image_by_image", "device", "cores", "expected"),
    [
        (3, False, "cpu", 8, 3),
        (0, True, "cpu", 8, 0),
        (None, False, "cpu", 8, 0),
        (None, True, "cpu", 8, 4),
        (None, True, "cpu", 1, 0),
        (None, False, "cuda:0", 16, 8),
        (None, False, "cuda:0", 1, 1),
    ],
)
def test_the_number_of_workers(
    monkeypatch: pytest.MonkeyPatch, asked: int | None, image_by_image: bool, device: str, cores: int, expected: int
) -> None:
    """What is asked for is taken; otherwise there are workers where they pay."""
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    assert worker_count(asked, image_by_image=image_by_image, device=device) == expected
