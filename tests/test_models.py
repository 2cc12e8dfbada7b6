"""Backbones, their blocks, heads, and the classifier made of both."""

import pytest
import torch
from torch import nn

from hemascope.config import HeadConfig, ModelConfig
from hemascope.errors import ConfigError
from hemascope.models.backbones import Backbone, blocks, create_backbone
from hemascope.models.classifier import create_classifier
from hemascope.models.heads import create_head
from hemascope.models.inference import fold_batch_norms, inference_copy

FAMILIES = ["resnet18", "mobilenetv3_small_050", "tf_efficientnet_lite0", "convnext_atto"]


@pytest.fixture(scope="module", params=FAMILIES)
def backbone(request):
    torch.manual_seed(0)
    return create_backbone(ModelConfig(backbone=request.param)).eval()


def test_features_have_the_width_announced(backbone):
    """Every family pools to (N, num_features), also where timm puts layers behind the pooling."""
    with torch.inference_mode():
        assert backbone(torch.randn(2, 3, 64, 64)).shape == (2, backbone.num_features)


def test_blocks_hold_every_parameter_once(backbone):
    """The cut loses no parameter and counts none twice; names are unique and begin with the stem."""
    parts = blocks(backbone)
    found = [id(parameter) for part in parts for parameter in part.parameters()]
    assert len(found) == len(set(found))
    assert set(found) == {id(parameter) for parameter in backbone.parameters()}
    names = [part.name for part in parts]
    assert len(set(names)) == len(names) > 5
    assert names[0] == "stem"


def test_blocks_are_in_the_order_of_the_layers():
    """Lite0 is cut at its sixteen inverted residuals, whole, so that dropout inside follows the block."""
    net = create_backbone(ModelConfig(drop_path=0.1))
    parts = blocks(net)
    assert [part.name for part in parts[:4]] == ["stem", "blocks.0.0", "blocks.1.0", "blocks.1.1"]
    assert parts[-1].name == "blocks.6.0"
    assert len(parts) == 17
    assert parts[3].modules == [net.net.blocks[1][1]]
    assert parts[-1].modules == [net.net.blocks[6], net.net.conv_head, net.net.bn2]


def test_blocks_of_a_transformer_keep_loose_parameters():
    """Parameters that belong to no layer, such as a class token, lie in a block too."""
    with torch.device("meta"):
        net = create_backbone(ModelConfig(backbone="vit_tiny_patch16_224"))
    parts = blocks(net)
    assert any(member is net.net.cls_token for member in parts[0].members)
    assert parts[-1].name == "blocks.11"


def test_blocks_without_timms_cuts_are_the_child_modules():
    """A network that does not say where to cut is cut at its children."""
    net = nn.Sequential()
    net.add_module("first", nn.Linear(2, 3))
    net.add_module("second", nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)))
    net.num_features = 3
    assert [part.name for part in blocks(Backbone(net, "own"))] == ["first", "second"]


def test_convnext_xlarge_is_described_without_its_weights():
    """The largest of the named family builds on the meta device, with 2048 features and 38 blocks."""
    with torch.device("meta"):
        net = create_backbone(ModelConfig(backbone="convnext_xlarge"))
    assert net.num_features == 2048
    parts = blocks(net)
    assert (parts[0].name, parts[-1].name, len(parts)) == ("stem", "head.norm", 38)


def test_a_transformer_takes_images_of_another_size():
    """Vision transformers are told to take any size their patches divide."""
    net = create_backbone(ModelConfig(backbone="vit_tiny_patch16_224")).eval()
    with torch.inference_mode():
        assert net(torch.randn(1, 3, 64, 64)).shape == (1, 192)


@pytest.mark.parametrize(
    ("name", "answer"),
    [("resnet81", "resnet18"), ("convnxt_tiny", "convnext_tiny"), ("hf-hub:some/net", "no image model")],
)
def test_unknown_backbones_are_answered_with_the_nearest(name, answer):
    """A misspelt name is never replaced, only answered; names that reach for the network are refused."""
    with pytest.raises(ConfigError, match=answer):
        create_backbone(ModelConfig(backbone=name))


def test_unknown_tag_lists_those_there_are():
    """A known network with an unknown weights tag is answered with its tags."""
    with pytest.raises(ConfigError, match=r"resnet18\.a1_in1k"):
        create_backbone(ModelConfig(backbone="resnet18.nonsense"))


def test_stochastic_depth_is_refused_where_there_is_none():
    """drop_path on a network without it is an error, not ignored."""
    with pytest.raises(ConfigError, match="no stochastic depth"):
        create_backbone(ModelConfig(backbone="vgg11", drop_path=0.1))


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
@pytest.mark.parametrize("activation", ["relu", "silu", "gelu"])
def test_deep_heads_have_what_the_config_says(norm, activation):
    """Widths, norm, activation and dropout appear in the order promised."""
    config = HeadConfig(kind="deep", widths=(6, 5), norm=norm, activation=activation, dropout=0.1)
    head = create_head(config, features=7, classes=3)
    one = ["Linear", {"none": "", "batch": "BatchNorm1d", "layer": "LayerNorm"}[norm]]
    one += [{"relu": "ReLU", "silu": "SiLU", "gelu": "GELU"}[activation], "Dropout"]
    assert [type(layer).__name__ for layer in head] == [kind for kind in (one * 2) if kind] + ["Linear"]
    assert [layer.out_features for layer in head if isinstance(layer, nn.Linear)] == [6, 5, 3]
    assert head(torch.randn(4, 7)).shape == (4, 3)


def test_linear_head_is_one_layer():
    """A linear head without dropout is a single layer."""
    assert [type(layer) for layer in create_head(HeadConfig(), 7, 3)] == [nn.Linear]


@pytest.fixture(scope="module")
def classifier():
    return create_classifier(ModelConfig(weights="random"), classes=3, seed=1).eval()


def test_classifier_normalises_by_itself(classifier):
    """Bytes and floats in 0 to 255 give what the backbone gives for (x / 255 - 0.5) / 0.5."""
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.inference_mode():
        by_hand = classifier.head(classifier.backbone((pixels / 255 - 0.5) / 0.5))
        assert torch.allclose(classifier(pixels), by_hand, atol=1e-5)
        assert torch.equal(classifier(pixels.float()), classifier(pixels))
        assert classifier.features(pixels).shape == (2, 1280)
    assert classifier.notes == ("weights: random, as asked for",)


def test_classifier_depends_on_its_seed_alone(classifier):
    """The same seed makes the same network whatever was drawn before, and leaves the global state as it was."""
    torch.manual_seed(99)
    before = torch.get_rng_state()
    again = create_classifier(ModelConfig(weights="random"), classes=3, seed=1)
    other = create_classifier(ModelConfig(weights="random"), classes=3, seed=2)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(classifier.parameters(), again.parameters(), strict=True))
    assert not torch.equal(classifier.head[-1].weight, other.head[-1].weight)


@pytest.mark.parametrize("name", ["resnet18", "tf_efficientnet_lite0", "mobilenetv3_small_050"])
def test_inference_copy_says_the_same(name):
    """Folded batch norms change no probability by 1e-4, for every batch size, and leave the original alone."""
    model = create_classifier(ModelConfig(backbone=name, weights="random"), classes=4, seed=0)
    nn.init.normal_(model.head[-1].weight)
    model.train()
    with torch.no_grad():
        for _ in range(3):  # give the running statistics something to fold
            model(torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8))
    model.eval()
    fast = inference_copy(model, 32)
    norms = [layer for layer in fast.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert not norms
    assert any(isinstance(layer, nn.BatchNorm2d) for layer in model.modules())
    with torch.inference_mode():
        for count in (1, 5, 2):
            pixels = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)
            expected, found = model(pixels).softmax(1), fast(pixels).softmax(1)
            assert expected.std() > 1e-3
            assert (expected - found).abs().max() < 1e-4


def test_inference_copy_is_not_folded_where_the_probe_differs(classifier, monkeypatch):
    """A folding that changes the output is thrown away."""

    def spoil(model):
        model.head[-1].bias.data[0] += 1
        return 1

    monkeypatch.setattr("hemascope.models.inference.fold_batch_norms", spoil)
    kept = inference_copy(classifier, 32)
    assert torch.equal(kept.head[-1].bias, classifier.head[-1].bias)


def test_folding_leaves_other_pairs_alone():
    """Only a plain convolution with a batch norm of its own width behind it is folded."""
    grouped = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4), nn.Linear(2, 2))
    assert fold_batch_norms(grouped.eval()) == 0
