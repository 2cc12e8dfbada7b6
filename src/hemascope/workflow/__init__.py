"""The main jobs, each one call. The command line adds only words around them."""

from hemascope.workflow.evaluation import Evaluated, EvaluatedRun, compare, evaluate
from hemascope.workflow.training import TrainedRun, demo, train

__all__ = ["Evaluated", "EvaluatedRun", "TrainedRun", "compare", "demo", "evaluate", "train"]
