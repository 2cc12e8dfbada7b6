"""The design is kept: imports point downwards, light stays light, the public interface is what it says."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import hemascope

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "hemascope"
MODULES = sorted(PACKAGE.rglob("*.py"))
MAY_PRINT = {"console.py", "cli"}


def run_python(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_import_contracts_hold():
    """lint-imports finds no import that points upwards or brings torch where it must not be."""
    program = Path(sys.executable).with_name("lint-imports")
    if not program.exists():
        pytest.skip("import-linter is not installed in this environment")
    result = subprocess.run(
        [program, "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_torch_free_rooms_load_without_torch():
    """Reading, measuring, reporting and the workflow's own import load neither torch nor timm."""
    rooms = ["data.load", "data.inspection", "metrics", "evaluation", "report", "config_files", "cells", "workflow"]
    imports = "; ".join(f"import hemascope.{room}" for room in rooms)
    loaded = run_python(
        f"import sys; {imports}; print([m for m in ('torch', 'timm', 'torchvision') if m in sys.modules])"
    )
    assert loaded.strip() == "[]"


def test_only_the_command_line_prints_or_exits():
    """No module but the console and the command line calls print, exit or writes to a standard stream."""
    found = []
    for path in MODULES:
        if path.relative_to(PACKAGE).parts[0] in MAY_PRINT:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = isinstance(node, ast.Name) and node.id in {"print", "exit", "quit"}
            attribute = (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "sys"
                and node.attr in {"exit", "stdout", "stderr"}
            )
            if named or attribute:
                found.append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
    assert found == []


def test_files_hold_one_thing():
    """No module is longer than 450 lines, and none is named for saying nothing."""
    too_long = {path.name: length for path in MODULES if (length := len(path.read_text().splitlines())) > 450}
    assert too_long == {}
    assert not {path.stem for path in MODULES} & {"utils", "helpers", "common", "misc"}


def test_no_pickle():
    """No module can be made to run code by a file: no unpickling, allow_pickle or unchecked weights."""
    for path in MODULES:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\bpickle\.(load|loads|Unpickler)\b|from pickle import", text), path
        assert "allow_pickle=True" not in text, path
        assert "weights_only=False" not in text, path


def test_the_public_interface_is_pinned():
    """Names can be added on purpose only, and each resolves to something of that name."""
    assert hemascope.__all__ == [
        "CellDataset",
        "HemascopeError",
        "Predictions",
        "RunConfig",
        "__version__",
        "compare",
        "evaluate",
        "inspect_source",
        "load",
        "load_model",
        "render_cells",
        "train",
    ]
    assert dir(hemascope) == hemascope.__all__
    for name in set(hemascope.__all__) - {"__version__"}:
        assert getattr(hemascope, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = hemascope.trian


def test_importing_the_package_is_light():
    """``import hemascope`` alone loads neither numpy nor anything larger."""
    heavy = "('numpy', 'torch', 'pydantic', 'rich', 'click', 'PIL')"
    assert run_python(f"import sys, hemascope; print([m for m in {heavy} if m in sys.modules])").strip() == "[]"
