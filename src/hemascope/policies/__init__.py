"""Augmentation policies as data: what may be named, how they nest, and those that come with hemascope."""

from hemascope.policies.named import policy_names
from hemascope.policies.nodes import AugMix, Choose, Node, Operation, Policy, Sequence
from hemascope.policies.operations import FAMILIES, OPERATIONS, Family, OperationSpec

__all__ = [
    "FAMILIES",
    "OPERATIONS",
    "AugMix",
    "Choose",
    "Family",
    "Node",
    "Operation",
    "OperationSpec",
    "Policy",
    "Sequence",
    "policy_names",
]
