"""What a run folder says about itself, read back and checked. The report is made of nothing else.

``evaluation.json`` must be there and sound. Everything else may be missing, as in runs of older versions:
the report then says so. What is there but damaged is refused, because half a record misleads.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from hemascope.cells import SPLIT_NAMES
from hemascope.errors import RunError
from hemascope.report.pictures import SampleRow, gallery_pictures, sample_rows
from hemascope.results import Evaluation
from hemascope.trust_results import TrustReport

MEGABYTE = 1_000_000
TRUST = "trust/trust.json"
_SIZE_LIMITS = {"evaluation.json": 64, "manifest.json": 64, "config.toml": 1, "history.jsonl": 512, TRUST: 64}
"""Megabytes a record may have. Far beyond any real run; a file past it is not a record."""

Count = Annotated[int, Field(ge=0, le=10**12)]
Scalar = str | int | float | bool | None
_Model = TypeVar("_Model", bound=BaseModel)


class _Record(BaseModel):
    """Frozen; keys of newer versions are passed over, missing ones are None or empty."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class LeftOut(_Record):
    """One image that was not used, and why."""

    id: str = ""
    reason: str = ""


class DataRecord(_Record):
    """What the run was fed. Lists of counts follow ``class_names``."""

    source: str | None = None
    fingerprint: str | None = None
    preparation: str | None = None
    n: Count | None = None
    class_names: list[str] = []
    class_counts: list[Count] = []
    grouped: bool | None = None
    split_counts: dict[str, list[Count]] = {}
    split_notes: list[str] = []
    unreadable: list[LeftOut] = []
    notes: dict[str, Count] = {}


class ModelRecord(_Record):
    """The network and where its weights came from."""

    backbone: str | None = None
    parameters: Count | None = None
    weights: str | None = None
    notes: list[str] = []


class BestRecord(_Record):
    """The point of training whose weights were kept."""

    stage: str | None = None
    epoch: float | None = None
    balanced_accuracy: float | None = None


class Manifest(_Record):
    """``manifest.json``: the provenance of a run. Seconds in ``timing``; times of day in ISO 8601."""

    version: int = 1
    name: str | None = None
    command: str | None = None
    created: str | None = None
    finished: str | None = None
    seed: int | None = None
    versions: dict[str, str | None] = {}
    git_commit: str | None = None
    platform: dict[str, Scalar] = {}
    data: DataRecord = DataRecord()
    model: ModelRecord = ModelRecord()
    timing: dict[str, float | None] = {}
    price_epochs: float | None = None
    best: BestRecord = BestRecord()


class StepRecord(_Record):
    """One step of the optimiser. ``epoch`` counts from the start of the stage."""

    kind: Literal["step"]
    stage: str = ""
    epoch: float
    step: int | None = None
    loss: float | None = None
    lr: float | None = None


class EpochRecord(_Record):
    """One validation. ``epoch`` counts from the start of the stage; ``seconds`` since the one before."""

    kind: Literal["epoch"]
    stage: str = ""
    epoch: float
    train_loss: float | None = None
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    validation_balanced_accuracy: float | None = None
    lr: float | None = None
    seconds: float | None = None
    images_per_second: float | None = None


class NoteRecord(_Record):
    """A line written while training, such as an early stop."""

    kind: Literal["note"]
    stage: str = ""
    message: str = Field("", validation_alias=AliasChoices("message", "text", "note"))


class _OtherRecord(_Record):
    """A line of a kind this version does not know."""

    kind: str


_LINE: TypeAdapter[StepRecord | EpochRecord | NoteRecord | _OtherRecord] = TypeAdapter(
    Annotated[StepRecord | EpochRecord | NoteRecord | _OtherRecord, Field(union_mode="left_to_right")]
)
_KNOWN_KINDS = ("step", "epoch", "note")


@dataclass(frozen=True)
class StageHistory:
    """The steps and validations of one stage, by epoch; of a repeated point the later one counts."""

    name: str
    steps: tuple[StepRecord, ...]
    epochs: tuple[EpochRecord, ...]


@dataclass(frozen=True)
class RunRecords:
    """All the report needs of one run.

    ``pictures`` and ``samples`` hold ``data:`` addresses, small and re-encoded. ``missing`` names the records the
    folder does not have. ``cut_short`` says that the history's last line was never finished.
    """

    folder: Path
    evaluation: Evaluation
    manifest: Manifest
    config_text: str | None
    stages: tuple[StageHistory, ...]
    notes: tuple[str, ...]
    pictures: dict[str, str] = field(default_factory=dict)
    samples: tuple[SampleRow, ...] = ()
    missing: tuple[str, ...] = ()
    cut_short: bool = False
    trust: TrustReport | None = None

    @property
    def name(self) -> str:
        """The run's name: as recorded, or the folder's."""
        return self.manifest.name or self.folder.resolve().name

    def split_counts(self) -> dict[str, list[int]]:
        """Cells of each class by split: as recorded, else what the evaluation counted."""
        recorded = self.manifest.data.split_counts
        counts = recorded or {
            name: [one.support for one in split.per_class] for name, split in self.evaluation.splits.items()
        }
        order = [name for name in SPLIT_NAMES if name in counts]
        return {name: counts[name] for name in [*order, *(name for name in counts if name not in order)]}

    def data_class_names(self) -> list[str]:
        """The names ``split_counts`` follows."""
        return self.manifest.data.class_names or self.evaluation.class_names


def load_records(run: Path) -> RunRecords:
    """Read the records of the run folder ``run``.

    Raises RunError where the folder is missing, is no run folder, has not been evaluated yet, or where a record
    is damaged or contradicts itself.
    """
    if not run.is_dir():
        found = "a file" if run.exists() else "nothing"
        raise RunError(f"{run} is not a run folder: found {found} there. Name the folder that hemascope train wrote.")
    manifest_text = _read(run, "manifest.json")
    evaluation_text = _read(run, "evaluation.json")
    if evaluation_text is None:
        if manifest_text is None:
            raise RunError(
                f"{run} is not a run folder: it has neither manifest.json nor evaluation.json. "
                "Name the folder that hemascope train wrote."
            )
        raise RunError(
            f"{run} is incomplete: it has no evaluation.json, so training or evaluation has not finished. "
            "Resume the run with the command that started it, then render the report again."
        )
    evaluation = _parse(run / "evaluation.json", evaluation_text, Evaluation)
    _check_evaluation(run / "evaluation.json", evaluation)
    manifest = Manifest() if manifest_text is None else _parse(run / "manifest.json", manifest_text, Manifest)
    _check_data(run / "manifest.json", manifest.data)
    config_text = _read(run, "config.toml")
    if config_text is not None:
        _check_toml(run / "config.toml", config_text)
    history_text = _read(run, "history.jsonl")
    stages, notes, cut_short = _history(run / "history.jsonl", history_text or "")
    trust_text = _read(run, TRUST)
    texts = {"manifest.json": manifest_text, "config.toml": config_text, "history.jsonl": history_text}
    return RunRecords(
        folder=run,
        evaluation=evaluation,
        manifest=manifest,
        config_text=config_text,
        stages=stages,
        notes=notes,
        pictures=gallery_pictures(run, [m.picture for m in (*evaluation.worst_mistakes, *evaluation.certain_mistakes)]),
        samples=sample_rows(run, evaluation.class_names),
        missing=tuple(name for name, text in texts.items() if text is None),
        cut_short=cut_short,
        trust=None if trust_text is None else _parse(run / TRUST, trust_text, TrustReport),
    )


def _read(run: Path, name: str) -> str | None:
    """The text of a record, or None where there is none."""
    path = run / name
    try:
        if not path.exists():
            return None
        if not path.is_file():
            raise RunError(f"{path} is not a file, so it cannot be read as a record of the run.")
        size, limit = path.stat().st_size, _SIZE_LIMITS[name]
        if size > limit * MEGABYTE:
            raise RunError(f"{path} has {size / MEGABYTE:.0f} MB, more than the {limit} MB a record may have.")
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise RunError(f"{path} is damaged: it is not UTF-8 text (byte {error.start}).") from error


def _problem(error: ValidationError) -> str:
    """The first thing pydantic found, as part of a sentence."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    message = first["msg"].rstrip(".")
    return f"{where}: {message}" if where else message


def _parse(path: Path, text: str, model: type[_Model]) -> _Model:
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise RunError(
            f"{path} is damaged or of another version ({_problem(error)}). Restore it, or evaluate the run again."
        ) from error


def _check_evaluation(path: Path, evaluation: Evaluation) -> None:
    """The numbers must fit each other: K classes, K × K confusion counts, none negative."""

    def refuse(what: str) -> RunError:
        return RunError(f"{path} contradicts itself: {what}. Evaluate the run again.")

    k = len(evaluation.class_names)
    if not evaluation.splits or not k:
        raise refuse("it has no classes" if not k else "it has no splits")
    for name, split in evaluation.splits.items():
        if len(split.per_class) != k:
            raise refuse(f"{name} has {len(split.per_class)} classes where {k} are named")
        if len(split.confusion) != k or any(len(row) != k for row in split.confusion):
            raise refuse(f"the confusion matrix of {name} is not {k} × {k}")
        if any(not 0 <= count <= 10**12 for row in split.confusion for count in row):
            raise refuse(f"the confusion matrix of {name} holds a count that is no count")
        if any(not 0 <= one.support <= 10**12 for one in split.per_class):
            raise refuse(f"{name} has a class with an impossible number of images")


def _check_data(path: Path, data: DataRecord) -> None:
    k = len(data.class_names)
    for name, counts in {"class_counts": data.class_counts, **data.split_counts}.items():
        if k and counts and len(counts) != k:
            raise RunError(f"{path} contradicts itself: {name} has {len(counts)} counts where {k} classes are named.")
    lengths = {len(counts) for counts in data.split_counts.values()}
    if len(lengths) > 1 or (data.split_counts and not k):
        raise RunError(f"{path} contradicts itself: split_counts do not follow one list of class_names.")


def _check_toml(path: Path, text: str) -> None:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RunError(f"{path} is damaged: {error}.") from error


def _history(path: Path, text: str) -> tuple[tuple[StageHistory, ...], tuple[str, ...], bool]:
    """The stages in order of appearance, the notes, and whether the last line was cut off by a kill."""
    steps: dict[str, dict[float, StepRecord]] = {}
    epochs: dict[str, dict[float, EpochRecord]] = {}
    notes: list[str] = []
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record: Any = _LINE.validate_json(line)
        except ValidationError as error:
            if number == len(lines):  # no newline behind it: the process was killed while writing it
                return _stages(steps, epochs), tuple(notes), True
            raise RunError(f"{path} is damaged in line {number}: it is not a record of training.") from error
        if isinstance(record, _OtherRecord) and record.kind in _KNOWN_KINDS:
            raise RunError(f"{path} is damaged in line {number}: a {record.kind} with a field that does not fit.")
        if isinstance(record, StepRecord | EpochRecord):
            if not isfinite(record.epoch) or abs(record.epoch) > 1e9:
                raise RunError(f"{path} is damaged in line {number}: {record.epoch} is no epoch.")
            for table in (steps, epochs):
                table.setdefault(record.stage, {})
            if isinstance(record, StepRecord):
                steps[record.stage][record.epoch] = record
            else:
                epochs[record.stage][record.epoch] = record
        elif isinstance(record, NoteRecord) and record.message:
            notes.append(f"{record.stage}: {record.message}" if record.stage else record.message)
    return _stages(steps, epochs), tuple(notes), False


def _stages(
    steps: dict[str, dict[float, StepRecord]], epochs: dict[str, dict[float, EpochRecord]]
) -> tuple[StageHistory, ...]:
    return tuple(
        StageHistory(
            name=name,
            steps=tuple(step for _, step in sorted(steps[name].items())),
            epochs=tuple(epoch for _, epoch in sorted(epochs[name].items())),
        )
        for name in steps
    )
