"""cleanlab's checks of embeddings and labels: label quality, outliers, near duplicates, as one npz file.

    OTHER_PYTHON cleanlab_checks.py FEATURES.npy OUT.npz --check outliers
    OTHER_PYTHON cleanlab_checks.py FEATURES.npy OUT.npz --check near_duplicates --scaled
    OTHER_PYTHON cleanlab_checks.py FEATURES.npy OUT.npz --check labels --labels LABELS.npy --scaled --strength 0.001

Run by the Python of an environment that holds cleanlab; nothing of hemascope is needed. FEATURES is float (N, D),
LABELS whole numbers (N,) from 0. Written:

    labels           ``self_confidence`` and ``normalized_margin``, float64 (N,), lower is worse; ``flag``, bool (N,),
                     of find_label_issues at its defaults. The probabilities are out of fold, by the recipe of
                     cleanlab's tutorials: scikit-learn's LogisticRegression(max_iter=400), cross_val_predict, 5 folds.
    outliers         ``score``, float64 (N,), lower is worse: OutOfDistribution by the 10 nearest neighbours
    near_duplicates  ``pairs``, int64 (N, 2): each image with its nearest, ``distances`` float64 (N,), and ``flag``,
                     bool (N,), of Datalab's check at its default threshold
    seconds          of all of it; start, imports and reading the arrays are not counted

--scaled brings every column to mean 0 and deviation 1 before anything else (part of the time); --strength is the
inverse penalty C of the regression, 1 by scikit-learn's default.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from cleanlab.filter import find_label_issues
from cleanlab.outlier import OutOfDistribution
from cleanlab.rank import get_label_quality_scores
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def main() -> None:
    parser = argparse.ArgumentParser(description="cleanlab's checks of embeddings and labels.")
    parser.add_argument("features", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--check", required=True, choices=("labels", "outliers", "near_duplicates"))
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--scaled", action="store_true")
    parser.add_argument("--strength", type=float, default=1.0)
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    features = np.load(options.features, allow_pickle=False).astype(np.float32)
    if options.check == "labels":
        if options.labels is None:
            parser.error("--check labels needs --labels")
        labels = np.load(options.labels, allow_pickle=False)
        found = label_quality(features, labels, options)
    else:
        if options.check == "near_duplicates":
            from cleanlab import Datalab  # noqa: F401 - the import is not to be timed
        started = time.perf_counter()
        if options.scaled:
            features = StandardScaler().fit_transform(features)
        found = outliers(features) if options.check == "outliers" else near_duplicates(features)
        found["seconds"] = time.perf_counter() - started
    np.savez(options.output, **found)


def label_quality(features: np.ndarray, labels: np.ndarray, options: argparse.Namespace) -> dict[str, Any]:
    """Label quality from out-of-fold probabilities."""
    started = time.perf_counter()
    regression = LogisticRegression(max_iter=400, C=options.strength)
    model = make_pipeline(StandardScaler(), regression) if options.scaled else regression
    probabilities = cross_val_predict(model, features, labels, cv=5, method="predict_proba", n_jobs=options.jobs)
    found: dict[str, Any] = {
        method: get_label_quality_scores(labels, probabilities, method=method)
        for method in ("self_confidence", "normalized_margin")
    }
    found["flag"] = find_label_issues(labels, probabilities)
    return found | {"seconds": time.perf_counter() - started}


def outliers(features: np.ndarray) -> dict[str, Any]:
    """How typical each image is."""
    return {"score": OutOfDistribution().fit_score(features=features, verbose=False)}


def near_duplicates(features: np.ndarray) -> dict[str, Any]:
    """Each image's nearest other, and which are near enough to be called duplicates."""
    from cleanlab import Datalab

    lab = Datalab(data={"row": list(range(len(features)))}, verbosity=0)
    lab.find_issues(features=features, issue_types={"near_duplicate": {}})
    info = lab.get_info("near_duplicate")
    nearest = np.asarray(info["nearest_neighbor"], dtype=np.int64)
    return {
        "pairs": np.stack([np.arange(len(features)), nearest], axis=1),
        "distances": np.asarray(info["distance_to_nearest_neighbor"], dtype=np.float64),
        "flag": lab.get_issues("near_duplicate")["is_near_duplicate_issue"].to_numpy(dtype=bool),
    }


if __name__ == "__main__":
    main()
