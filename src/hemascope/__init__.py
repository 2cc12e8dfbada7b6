"""hemascope: from a pile of single blood-cell images to a classifier a haematology lab can trust.

    import hemascope

    cells = hemascope.load("my_cells/")
    run = hemascope.train(cells, output="runs/first")
    predictions = hemascope.load_model("runs/first").predict(["new.png"])

Names are imported when first used: ``import hemascope`` itself loads neither numpy nor torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hemascope.cells import CellDataset
    from hemascope.config import RunConfig
    from hemascope.data.inspection import inspect_source
    from hemascope.data.load import load
    from hemascope.data.synthetic import render_cells
    from hemascope.errors import HemascopeError
    from hemascope.predict import load_model
    from hemascope.results import Predictions
    from hemascope.workflow import compare, evaluate, train

__version__ = "0.1.0"

_HOME = {
    "CellDataset": "hemascope.cells",
    "HemascopeError": "hemascope.errors",
    "Predictions": "hemascope.results",
    "RunConfig": "hemascope.config",
    "compare": "hemascope.workflow",
    "evaluate": "hemascope.workflow",
    "inspect_source": "hemascope.data.inspection",
    "load": "hemascope.data.load",
    "load_model": "hemascope.predict",
    "render_cells": "hemascope.data.synthetic",
    "train": "hemascope.workflow",
}

__all__ = [
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


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'hemascope' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
