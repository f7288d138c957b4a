"""How does a small network learn what a large one sees? From its maps, on labelled images and on others.

    python -m training.distill training/configs/lite-distilled.toml

The teacher's averaged maps of every image are computed once and kept in the run folder; the student then sees the same
varied crops of images and maps. A teacher of the model store is run by the very Segmenter that serves; one that is not
exported yet, `distill.teacher_runs`, by torch, on a GPU where there is one.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from hashlib import sha256
from pathlib import Path
from threading import Lock

import cv2
import numpy as np
import torch
from tqdm import tqdm

from app.nuclei import Segmenter, load_artifact
from app.nuclei.artifact import default_store, sha256_of
from app.nuclei.segmenter import SAME_SCALE
from app.nuclei.types import HoverMaps, UInt8
from app.nuclei.views import average
from training.config import RunConfig, load
from training.data import lizard
from training.data.crops import RandomCrops, Teaching
from training.data.sample import Sample
from training.deployed import VIEWS_OF, Deployed, Together, TorchEngine, TrainedMember
from training.distributed import Team, team
from training.train import check_beginning, random_crops, split, train
from training.tune import maps_of
from training.validation import check_unknown

AT_ONCE = 3
"""Images whose maps are made at the same time."""
MULTIPLE = 32
"""Every network halves an image at most five times."""
LARGEST = 2048 * 2048
"""Pixels of an image that is seen whole; cut into patches with margins it costs thrice as much, but less memory."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")


Teacher = Callable[[UInt8], HoverMaps]
"""Averaged maps (H, W) of an image (H, W, 3) at the networks' scale."""


def distill(config: RunConfig, data: Path, folder: Path, store: Path, together: Team) -> Path:
    """Train the student of a run; the path of its best weights. Raises what `taught_crops` and `train` do."""
    return train(config, data, folder, together, taught_crops(config, data, folder, store, together))


def taught_crops(config: RunConfig, data: Path, folder: Path, store: Path, together: Team) -> RandomCrops:
    """The crops that a run learns from, with its teacher's maps, which are made first.

    Raises:
        ValueError: the run names no teacher, or the teacher works at another scale than the data, or may know the
            images that the student is judged by.
    """
    training, _ = split(config, data)
    further = unlabelled(Path(config.distill.images)) if config.distill.images else []
    samples = [*training, *further]
    taught = folder / "teacher" / name_of_teacher(config, store)
    if together.leads:
        teach(teacher_of(config, training, store), samples, taught)
    together.agree(0.0)  # the others wait for the maps
    maps = [np.load(taught / f"{sample.name}.npy", mmap_mode="r") for sample in samples]
    own = random_crops(config, training)
    return RandomCrops(
        samples,
        own.size,
        own.length,
        own.jitter,
        own.rare_share,
        own.seed,
        teacher=maps,
        labelled=len(training),
        by_area=config.balance.by_area,
    )


def name_of_teacher(config: RunConfig, store: Path) -> str:
    """A folder name that differs wherever a teacher's maps may: by its weights, views and precision.

    Raises:
        ValueError: the run names no teacher.
    """
    wanted = config.distill
    if wanted.teacher:
        return f"{load_artifact(wanted.teacher, store).sha256[:12]}-{wanted.profile}"
    if not wanted.teacher_runs:
        raise ValueError("the run has no [distill] teacher")
    weights = "".join(sha256_of(Path(run) / "best.pt") for run in wanted.teacher_runs)
    precision = "-bf16" if config.recipe.bf16 else ""
    return f"{sha256(weights.encode()).hexdigest()[:12]}-{wanted.profile}{precision}"


def teacher_of(config: RunConfig, training: Sequence[Sample], store: Path) -> Teacher:
    """The teacher that a run names, which it must.

    Raises:
        ValueError: see `taught_crops`.
    """
    wanted = config.distill
    if not wanted.teacher:
        return of_runs([Path(run) for run in wanted.teacher_runs], config)
    artifact = load_artifact(wanted.teacher, store)
    check_unknown(artifact, config)
    segmenter = Segmenter(artifact)
    check_scale(segmenter, training)
    return partial(segmenter.maps, profile=wanted.profile)


def of_runs(runs: Sequence[Path], config: RunConfig) -> Teacher:
    """Run folders as one teacher: their maps averaged, in the views of the profile, as an exported model's are.

    Raises:
        ValueError: one of them divided its images otherwise than the student.
    """
    for run in runs:
        check_beginning(config, run / "best.pt")
    members = [Deployed(TrainedMember.read(run / "best.pt").network) for run in runs]
    engine = Together([TorchEngine(member, config.recipe.bf16) for member in members])
    one_at_a_time = Lock()

    def predict(patches: UInt8) -> HoverMaps:
        with one_at_a_time:  # large networks on whole images fill a device's memory
            return engine.predict(patches)

    averaged = partial(average, predict, views=VIEWS_OF[config.distill.profile])

    def maps(image: UInt8) -> HoverMaps:
        height, width = image.shape[:2]
        if height * width > LARGEST:
            return maps_of(averaged, image)
        whole = averaged(filled_up(image)[None])
        return HoverMaps(*(m[0, :height, :width] for m in (whole.np_prob, whole.hv, whole.type_prob)))

    return maps


def filled_up(image: UInt8) -> UInt8:
    """An image (H, W, 3) mirrored beyond its right and lower edge to the next multiple of what networks halve it to."""
    below, right = (-n % MULTIPLE for n in image.shape[:2])
    return np.pad(image, [(0, below), (0, right), (0, 0)], mode="symmetric")


def check_scale(teacher: Segmenter, samples: Sequence[Sample]) -> None:
    """Refuse data at another scale than the teacher's."""
    own = teacher.artifact.manifest.mpp
    if wrong := [s.name for s in samples if abs(s.mpp / own - 1) > SAME_SCALE]:
        raise ValueError(f"the teacher works at {own} um per pixel, {wrong[0]} is at another scale")


def teach(teacher: Teacher, samples: Sequence[Sample], folder: Path) -> None:
    """Write the teacher's maps of every image, (H, W, 10) float16; those that lie there are not made again."""
    folder.mkdir(parents=True, exist_ok=True)

    def write(sample: Sample) -> None:
        path = folder / f"{sample.name}.npy"
        if not path.exists():
            beside = path.with_suffix(".new.npy")
            np.save(beside, packed(teacher(sample.image)))
            beside.replace(path)

    # While one image's maps are put together a GPU sees the next one.
    with ThreadPoolExecutor(AT_ONCE if torch.cuda.is_available() else 1) as threads:
        list(tqdm(threads.map(write, samples), desc="teacher", total=len(samples)))


def packed(maps: HoverMaps) -> Teaching:
    """np_prob, hv and type_prob as (H, W, 10) float16."""
    together = np.concatenate([maps.np_prob[..., None], maps.hv, maps.type_prob], axis=-1)
    return np.asarray(together, np.float16)


def unlabelled(folder: Path) -> list[Sample]:
    """Every image of a folder as a sample without nuclei.

    Raises:
        ValueError: there is none, or one cannot be read; the message names it.
    """
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    if not paths:
        raise ValueError(f"{folder} holds no image")
    return [_unlabelled(path) for path in paths]


def _unlabelled(path: Path) -> Sample:
    bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if bgr is None:
        raise ValueError(f"{path} cannot be read as an image")
    image: UInt8 = np.ascontiguousarray(bgr[..., ::-1], np.uint8)
    nothing = np.zeros(image.shape[:2], np.int32)
    return Sample(f"unlabelled-{path.stem}", "unlabelled", path.stem, image, nothing, np.zeros(1, np.uint8), lizard.MPP)


def add_places(parser: argparse.ArgumentParser) -> None:
    """Where what a run needs lies, and what differs from its file."""
    parser.add_argument("--data", type=Path, default=lizard.default_root(), help="root of the Lizard data set")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where run folders lie")
    parser.add_argument("--store", type=Path, default=default_store(), help="where the teacher lies")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="in place of what CONFIG says")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, help="TOML file of the run, with a [distill] teacher")
    add_places(parser)
    arguments = parser.parse_args()
    config = load(arguments.config, arguments.set)
    with team() as together:
        print(distill(config, arguments.data, arguments.runs / config.name, arguments.store, together))


if __name__ == "__main__":
    main()
