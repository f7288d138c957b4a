"""Codes are well formed, and stand in one table alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.formats import dicomcodes
from app.formats.dicomcodes import OF_CLASS, Coded
from app.nuclei.taxonomy import NAMES

CODES = [each for each in vars(dicomcodes).values() if isinstance(each, Coded)] + list(OF_CLASS.values())
APP = Path(dicomcodes.__file__).parents[1]

# Verhoeff (1969): multiplication in the dihedral group of a pentagon, and a permutation per place.
TIMES = [[(i + j) % 5 + 5 * (j > 4) if i < 5 else (i - j) % 5 + 5 * (j < 5) for j in range(10)] for i in range(10)]
SHUFFLE = [list(range(10)), [1, 5, 7, 6, 2, 8, 3, 0, 9, 4]]
for _ in range(6):
    SHUFFLE.append([SHUFFLE[1][digit] for digit in SHUFFLE[-1]])


def check_digit_holds(code: str) -> bool:
    sum_ = 0
    for place, digit in enumerate(reversed(code)):
        sum_ = TIMES[sum_][SHUFFLE[place % 8][int(digit)]]
    return sum_ == 0


@pytest.mark.parametrize("code", ["30987003", "113335008", "117241003"])
def test_a_code_typed_from_memory_fails_the_check_digit(code):
    assert not check_digit_holds(code)


@pytest.mark.parametrize("code", [each.value for each in CODES if each.scheme == dicomcodes.SNOMED])
def test_the_check_digit_of_every_snomed_code_holds(code):
    assert check_digit_holds(code)


def test_every_class_has_a_code_with_a_source():
    assert tuple(OF_CLASS) == NAMES
    assert all(each.source and len(each.value) <= 16 and len(each.meaning) <= 64 for each in CODES)


def test_codes_that_dicom_lists_have_the_meaning_that_dicom_gives():
    concepts = pytest.importorskip("pydicom.sr._concepts_dict", reason="the extra dicom is not installed").concepts
    for coded in CODES:
        listed = [row[coded.value][0] for row in concepts.get(coded.scheme, {}).values() if coded.value in row]
        assert not listed or coded.meaning in listed


def test_no_code_is_written_elsewhere():
    codes = {each.value for each in CODES if re.fullmatch(r"\d{6,}", each.value)}
    for path in APP.rglob("*.py"):
        if path.name != "dicomcodes.py":
            assert not codes & set(re.findall(r"\d{6,}", path.read_text())), path.name
