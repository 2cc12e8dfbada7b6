"""What an explanation says: frozen, torch-free, and as JSON on disk."""

from __future__ import annotations

from pydantic import Field

from hemascope.results import SavedRecord


class MethodResult(SavedRecord):
    """One map of one cell, and whether it tells what the network used.

    method                              of ``hemascope.explain.cams.METHODS``
    target                              name of the class explained
    insertion, deletion                 areas under the class's probability, 0 to 1 (Petsiuk et al. 2018)
    random_insertion, random_deletion   the same of maps that know nothing, mean over several
    in_cell, in_nucleus                 share of the map there; None for an empty map or where the stain shows none
    agreement                           correlation with the map of the augmented version, turned back; None without one
    trustworthy                         whether nothing speaks against the map
    reasons                             what does, in words
    """

    method: str
    target: str
    insertion: float
    deletion: float
    random_insertion: float
    random_deletion: float
    in_cell: float | None = None
    in_nucleus: float | None = None
    agreement: float | None = None
    trustworthy: bool
    reasons: tuple[str, ...] = ()


class CellExplanation(SavedRecord):
    """One cell with a map a method.

    label, probability           the class predicted, which is the class explained
    true_label                   "" where nobody has said
    augmented_label, augmented_probability   what the augmented version was named, and how probable the cell's own class
                                 is there; "" and None without one
    words                        description of the cell, "" where the model gives none
    review_reason                of ``results.REVIEW_REASONS``, "" where no person needs to look or nothing is known
    picture                      name of the PNG in ``overlays/``
    """

    id: str
    label: str
    probability: float
    true_label: str = ""
    augmented_label: str = ""
    augmented_probability: float | None = None
    words: str = ""
    review_reason: str = ""
    picture: str
    methods: tuple[MethodResult, ...]


class UnreadableImage(SavedRecord):
    """An image that could not be read, and why."""

    id: str
    reason: str


class ExplainReport(SavedRecord):
    """What ``explain.json`` holds.

    policy      the augmentation policy the second versions are drawn from, "" without them
    assessed    whether the model was calibrated, so that it says which cells to look at
    part        of the labelled set, "" where images were given
    sanity      by method, a few cells: rank correlation of its maps with those of a network whose last layer was drawn
                anew; a map about the class is near 0
    """

    version: int = 1
    model: str
    model_sha256: str
    methods: tuple[str, ...]
    policy: str = ""
    part: str = ""
    seed: int
    assessed: bool = False
    class_names: tuple[str, ...]
    cells: tuple[CellExplanation, ...]
    unreadable: tuple[UnreadableImage, ...] = ()
    notes: tuple[str, ...] = ()
    sanity: dict[str, float] = Field(default_factory=dict)
    created: str = ""
    command: str = ""

    def holding(self, method: str) -> int:
        """How many of the cells have a map by ``method`` that nothing speaks against."""
        return sum(one.trustworthy for cell in self.cells for one in cell.methods if one.method == method)
