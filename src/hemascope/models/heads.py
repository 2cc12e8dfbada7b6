"""What turns a backbone's pooled features into one logit a class."""

from __future__ import annotations

from torch import nn

from hemascope.config import HeadConfig

_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU, "gelu": nn.GELU}
_NORMS: dict[str, type[nn.Module]] = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}


def create_head(config: HeadConfig, features: int, classes: int) -> nn.Module:
    """(N, features) to logits (N, classes).

    A linear head is dropout and one layer. A deep head has for each of ``config.widths`` a layer, the norm, the
    activation and dropout, then the last layer. Kaiming initialisation (He et al. 2015) where an activation
    follows; the last layer starts small and without bias, so that the first probabilities are near 1 / classes.
    """
    layers: list[nn.Module] = []
    width = features
    if config.kind == "deep":
        for hidden in config.widths:
            layer = nn.Linear(width, hidden)
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
            layers.append(layer)
            if config.norm != "none":
                layers.append(_NORMS[config.norm](hidden))
            layers.append(_ACTIVATIONS[config.activation]())
            if config.dropout:
                layers.append(nn.Dropout(config.dropout))
            width = hidden
    elif config.dropout:
        layers.append(nn.Dropout(config.dropout))
    last = nn.Linear(width, classes)
    nn.init.trunc_normal_(last.weight, std=0.01)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)
