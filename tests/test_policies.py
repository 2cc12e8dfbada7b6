"""Augmentation policies as data: what they may say, how they nest, and the sentence for each way they can be wrong."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from hemascope.augmentation import FUNCTIONS
from hemascope.config import AugmentationConfig, Family, RunConfig
from hemascope.config_fields import list_fields
from hemascope.config_files import MAX_CONFIG_BYTES, dump_config, load_config, load_policy
from hemascope.errors import ConfigError
from hemascope.policies import FAMILIES, OPERATIONS, AugMix, Choose, Operation, Policy, Sequence, policy_names
from hemascope.policies.nodes import MAX_DEPTH, NODES
from hemascope.policies.problems import MAY_BE

ROTATE = {"operation": "rotate"}
MIXED = {
    "name": "mixed",
    "description": "Every kind of node.",
    "steps": [
        {"operation": "zoom", "strength": [0.8, 1.2], "probability": 0.25, "fill": "ground"},
        {"operation": "rotate", "strength": [5, 10], "either_sign": True},
        {
            "choose": [1, 2],
            "weights": [1, 2.5, 3],
            "of": [
                {"operation": "jpeg"},
                {"sequence": [{"operation": "hue"}, {"operation": "gamma", "strength": 2}], "order": "random"},
                {"augmix": 2, "depth": 3, "alpha": 0.5, "of": [{"operation": "invert"}, {"operation": "mirror"}]},
            ],
        },
        {"choose": 3, "replace": True, "of": [ROTATE], "probability": 0.1},
    ],
}


def policy(*steps: Any) -> Policy:
    return Policy.model_validate({"steps": list(steps)})


def nested(depth: int) -> dict[str, Any]:
    """A rotation within this many sequences."""
    node: dict[str, Any] = ROTATE
    for _ in range(depth):
        node = {"sequence": [node]}
    return node


def test_the_tables_hold_the_same_names() -> None:
    """Every operation that may be named has a function and a known family, and its usual range lies within bounds."""
    assert list(OPERATIONS) == list(FUNCTIONS)
    assert get_args(Family) == FAMILIES
    assert {spec.family for spec in OPERATIONS.values()} == set(FAMILIES)
    for name, spec in OPERATIONS.items():
        assert spec.name == name
        assert spec.low <= spec.usual[0] <= spec.usual[1] <= spec.high


def test_every_key_of_a_policy_is_explained() -> None:
    """The words for wrong values cover exactly the keys of the classes, and their numbers are the real limits."""
    assert set(MAY_BE) == {key for kind in (Policy, *NODES.values()) for key in kind.model_fields}
    for key, kind, low, high in (("choose", Choose, 0, 64), ("augmix", AugMix, 1, 8), ("depth", AugMix, 1, 8)):
        assert f"from {low} to {high}" in MAY_BE[key]
        node = {"choose": 1, "replace": True} if kind is Choose else {"augmix": 1}
        for value, fine in ((low, True), (high, True), (low - 1, False), (high + 1, False)):
            try:
                kind.model_validate({**node, "of": [ROTATE], key: value})
            except ValidationError:
                assert not fine, (key, value)
            else:
                assert fine, (key, value)


@pytest.mark.parametrize("name", policy_names())
def test_every_packaged_policy_is_valid(name: str) -> None:
    """Each parses by name, is called as its file is, says what it is for, and is the same without nothing."""
    found = Policy.model_validate(name)
    assert found.name == name
    assert found.description.endswith(".")
    assert found.without(()) == found
    assert load_policy(name) == found


def test_what_is_packaged() -> None:
    """The policies the documentation speaks of are there, sorted."""
    assert policy_names() == tuple(sorted(policy_names()))
    assert {"affine", "augmix", "microscope", "none", "randaugment", "robust", "trivialaugment", "winners"} <= set(
        policy_names()
    )
    assert Policy.model_validate("robust").families() == FAMILIES
    assert Policy.model_validate("affine").families() == ("geometry",)
    assert Policy.model_validate("none").steps == ()


def test_a_number_alone_is_both_ends() -> None:
    """strength, choose and depth take one number; what is left out is the usual range."""
    found = Policy.model_validate(MIXED)
    choice = found.steps[2]
    assert isinstance(choice, Choose)
    assert choice.choose == (1, 2)
    sequence, mix = choice.of[1:]
    assert isinstance(sequence, Sequence)
    assert isinstance(mix, AugMix)
    assert isinstance(sequence.sequence[1], Operation)
    assert sequence.sequence[1].range == (2.0, 2.0)
    assert mix.depth == (3, 3)
    assert isinstance(sequence.sequence[0], Operation)
    assert sequence.sequence[0].range == OPERATIONS["hue"].usual
    assert isinstance(found.steps[3], Choose)
    assert found.steps[3].choose == (3, 3)


def test_a_named_policy_is_put_in_whole() -> None:
    """{policy = NAME} becomes the sequence of that policy's steps, with its own probability, at any depth."""
    affine = Policy.model_validate("affine")
    found = policy({"choose": 1, "of": [{"policy": "affine", "probability": 0.4, "order": "random"}]}).steps[0]
    assert isinstance(found, Choose)
    inner = found.of[0]
    assert isinstance(inner, Sequence)
    assert inner.sequence == affine.steps
    assert (inner.probability, inner.order) == (0.4, "random")


@pytest.mark.parametrize("value", [*policy_names(), MIXED])
def test_toml_keeps_a_policy(value: Any, tmp_path: Path) -> None:
    """A configuration written as TOML and read again holds an equal policy, whole and not by name."""
    config = RunConfig(augmentation=AugmentationConfig(policy=value, without=("blur",)))
    text = dump_config(config)
    assert not any("policy" in step for step in tomllib.loads(text)["augmentation"]["policy"]["steps"])
    file = tmp_path / "config.toml"
    file.write_text(text)
    assert load_config(file=file) == config
    assert load_config(file=file).augmentation.policy.operations() == config.augmentation.policy.operations()


def test_a_policy_file_is_sought_beside_the_file_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a file a policy's path starts at that file's folder, in --set at the working folder, which wins."""
    for folder, angle in (("settings", 10), ("here", 20)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.toml").write_text(
            f'name = "{folder}"\nsteps = [{{ operation = "rotate", strength = {angle} }}]'
        )
    (tmp_path / "settings" / "run.toml").write_text('[augmentation]\npolicy = "mine.toml"')
    monkeypatch.chdir(tmp_path / "here")
    by_file = load_config(file=tmp_path / "settings" / "run.toml").augmentation.policy
    by_word = load_config(
        file=tmp_path / "settings" / "run.toml", overrides=["augmentation.policy=mine.toml"]
    ).augmentation.policy
    assert (by_file.name, by_file.operations()[0].range) == ("settings", (10, 10))
    assert (by_word.name, by_word.operations()[0].range) == ("here", (20, 20))
    assert load_policy("mine.toml") == by_word


def test_a_policy_replaces_the_one_before_it(tmp_path: Path) -> None:
    """A table, unlike other tables of the configuration, does not change the policy below it key by key."""
    file = tmp_path / "run.toml"
    file.write_text('[augmentation]\nflips = false\npolicy = { name = "a", steps = [{ operation = "hue" }] }')
    config = load_config(file=file, overrides=['augmentation.policy={ steps = [{ operation = "invert" }] }'])
    assert config.augmentation.policy == policy({"operation": "invert"})
    assert config.augmentation.flips is False
    named = load_config(file=file, overrides=["augmentation.policy=robust", 'augmentation.without=["blur"]'])
    assert named.augmentation.policy == Policy.model_validate("robust")
    assert "blur" not in named.augmentation.effective_policy().families()


def test_the_fields_say_what_a_policy_is() -> None:
    """`hemascope config` shows a policy as one value, and the families as the choices they are."""
    fields = {field.key: field for field in list_fields()}
    assert fields["augmentation.policy"].type == "policy's name, .toml file or table"
    assert fields["augmentation.policy"].default == '"none"'
    assert fields["augmentation.without"].type == f"list of any of {', '.join(FAMILIES)}"
    assert not any(key.startswith("augmentation.policy.") for key in fields)


def deep_text(depth: int) -> str:
    return "{sequence=[" * depth + "{operation='rotate'}" + "]}" * depth


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("robus", "augmentation.policy: no policy is called 'robus'; did you mean 'robust'?"),
        ("zzz", "augmentation.policy: no policy is called 'zzz'; choose from affine, augmix, microscope, none, "),
        ("3", "'augmentation.policy' must be a policy's name, .toml file or table, found 3."),
        ("{steps=3}", "'augmentation.policy.steps' must be a list of tables, found 3."),
        ("{flips=true}", "no such key 'augmentation.policy.flips'; choose from name, description, steps."),
        ("{name='a b'}", "'augmentation.policy.name' must be text of 1 to 60 letters, "),
        ("{steps=[{operation='rotat'}]}", "steps.0.operation: no operation is called 'rotat'; did you mean 'rotate'?"),
        ("{steps=[{operation=3}]}", "'augmentation.policy.steps.0.operation' must be the name of an operation, found"),
        (
            "{steps=[{operation='rotate',strength=[0,500]}]}",
            "steps.0: strength of rotate must lie in -180 to 180 (degrees), found 0 to 500.",
        ),
        (
            "{steps=[{operation='zoom',strength=1,either_sign=true}]}",
            "steps.0: strength of zoom must lie in 0.2 to 5 (factor), found -1 to 1.",
        ),
        ("{steps=[{operation='rotate',strength=[5,2]}]}", "strength of rotate must go from low to high, found 5 to 2."),
        (
            "{steps=[{operation='rotate',strength='x'}]}",
            "'augmentation.policy.steps.0.strength' must be a number, or two from low to high, found 'x'.",
        ),
        ("{steps=[{operation='rotate',strength=true}]}", "must be a number, or two from low to high, found true."),
        ("{steps=[{operation='rotate',strength=[1]}]}", "steps.0.strength' must be a number, or two from low to high"),
        ("{steps=[{operation='rotate',strength=[1,2,3]}]}", "or two from low to high, found a list of 3."),
        ("{steps=[{operation='rotate',strength=nan}]}", "'augmentation.policy.steps.0.strength.0' must be a number"),
        ("{steps=[{operation='rotate',strenght=3}]}", "no such key 'augmentation.policy.steps.0.strenght'; did you me"),
        ("{steps=[{operation='rotate',policy='robust'}]}", "no such key 'augmentation.policy.steps.0.policy'"),
        ("{steps=[{operation='rotate',fill='blak'}]}", "steps.0.fill' must be one of reflect, edge, wrap, black, "),
        ("{steps=[{operation='rotate',probability=2}]}", "steps.0.probability' must be a number from 0 to 1, found 2."),
        (
            "{steps=[{opration='rotate'}]}",
            "'augmentation.policy.steps.0' must be a table with one of the keys operation, sequence, choose, augmix or "
            "policy, found a table with opration.",
        ),
        ("{steps=[{}]}", "one of the keys operation, sequence, choose, augmix or policy, found an empty table."),
        ("{steps=['rotate']}", "one of the keys operation, sequence, choose, augmix or policy, found 'rotate'."),
        (
            "{steps=[{choose=3,of=[{operation='rotate'}]}]}",
            "steps.0: choose asks for 3 of 1; allow replace = true or name more.",
        ),
        ("{steps=[{choose=[2,1],of=[{operation='rotate'}]}]}", "choose must go from low to high, found 2 to 1."),
        ("{steps=[{choose=1}]}", "'augmentation.policy.steps.0.of' must be given."),
        ("{steps=[{choose=1,of=[]}]}", "steps.0.of' must be a list of at least one table, found a list of 0."),
        (
            "{steps=[{choose=1,weights=[1,2],of=[{operation='rotate'}]}]}",
            "steps.0: weights must have one entry for each of 1, found 2.",
        ),
        ("{steps=[{choose=1,weights=[0],of=[{operation='rotate'}]}]}", "weights.0' must be a list of numbers from"),
        ("{steps=[{choose=1,weights=[1e300],of=[{operation='rotate'}]}]}", "weights.0' must be a list of numbers from"),
        ("{steps=[{augmix=30,of=[{operation='rotate'}]}]}", "augmix' must be a whole number from 1 to 8, found 30."),
        (
            "{steps=[{augmix=3,depth=[3,1],of=[{operation='rotate'}]}]}",
            "steps.0.depth: depth must go from low to high, found 3 to 1.",
        ),
        ("{steps=[{augmix=3,alpha=0,of=[{operation='rotate'}]}]}", "alpha' must be a number from 0.01 to 10, found 0."),
        ("{steps=[{policy='robus'}]}", "no policy is called 'robus'; did you mean 'robust'?"),
        ("{steps=[{policy=3}]}", "augmentation.policy: policy must be a name, found 3."),
        ("{steps=[{policy='a.toml'}]}", "a policy within a policy must be one that comes with hemascope, found 'a.t"),
        ("{steps=[{policy='robust',nope=1}]}", "no such key 'augmentation.policy.steps.0.nope'; choose from sequence"),
        (
            "{steps=[{sequence=[{choose=1,of=[{operation='rotat'}]}]}]}",
            "augmentation.policy.steps.0.sequence.0.of.0.operation: no operation is called 'rotat'",
        ),
        ("{steps=[" + deep_text(MAX_DEPTH) + "]}", f"a policy may nest {MAX_DEPTH} deep at most."),
        ("{steps=" + "[" * 100 + "]" * 100 + "}", f"a policy may nest {MAX_DEPTH} deep at most."),
        ("{steps=[" + deep_text(2000) + "]}", "the value of 'augmentation.policy' is not valid TOML: '{steps="),
    ],
)
def test_a_wrong_policy_gets_one_sentence(value: str, sentence: str) -> None:
    """Each wrong policy is answered with its place, what may stand there and what was found, in one short line."""
    with pytest.raises(ConfigError) as caught:
        load_config(overrides=[f"augmentation.policy={value}"])
    found = str(caught.value)
    assert sentence in found
    assert "\n" not in found
    assert len(found) < 260
    assert found.endswith((".", "?"))
    assert not found.endswith(("..", "?."))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("nme = 'x'", "no such key 'nme'; did you mean 'name'?"),
        ("steps = 3", "'steps' must be a list of tables, found 3."),
        ("[[steps]]\noperation = 'jpg'", "steps.0.operation: no operation is called 'jpg'; did you mean 'jpeg'?"),
        ("[[steps]]\nchoose = 1", "'steps.0.of' must be given."),
        ("[[steps]]\nopration = 'jpeg'", "'steps.0' must be a table with one of the keys operation"),
        ("[[steps]]\npolicy = 'robus'", "no policy is called 'robus'; did you mean 'robust'?"),
        ("steps = [" + deep_text(60) + "]", "a policy may nest 12 deep at most."),
        ("steps = " + "[" * 350 + "]" * 350, "a policy may nest 12 deep at most."),
        ("steps = " + "[" * 5000, "its values are nested too deeply."),
        ("steps = [", "is not valid TOML"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"#" * (MAX_CONFIG_BYTES + 1), "is larger than 1,000,000 bytes"),
    ],
)
def test_a_wrong_policy_file_is_named_with_what_is_wrong(tmp_path: Path, content: str | bytes, sentence: str) -> None:
    """A bad file of a policy gives one sentence that starts with its name, whether read alone or by a configuration."""
    file = tmp_path / "mine.toml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as caught:
        load_policy(str(file))
    assert str(caught.value).startswith(str(file))
    assert sentence in str(caught.value)
    run = tmp_path / "run.toml"
    run.write_text('augmentation.policy = "mine.toml"')
    with pytest.raises(ConfigError):
        load_config(file=run)


def test_a_missing_policy_file_is_named(tmp_path: Path) -> None:
    """A policy's file that is not there is named in the sentence."""
    with pytest.raises(ConfigError, match=r"absent\.toml: No such file"):
        load_policy(str(tmp_path / "absent.toml"))
    with pytest.raises(ConfigError, match=r"absent\.toml: No such file"):
        load_config(overrides=[f"augmentation.policy={tmp_path / 'absent.toml'}"])


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ('augmentation.without=["geometri"]', "'augmentation.without.0' must be one of geometry, occlusion, "),
        ('augmentation.without=["geometri"]', "found 'geometri'; did you mean 'geometry'?"),
        ("augmentation.without=geometry", "'augmentation.without' must be a list of any of geometry, occlusion, "),
        ("augmentation.policy.name=x", "'augmentation.policy' is one value"),
        ("augmentation.rotation=3", "no such key 'augmentation.rotation'; choose from flips, quarter_turns, policy, w"),
    ],
)
def test_wrong_settings_around_a_policy(override: str, sentence: str) -> None:
    """Unknown families, parts of a policy, and the fields of earlier versions each get their sentence."""
    with pytest.raises(ConfigError) as caught:
        load_config(overrides=[override])
    assert sentence in str(caught.value)


def test_the_greatest_depth_is_allowed() -> None:
    """One level less than is refused parses, and the operation within is found."""
    assert policy(nested(MAX_DEPTH - 1)).operations() == (Operation(operation="rotate"),)
    with pytest.raises(ValidationError):
        policy(nested(MAX_DEPTH))


def test_families_counts_what_can_happen() -> None:
    """Operations that never happen have no family; the order is that of FAMILIES."""
    found = policy(
        {"operation": "jpeg"},
        {"operation": "hue", "probability": 0},
        {"operation": "identity"},
        {"choose": 0, "of": [{"operation": "bubbles"}]},
        {"choose": [0, 1], "of": [{"operation": "rotate"}]},
        {"sequence": [{"operation": "invert"}], "probability": 0},
    )
    assert found.families() == ("geometry", "compression")
    assert [node.operation for node in found.operations()] == ["jpeg", "identity", "rotate"]


def test_without_takes_a_family_out_everywhere() -> None:
    """Choices, sequences and mixes lose the family's operations, keep possible numbers, and vanish when empty."""
    whole = policy(
        {"operation": "rotate"},
        {"choose": [1, 3], "weights": [1, 2, 3], "of": [ROTATE, {"operation": "jpeg"}, {"operation": "hue"}]},
        {"choose": 3, "replace": True, "of": [ROTATE, {"operation": "jpeg"}]},
        {"sequence": [{"operation": "jpeg"}, {"sequence": [ROTATE, ROTATE]}], "order": "random"},
        {"augmix": 3, "of": [{"operation": "shear_x"}, {"operation": "invert"}, {"operation": "identity"}]},
        {"augmix": 3, "of": [{"operation": "mirror"}]},
    )
    left = whole.without(("geometry",))
    assert "geometry" not in left.families()
    choice, again, sequence, mix = left.steps
    assert isinstance(choice, Choose)
    assert (choice.choose, choice.weights) == ((1, 2), (2.0, 3.0))
    assert isinstance(again, Choose)
    assert (again.choose, len(again.of)) == ((3, 3), 1)
    assert isinstance(sequence, Sequence)
    assert [node.operation for node in sequence.sequence if isinstance(node, Operation)] == ["jpeg"]
    assert len(sequence.sequence) == 1
    assert isinstance(mix, AugMix)
    assert [node.operation for node in mix.of if isinstance(node, Operation)] == ["invert", "identity"]
    assert Policy.model_validate(left.model_dump(mode="json")) == left  # pruning never makes an invalid policy
    assert whole.families() == ("geometry", "compression", "tone", "colour")  # the original is untouched


@pytest.mark.parametrize("name", policy_names())
def test_every_packaged_policy_can_do_without_any_family(name: str) -> None:
    """Without each family the policy is still valid and has exactly the other families."""
    whole = Policy.model_validate(name)
    for family in FAMILIES:
        left = whole.without((family,))
        assert left.families() == tuple(other for other in whole.families() if other != family)
        assert Policy.model_validate(left.model_dump(mode="json")) == left
    assert not [node for node in whole.without(FAMILIES).operations() if node.operation != "identity"]


def test_an_unknown_family_is_refused() -> None:
    """without() names the families there are."""
    with pytest.raises(ValueError, match="no family is called 'smell'; they are geometry, occlusion"):
        Policy.model_validate("robust").without(("smell",))


def test_the_winners_fifteen_layers() -> None:
    """The winners' policy has their layers in their order, each with its stated probability and range."""
    layers = Policy.model_validate("winners").steps
    assert [layer.probability for layer in layers] == [
        *[0.15, 0.3, 0.1, 0.4, 0.2, 0.15, 0.2, 0.2, 0.2, 0.2, 0.15, 0.2, 0.4, 0.15, 0.2]
    ]
    kinds = [layer.operation if isinstance(layer, Operation) else type(layer).__name__ for layer in layers]
    assert kinds == [
        *["Sequence", "zoom", "grid_mask", "Sequence", "offset", "Sequence", "saturation", "contrast", "cutout"],
        *["saturation", "Sequence", "channel_shift", "shear_x", "Sequence", "solarise_add"],
    ]
    ranges = {place: layer.range for place, layer in enumerate(layers, start=1) if isinstance(layer, Operation)}
    assert ranges == {
        2: (0.93, 0.93),
        3: (0, 0.5),
        5: (-64, 64),  # a quarter of the full range either way
        7: (0.5, 1.5),
        8: (0.75, 1.25),
        9: (0.2, 0.2),
        10: (0.75, 1.0),
        12: (0, 255),
        13: (0, 1),
        15: (0, 153),  # 0.6 of the full range
    }
    for place, axis in ((1, "y"), (6, "x"), (11, "x"), (14, "y")):
        moves = layers[place - 1]
        assert isinstance(moves, Sequence)
        little, much, turn = (node for node in moves.sequence if isinstance(node, Operation))
        assert (little.operation, little.range, little.fill) == (f"translate_{axis}", (-0.05, 0.05), "black")
        assert (much.operation, much.range, much.fill) == (f"translate_{axis}", (0.3, 0.4), "reflect")
        assert (turn.operation, turn.range, turn.fill) == ("rotate", (36, 54), "reflect")  # 10 to 15 % of a turn
        assert much.either_sign
        assert turn.either_sign
