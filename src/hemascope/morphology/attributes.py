"""The eleven attributes of WBCAtt, their values, and the words a haematologist would use for them.

Source of names and values: Tsutsui, Pang and Wen, "WBCAtt: A White Blood Cell Dataset Annotated with Detailed
Morphological Attributes", NeurIPS Datasets and Benchmarks 2023. The words are our own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hemascope.errors import DataError
from hemascope.names import listed, suggestion

DESCRIBED = ("basophil", "eosinophil", "lymphocyte", "monocyte", "neutrophil")
"""The classes WBCAtt describes, in lower case. Nothing is said of any other."""


@dataclass(frozen=True)
class Attribute:
    """One thing a haematologist looks at.

    name    as in WBCAtt's tables
    title   for people
    words   what each value is called where it stands alone, in the order values are numbered
    """

    name: str
    title: str
    words: Mapping[str, str]

    @property
    def values(self) -> tuple[str, ...]:
        """The values, in the order they are numbered."""
        return tuple(self.words)


ATTRIBUTES = {
    attribute.name: attribute
    for attribute in (
        Attribute("cell_size", "cell size", {"small": "small cell", "big": "large cell"}),
        Attribute("cell_shape", "cell shape", {"round": "round cell", "irregular": "irregular cell"}),
        Attribute(
            "nucleus_shape",
            "nucleus shape",
            {
                "unsegmented-band": "band-shaped nucleus",
                "unsegmented-round": "round nucleus",
                "unsegmented-indented": "indented nucleus",
                "segmented-bilobed": "bilobed nucleus",
                "segmented-multilobed": "multilobed nucleus",
                "irregular": "irregular nucleus",
            },
        ),
        Attribute(
            "nuclear_cytoplasmic_ratio",
            "nuclear-cytoplasmic ratio",
            {"low": "low N:C ratio", "high": "high N:C ratio"},
        ),
        Attribute("chromatin_density", "chromatin", {"densely": "dense chromatin", "loosely": "loose chromatin"}),
        Attribute("cytoplasm_vacuole", "vacuoles", {"no": "no vacuoles", "yes": "vacuoles"}),
        Attribute(
            "cytoplasm_texture",
            "cytoplasm texture",
            {"clear": "clear cytoplasm", "frosted": "frosted cytoplasm"},
        ),
        Attribute(
            "cytoplasm_colour",
            "cytoplasm colour",
            {
                "light blue": "pale blue cytoplasm",
                "blue": "blue cytoplasm",
                "purple blue": "purple-blue cytoplasm",
            },
        ),
        Attribute(
            "granule_type",
            "granule type",
            {
                "small": "fine granules",
                "round": "round granules",
                "coarse": "coarse granules",
                "nil": "no granules",
            },
        ),
        Attribute(
            "granule_colour",
            "granule colour",
            {"pink": "pink granules", "purple": "purple granules", "red": "red granules", "nil": "no granules"},
        ),
        Attribute("granularity", "granules", {"yes": "granules", "no": "no granules"}),
    )
}
"""All of them by name, in WBCAtt's order."""


def words_for(attribute: str, value: str) -> str:
    """What one value of one attribute is called, such as "red granules". Raises DataError for an unknown one."""
    known = ATTRIBUTES.get(attribute)
    if known is None:
        raise DataError(f"there is no attribute {attribute!r}: {suggestion(attribute, tuple(ATTRIBUTES))}")
    if value not in known.words:
        raise DataError(f"{attribute} has no value {value!r}; its values are {listed(known.values)}")
    return known.words[value]


def describe(values: Mapping[str, str]) -> str:
    """A cell in words, from the value of each attribute: "bilobed nucleus, dense chromatin, round red granules, ...".

    The nucleus comes first, then granules, cytoplasm and the cell as a whole, as in a report. Vacuoles are named only
    where there are some. Attributes that are missing are not spoken of; "" for none. Where granularity and the two
    other attributes of granules contradict each other, granularity stands: it is told best. Raises DataError for an
    unknown attribute or value.
    """
    said = {name: words_for(name, value) for name, value in values.items()}
    vacuoles = "vacuolated" if values.get("cytoplasm_vacuole") == "yes" else None
    parts = (
        said.get("nucleus_shape"),
        said.get("chromatin_density"),
        _granules(values),
        _joined(
            vacuoles, *(_stem(said.get(name)) for name in ("cytoplasm_texture", "cytoplasm_colour")), noun="cytoplasm"
        ),
        said.get("nuclear_cytoplasmic_ratio"),
        _joined(*(_stem(said.get(name)) for name in ("cell_size", "cell_shape")), noun="cell"),
    )
    return ", ".join(part for part in parts if part)


def _granules(values: Mapping[str, str]) -> str | None:
    kind, colour = values.get("granule_type"), values.get("granule_colour")
    there = values.get("granularity") or ("no" if "nil" in (kind, colour) else None)
    if there == "no":
        return "no granules"
    words = (
        _stem(words_for(name, value)) if value not in (None, "nil") else None
        for name, value in (("granule_type", kind), ("granule_colour", colour))
    )
    return _joined(*words, noun="granules") or ("granules" if there else None)


def _stem(words: str | None) -> str | None:
    """The words without their noun."""
    return None if words is None else words.rpartition(" ")[0]


def _joined(*adjectives: str | None, noun: str) -> str | None:
    said = [adjective for adjective in adjectives if adjective]
    return " ".join([*said, noun]) if said else None
