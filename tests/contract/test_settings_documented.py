"""A setting that nobody can read about does not exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.settings import Settings, settings_table

README = Path(__file__).parents[2] / "README.md"


def test_every_setting_says_what_it_does():
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_is_in_the_readme(name):
    assert f"`KARYON_{name.upper()}`" in README.read_text()


def test_the_table_names_every_setting():
    assert settings_table().count("\n| `KARYON_") == len(Settings.model_fields)
