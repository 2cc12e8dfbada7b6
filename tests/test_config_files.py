"""Recipes, TOML files and --set words: what they give, and the sentence for each way they can be wrong."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hemascope.config import RunConfig, StageConfig
from hemascope.config_fields import list_fields, spell
from hemascope.config_files import MAX_CONFIG_BYTES, dump_config, list_recipes, load_config
from hemascope.errors import ConfigError


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "my.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_nothing_given_is_the_default():
    """Without a recipe, a file or an override, the defaults of the classes hold."""
    assert load_config() == RunConfig()


def test_every_recipe_is_a_valid_configuration_with_a_summary():
    """Each packaged recipe loads, and says in its first line what it is for."""
    recipes = list_recipes()
    assert {recipe.name for recipe in recipes} >= {"demo", "fast", "standard"}
    for recipe in recipes:
        assert isinstance(load_config(recipe=recipe.name), RunConfig)
        assert recipe.summary.endswith(".")


def test_layers_lie_over_each_other_in_order(tmp_path: Path):
    """A file beats the defaults key by key, an override beats the file, and what neither names stays."""
    file = written(tmp_path, "seed = 3\n[data]\ntest = 0.2\nvalidation = 0.2\n")
    config = load_config(file=file, overrides=["data.test=0.3"])
    assert (config.seed, config.data.test, config.data.validation) == (3, 0.3, 0.2)
    assert config.data.calibration == RunConfig().data.calibration


def test_a_list_in_a_file_replaces_the_list_and_its_entries_start_from_field_defaults(tmp_path: Path):
    """[[stages]] in a file is the whole list; a field it leaves out has StageConfig's default, not the old stage's."""
    config = load_config(file=written(tmp_path, "[[stages]]\nname = 'only'\n"))
    assert config.stages == (StageConfig(name="only"),)


@pytest.mark.parametrize("spot", ["stages.1", "stages.finetune"])
def test_one_stage_is_changed_by_number_or_by_name(spot: str):
    """Both spellings change that stage alone, on top of the defaults."""
    config = load_config(overrides=[f"{spot}.epochs=3", f"{spot}.optimizer.name=lion"])
    before = RunConfig().stages
    assert config.stages[0] == before[0]
    assert (config.stages[1].epochs, config.stages[1].optimizer.name) == (3.0, "lion")
    assert config.stages[1].optimizer.lr == before[1].optimizer.lr


def test_values_have_toml_types_and_bare_words_are_text():
    """Numbers, booleans and lists are typed; a bare word, also one with a colon, is text."""
    config = load_config(
        overrides=[
            "seed=7",
            "augmentation.flips=false",
            "model.head.widths=[64, 32]",
            "stages.1.trainable=last:2",
            'model.backbone="resnet18"',
            "model.weights=a=b.pth",
        ]
    )
    assert config.seed == 7
    assert config.augmentation.flips is False
    assert config.model.head.widths == (64, 32)
    assert config.stages[1].trainable == "last:2"
    assert (config.model.backbone, config.model.weights) == ("resnet18", "a=b.pth")


def test_none_unsets_a_field_that_may_be_unset_and_is_a_word_elsewhere():
    """`none` is None for an optional field, and the choice "none" where that is one of the choices."""
    stage = load_config(overrides=["stages.1.ema=none", "stages.1.class_weights=none"]).stages[1]
    assert RunConfig().stages[1].ema is not None
    assert stage.ema is None
    assert stage.class_weights == "none"


def test_a_named_preparation_can_be_changed_in_part():
    """contest stands for its table, so one of its values can be changed afterwards."""
    preparation = load_config(overrides=["data.preparation=contest", "data.preparation.crop=150"]).data.preparation
    assert (preparation.crop, [resize.size for resize in preparation.resizes]) == (150, [224, 96])


def test_dump_reads_back_to_an_equal_configuration(tmp_path: Path):
    """TOML written by dump_config gives the same configuration, also with unset fields and lists of one."""
    for overrides in ([], ["data.preparation=contest"], ["stages.1.ema=none", "stages.0.size=64"]):
        config = load_config(overrides=overrides)
        assert load_config(file=written(tmp_path, dump_config(config))) == config


def test_every_field_that_may_be_unset_is_unset_by_default():
    """dump_config leaves None out, which is only safe where the default is None as well."""
    optional = [field for field in list_fields() if field.type.endswith("or none")]
    assert len(optional) > 5
    assert {field.default for field in optional} == {"none"}


def test_every_field_is_explained():
    """list_fields gives each field once, with a meaning, a type and a default that TOML can read."""
    fields = list_fields()
    assert len({field.key for field in fields}) == len(fields) > 60
    for field in fields:
        assert field.description, field.key
        assert field.type, field.key
        if field.default not in ("", "none"):
            tomllib.loads(f"value = {field.default}")


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("stages.0.epoch=3", "no such key 'stages.0.epoch'; did you mean 'epochs'?"),
        ("sede=1", "no such key 'sede'; did you mean 'seed'?"),
        ("lr=0.1", "no such key 'lr'; did you mean 'stages.0.optimizer.lr'?"),
        ("stages.finetun.epochs=1", "did you mean 'finetune'?"),
        ("stages.7.epochs=1", "no such entry 'stages.7': there are 2, numbered from 0."),
        ("stages.99999999999999999999.epochs=1", "there are 2, numbered from 0."),
        ("stages.-1.epochs=1", "no such entry 'stages.-1'"),
        ("seed.a=1", "'seed' is one value"),
        ("seed", "--set needs key=value"),
        ("=3", "--set needs key=value"),
        ("a..b=3", "--set needs key=value"),
        ("seed=[1", "not valid TOML: '[1'"),
        ("seed=1.5", "'seed' must be a whole number at least 0 and at most 2,147,483,647, found 1.5."),
        ("stages.0.epochs=-3", "'stages.0.epochs' must be a number more than 0 and at most 1,000, found -3."),
        ("stages.0.epochs=nan", "'stages.0.epochs' must be a number"),
        ("stages.0.optimizer.lr=x", "'stages.0.optimizer.lr' must be a number more than 0 and at most 10, found 'x'."),
        ("stages.0.optimizer.name=adam", "must be one of adamw, lion, sgd, found 'adam'; did you mean 'adamw'?"),
        ("model.head.widths=3", "'model.head.widths' must be a list of whole numbers with at most 6 entries, found 3."),
        (
            "model.head.widths=[1,'a']",
            "'model.head.widths.1' must be a whole number at least 1 and at most 16,384, found 'a'.",
        ),
        ("model.head.widths=[20000]", "must be a whole number at least 1 and at most 16,384, found 20000."),
        ("model=3", "'model' must be a table, found 3."),
        ("stages=[]", "'stages' must be a list of tables with at least 1 and at most 12 entries, found []."),
        ("stages.0={lr=1}", "no such key 'stages.0.lr'; did you mean 'stages.0.optimizer.lr'?"),
        ("stages.1.name=frozen", "stages must have different names, found frozen, frozen."),
        ("data.test=0.99", "must leave cells to train on"),
        ("data.preparation=contes", "no preparation named 'contes'; did you mean 'contest'?"),
    ],
)
def test_a_wrong_override_gets_one_sentence(override: str, sentence: str):
    """Each wrong --set is answered with the key, what was found, and what is allowed or nearest."""
    with pytest.raises(ConfigError) as caught:
        load_config(overrides=[override])
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("[[stages]]\nnmae = 'x'\n", "no such key 'stages.0.nmae' in "),
        ("[modell]\n", "did you mean 'model'?"),
        ("seed = ", "is not valid TOML"),
        (b"\xff\xfe", "is not UTF-8 text"),
        ("x = " + "[" * 5000, "nested too deeply"),
        ("seed = 1" + "0" * 5000, "is not valid TOML"),
        ("stages = [1]", "'stages.0' must be a table, found 1."),
        ("[[data]]\ntest = 0.1", "'data' must be a table"),
        ("[data.preparation]\nresizes = [{filter = 'box'}]", "'data.preparation.resizes.0.size' must be given."),
        (b"#" * (MAX_CONFIG_BYTES + 1), "larger than"),
    ],
)
def test_a_wrong_file_gets_one_sentence(tmp_path: Path, content: str | bytes, sentence: str):
    """Each wrong TOML file is answered with a ConfigError, never another exception."""
    with pytest.raises(ConfigError) as caught:
        load_config(file=written(tmp_path, content))
    assert sentence in str(caught.value)


def test_a_missing_file_a_folder_and_an_unknown_recipe_are_named(tmp_path: Path):
    """What does not exist is named, and an unknown recipe is answered with the nearest."""
    with pytest.raises(ConfigError, match=r"cannot read the configuration .*absent\.toml: No such file"):
        load_config(file=tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        load_config(file=tmp_path)
    with pytest.raises(ConfigError, match="no recipe named 'fsat'; did you mean 'fast'"):
        load_config(recipe="fsat")


def test_a_found_value_is_spelt_short_however_deep_it_is():
    """A value nested further than Python's stack reaches is repeated in a few characters."""
    value: list[object] = []
    for _ in range(5000):
        value = [value]
    assert spell(value) == "[" * 9 + "[…]" + "]" * 9
    assert spell([1, "a", True, {"b": 2}]) == "[1, 'a', true, a table]"
    assert len(spell("x" * 1000)) < 70


def test_overrides_leave_the_defaults_untouched():
    """Changing a value in one call does not leak into the next."""
    load_config(overrides=["stages.0.epochs=1", "data.preparation.resizes.0.size=64", "model.head.kind=deep"])
    assert load_config() == RunConfig()


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([field.key.replace(".N.", ".0.") for field in list_fields()]),
    st.one_of(st.text(max_size=20), st.integers().map(str), st.floats().map(str)),
)
def test_any_word_gives_a_configuration_or_a_sentence(key: str, value: str):
    """Whatever is typed after --set KEY=, the answer is a RunConfig or a ConfigError."""
    try:
        assert isinstance(load_config(overrides=[f"{key}={value}"]), RunConfig)
    except ConfigError as error:
        assert str(error)
