"""Scores of images that are no training cells, the cut, and what a bundle keeps of them."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np
import pytest
from scipy.stats import spearmanr

from hemascope.errors import BundleError, DataError, UsageError
from hemascope.torchvision_compat import import_torchvision
from hemascope.uncertainty.detection import auroc
from hemascope.uncertainty.detector_record import SCORES
from hemascope.uncertainty.out_of_distribution import Detector, fit_detector

WIDTH, CLASSES, EARLY = 40, 4, 12


class Made(NamedTuple):
    features: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    early: np.ndarray


class World:
    """Classes as blobs in a few directions of a wider space, and a head that tells them."""

    def __init__(self) -> None:
        rng = np.random.default_rng(7)
        self.centres = 3 + np.abs(rng.normal(0, 4, (CLASSES, 6)))
        self.spread = rng.normal(0, 1, (6, WIDTH))
        self.mix = rng.normal(0, 1, (6, EARLY))
        self.weight = (self.centres - self.centres.mean(0)) @ np.linalg.pinv(self.spread).T * 0.3
        self.bias = rng.normal(0, 0.1, CLASSES)

    def cells(self, count: int, seed: int) -> Made:
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, CLASSES, count)
        hidden = self.centres[labels] + rng.normal(0, 0.7, (count, 6))
        return self._made(hidden @ self.spread + rng.normal(0, 0.1, (count, WIDTH)), labels, hidden, rng)

    def foreign(self, count: int, seed: int) -> Made:
        """As long as the cells, in other directions, and strange early on."""
        rng = np.random.default_rng([seed, 1])
        features = rng.normal(0, 1, (count, WIDTH)) * 6
        return self._made(features, np.zeros(count, np.int64), rng.normal(0, 12, (count, 6)), rng)

    def _made(self, features: np.ndarray, labels: np.ndarray, hidden: np.ndarray, rng: np.random.Generator) -> Made:
        features = features.astype(np.float32)
        logits = (features @ self.weight.T + self.bias).astype(np.float32)
        early = (hidden @ self.mix + rng.normal(0, 0.3, (len(hidden), EARLY))).astype(np.float32)
        return Made(features, labels, logits, early)

    def fit(self, train: Made, inside: Made, **settings: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        with_early = settings.pop("with_early", True)
        return fit_detector(
            train.features,
            train.labels,
            calibration_features=inside.features,
            calibration_logits=inside.logits,
            early=train.early if with_early else None,
            calibration_early=inside.early if with_early else None,
            **{"head_weight": self.weight, "head_bias": self.bias, "components": 6, **settings},
        )


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def fitted(world: World) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    return world.fit(world.cells(600, 1), world.cells(500, 2))


def test_foreign_images_score_higher(world: World, fitted: Any) -> None:
    """Every score that looks at features tells images in other directions, and the default marks them all."""
    detector = Detector.from_saved(*fitted)
    cells, foreign = world.cells(400, 3), world.foreign(200, 4)
    inside = detector.scores(cells.features, cells.logits, early=cells.early)
    outside = detector.scores(foreign.features, foreign.logits, early=foreign.early)
    assert tuple(inside) == SCORES
    for name in ("knn", "mahalanobis", "vim", "residual", "early"):
        assert auroc(inside[name], outside[name]) > 0.99, name
    assert detector.default == "early"
    assert not detector.in_distribution(outside["early"]).any()


def test_the_cut_keeps_its_false_alarm_rate(world: World) -> None:
    """Of fresh cells about the wanted share lies above the cut, whatever the score."""
    train, inside, fresh = world.cells(600, 1), world.cells(2000, 2), world.cells(4000, 5)
    for score in SCORES:
        detector = Detector.from_saved(*world.fit(train, inside, score=score, false_alarm=0.05))
        above = ~detector.in_distribution(detector.score(fresh.features, fresh.logits, early=fresh.early))
        assert 0.03 < above.mean() < 0.07, score


def test_the_cut_is_the_conformal_rank(world: World) -> None:
    """Of 99 calibration cells at 10 % the 90th score is the cut, and of 5 at 1 % the largest."""
    train = world.cells(300, 1)
    for count, false_alarm, place in ((99, 0.1, 90), (5, 0.01, 5)):
        inside = world.cells(count, 2)
        detector = Detector.from_saved(*world.fit(train, inside, score="energy", false_alarm=false_alarm))
        assert detector.cut == pytest.approx(np.sort(detector.score(inside.features, inside.logits))[place - 1])


def test_what_is_saved_gives_the_same_scores(world: World, fitted: Any) -> None:
    """A detector made of JSON and copied arrays says what the first one says, to the bit."""
    record, arrays = fitted
    again = Detector.from_saved(json.loads(json.dumps(record)), {name: a.copy() for name, a in arrays.items()})
    cells = world.cells(50, 6)
    first = Detector.from_saved(record, arrays).scores(cells.features, cells.logits, early=cells.early)
    for name, values in again.scores(cells.features, cells.logits, early=cells.early).items():
        np.testing.assert_array_equal(values, first[name])
        assert values.dtype == np.float32


def test_the_fit_is_seeded(world: World) -> None:
    """The same cells and seed give the same arrays; another seed draws another bank."""
    train, inside = world.cells(300, 1), world.cells(50, 2)
    first, again, other = (world.fit(train, inside, bank=100, seed=seed)[1] for seed in (0, 0, 1))
    for name, values in first.items():
        np.testing.assert_array_equal(values, again[name])
    assert not np.array_equal(first["bank_rows"], other["bank_rows"])


def test_the_bank_holds_projected_cells(world: World) -> None:
    """The bank is what ``project`` and a plain product give of the rows it names, with their labels."""
    train, inside = world.cells(300, 1), world.cells(50, 2)
    record, arrays = world.fit(train, inside, bank=80)
    rows = arrays["bank_rows"]
    detector = Detector.from_saved(record, arrays)
    plain = (train.features[rows] - arrays["centre"]) @ arrays["basis"].astype(np.float32).T
    np.testing.assert_allclose(detector.project(train.features[rows]), plain, rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(arrays["bank_vectors"], plain, rtol=1e-3, atol=1e-2)
    np.testing.assert_array_equal(arrays["bank_labels"], train.labels[rows])


def test_a_small_class_is_whole_in_the_bank(world: World) -> None:
    """Where the bank is drawn, a class of few cells loses none, and the others share the rest evenly."""
    train, inside = world.cells(400, 1), world.cells(20, 2)
    labels = np.repeat([0, 1, 2], [300, 93, 7])
    _, arrays = world.fit(train._replace(labels=labels), inside, bank=67)
    assert np.bincount(arrays["bank_labels"]).tolist() == [30, 30, 7]


def test_the_arrays_are_small() -> None:
    """For as many cells and features as blood8 has, everything takes less than 1.5 MB."""
    rng = np.random.default_rng(0)
    features = rng.normal(0, 1, (9_568, 1_280)).astype(np.float32)
    record, arrays = fit_detector(
        features,
        rng.integers(0, 8, len(features)),
        calibration_features=features[:100],
        calibration_logits=features[:100, :8],
        early=features[:, :160],
        calibration_early=features[:100, :160],
    )
    assert sum(values.nbytes for values in arrays.values()) < 1_500_000
    assert len(json.dumps(record)) < 1_000


def test_without_early_features(world: World) -> None:
    """Without them the default is another score, and asking for them is refused."""
    train, inside = world.cells(300, 1), world.cells(50, 2)
    detector = Detector.from_saved(*world.fit(train, inside, with_early=False))
    assert detector.default == "residual"
    assert "early" not in detector.available
    with pytest.raises(UsageError, match="no score 'early'"):
        detector.score(inside.features, inside.logits, "early", early=inside.early)
    with pytest.raises(UsageError, match="needs early features"):
        world.fit(train, inside, with_early=False, score="early")


def test_early_features_are_asked_for_where_needed(world: World, fitted: Any) -> None:
    """The default score without the features it goes by is an error; other scores do without."""
    detector, cells = Detector.from_saved(*fitted), world.cells(5, 3)
    with pytest.raises(DataError, match=r"early features of shape \(5, 12\)"):
        detector.score(cells.features, cells.logits)
    assert len(detector.scores(cells.features, cells.logits)) == len(SCORES) - 1


@pytest.mark.parametrize("count", [2, 3, 7])
def test_few_cells(world: World, count: int) -> None:
    """With fewer cells than directions and neighbours there is still a detector, and it is finite."""
    train, inside, foreign = world.cells(count, 1), world.cells(1, 2), world.foreign(20, 3)
    record, arrays = world.fit(train, inside, components=30, neighbours=50)
    assert len(arrays["basis"]) <= count
    assert record["neighbours"] == count
    for values in (
        Detector.from_saved(record, arrays).scores(foreign.features, foreign.logits, early=foreign.early).values()
    ):
        assert np.isfinite(values).all()


def test_equal_and_unlabelled_cells(world: World) -> None:
    """Cells that are all alike, columns that never vary and cells without a class do no harm."""
    train, inside = world.cells(60, 1), world.cells(30, 2)
    alike = Made(*(np.repeat(part[:1], 20, axis=0) for part in train))
    detector = Detector.from_saved(*world.fit(alike, inside))
    assert np.isfinite(detector.score(inside.features, inside.logits, early=inside.early)).all()
    still = train._replace(early=np.where(np.arange(EARLY) == 3, 1, train.early).astype(np.float32))
    detector = Detector.from_saved(*world.fit(still, inside._replace(early=still.early[:30])))
    assert detector.in_distribution(detector.score(train.features, train.logits, early=still.early)).mean() > 0.8
    some = np.where(np.arange(60) % 2, train.labels, -1)
    assert (world.fit(train._replace(labels=some), inside)[1]["bank_labels"] == -1).sum() == 30


def test_no_images_and_many(world: World, fitted: Any) -> None:
    """No image gives no score; more than fit into one block are scored as one by one."""
    detector, cells = Detector.from_saved(*fitted), world.cells(2_500, 3)
    for name in SCORES:
        assert detector.score(cells.features[:0], cells.logits[:0], name, early=cells.early[:0]).shape == (0,)
        whole = detector.score(cells.features, cells.logits, name, early=cells.early)
        last = detector.score(cells.features[-1:], cells.logits[-1:], name, early=cells.early[-1:])
        assert whole[-1] == pytest.approx(last[0], rel=1e-3, abs=1e-3)


def test_numbers_that_are_none_are_out_of_distribution(world: World, fitted: Any) -> None:
    """NaN, infinity and absurd features get a finite score above the cut, and leave their neighbours alone."""
    detector, cells = Detector.from_saved(*fitted), world.cells(5, 3)
    for name in ("residual", "mahalanobis", "early", "vim"):
        features, early = cells.features.copy(), cells.early.copy()
        before = detector.score(features, cells.logits, name, early=early)
        for row, value in ((0, np.nan), (1, np.inf), (2, 1e30)):
            features[row, 0] = early[row, 0] = value
        after = detector.score(features, cells.logits, name, early=early)
        assert np.isfinite(after).all()
        assert (after[:2] == np.finfo(np.float32).max).all()
        assert (after[:3] > before.max()).all() or name == "residual"
        np.testing.assert_allclose(after[3:], before[3:], rtol=1e-6)


def hostile(fitted: Any) -> list[tuple[str, dict[str, Any], dict[str, np.ndarray]]]:
    record, arrays = fitted
    bad = np.full_like(arrays["whitening"], np.nan)
    return [
        ("malformed at cut", {**record, "cut": "high"}, arrays),
        ("malformed at cut", {**record, "cut": float("inf")}, arrays),
        ("malformed at width", {**record, "width": 10**9}, arrays),
        ("malformed at extra", {**record, "extra": 1}, arrays),
        ("malformed at false_alarm", {name: v for name, v in record.items() if name != "false_alarm"}, arrays),
        ("a score it does not hold, 'magic'", {**record, "score": "magic"}, arrays),
        ("a score it does not hold, 'early'", {**record, "early_width": 0}, arrays),
        ("lacks basis", record, {name: v for name, v in arrays.items() if name != "basis"}),
        ("lacks early_basis", record, {name: v for name, v in arrays.items() if name != "early_basis"}),
        ("whitening of the detector", record, {**arrays, "whitening": bad}),
        ("basis of the detector", record, {**arrays, "basis": arrays["basis"][:, :-1]}),
        ("basis of the detector", record, {**arrays, "basis": arrays["basis"].astype("U4")}),
        ("bank_vectors of the detector", record, {**arrays, "bank_vectors": arrays["bank_vectors"][:0]}),
        ("bank_labels of the detector", record, {**arrays, "bank_labels": arrays["bank_labels"].astype(float)}),
        ("bank_labels of the detector", record, {**arrays, "bank_labels": arrays["bank_labels"][:-1]}),
        ("class_means of the detector", record, {**arrays, "class_means": arrays["class_means"][None]}),
        ("sizes that cannot be", {**record, "neighbours": 10_000}, arrays),
        ("early_spread of the detector", record, {**arrays, "early_spread": -arrays["early_spread"]}),
    ]


def test_a_hostile_file_is_refused(fitted: Any) -> None:
    """Whatever is missing, of another shape or type, not finite or too large is a BundleError that names it."""
    for sentence, record, arrays in hostile(fitted):
        with pytest.raises(BundleError, match=sentence):
            Detector.from_saved(record, arrays, where="somewhere")


def test_bad_calls_are_sentences(world: World, fitted: Any) -> None:
    """Settings out of range and arrays that do not go together are refused before anything is fitted."""
    train, inside = world.cells(30, 1), world.cells(10, 2)
    for settings, sentence in (
        ({"score": "energies"}, "no score is called 'energies'"),
        ({"false_alarm": 0.0}, "false_alarm must lie between 0 and 1"),
        ({"components": 0}, "components must lie in 1"),
        ({"bank": 0}, "bank must lie in 1"),
        ({"neighbours": 0}, "neighbours must be at least 1"),
    ):
        with pytest.raises(UsageError, match=sentence):
            world.fit(train, inside, **settings)
    for own, other, sentence in (
        (train._replace(labels=train.labels[:-1]), inside, "labels must be 30 whole numbers"),
        (train._replace(labels=train.labels - 5), inside, "labels must lie in -1"),
        (train._replace(features=train.features[:, :-1]), inside, "calibration features and logits must have"),
        (train._replace(features=train.features * np.nan), inside, "features must be finite"),
        (train._replace(features=train.features * 1e6), inside, "features must be shorter than"),
        (train._replace(early=train.early[:-1]), inside, "early features must have shapes"),
        (Made(*(part[:0] for part in train)), inside, "at least 2 labelled training cells"),
        (train, Made(*(part[:0] for part in inside)), "1 calibration cell"),
    ):
        with pytest.raises(DataError, match=sentence):
            world.fit(own, other)
    with pytest.raises(DataError, match="a head must have weights"):
        world.fit(train, inside, head_weight=world.weight[:, :-1])
    detector = Detector.from_saved(*fitted)
    with pytest.raises(DataError, match=r"takes features of shape \(10, 40\), found \(10, 39\)"):
        detector.score(inside.features[:, :-1], inside.logits, "knn")
    with pytest.raises(DataError, match=r"takes logits of shape \(10, 4\), found \(9, 4\)"):
        detector.score(inside.features, inside.logits[:-1], "energy")
    with pytest.raises(UsageError, match="no score 'kmeans'"):
        detector.score(inside.features, inside.logits, "kmeans")


def test_scores_agree_with_pytorch_ood(world: World) -> None:
    """Each published score agrees with the library's on the same numbers, but for float16 and the shrunk covariance."""
    torch = pytest.importorskip("torch")
    import_torchvision()
    detectors = pytest.importorskip("pytorch_ood.detector")
    train, cells, foreign = world.cells(3_000, 1), world.cells(300, 2), world.foreign(100, 3)
    features = np.concatenate([cells.features, foreign.features])
    logits = np.concatenate([cells.logits, foreign.logits])
    own = Detector.from_saved(*world.fit(train, train, with_early=False))
    whole = Detector.from_saved(*world.fit(train, train, with_early=False, components=WIDTH, head_weight=None))

    def tensor(values: np.ndarray) -> Any:
        return torch.from_numpy(np.asarray(values, np.float32))

    vim = detectors.ViM(None, 6, tensor(world.weight), tensor(world.bias))
    vim.fit_features(tensor(train.features), tensor(train.labels))
    knn = detectors.KNN(None, k=10, normalize=True).fit_features(tensor(train.features), tensor(train.labels).long())
    expected = {
        "energy": (own, detectors.EnergyBased.score(tensor(logits)), 1e-5),
        "max_logit": (own, detectors.MaxLogit.score(tensor(logits)), 1e-5),
        # The library gives minus the largest probability.
        "msp": (own, 1 + detectors.MaxSoftmax.score(tensor(logits)), 1e-5),
        "vim": (own, vim.predict_features(tensor(features)), 0.02),
        "knn": (whole, knn.predict_features(tensor(features)), 0.005),
    }
    for name, (detector, published, room) in expected.items():
        found, wanted = detector.score(features, logits, name), published.numpy()
        assert np.abs(found - wanted).max() < room * np.ptp(wanted), name
        # The library's probabilities near 1 are rounded, and so are their ranks.
        assert spearmanr(found, wanted).statistic > (0.98 if name == "msp" else 0.999), name


def test_mahalanobis_agrees_with_pytorch_ood() -> None:
    """The distance is Lee's on features of length 1; the shrinkage of the covariance is the only difference."""
    torch = pytest.importorskip("torch")
    import_torchvision()
    detectors = pytest.importorskip("pytorch_ood.detector")
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 4_000)
    features = (2 * rng.normal(0, 1, (3, 10))[labels] + rng.normal(0, 1, (4_000, 10))).astype(np.float32)
    units = features / np.linalg.norm(features, axis=1, keepdims=True)
    lee = detectors.Mahalanobis(None).fit_features(torch.from_numpy(units), torch.from_numpy(labels))
    # It divides the covariance by nothing, and halves the square.
    wanted = lee.predict_features(torch.from_numpy(units[:500])).numpy() * 2 * len(units)
    record, arrays = fit_detector(features, labels, calibration_features=features, calibration_logits=features[:, :3])
    found = Detector.from_saved(record, arrays).score(features[:500], features[:500, :3], "mahalanobis")
    np.testing.assert_allclose(found, wanted, rtol=0.08)
    assert np.corrcoef(found, wanted)[0, 1] > 0.999
