"""From predictions to results: metrics of each split, galleries of mistakes, comparisons, tables. No torch."""

from hemascope.evaluate.comparison import compare
from hemascope.evaluate.evaluation import (
    build_evaluation,
    evaluate_split,
    load_evaluation,
    load_predictions,
    save_evaluation,
    save_predictions,
)
from hemascope.evaluate.gallery import save_gallery
from hemascope.evaluate.table import write_table

__all__ = [
    "build_evaluation",
    "compare",
    "evaluate_split",
    "load_evaluation",
    "load_predictions",
    "save_evaluation",
    "save_gallery",
    "save_predictions",
    "write_table",
]
