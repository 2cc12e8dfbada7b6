"""From predictions to results: metrics of each split, galleries of mistakes, comparisons, tables. No torch."""

from hemascope.evaluation.comparison import compare
from hemascope.evaluation.gallery import save_gallery
from hemascope.evaluation.record import (
    build_evaluation,
    evaluate_split,
    load_evaluation,
    load_predictions,
    save_evaluation,
    save_predictions,
)
from hemascope.evaluation.table import write_table

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
