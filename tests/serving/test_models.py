"""Models are loaded once, proven before they serve, and leave when they are not used."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from app.nuclei.errors import ArtifactDrift, DigestMismatch, NotReady, UnknownModel
from app.nuclei.types import HoverMaps
from app.serving.models import Models


@dataclass
class Golden:
    """What of a manifest proving needs."""

    tolerance: float = 1e-3


@dataclass
class Paper:
    """A manifest of that alone."""

    golden: Golden


@dataclass
class Model:
    """A model whose golden maps are empty patches, level `maps`."""

    name: str
    level: float = 0.0
    version: str = "1"

    @property
    def manifest(self) -> Paper:
        return Paper(Golden())

    @property
    def golden(self):
        return np.zeros((1, 8, 8, 3), np.uint8), level(self.level)


def level(value: float) -> HoverMaps:
    shape = (1, 8, 8)
    return HoverMaps(
        np.full(shape, value, np.float32), np.zeros((*shape, 2), np.float32), np.zeros((*shape, 7), np.float32)
    )


class Flat:
    """An engine that gives level 0 everywhere."""

    def predict(self, patches):
        return level(0.0)


class Shelf:
    """A store of models a, b, c, one that drifts and one that is damaged; remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def load(self, reference: str) -> Model:
        self.asked.append(reference)
        if reference == "damaged":
            raise DigestMismatch("damaged")
        if reference not in ("a", "b", "c", "drifting"):
            raise UnknownModel(reference)
        return Model(reference, 0.5 if reference == "drifting" else 0.0)


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def models(shelf) -> Models:
    return Models(shelf.load, lambda artifact: Flat(), keep=2)


def test_a_model_is_loaded_at_its_first_use_only(models, shelf):
    assert models.get("a") is models.get("a")
    assert shelf.asked == ["a"]


def test_the_least_used_one_leaves(models, shelf):
    for name in ("a", "b", "a", "c", "a", "b"):
        models.get(name)
    assert shelf.asked == ["a", "b", "c", "b"]


def test_a_model_is_in_memory_once_however_it_is_spelled():
    opened = []
    models = Models(lambda reference: Model("a"), lambda artifact: opened.append(1) or Flat(), keep=2)
    assert models.get("a") is models.get("a@1") is models.find("a@1")
    assert len(opened) == 1


def test_who_watches_hears_what_comes_into_memory_and_what_leaves(shelf):
    heard = []
    models = Models(
        shelf.load, lambda artifact: Flat(), keep=1, watch=lambda one, there: heard.append((one.artifact.name, there))
    )
    for name in ("a", "a", "b"):
        models.get(name)
    assert heard == [("a", True), ("b", True), ("a", False)]


def test_a_model_that_drifts_is_refused_and_never_kept(models, shelf):
    for _ in range(2):
        with pytest.raises(NotReady):
            models.get("drifting")
    assert shelf.asked == ["drifting", "drifting"]


def test_the_start_hears_the_true_reason(models):
    with pytest.raises(ArtifactDrift):
        models.load("drifting")
    with pytest.raises(DigestMismatch):
        models.load("damaged")


def test_an_unknown_model_is_an_unknown_model(models):
    with pytest.raises(UnknownModel):
        models.get("nobody")


def test_each_phase_of_a_start_is_timed(models):
    phases = []
    models.load("a", lambda phase, seconds: phases.append(phase))
    assert phases == ["verify", "open", "prove", "enrol"]
