"""Slugs, synonyms, containment, shared factors."""

from __future__ import annotations

import pytest

from crossmed_core.types import MAT
from crossmed_core.vocabulary import (
    LIES_IN,
    SYNONYMS,
    canonical,
    canonical_cell,
    lies_in,
    shared_factors,
    words,
)


@pytest.mark.parametrize(
    ("word", "slug"),
    [("X-Ray", "xray"), ("CXR", "xray"), ("Thorax", "chest"), ("T2 weighted MRI", "t2"), ("seg", "segmentation")],
)
def test_synonyms(word: str, slug: str) -> None:
    assert canonical(word) == slug


def test_synonyms_are_stable() -> None:
    assert all(canonical(slug) == slug for slug in SYNONYMS.values())
    assert not set(SYNONYMS) & set(SYNONYMS.values())


def test_containment_is_a_tree() -> None:
    for anatomy in LIES_IN:
        seen, place = set(), anatomy
        while place in LIES_IN:
            assert place not in seen, f"{anatomy} lies in itself"
            seen.add(place)
            place = LIES_IN[place]


def test_lung_lies_in_chest_but_not_the_other_way() -> None:
    assert lies_in("lung", "chest") and not lies_in("chest", "lung")
    assert lies_in("colon", "abdomen"), "containment carries over"


def test_shared_factors_by_hand() -> None:
    xray, ct = MAT("xray", "chest", "classification"), MAT("ct", "lung", "classification")
    assert shared_factors(xray, ct) == {"anatomy", "task"}
    assert shared_factors(xray, ct, containment=False) == {"task"}
    assert shared_factors(xray, xray) == {"modality", "anatomy", "task"}
    # Two organs of one region are not the same place.
    assert shared_factors(MAT("ct", "liver", "a"), MAT("ct", "kidney", "a")) == {"modality", "task"}


def test_mri_sequences_are_mri_but_not_each_other() -> None:
    t1, t2, mri = (MAT(modality, "brain", "finding") for modality in ("t1", "t2", "mri"))
    assert "modality" in shared_factors(t1, mri) and "modality" in shared_factors(mri, t2)
    assert "modality" not in shared_factors(t1, t2)
    assert "modality" not in shared_factors(t1, mri, containment=False)


@pytest.mark.parametrize("text", ["", "ct/chest", "ct//seg", "a/b/c/d"])
def test_not_a_cell(text: str) -> None:
    with pytest.raises(ValueError, match="is not a cell"):
        canonical_cell(text)


def test_a_cell_as_people_write_it() -> None:
    assert str(canonical_cell("CXR / Thorax / Seg")) == "xray/chest/segmentation"
    assert words("t2") == "T2-weighted MRI" and words("left-atrium") == "left atrium"
