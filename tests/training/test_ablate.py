"""The paper's tables come out of one command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.layouts import write_lizard
from training import ablate
from training.ablate import WHOLE, Scale, layout, make, reduced, run_config
from training.distributed import Team
from training.network import NETWORKS
from training.scores import score_image
from training.tables import HELD_OUT, SOURCES, TABLES

ALONE = Team(0, 1, torch.device("cpu"))
TINY = Scale(
    "-narrow",
    (("data", {"crop": 64, "crops_per_epoch": 2, "validation": 0.4}), ("recipe", {"epochs": 1, "batch": 2})),
    images=1,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = [f"{source}_{i}" for source in SOURCES for i in range(1, 5)]
    return write_lizard(tmp_path_factory.mktemp("lizard"), names, size=(256, 256))


@pytest.mark.parametrize("table", list(TABLES))
@pytest.mark.parametrize("scale", [WHOLE, reduced()], ids=["whole", "reduced"])
def test_every_run_of_every_table_can_be_configured(table: str, scale: Scale) -> None:
    for variant in (v for row in TABLES[table][1] for v in row.members):
        config = run_config(variant, scale)
        assert config.network in NETWORKS
        assert variant.held_out not in config.data.sources


def test_the_whole_scale_is_the_papers_recipe() -> None:
    recipe = run_config(TABLES["11"][1][0].members[0], WHOLE).recipe
    assert (recipe.epochs, recipe.batch, recipe.optimizer, recipe.learning_rate) == (50, 16, "adam", 3e-4)


def test_a_table_is_trained_scored_and_laid_out_beside_the_papers(data: Path, tmp_path: Path) -> None:
    text = make("11", TINY, data, tmp_path, ALONE)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + 6
    assert rows[-1].split(" | ")[3:5] == ["0.5599", "0.8437"]
    assert {p.name for p in tmp_path.iterdir() if p.is_dir()} == {"seresnext50-narrow", "seresnext101-narrow"}
    assert (tmp_path / "table-11-narrow.md").read_text() == text + "\n"


def test_a_run_that_has_ended_is_not_trained_again(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variant = TABLES["11"][1][0].members[0]
    ablate.member(variant, TINY, data, tmp_path, ALONE)
    before = (tmp_path / "seresnext50-narrow" / "metrics.csv").read_text()
    ablate.member(variant, TINY, data, tmp_path, ALONE)
    assert (tmp_path / "seresnext50-narrow" / "metrics.csv").read_text() == before


def test_folds_by_source_never_learn_from_the_source_they_are_scored_on() -> None:
    for row in TABLES["10"][1]:
        assert all(row.title.endswith(v.held_out) and v.held_out not in v.sources for v in row.members)
    assert TABLES["10"][1][SOURCES.index(HELD_OUT)].members == TABLES["11"][1][-1].members


def test_what_the_paper_did_not_say_is_not_made_up() -> None:
    truth = (np.eye(256, dtype=np.int32), np.eye(256, dtype=np.uint8))
    scores = [score_image("one", truth, truth, [(truth, truth)])]
    unknown = layout("Table", [TABLES["6"][1][0]], [scores], WHOLE)
    assert unknown.splitlines()[-1].split(" | ")[3:5] == ["not known", "not known"]
