"""The command line: every verb's call and words, and one sentence with the right exit status for every failure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from hemascope.cli import main
from hemascope.config import RunConfig
from hemascope.config_files import dump_config, load_config
from hemascope.errors import DataError, UsageError
from hemascope.results import ClassEvaluation, Comparison, Estimate, Evaluation, Predictions, SplitEvaluation


def invoke(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def estimate(value: float, n: int = 200) -> Estimate:
    return Estimate(value=value, low=value - 0.01, high=value + 0.01, n=n)


EVALUATION = Evaluation(
    class_names=["lymphocyte", "ig"],
    splits={
        "test": SplitEvaluation(
            split="test",
            n=2053,
            metrics={"accuracy": estimate(0.987), "balanced_accuracy": estimate(0.975)},
            per_class=[
                ClassEvaluation(
                    name=name,
                    support=support,
                    precision=estimate(0.9),
                    recall=estimate(recall),
                    f1=estimate(0.9),
                    auroc=estimate(0.99),
                )
                for name, support, recall in (("lymphocyte", 1500, 0.98), ("ig", 553, 0.95))
            ],
            confusion=[[1470, 30], [28, 525]],
        )
    },
    bootstrap_resamples=100,
    seed=0,
)
COMPARISON = Comparison(
    first="runs/a",
    second="runs/b",
    n=2053,
    first_metrics={"accuracy": estimate(0.95), "log_loss": estimate(0.2)},
    second_metrics={"accuracy": estimate(0.97), "log_loss": estimate(0.1)},
    difference={"accuracy": Estimate(value=0.02, low=0.01, high=0.03, n=2053), "log_loss": estimate(-0.1)},
    only_first_correct=10,
    only_second_correct=51,
    both_correct=1900,
    neither_correct=92,
    p_value=1e-7,
)


class Calls(dict[str, SimpleNamespace]):
    """What the fake workflow was called with, and what it shall do instead."""

    failure: BaseException | None = None


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """The workflow replaced by fakes that record their arguments: the verbs are tested without torch."""
    calls = Calls()

    def fake(name: str, result: Any) -> Any:
        def call(*arguments: Any, **keywords: Any) -> Any:
            calls[name] = SimpleNamespace(arguments=arguments, **keywords)
            if calls.failure is not None:
                raise calls.failure
            return result

        return call

    run = SimpleNamespace(folder=Path("runs/a"), evaluation=EVALUATION, report=Path("runs/a/report.html"))
    module = ModuleType("hemascope.workflow")
    for name, result in (("train", run), ("evaluate", run), ("demo", run), ("compare", COMPARISON)):
        setattr(module, name, fake(name, result))
    monkeypatch.setitem(sys.modules, "hemascope.workflow", module)
    import hemascope

    monkeypatch.setattr(hemascope, "workflow", module, raising=False)
    return calls


# --- start and help ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["train", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(words: list[str]):
    """Help and version come without numpy, torch, pydantic or rich, which is why they come at once."""
    code = f"""
import sys
from hemascope.cli import main
try:
    main({words!r})
except SystemExit as end:
    assert end.code == 0, end.code
heavy = [name for name in ("torch", "numpy", "pydantic", "rich", "PIL", "timm", "sklearn") if name in sys.modules]
assert not heavy, heavy
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "hemascope" in result.stdout


def test_every_verb_has_help_in_both_spellings():
    """-h and --help say the same for each verb."""
    for name in main.commands:
        short, long = invoke(name, "-h"), invoke(name, "--help")
        assert short.exit_code == long.exit_code == 0
        assert short.output == long.output
        assert main.commands[name].get_short_help_str(80) in invoke("-h").output


# --- train ------------------------------------------------------------------------------------------------------


def test_train_passes_everything_on_and_says_what_matters(calls: Calls):
    """Settings reach the workflow; the end names accuracies with intervals, the weakest class, report and next step."""
    result = invoke(
        "train", "cells dir", "-o", "runs/a", "--set", "stages.finetune.epochs=3", "--seed", "9",
        "--names", "a, b", "--format", "npz", "--splits", "s.csv", "--force",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    call = calls["train"]
    assert call.arguments[0] == "cells dir"
    assert call.arguments[1] == load_config(overrides=["stages.1.epochs=3", "seed=9"])
    assert (call.output, call.class_names, call.format) == (Path("runs/a"), ("a", "b"), "npz")
    assert (call.splits, call.force, call.resume) == (Path("s.csv"), True, False)
    assert call.command.startswith("hemascope train 'cells dir' -o runs/a --set stages.finetune.epochs=3")
    assert "Test: 2,053 cells" in result.stdout
    assert "accuracy           98.7 % (97.7–99.7 %)" in result.stdout
    assert "balanced accuracy  97.5 % (96.5–98.5 %)" in result.stdout
    assert "weakest class      ig: 95.0 % (94.0–96.0 %) of its 553 cells found" in result.stdout
    assert "Report:  runs/a/report.html" in result.stdout
    assert "hemascope predict runs/a NEW_CELLS -o out.csv" in result.stdout


def test_train_json_is_one_object(calls: Calls):
    """--json gives one JSON object on stdout and nothing else."""
    found = json.loads(invoke("train", "cells", "-o", "runs/a", "--json").stdout)
    assert found["splits"]["test"]["metrics"]["accuracy"]["value"] == 0.987
    assert found["report"] == "runs/a/report.html"


def test_resume_takes_the_settings_of_the_run(calls: Calls, tmp_path: Path):
    """--resume without settings reads the run's own config.toml; given settings are used instead."""
    (tmp_path / "config.toml").write_text(dump_config(load_config(overrides=["seed=5"])))
    assert invoke("train", "cells", "-o", tmp_path, "--resume").exit_code == 0
    assert calls["train"].arguments[1].seed == 5
    assert invoke("train", "cells", "-o", tmp_path, "--resume", "--seed", "6").exit_code == 0
    assert calls["train"].arguments[1].seed == 6
    assert invoke("train", "cells", "-o", tmp_path).exit_code == 0
    assert calls["train"].arguments[1] == RunConfig()


def test_ctrl_c_says_how_to_go_on(calls: Calls):
    """Ctrl-C in training ends with 130 and the exact command that resumes."""
    calls.failure = KeyboardInterrupt()
    result = invoke("train", "my cells", "-o", "runs/a")
    assert result.exit_code == 130
    assert "hemascope train 'my cells' -o runs/a --resume" in result.stderr


def test_only_the_first_process_speaks(calls: Calls, monkeypatch: pytest.MonkeyPatch):
    """Under torchrun, ranks above 0 print no results, whose evaluation is empty there."""
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setitem(EVALUATION.splits, "test", None)  # reading it would fail, as it does in the other processes
    result = invoke("train", "cells", "-o", "runs/a")
    assert (result.exit_code, result.output) == (0, "")


def test_demo_names_the_report(calls: Calls):
    """demo goes to ./demo unless told otherwise, and says where the report is."""
    assert "report.html" in invoke("demo").stdout
    assert calls["demo"].arguments == (Path("demo"),)
    invoke("demo", "-o", "elsewhere")
    assert calls["demo"].arguments == (Path("elsewhere"),)


# --- the other verbs --------------------------------------------------------------------------------------------


def test_evaluate_prints_and_speaks_json(calls: Calls):
    """evaluate prints the same numbers as train, or the whole evaluation as JSON."""
    result = invoke("evaluate", "runs/a", "other", "-o", "out")
    assert "98.7 %" in result.stdout
    assert calls["evaluate"].arguments == (Path("runs/a"), "other")
    assert calls["evaluate"].output == Path("out")
    found = json.loads(invoke("evaluate", "runs/a", "other", "--json").stdout)
    assert Evaluation.model_validate(found) == EVALUATION


def test_compare_prints_differences_with_their_meaning(calls: Calls, tmp_path: Path):
    """compare shows both runs, the difference with its interval, McNemar, and a verdict; JSON and a page on request."""
    result = invoke("compare", "runs/a", "runs/b", "--split", "validation", "-o", tmp_path / "page.html")
    assert result.exit_code == 0, result.output
    assert calls["compare"].split == "validation"
    assert "+2.00 points (+1.00 to +3.00)" in result.stdout
    assert "in the second alone: 51" in result.stdout
    assert "the second run is better" in result.stdout
    assert (tmp_path / "page.html").read_text().startswith("<!")
    assert Comparison.model_validate(json.loads(invoke("compare", "a", "b", "--json").stdout)) == COMPARISON


def test_report_passes_paths_on(monkeypatch: pytest.MonkeyPatch):
    """report renders the run again and says where."""
    import hemascope.report

    seen: list[Any] = []
    monkeypatch.setattr(hemascope.report, "render_report", lambda run, output: seen.append((run, output)) or output)
    assert "page.html" in invoke("report", "runs/a", "-o", "page.html").stdout
    assert seen == [(Path("runs/a"), Path("page.html"))]


def fake_model(monkeypatch: pytest.MonkeyPatch, errors: list[str]) -> list[Any]:
    """A model that predicts one batch of images, of which those with an error could not be read."""
    seen: list[Any] = []
    probs = np.array([[np.nan, np.nan] if error else [0.75, 0.25] for error in errors], dtype=np.float32)

    def predict_batches(inputs: Any, progress: Any = None) -> Iterator[Predictions]:
        seen.append(inputs)
        ids = [f"{index}.png" for index in range(len(errors))]
        yield Predictions(ids, ("eosinophil", "ig"), probs, probs, errors=errors)

    module = ModuleType("hemascope.predict")
    module.load_model = lambda run, **_: SimpleNamespace(assessor=None, predict_batches=predict_batches)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "hemascope.predict", module)
    return seen


def test_predict_to_stdout_is_a_table_and_nothing_else(monkeypatch: pytest.MonkeyPatch):
    """-o - gives CSV on stdout; the warning about an unreadable image goes to stderr and the exit status stays 0."""
    seen = fake_model(monkeypatch, ["", "not an image"])
    result = invoke("predict", "runs/a", "x.png", "dir", "-o", "-")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == "path,label,probability,p_eosinophil,p_ig,error"
    assert lines[1].startswith("0.png,eosinophil,0.75,0.75,0.25")
    assert lines[2].endswith("not an image")
    assert len(lines) == 3
    assert "Warning: 1 of 2 images could not be read" in result.stderr
    assert seen == [["x.png", "dir"]]


def test_predict_with_nothing_readable_fails_with_its_table_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Exit status 1 where no image could be read; the table still holds the reasons."""
    fake_model(monkeypatch, ["empty file"])
    result = invoke("predict", "runs/a", "x.png", "-o", tmp_path / "out.csv")
    assert result.exit_code == 1
    assert "empty file" in (tmp_path / "out.csv").read_text()


def test_predict_refuses_an_unknown_table_before_work(monkeypatch: pytest.MonkeyPatch):
    """A wrong ending is refused before the model is loaded."""
    seen = fake_model(monkeypatch, [""])
    result = invoke("predict", "runs/a", "x.png", "-o", "out.xlsx")
    assert (result.exit_code, seen) == (2, [])
    assert ".parquet" in result.stderr


def test_inspect_says_what_is_there_and_speaks_json(tmp_path: Path):
    """inspect counts classes, sizes, duplicates and unreadable files of a real folder, in words and as JSON."""
    for name, shade in (("a/1.png", 10), ("a/2.png", 20), ("a/copy.png", 20), ("b/1.png", 30)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((20, 30, 3), shade, dtype=np.uint8)).save(tmp_path / name)
    (tmp_path / "b" / "broken.png").write_bytes(b"no image")
    result = invoke("inspect", tmp_path)
    assert result.exit_code == 0, result.output
    assert f"{tmp_path}: 5 images" in result.stdout
    assert "  a         3   60.0%" in result.stdout
    assert "Sizes: 30 × 20 (4)" in result.stdout
    assert "Exact duplicates: 2 images in 1 sets" in result.stdout
    assert "Unreadable: 1\n" in result.stdout
    found = json.loads(invoke("inspect", tmp_path, "--json").stdout)
    assert (found["class_counts"], found["unreadable_count"]) == ({"a": 3, "b": 2}, 1)


def test_inspect_passes_its_options_on(monkeypatch: pytest.MonkeyPatch):
    """Names, format and the pattern for labels reach the library as given."""
    seen: dict[str, Any] = {}

    def inspect_source(path: str, **keywords: Any) -> Any:
        seen.update(keywords, path=path)
        return SimpleNamespace(model_dump=lambda mode: {"count": 2})

    module = ModuleType("hemascope.data.inspection")
    module.inspect_source = inspect_source  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "hemascope.data.inspection", module)
    result = invoke("inspect", "cells", "--label-pattern", "(?P<label>x)", "--names", "a,b", "--format", "x", "--json")
    assert json.loads(result.stdout) == {"count": 2}
    assert (seen["path"], seen["label_pattern"], seen["class_names"]) == ("cells", "(?P<label>x)", ("a", "b"))
    assert seen["format"] == "x"


def test_config_lists_and_gives_a_file_to_start_from(tmp_path: Path):
    """Every field is listed; --toml gives a file that loads to the same; two forms at once are refused."""
    listing = invoke("config").stdout
    assert "stages.N.optimizer.lr  (number more than 0 and at most 10; default 0.001)" in listing
    fields = json.loads(invoke("config", "--json").stdout)["fields"]
    assert {"key", "type", "default", "description", "constraints"} == set(fields[0])
    toml = tmp_path / "my.toml"
    toml.write_text(invoke("config", "--recipe", "fast", "--set", "seed=4", "--toml").stdout)
    assert load_config(file=toml) == load_config(recipe="fast", overrides=["seed=4"])
    assert invoke("config", "--json", "--toml").exit_code == 2


# --- what goes wrong --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["trian"], "no such command 'trian'; did you mean 'train'?"),
        (["zzz"], "choose from inspect, "),
        (["train", "cells", "-o", "r", "--recipee", "x"], "--recipe"),
        (["train", "cells", "-o", "r", "--recipe", "fsat"], "no recipe named 'fsat'; did you mean 'fast'?"),
        (["train", "cells", "-o", "r", "--set", "stages.0.epoch=3"], "did you mean 'epochs'?"),
        (["train", "cells", "-o", "r", "--set", "model.head.kind=dep"], "did you mean 'deep'?"),
        (["train", "cells", "-o", "r", "--config", "absent.toml"], "absent.toml"),
        (["train", "cells", "-o", "r", "--seed", "x"], "'x' is not a valid integer"),
        (["train", "cells", "-o", "r", "--seed", "-1"], "'seed' must be a whole number at least 0"),
        (["train", "cells", "-o", "r", "--resume", "--force"], "give one of them"),
        (["train", "cells", "-o", "r", "--names", "a,,b"], "found an empty one"),
        (["train", "cells", "-o", "r", "--names", "a,b,a"], "found 'a' twice"),
        (["train", "cells"], "Missing option '-o'"),
        (["predict", "run"], "Missing argument 'INPUTS...'"),
        (["compare", "run"], "Missing argument 'SECOND'"),
    ],
)
def test_a_wrong_call_gets_one_line_and_exit_status_2(calls: Calls, words: list[str], sentence: str):
    """Each wrong call is answered on stderr in one line that names the nearest or the missing; nothing is started."""
    result = invoke(*words)
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert not calls


class OutOfMemoryError(RuntimeError):
    """Named like torch's."""


@pytest.mark.parametrize(
    ("failure", "status", "sentence"),
    [
        (DataError("no cell has a label."), 1, "Error: no cell has a label.\n"),
        (UsageError("wrong."), 2, "Error: wrong.\n"),
        (DataError("bad\x1b[2J.png"), 1, "Error: bad\\x1b[2J.png.\n"),
        (MemoryError(), 1, "memory ran out"),
        (OutOfMemoryError("CUDA out of memory"), 1, "memory ran out"),
        (OSError(28, "No space left on device", "x.bin"), 1, "Error: No space left on device (x.bin).\n"),
        (ZeroDivisionError("division by zero\nmore"), 1, "(ZeroDivisionError: division by zero)"),
    ],
)
def test_a_failure_gets_one_line_and_its_exit_status(calls: Calls, failure: BaseException, status: int, sentence: str):
    """Whatever is raised becomes one line on stderr without a traceback."""
    calls.failure = failure
    result = invoke("compare", "a", "b")
    assert result.exit_code == status
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.output


def test_ctrl_c_elsewhere_is_130_and_a_gone_reader_is_quiet(calls: Calls):
    """Ctrl-C gives 130; a broken pipe gives no message."""
    calls.failure = KeyboardInterrupt()
    assert invoke("compare", "a", "b").exit_code == 130
    calls.failure = BrokenPipeError(32, "Broken pipe")
    result = invoke("compare", "a", "b")
    assert (result.exit_code, result.output) == (1, "")


def test_developers_can_ask_for_the_traceback(calls: Calls, monkeypatch: pytest.MonkeyPatch):
    """HEMASCOPE_DEBUG=1 adds the traceback to the sentence."""
    monkeypatch.setenv("HEMASCOPE_DEBUG", "1")
    calls.failure = ZeroDivisionError("division by zero")
    assert "Traceback" in invoke("compare", "a", "b").stderr


def test_a_pipe_that_closes_early_leaves_no_complaint():
    """`hemascope config | head -1` prints one line and nothing on stderr."""
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "hemascope", "config"], stdout=writer, stderr=subprocess.PIPE, text=True
    )
    os.close(writer)
    os.close(reader)
    _, errors = process.communicate(timeout=60)
    assert errors == ""


def test_a_terminal_of_few_letters_gets_escapes():
    """A stream that cannot show a letter gets its escape instead of failing."""
    result = subprocess.run(
        [sys.executable, "-m", "hemascope", "tr細n"],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
    )
    assert result.returncode == 2
    assert b"tr\\u7d30n" in result.stderr
