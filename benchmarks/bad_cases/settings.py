"""Settings that are misspelt, of the wrong type or impossible, and calls the command line does not know."""

from __future__ import annotations

from bad_cases.case import Case, write

CONFIG = "config --config my.toml"
TRAIN = "train cells -o new --config tiny.toml"

SETTINGS = (
    Case("unknown verb", "trian cells", ("no such command 'trian'", "did you mean 'train'?"), status=2, process=True),
    Case("unknown option", "train cells --outptu new", ("No such option", "--output", "--help"), status=2),
    Case("missing argument", "train -o new", ("Missing argument 'PATH'", "--help"), status=2),
    Case("missing option", "train cells", ("Missing option '-o'", "--help"), status=2),
    Case("seed that is no number", "train cells -o new --seed x", ("'x' is not a valid integer", "--help"), status=2),
    Case("negative seed", "train cells -o new --seed -1", ("'seed' must be", "at least 0", "found -1"), status=2),
    Case("--resume and --force together", "train cells -o new --resume --force", ("give one of them",), status=2),
    Case("unknown recipe", "config --recipe fasst", ("no recipe named 'fasst'", "did you mean 'fast'?"), status=2),
    Case(
        "unknown key",
        "config --set model.backbon=x",
        ("no such key 'model.backbon'", "did you mean 'backbone'?"),
        status=2,
    ),
    Case(
        "key of another table",
        "config --set epochs=3",
        ("no such key 'epochs'", "did you mean 'stages.0.epochs'?"),
        status=2,
    ),
    Case("--set without =", "config --set seed", ("--set needs key=value", "found 'seed'"), status=2),
    Case(
        "--set of an entry that is not there",
        "config --set stages.9.epochs=3",
        ("no such entry 'stages.9'", "there are 2"),
        status=2,
    ),
    Case(
        "--set of a stage by a wrong name",
        "config --set stages.finetun.epochs=3",
        ("no such entry 'stages.finetun'", "did you mean 'finetune'?"),
        status=2,
    ),
    Case("wrong type", "config --set seed=first", ("'seed' must be a whole number", "found 'first'"), status=2),
    Case(
        "table where a value belongs", "config --set seed.x=1", ("'seed' is one value", "set 'seed' itself"), status=2
    ),
    Case("out of range", "config --set data.test=1.5", ("'data.test' must be", "at most 1", "found 1.5"), status=2),
    Case("not a number", "config --set stages.0.optimizer.lr=nan", ("'stages.0.optimizer.lr'", "found nan"), status=2),
    Case(
        "unknown choice",
        "config --set stages.0.optimizer.name=adamv",
        ("one of adamw, lion, sgd", "did you mean 'adamw'?"),
        status=2,
    ),
    Case(
        "splits that leave nothing to train on",
        "config --set data.test=0.8",
        ("must leave cells to train on", "found 0.95"),
        status=2,
    ),
    Case(
        "unknown preparation",
        "config --set data.preparation=contets",
        ("no preparation named 'contets'", "did you mean 'contest'?"),
        status=2,
    ),
    Case(
        "configuration that is not there", CONFIG, ("cannot read the configuration my.toml", "No such file"), status=2
    ),
    Case(
        "folder as the configuration",
        "config --config cells",
        ("cannot read the configuration cells", "directory"),
        status=2,
    ),
    Case(
        "configuration that is not TOML",
        CONFIG,
        ("my.toml is not valid TOML", "line 1"),
        write("my.toml", "seed: 3\n"),
        status=2,
    ),
    Case(
        "binary configuration", CONFIG, ("my.toml is not a TOML file",), write("my.toml", bytes(range(256))), status=2
    ),
    Case(
        "configuration of 2 MB", CONFIG, ("larger than 1,000,000 bytes",), write("my.toml", "#" * 2_000_000), status=2
    ),
    Case(
        "unknown key in a file",
        CONFIG,
        ("no such key 'stages.0.epoch' in my.toml", "did you mean 'epochs'?"),
        write("my.toml", "[[stages]]\nepoch = 3\n"),
        status=2,
    ),
    Case(
        "two stages of one name",
        CONFIG,
        ("stages must have different names", "found a, a"),
        write("my.toml", '[[stages]]\nname = "a"\n[[stages]]\nname = "a"\n'),
        status=2,
    ),
    Case("no stage at all", CONFIG, ("'stages' must be", "at least 1"), write("my.toml", "stages = []\n"), status=2),
    Case(
        "CUDA device that is not there",
        f"{TRAIN} --set runtime.device=cuda:99",
        ("device 'cuda:99' was asked for", "Use device='auto' or 'cpu'"),
        status=2,
    ),
    Case(
        "unknown device",
        f"{TRAIN} --set runtime.device=gpu",
        ("'runtime.device' must be", "cuda", "found 'gpu'"),
        status=2,
    ),
    Case("fp16 on a CPU", f"{TRAIN} --set runtime.precision=fp16", ("needs a GPU", "use 'fp32' or 'bf16'"), status=2),
    Case(
        "batch that accumulation does not divide",
        f"{TRAIN} --set stages.0.accumulate=3",
        ("must be a multiple of", "found 8"),
        status=2,
    ),
    Case(
        "block that the network does not have",
        f"{TRAIN} --set stages.0.trainable=from:layer9",
        ("layer9", "layer4"),
        status=2,
    ),
    Case("unknown freezing plan", f"{TRAIN} --set stages.0.trainable=haed", ("haed", "last:N"), status=2),
    Case(
        "saved features with all layers learning",
        f"{TRAIN} --set stages.0.kind=features",
        ("only the head can learn", 'trainable = "head"'),
        status=2,
    ),
)
