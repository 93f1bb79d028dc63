"""What readers of volumes share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossmed_core.errors import UnreadableImageError
from crossmed_core.volumes import CHOICES, chosen_slices, compared, folder_names, reason, spaced


@given(st.lists(st.integers(0, 30), max_size=40), st.integers(1, 12), st.sampled_from(CHOICES), st.integers(1, 20))
def test_slices_against_brute_force(areas: list[int], most: int, choice: str, least: int) -> None:
    chosen = chosen_slices(np.array(areas, dtype=np.int64), most, choice=choice, least=least)
    able = [z for z, area in enumerate(areas) if area >= least]
    assert len(chosen) == min(most, len(able))
    if choice == "largest":
        assert chosen == sorted(sorted(able, key=lambda z: (-areas[z], z))[:most])
    else:
        gaps = np.diff([able.index(z) for z in chosen])
        assert chosen == sorted(set(chosen)) and set(chosen) <= set(able)
        assert len(gaps) == 0 or (chosen[0], chosen[-1]) == (able[0], able[-1])
        assert len(gaps) == 0 or (gaps.min() >= 1 and np.ptp(gaps) <= 1)


@given(st.integers(0, 300), st.integers(1, 50))
def test_few_values_are_all_taken(count: int, most: int) -> None:
    taken = spaced(np.arange(count), most)
    assert len(taken) == min(count, most) and all(type(value) is int for value in taken)


def test_folders_are_listed_without_junk(tmp_path: Path) -> None:
    for name in ("a", "._a", "__MACOSX"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert sorted(folder_names(tmp_path)) == ["a", "link"]
    assert folder_names(tmp_path / "file") == folder_names(tmp_path / "nowhere") == []


def test_reasons_do_not_name_the_file_again() -> None:
    assert reason(UnreadableImageError("/data/a.nii: truncated"), Path("/data/a.nii")) == "truncated"
    assert reason(UnreadableImageError("its shape differs"), Path("/data/a.nii")) == "its shape differs"


@pytest.mark.parametrize(
    ("found", "otherwise", "verdict"),
    [(3, "hint", "ok"), ("3", "hint", "ok"), (4, "hint", "hint"), (4, "differs", "differs")],
)
def test_facts_are_compared_as_text(found: object, otherwise: str, verdict: str) -> None:
    assert compared("cases", found, 3, otherwise=otherwise) == ("cases", str(found), "3", verdict)
