"""Losses, class weights and mixing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional

from hemascope.training.losses import class_weights, classification_loss, mix_batch, mixer

COUNTS = np.array([50, 5, 20, 1])


def test_balanced_weights_are_scikit_learns() -> None:
    """Balanced class weights equal compute_class_weight("balanced")."""
    labels = np.repeat(np.arange(4), COUNTS)
    expected = compute_class_weight("balanced", classes=np.arange(4), y=labels)
    assert class_weights("balanced", COUNTS) == pytest.approx(expected, rel=1e-6)


def test_effective_number_by_hand() -> None:
    """Effective-number weights are in the ratio (1 - 0.999) / (1 - 0.999^n), worked out for 1 and 2 images."""
    weights = class_weights("effective", np.array([1, 2]))
    assert weights is not None
    # (1 - b) / (1 - b) = 1 and (1 - b) / (1 - b^2) = 1 / (1 + b) = 1 / 1.999
    assert weights[0] / weights[1] == pytest.approx(1.999, rel=1e-6)
    assert float((weights * [1, 2]).sum()) == pytest.approx(3, rel=1e-6)


@pytest.mark.parametrize("kind", ["balanced", "effective"])
def test_weights_have_mean_one_over_the_images(kind: str) -> None:
    """Weights leave the scale of the loss: their mean over the training images is 1, and rare classes weigh more."""
    weights = class_weights(kind, COUNTS)
    assert weights is not None
    assert float((weights * COUNTS).sum() / COUNTS.sum()) == pytest.approx(1, rel=1e-6)
    assert list(np.argsort(weights)) == list(np.argsort(-COUNTS))


def test_a_class_without_images_gets_a_finite_weight() -> None:
    """An empty class neither divides by zero nor changes the weights of the others."""
    for kind in ("balanced", "effective"):
        with_empty, without = class_weights(kind, np.array([4, 0, 2])), class_weights(kind, np.array([4, 2]))
        assert with_empty is not None
        assert without is not None
        assert np.isfinite(with_empty).all()
        assert with_empty[[0, 2]] == pytest.approx(without)


def test_no_weights() -> None:
    """ "none" means no weights at all."""
    assert class_weights("none", COUNTS) is None


def test_the_plain_loss_is_torchs() -> None:
    """Without weights the loss is torch's mean cross-entropy, smoothing included."""
    logits, targets = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 3, 0, 1])
    found = classification_loss(logits, targets, weights=None, label_smoothing=0.1)
    assert float(found) == pytest.approx(float(functional.cross_entropy(logits, targets, label_smoothing=0.1)))


def test_label_smoothing_by_hand() -> None:
    """With equal logits the smoothed loss is log K; with one large logit it is what smoothing leaves of it."""
    flat = classification_loss(torch.zeros(1, 4), torch.tensor([0]), weights=None, label_smoothing=0.2)
    assert float(flat) == pytest.approx(np.log(4))
    sharp = classification_loss(torch.tensor([[20.0, 0, 0, 0]]), torch.tensor([0]), weights=None, label_smoothing=0.2)
    assert float(sharp) == pytest.approx(0.15 * 20, abs=1e-6)


def test_the_loss_of_a_batch_is_that_of_its_pieces() -> None:
    """Class weights and smoothing give the same loss whether a batch is taken whole or in equal pieces."""
    logits = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
    targets, weights = torch.tensor([0, 0, 0, 0, 1, 2, 3, 3]), torch.tensor([0.1, 3.0, 2.0, 1.0])
    settings = {"weights": weights, "label_smoothing": 0.1}
    whole = classification_loss(logits, targets, **settings)
    pieces = [classification_loss(*pair, **settings) for pair in zip(logits.chunk(4), targets.chunk(4), strict=True)]
    assert float(whole) == pytest.approx(float(sum(pieces) / 4))


def test_mixing_is_off_unless_asked_for() -> None:
    """No mixer without an alpha."""
    assert mixer(0, 0, 4) is None


@pytest.mark.parametrize("shape", [(6, 3, 8, 8), (6, 10)])
def test_mixup_blends_inputs_and_labels_alike(shape: tuple[int, ...]) -> None:
    """Images and features are blended with the share that their labels are blended with."""
    blend = mixer(1.0, 0, 6)
    assert blend is not None
    inputs = torch.rand(shape, generator=torch.Generator().manual_seed(2))
    torch.manual_seed(5)
    mixed, targets = mix_batch(blend, inputs, torch.arange(6))
    assert mixed.shape == shape
    assert targets.sum(dim=1) == pytest.approx(torch.ones(6))
    assert targets.amax() < 1
    assert torch.allclose(mixed.flatten(1), targets @ inputs.flatten(1), atol=1e-6)


def test_cutmix_keeps_each_pixel_from_one_of_two_images() -> None:
    """CutMix pastes: every pixel is the image's own or its partner's, and labels are shared by area."""
    paste = mixer(0, 1.0, 6)
    assert paste is not None
    inputs = torch.arange(6.0)[:, None, None, None].expand(6, 3, 16, 16).contiguous()
    torch.manual_seed(0)
    mixed, targets = mix_batch(paste, inputs, torch.arange(6))
    for image, target in zip(mixed, targets, strict=True):
        for number in image.unique().long():
            assert float((image == number).float().mean()) == pytest.approx(float(target[number]), abs=1e-6)


def test_both_draw_one_of_the_two() -> None:
    """With both alphas some batches are blended and others pasted."""
    either = mixer(1.0, 1.0, 4)
    assert either is not None
    inputs = torch.arange(4.0)[:, None, None, None].expand(4, 3, 16, 16).contiguous()
    blended = 0
    for seed in range(30):
        torch.manual_seed(seed)
        mixed, _ = mix_batch(either, inputs, torch.arange(4))
        blended += bool((mixed != mixed.round()).any())
    assert 5 < blended < 25
