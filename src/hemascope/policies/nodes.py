"""An augmentation policy as data: single operations, sequences, "k of n" and AugMix, nested as one likes.

In TOML a node is known by the key it holds::

    name = "mine"
    [[steps]]                        # one operation
    operation = "brightness"
    strength = [0.6, 1.4]            # drawn between the two; left out: the operation's usual range
    probability = 0.5

    [[steps]]                        # two or three of these, in random order
    choose = [2, 3]
    of = [{ operation = "jpeg" }, { operation = "rotate", fill = "reflect" }, { policy = "colour" }]

A named policy is put in whole where it is named, so that a saved run says all of what it did.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from hemascope.names import suggestion
from hemascope.policies.named import named_policy
from hemascope.policies.operations import FAMILIES, OPERATIONS

Probability = Annotated[float, Field(ge=0, le=1)]
Fill = Literal["reflect", "edge", "wrap", "black", "grey", "white", "ground", "noise", "any"]
MAX_DEPTH = 12
"""Nesting allowed: far more than anyone writes, and little enough that no file can exhaust the stack."""


class _Node(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


def _both_ends(value: Any) -> Any:
    """A number alone as a range from it to itself; anything else is left for the field to judge."""
    return (value, value) if isinstance(value, int | float) and not isinstance(value, bool) else value


class Operation(_Node):
    """One operation with its strength."""

    operation: str = Field(description="Its name; `hemascope augment operations` lists them.")
    strength: tuple[float, float] | None = Field(
        None, description="Drawn uniformly between the two, in the operation's own unit; none: its usual range."
    )
    either_sign: bool = Field(False, description="Turn the strength's sign around in half of the cases.")
    probability: Probability = Field(1.0, description="How often it is done.")
    fill: Fill = Field(
        "reflect",
        description="What moves into view or covers: reflect, edge, wrap, black, grey, white, ground (the colour of "
        "the image's rim), noise, or any of them at random.",
    )

    @field_validator("operation")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in OPERATIONS:
            raise ValueError(f"no operation is called {name!r}; {suggestion(name, list(OPERATIONS))}")
        return name

    @field_validator("strength", mode="before")
    @classmethod
    def _one_number_is_both_ends(cls, value: Any) -> Any:
        return _both_ends(value)

    @model_validator(mode="after")
    def _within_bounds(self) -> Operation:
        spec = OPERATIONS[self.operation]
        low, high = self.range
        if low > high:
            raise ValueError(f"strength of {spec.name} must go from low to high, found {low:g} to {high:g}")
        reach = [low, high, -low, -high] if self.either_sign else [low, high]
        if min(reach) < spec.low or max(reach) > spec.high:
            raise ValueError(
                f"strength of {spec.name} must lie in {spec.low:g} to {spec.high:g} ({spec.unit or 'it has none'}), "
                f"found {min(reach):g} to {max(reach):g}"
            )
        return self

    @property
    def range(self) -> tuple[float, float]:
        """The two ends of its strength."""
        return OPERATIONS[self.operation].usual if self.strength is None else self.strength


class Sequence(_Node):
    """Nodes one after the other."""

    sequence: tuple[Node, ...] = Field(description="What is done.")
    order: Literal["given", "random"] = Field("given", description="In the order written, or in a random one.")
    probability: Probability = Field(1.0, description="How often it is done at all.")


class Choose(_Node):
    """k of n nodes."""

    choose: tuple[Annotated[int, Field(ge=0, le=64)], Annotated[int, Field(ge=0, le=64)]] = Field(
        description="How many: a number, or the smallest and the largest."
    )
    of: tuple[Node, ...] = Field(min_length=1, description="What is chosen from.")
    weights: tuple[Annotated[float, Field(ge=1e-6, le=1e6)], ...] | None = Field(
        None, description="How often each is chosen, relative to the others; none: all alike."
    )
    replace: bool = Field(False, description="The same one may be chosen again.")
    probability: Probability = Field(1.0, description="How often it is done at all.")

    @field_validator("choose", mode="before")
    @classmethod
    def _one_number_is_both_ends(cls, value: Any) -> Any:
        return _both_ends(value)

    @model_validator(mode="after")
    def _possible(self) -> Choose:
        low, high = self.choose
        if low > high:
            raise ValueError(f"choose must go from low to high, found {low} to {high}")
        if high > len(self.of) and not self.replace:
            raise ValueError(f"choose asks for {high} of {len(self.of)}; allow replace = true or name more")
        if self.weights is not None and len(self.weights) != len(self.of):
            raise ValueError(f"weights must have one entry for each of {len(self.of)}, found {len(self.weights)}")
        return self


class AugMix(_Node):
    """Several chains of operations mixed with each other and with the image (Hendrycks et al. 2020)."""

    augmix: Annotated[int, Field(ge=1, le=8)] = Field(description="Chains mixed.")
    depth: tuple[Annotated[int, Field(ge=1, le=8)], Annotated[int, Field(ge=1, le=8)]] = Field(
        (1, 3), description="Operations in a chain: a number, or the smallest and the largest."
    )
    alpha: Annotated[float, Field(ge=0.01, le=10)] = Field(1.0, description="Of the Dirichlet and Beta draws.")
    of: tuple[Node, ...] = Field(min_length=1, description="What chains are made of.")
    probability: Probability = Field(1.0, description="How often it is done at all.")

    @field_validator("depth", mode="before")
    @classmethod
    def _one_number_is_both_ends(cls, value: Any) -> Any:
        return _both_ends(value)

    @field_validator("depth")
    @classmethod
    def _from_low_to_high(cls, depth: tuple[int, int]) -> tuple[int, int]:
        if depth[0] > depth[1]:
            raise ValueError(f"depth must go from low to high, found {depth[0]} to {depth[1]}")
        return depth


NODES: dict[str, type[_Node]] = {"operation": Operation, "sequence": Sequence, "choose": Choose, "augmix": AugMix}
"""The kinds of node, by the key each is known by."""


def _kind(value: Any) -> str | None:
    if isinstance(value, _Node):
        return next(key for key, kind in NODES.items() if isinstance(value, kind))
    if isinstance(value, dict):
        return next((key for key in NODES if key in value), None)
    return None


Node = Annotated[
    Annotated[Operation, Tag("operation")]
    | Annotated[Sequence, Tag("sequence")]
    | Annotated[Choose, Tag("choose")]
    | Annotated[AugMix, Tag("augmix")],
    Discriminator(
        _kind,
        custom_error_type="policy_node",
        custom_error_message="must be a table with one of the keys operation, sequence, choose, augmix or policy",
    ),
]


class Policy(_Node):
    """What training images go through."""

    one_value: ClassVar[bool] = True
    """To the configuration a policy is one value, not a table of settings."""

    name: str = Field("mine", pattern=r"^[A-Za-z0-9_.-]{1,60}$", description="A name for people.")
    description: str = Field("", max_length=2000, description="What it is for.")
    steps: tuple[Node, ...] = Field((), description="Done one after the other.")

    @model_validator(mode="before")
    @classmethod
    def _names_put_in(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = named_policy(value)
        return _resolved(value, 0) if isinstance(value, dict) else value

    def operations(self) -> tuple[Operation, ...]:
        """Every operation that can happen, in the order written, each as often as it is written."""
        return tuple(found for step in self.steps for found in _operations(step))

    def families(self) -> tuple[str, ...]:
        """The families of damage it can do, in the order of FAMILIES; what cannot happen does not count."""
        used = {OPERATIONS[node.operation].family for node in self.operations() if node.operation != "identity"}
        return tuple(family for family in FAMILIES if family in used)

    def without(self, families: tuple[str, ...]) -> Policy:
        """The same policy with every operation of these families taken out.

        A choice keeps its numbers where enough is left to choose from, and takes what there is otherwise.
        """
        unknown = [family for family in families if family not in FAMILIES]
        if unknown:
            raise ValueError(f"no family is called {unknown[0]!r}; they are {', '.join(FAMILIES)}")
        kept = tuple(node for step in self.steps if (node := _pruned(step, frozenset(families))) is not None)
        return self.model_copy(update={"steps": kept})


def _resolved(value: Any, depth: int) -> Any:
    """``value`` with every ``{policy = NAME}`` replaced by a sequence of that policy's steps."""
    if depth > MAX_DEPTH:
        raise ValueError(f"a policy may nest {MAX_DEPTH} deep at most")
    if isinstance(value, list | tuple):
        # A list in a list means nothing, but must not exhaust the stack before that is said.
        return [_resolved(item, depth + isinstance(item, list | tuple)) for item in value]
    if not isinstance(value, dict):
        return value
    if "policy" in value and not any(key in value for key in NODES):
        name, rest = value["policy"], {key: item for key, item in value.items() if key != "policy"}
        if not isinstance(name, str):
            raise ValueError(f"policy must be a name, found {name!r}")
        return {"sequence": _resolved(named_policy(name)["steps"], depth + 1), **rest}
    nested = ("steps", "sequence", "of")
    return {key: _resolved(item, depth + 1) if key in nested else item for key, item in value.items()}


def _operations(node: Any) -> list[Operation]:
    if node.probability == 0:
        return []
    if isinstance(node, Operation):
        return [node]
    inner = node.sequence if isinstance(node, Sequence) else node.of
    if isinstance(node, Choose) and node.choose[1] == 0:
        return []
    return [found for child in inner for found in _operations(child)]


def _pruned(node: Any, families: frozenset[str]) -> Any:
    if isinstance(node, Operation):
        gone = OPERATIONS[node.operation].family in families and node.operation != "identity"
        return None if gone else node
    name = "sequence" if isinstance(node, Sequence) else "of"
    kept = [(place, child) for place, old in enumerate(getattr(node, name)) if (child := _pruned(old, families))]
    if not kept:
        return None
    changes: dict[str, Any] = {name: tuple(child for _, child in kept)}
    if isinstance(node, Choose):
        if not node.replace:
            changes["choose"] = tuple(min(count, len(kept)) for count in node.choose)
        if node.weights is not None:
            changes["weights"] = tuple(node.weights[place] for place, _ in kept)
    return node.model_copy(update=changes)


for _model in (Sequence, Choose, AugMix, Policy):
    _model.model_rebuild()
