"""Maps of where a model looked: they find what was planted, and are tested against maps that know nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from hemascope.config import ModelConfig
from hemascope.errors import DataError, UsageError
from hemascope.explain.attribution import empty_field, integrated_gradients, random_masks, rise
from hemascope.explain.cams import CAMS, METHODS, explain_images
from hemascope.explain.faithfulness import agreement, centre_map, insertion_deletion, random_maps, reasons_to_doubt
from hemascope.explain.layers import last_spatial_layer
from hemascope.explain.target import margin
from hemascope.models.classifier import create_classifier

SIZE = 48


class Corner(nn.Module):
    """A classifier whose answer is the redness of the upper left quarter, through one layer of maps."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, 3, 1, 1))
        self.backbone = nn.Sequential(nn.Conv2d(3, 2, 6, stride=6), nn.ReLU())
        with torch.no_grad():
            self.backbone[0].weight.zero_()
            self.backbone[0].bias.zero_()
            self.backbone[0].weight[0, 0] = 1 / 36
            self.backbone[0].weight[0, 1] = -1 / 36
        place = torch.zeros(1, 1, 8, 8)
        place[:, :, :4, :4] = 1 / 16
        self.register_buffer("place", place)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        red = (self.backbone(x.float())[:, :1] * self.place).sum(dim=(1, 2, 3)) / 20
        return torch.stack([red, -red], dim=1)


def planted() -> np.ndarray:
    """A pale field with a red spot in the upper left quarter, and one in the lower right that does not count."""
    image = np.full((SIZE, SIZE, 3), 220, dtype=np.uint8)
    image[8:20, 8:20] = [220, 40, 60]
    image[30:42, 30:42] = [220, 40, 60]
    return image


@pytest.fixture(scope="module")
def toy() -> Corner:
    return Corner().eval()


@pytest.mark.parametrize("method", [integrated_gradients, rise])
def test_a_map_lights_up_what_counts(toy: Corner, method) -> None:  # type: ignore[no-untyped-def]
    """The hottest place lies in the spot that decides; the equal spot elsewhere stays below half of it."""
    heat = method(toy, planted(), 0)
    assert heat.shape == (SIZE, SIZE) and heat.min() >= 0 and heat.max() == pytest.approx(1)
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert row < 26 and column < 26
    assert heat[8:20, 8:20].mean() > 2 * heat[30:42, 30:42].mean()


def test_a_map_that_holds_beats_random_maps_and_a_wrong_one_does_not(toy: Corner) -> None:
    """Insertion above and deletion below each of ten random maps for the true map, the other way for its opposite."""
    image = planted()
    heat = integrated_gradients(toy, image, 0)
    good, bad = (insertion_deletion(toy, image, one, 0) for one in (heat, 1 - heat))  # type: ignore[arg-type]
    chance = np.array([insertion_deletion(toy, image, one, 0) for one in random_maps(SIZE, 10, 1)])  # type: ignore[arg-type]
    assert good[0] > chance[:, 0].mean() > bad[0]
    assert good[1] < chance[:, 1].mean() < bad[1]
    assert reasons_to_doubt(*good, *chance.mean(axis=0)) == []
    assert len(reasons_to_doubt(*bad, *chance.mean(axis=0), agrees=-1.0)) == 3


def test_nothing_to_see_is_an_empty_map(toy: Corner) -> None:
    """On an empty field integrated gradients find nothing, and say so with zeros rather than noise."""
    assert not integrated_gradients(toy, np.full((SIZE, SIZE, 3), 200, np.uint8), 0).any()


def test_the_empty_field_is_the_ground() -> None:
    """One colour, that of the border, whatever lies in the middle or reaches into an eighth of it."""
    image = planted()
    assert (empty_field(image) == 220).all()
    image[:, : SIZE // 8] = [180, 90, 100]
    assert (empty_field(image) == 220).all()


def test_random_masks_are_half_open_and_the_same_again() -> None:
    """Values from 0 to 1, about half of them open, depending on the seed alone."""
    masks = random_masks(SIZE, 20, 3)
    assert masks.min() >= 0 and masks.max() <= 1 and 0.4 < masks.mean() < 0.6
    np.testing.assert_array_equal(masks, random_masks(SIZE, 20, 3))
    assert not np.array_equal(masks, random_masks(SIZE, 20, 4))


def test_the_margin_is_over_the_mean_of_the_others() -> None:
    """By hand for three classes, and the logit itself for one."""
    assert margin(torch.tensor([[3.0, 1.0, 2.0]]), 0).tolist() == [1.5]
    assert margin(torch.tensor([[3.0]]), 0).tolist() == [3.0]


@pytest.mark.parametrize(
    "name", ["test_efficientnet", "test_resnet", "test_convnext", "mobilenetv3_small_050", "test_vit"]
)
def test_the_last_layer_is_found_in_every_family(name: str) -> None:
    """The last map before pooling, and an earlier one with more places where three by three say too little."""
    model = create_classifier(ModelConfig(backbone=name, weights="random"), 3, 0).eval()
    layer = last_spatial_layer(model, 96)
    finer = last_spatial_layer(model, 96, least=5)
    names = [key for key, _ in model.backbone.named_modules()]
    assert layer.name in names and finer.name in names

    def places(found) -> int:  # type: ignore[no-untyped-def]
        sizes: list[int] = []
        handle = found.module.register_forward_hook(
            lambda _m, _i, out: sizes.append(found.channels_first(out).shape[-1])
        )
        with torch.inference_mode():
            model(torch.zeros(1, 3, 96, 96))
        handle.remove()
        return sizes[-1]

    assert places(layer) >= 2 and places(finer) >= 5


def test_tokens_are_put_back_into_their_places() -> None:
    """Row by row, without the class token; the layer is before the last attention, behind which no patch is read."""
    model = create_classifier(ModelConfig(backbone="test_vit", weights="random"), 3, 0).eval()
    layer = last_spatial_layer(model, 96)
    assert layer.prefix == 1 and layer.name.endswith("norm1")
    tokens = torch.arange(1 + 36, dtype=torch.float32).reshape(1, 37, 1)
    assert layer.channels_first(tokens).tolist() == (torch.arange(36) + 1).reshape(1, 1, 6, 6).tolist()
    assert all(weight.grad is None for weight in model.parameters())


def test_a_vision_transformer_has_a_map() -> None:
    """Grad-CAM and HiResCAM of its tokens: not empty, and of the size of the image."""
    pytest.importorskip("pytorch_grad_cam")
    model = create_classifier(ModelConfig(backbone="test_vit", weights="random"), 3, 0).eval()
    images = np.random.default_rng(0).integers(0, 256, (1, 96, 96, 3), dtype=np.uint8)
    for method in ("gradcam", "hirescam"):
        found = explain_images(model, images, method=method, target=np.array([1]))
        assert found.heat.shape == (1, 96, 96) and found.heat.max() > 0


def test_maps_of_a_network_have_the_shape_of_its_images() -> None:
    """Every method on a small network: (N, S, S) from 0 to 1, the class asked for, the same again."""
    pytest.importorskip("pytorch_grad_cam")
    model = create_classifier(ModelConfig(backbone="test_efficientnet", weights="random"), 3, 0).eval()
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    for method in METHODS:
        first, again = (explain_images(model, images, method=method, target=np.array([2, 0])) for _ in range(2))
        assert first.heat.shape == (2, 64, 64) and first.heat.dtype == np.float32
        assert first.target.tolist() == [2, 0] and bool(first.layer) is (method in CAMS)
        np.testing.assert_allclose(first.heat, again.heat, atol=1e-5)


def test_what_cannot_be_explained_is_refused(toy: Corner) -> None:
    """An unknown method, images of another kind, targets that are not as many."""
    with pytest.raises(UsageError, match="there is no method"):
        explain_images(toy, planted()[None], method="tea leaves")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="uint8"):
        explain_images(toy, planted()[None].astype(float))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="one class for each"):
        explain_images(toy, planted()[None], target=np.array([0, 1]))  # type: ignore[arg-type]


def test_agreement_is_a_correlation() -> None:
    """1 with itself, -1 with its opposite, 0 for a flat map; the centre map is hottest in the middle."""
    heat = centre_map(SIZE)
    assert agreement(heat, heat) == pytest.approx(1)
    assert agreement(heat, 1 - heat) == pytest.approx(-1)
    assert agreement(heat, np.zeros_like(heat)) == 0
    assert heat[SIZE // 2, SIZE // 2] == pytest.approx(heat.max(), abs=0.01)
