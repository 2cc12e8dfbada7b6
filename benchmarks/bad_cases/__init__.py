"""Every kind of bad input that is tried, by room."""

from __future__ import annotations

from bad_cases.arrays import ARRAYS
from bad_cases.audits import AUDITS
from bad_cases.averages import AVERAGES
from bad_cases.case import Case
from bad_cases.folders import FOLDERS
from bad_cases.images import IMAGES
from bad_cases.models import MODELS
from bad_cases.outputs import OUTPUTS
from bad_cases.policies import POLICIES
from bad_cases.second_looks import SECOND_LOOKS
from bad_cases.settings import SETTINGS
from bad_cases.stress_tests import STRESS_TESTS
from bad_cases.tables import TABLES
from bad_cases.trust_tests import TRUST_TESTS

CASES: dict[str, tuple[Case, ...]] = {
    "Single images": IMAGES,
    "Folders of images": FOLDERS,
    "Arrays in .npz files": ARRAYS,
    "Manifests and packed stores": TABLES,
    "Settings and the call itself": SETTINGS,
    "Weights and models": MODELS,
    "Outputs, resuming and results": OUTPUTS,
    "Audits, ledgers and cleaning": AUDITS,
    "Augmentation": POLICIES,
    "Stress tests": STRESS_TESTS,
    "Averages, packed and shipped models": AVERAGES,
    "Calibration, trust tests and damaged calibrations": TRUST_TESTS,
    "Shift cards, similar cells, explanations and maps": SECOND_LOOKS,
}
"""Section of the table to its cases, in order."""
