"""The main jobs, each one call. The command line adds only words around them."""

from hemascope.workflow.auditing import Audited, audit
from hemascope.workflow.evaluation import Evaluated, EvaluatedRun, compare, evaluate
from hemascope.workflow.mapping import DrawnMap, draw_map
from hemascope.workflow.training import TrainedRun, demo, train

__all__ = [
    "Audited",
    "DrawnMap",
    "Evaluated",
    "EvaluatedRun",
    "TrainedRun",
    "audit",
    "compare",
    "demo",
    "draw_map",
    "evaluate",
    "train",
]
