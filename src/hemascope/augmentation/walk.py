"""A policy applied to one image: the tree of nodes walked, with one random generator."""

from __future__ import annotations

import numpy as np

from hemascope.augmentation.fill import Image
from hemascope.augmentation.registry import FUNCTIONS
from hemascope.policies import AugMix, Choose, Node, Operation, Policy, Sequence


def augmented(image: Image, policy: Policy, rng: np.random.Generator) -> Image:
    """``image``, uint8 (H, W, 3), after every step of ``policy``; the same shape, a new array or the same one."""
    for step in policy.steps:
        image = _node(image, step, rng)
    return image


def operated(image: Image, operation: Operation, strength: float, rng: np.random.Generator) -> Image:
    """``image`` after one operation at one strength, whatever its probability."""
    return FUNCTIONS[operation.operation](image, strength, rng, operation.fill)


def _node(image: Image, node: Node, rng: np.random.Generator) -> Image:
    if node.probability < 1 and rng.random() >= node.probability:
        return image
    if isinstance(node, Operation):
        low, high = node.range
        strength = low if low == high else rng.uniform(low, high)
        if node.either_sign and rng.random() < 0.5:
            strength = -strength
        return operated(image, node, strength, rng)
    if isinstance(node, AugMix):
        return _augmix(image, node, rng)
    for child in _children(node, rng):
        image = _node(image, child, rng)
    return image


def _children(node: Sequence | Choose, rng: np.random.Generator) -> list[Node]:
    if isinstance(node, Sequence):
        if node.order == "given":
            return list(node.sequence)
        return [node.sequence[place] for place in rng.permutation(len(node.sequence))]
    count = int(rng.integers(node.choose[0], node.choose[1] + 1))
    share = None if node.weights is None else np.array(node.weights) / sum(node.weights)
    return [node.of[place] for place in rng.choice(len(node.of), count, replace=node.replace, p=share)]


def _augmix(image: Image, node: AugMix, rng: np.random.Generator) -> Image:
    """Chains mixed by Dirichlet weights, then with the image itself by a Beta weight (Hendrycks et al. 2020)."""
    weights = rng.dirichlet([node.alpha] * node.augmix)
    mixed = np.zeros(image.shape, dtype=np.float32)
    for weight in weights:
        chain = image
        for _ in range(int(rng.integers(node.depth[0], node.depth[1] + 1))):
            chain = _node(chain, node.of[int(rng.integers(len(node.of)))], rng)
        mixed += np.float32(weight) * chain
    share = np.float32(rng.beta(node.alpha, node.alpha))
    return ((1 - share) * image + share * mixed + np.float32(0.5)).clip(0, 255).astype(np.uint8)
