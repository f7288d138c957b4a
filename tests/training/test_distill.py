"""A student learns from its teacher's maps."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from app.nuclei import Segmenter, load_artifact
from app.nuclei.artifact import default_store
from app.nuclei.types import HoverMaps
from app.nuclei.views import PAPER_VIEWS, VIEWS, View
from tests.drawn import InkEngine, draw_tissue
from tests.training.test_data import write_lizard
from training import distill as distilling
from training import losses
from training.augment import Jitter
from training.config import RunConfig
from training.data import lizard
from training.data.crops import RandomCrops, soft_targets
from training.data.sample import Sample
from training.deployed import Deployed, TorchEngine, TrainedMember
from training.distill import check_scale, distill, name_of_teacher, of_runs, packed, teacher_of, unlabelled
from training.distributed import Team
from training.network import Logits
from training.train import loss_of, random_crops, train


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": "student",
            "network": "lite-narrow",
            "threads": 1,
            "workers": 0,
            "data": {"sources": ["glas"], "validation": 0.34, "crop": 64, "crops_per_epoch": 4},
            "recipe": {"epochs": 1, "batch": 2},
            "distill": {"teacher": "karyon-lite"},
        }
    )


def _maps(image: np.ndarray) -> HoverMaps:
    return InkEngine().predict(image[None])[0]


@pytest.mark.parametrize("view", VIEWS, ids=lambda v: v.name)
def test_a_turned_crop_has_turned_maps_and_arrows(view: View) -> None:
    image = draw_tissue(64, 64)
    turned = _maps(np.ascontiguousarray(view.see(image)))
    soft = soft_targets(packed(_maps(image)).astype(np.float32), view, labelled=True)
    np.testing.assert_allclose(soft["soft_np"], turned.np_prob, atol=2e-3)
    np.testing.assert_allclose(soft["soft_hv"].permute(1, 2, 0), turned.hv, atol=0.2)  # centres round to a pixel
    np.testing.assert_allclose(soft["soft_nc"].permute(1, 2, 0), turned.type_prob, atol=2e-3)


def test_a_student_that_says_what_its_teacher_says_is_right() -> None:
    maps = _maps(draw_tissue(64, 64))
    soft = {k: v[None] for k, v in soft_targets(packed(maps).astype(np.float32), VIEWS[0], labelled=True).items()}
    said = Logits(
        torch.stack([1 - soft["soft_np"], soft["soft_np"]], 1).clamp_min(1e-9).log(),
        torch.atanh(soft["soft_hv"].clamp(-0.999999, 0.999999)),
        soft["soft_nc"].clamp_min(1e-9).log(),
    )
    assert all(float(v) == pytest.approx(0, abs=1e-3) for v in losses.soft_terms(said, soft).values())


def test_unlabelled_images_teach_through_the_teacher_alone(tmp_path: Path, config: RunConfig) -> None:
    cv2.imwrite(str(tmp_path / "more.png"), draw_tissue(80, 90)[..., ::-1])
    samples = unlabelled(tmp_path)
    maps = [packed(_maps(s.image)) for s in samples]
    crops = RandomCrops(samples, 64, 2, Jitter(), 0.5, 1, teacher=maps, labelled=0)
    batch = {k: v[None] for k, v in crops[0].items()}
    parts, loss = loss_of(
        Logits(torch.zeros(1, 2, 64, 64), torch.zeros(1, 2, 64, 64), torch.zeros(1, 7, 64, 64)), batch, config
    )
    assert set(parts) == set(losses.SOFT_WEIGHTS)
    assert float(loss) == pytest.approx(sum(losses.SOFT_WEIGHTS[n] * float(v) for n, v in parts.items()))


def test_a_student_trains_on_labels_and_maps(tmp_path: Path, config: RunConfig) -> None:
    data = write_lizard(tmp_path / "lizard", [f"glas_{i}" for i in range(6)])
    samples = lizard.read(data, ["glas"])
    own = random_crops(config, samples)
    maps = [packed(_maps(s.image)) for s in samples]
    crops = RandomCrops(samples, own.size, own.length, own.jitter, 0.0, own.seed, teacher=maps)
    train(config, data, tmp_path / "run", crops=crops)
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        row = next(iter(csv.DictReader(file)))
    assert {"train_soft_nc", "train_nc_ce", "validation_nc_ce"} <= set(row)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, config: RunConfig) -> tuple[Path, list[Path]]:
    """A data set, and two runs that learnt from it."""
    home = tmp_path_factory.mktemp("teachers")
    data = write_lizard(home / "lizard", [f"glas_{i}" for i in range(6)])
    for seed in (1, 2):
        train(config.model_copy(update={"seed": seed}), data, home / str(seed))
    return data, [home / "1", home / "2"]


def unlabelled_sample(image: np.ndarray, mpp: float) -> Sample:
    return Sample("s", "drawn", "s", image, np.zeros(image.shape[:2], np.int32), np.zeros(1, np.uint8), mpp)


def _taught_by(config: RunConfig, runs: list[Path], profile: str = "fast") -> RunConfig:
    wanted = {"teacher": "", "teacher_runs": tuple(map(str, runs)), "profile": profile}
    return config.model_copy(update={"distill": config.distill.model_copy(update=wanted)})


def test_run_folders_teach_the_mean_of_what_they_say(config: RunConfig, runs: tuple[Path, list[Path]]) -> None:
    image = draw_tissue(256, 256)
    taught = of_runs(runs[1], _taught_by(config, runs[1]))(image)
    said = [
        TorchEngine(Deployed(TrainedMember.read(run / "best.pt").network)).predict(image[None])[0] for run in runs[1]
    ]
    np.testing.assert_allclose(taught.type_prob, (said[0].type_prob + said[1].type_prob) / 2, atol=1e-6)


def test_a_teacher_of_three_views_says_the_mean_of_what_it_says_in_each(
    config: RunConfig, runs: tuple[Path, list[Path]]
) -> None:
    image = draw_tissue(256, 256)
    one, three = (of_runs(runs[1], _taught_by(config, runs[1], profile)) for profile in ("fast", "accurate"))
    each = [view.unsee(one(np.ascontiguousarray(view.see(image)))) for view in PAPER_VIEWS]
    taught = three(image)
    for name in ("np_prob", "hv", "type_prob"):
        mean = np.mean([getattr(maps, name) for maps in each], axis=0)
        np.testing.assert_allclose(getattr(taught, name), mean, atol=1e-5)


def test_a_teacher_sees_an_image_of_any_size_whole(config: RunConfig, runs: tuple[Path, list[Path]]) -> None:
    teacher = of_runs(runs[1], _taught_by(config, runs[1]))
    image = draw_tissue(192, 160)
    whole, part = teacher(image), teacher(image[:171, :133])
    assert part.np_prob.shape == (171, 133)
    assert part.hv.shape == (171, 133, 2)
    # Far from what the mirror fills up the answers are those of the larger image, but for what squeeze-and-excitation
    # makes of its other mean.
    assert np.abs(whole.np_prob[:64, :64] - part.np_prob[:64, :64]).mean() < 0.02


def test_a_student_of_run_folders_trains(tmp_path: Path, config: RunConfig, runs: tuple[Path, list[Path]]) -> None:
    data, teachers = runs
    alone = Team(0, 1, torch.device("cpu"))
    best = distill(_taught_by(config, teachers), data, tmp_path / "student", tmp_path / "no-store", alone)
    assert best.exists()
    assert len(list((tmp_path / "student" / "teacher").glob("*/*.npy"))) == 4


def test_maps_of_another_teacher_are_not_taken_for_its_own(
    tmp_path: Path, config: RunConfig, runs: tuple[Path, list[Path]]
) -> None:
    pair, one = _taught_by(config, runs[1]), _taught_by(config, runs[1][:1])
    bf16 = pair.model_copy(update={"recipe": pair.recipe.model_copy(update={"bf16": True})})
    names = [name_of_teacher(taught, tmp_path) for taught in (pair, one, _taught_by(config, runs[1], "accurate"), bf16)]
    assert len(set(names)) == 4
    assert name_of_teacher(pair, tmp_path) == names[0]


def test_a_large_image_is_taught_in_patches_as_a_small_one_is_whole(
    config: RunConfig, runs: tuple[Path, list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = of_runs(runs[1], _taught_by(config, runs[1]))
    image = draw_tissue(256, 256)
    whole = teacher(image)
    monkeypatch.setattr(distilling, "LARGEST", 0)
    assert teacher(image).furthest_from(whole) < 1e-5


def test_a_shipped_teacher_that_may_know_the_validation_images_is_refused(config: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="karyon-lite learnt with other sources"):
        teacher_of(config, [], default_store())


def test_data_at_another_scale_than_the_teachers_are_refused() -> None:
    sample = unlabelled_sample(draw_tissue(64, 64), mpp=0.25)
    with pytest.raises(ValueError, match=r"works at 0\.5 um per pixel"):
        check_scale(Segmenter(load_artifact("karyon-lite"), InkEngine()), [sample])


def test_a_teacher_that_may_know_the_validation_images_is_refused(
    config: RunConfig, runs: tuple[Path, list[Path]]
) -> None:
    other = config.model_copy(update={"data": config.data.model_copy(update={"split_seed": 1})})
    with pytest.raises(ValueError, match="learnt with other split_seed"):
        of_runs(runs[1], _taught_by(other, runs[1]))


def test_a_run_without_a_teacher_is_refused(tmp_path: Path, config: RunConfig) -> None:
    with pytest.raises(ValueError, match=r"no \[distill\] teacher"):
        name_of_teacher(_taught_by(config, []), tmp_path)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no image"):
        unlabelled(tmp_path)
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"broken\.png"):
        unlabelled(tmp_path)
