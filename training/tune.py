"""Which operating point and temperature suit a network? Those that fit its validation images, never held-out ones.

    python -m training.tune runs/lite

writes operating_point.json and calibration.json into the run folder, which training.export then puts into the
manifest, operating_points.csv, every point that was tried with its score, and validation.json, by which networks are
chosen: the validation images' scores at the chosen point.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from app.nuclei import hover, instances, metrics, tiling
from app.nuclei.artifact import sha256_of
from app.nuclei.engine import mean
from app.nuclei.hover import OperatingPoint
from app.nuclei.types import HoverMaps, Profile, UInt8
from app.nuclei.views import average
from training import calibrate
from training.config import RunConfig
from training.data import lizard
from training.data.sample import Sample
from training.deployed import VIEWS_OF, Deployed, TorchEngine, TrainedMember
from training.export import MARGIN, PATCH_SIZES
from training.scores import SCORES, WHOLE_IMAGE, score_image
from training.train import split

GRID: Mapping[str, Sequence[Any]] = {
    "marker_threshold": (0.3, 0.35, 0.4, 0.45, 0.5, 0.55),
    "sobel_taps": (3, 5, 7, 9, 11),
    "opening_size": (1, 3, 5),
    "smallest_marker": (3, 5, 8, 12),
    "smallest_object": (3, 8, 16, 24),
    "nucleus_threshold": (0.4, 0.45, 0.5, 0.55),
}
SCALES = (0.6, 0.8, 1.0, 1.25, 1.6)


def maps_of(predict: Callable[[UInt8], HoverMaps], image: UInt8) -> HoverMaps:
    """Maps of a whole image, (H, W), from those of (1, P, P) patches."""
    plan = tiling.plan(image.shape[0], image.shape[1], PATCH_SIZES, MARGIN)
    return plan.stitch([predict(np.ascontiguousarray(patch)[None])[0] for patch in plan.cut(image)])


def validation_maps(
    run: Path, samples: Sequence[Sample], profile: Profile = "fast", bf16: bool = False
) -> list[HoverMaps]:
    """A run's maps (H, W) of its validation images; kept in its folder, under a name that tells weights and way.

    Args:
        run: folder of training.train.
        samples: its validation images.
        profile: views that are averaged.
        bf16: calculate in bfloat16.
    """
    weights = run / "best.pt"
    folder = run / "validation-maps" / f"{sha256_of(weights)[:12]}-{profile}{'-bf16' if bf16 else ''}"
    folder.mkdir(parents=True, exist_ok=True)
    engine: TorchEngine | None = None
    found = []
    for sample in tqdm(samples, desc=run.name):
        path = folder / f"{sample.name}.npz"
        if not path.exists():
            engine = engine or TorchEngine(Deployed(TrainedMember.read(weights).network), bf16)
            maps = maps_of(partial(average, engine.predict, views=VIEWS_OF[profile]), sample.image)
            np.savez(path.with_suffix(".new.npz"), np_prob=maps.np_prob, hv=maps.hv, type_prob=maps.type_prob)
            path.with_suffix(".new.npz").replace(path)
        with np.load(path) as kept:
            found.append(HoverMaps(kept["np_prob"], kept["hv"], kept["type_prob"]))
    return found


def score(point: OperatingPoint, samples: Sequence[Sample], maps: Sequence[HoverMaps]) -> float:
    """Mean over images of the panoptic quality without classes (bPQ)."""
    pairs = (
        (s.instance_map, instances.tidy(hover.separate(m.np_prob, m.hv, point))[0])
        for s, m in zip(samples, maps, strict=True)
    )
    return metrics.bpq(pairs)


def tune(
    start: OperatingPoint, samples: Sequence[Sample], maps: Sequence[HoverMaps], rounds: int = 2
) -> tuple[OperatingPoint, list[dict[str, Any]]]:
    """Better one constant at a time, until a round betters none.

    Returns:
        The best point, and every point tried with its `bpq`, in order.
    """
    best, best_score = start, score(start, samples, maps)
    tried: list[dict[str, Any]] = [{**start.to_dict(), "bpq": best_score}]
    for _ in range(rounds):
        before = best
        for point in tqdm(_neighbours(best), desc="tune"):
            found = score(point, samples, maps)
            tried.append({**point.to_dict(), "bpq": found})
            if found > best_score:
                # Constants are all but independent: what bettered one is kept while the others are tried.
                changed = {
                    f.name for f in dataclasses.fields(point) if getattr(point, f.name) != getattr(before, f.name)
                }
                best = dataclasses.replace(best, **{name: getattr(point, name) for name in changed})
                best_score = score(best, samples, maps)
                tried.append({**best.to_dict(), "bpq": best_score})
        if best == before:
            break
    winner = max(tried, key=lambda row: row["bpq"])
    return OperatingPoint.from_dict({k: v for k, v in winner.items() if k != "bpq"}), tried


def validated(point: OperatingPoint, samples: Sequence[Sample], maps: Sequence[HoverMaps]) -> dict[str, float]:
    """Scores of the validation images at a point, their names as in `training.scores.SCORES`."""
    rows = []
    for sample, of_image in zip(samples, maps, strict=True):
        labels = instances.tidy(hover.separate(of_image.np_prob, of_image.hv, point))[0]
        kinds = np.append(np.uint8(0), instances.describe(labels, of_image.type_prob).type)
        truth = (sample.instance_map, sample.type_map)
        rows.append(score_image(sample.name, truth, (labels, kinds[labels]), []))
    everyone = range(len(rows))
    return {name: round(float(SCORES[name](rows, everyone)), 4) for name in WHOLE_IMAGE}


def _neighbours(point: OperatingPoint) -> list[OperatingPoint]:
    found = [
        dataclasses.replace(point, **{name: value})
        for name, values in GRID.items()
        for value in values
        if value != getattr(point, name)
    ]
    if point.hv_scale:
        low, high = point.hv_scale
        found += [dataclasses.replace(point, hv_scale=(low * s, high)) for s in SCALES if s != 1]
        found += [dataclasses.replace(point, hv_scale=(low, high * s)) for s in SCALES if s != 1]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="+", help="run folders of training.train, one a member")
    parser.add_argument("--profile", choices=["fast", "accurate"], default="fast", help="one view or three")
    parser.add_argument("--bf16", action="store_true", help="maps in bfloat16: for large networks, in half the time")
    parser.add_argument("--data", type=Path, default=lizard.default_root())
    arguments = parser.parse_args()
    home = arguments.run[0]
    config = RunConfig.model_validate_json((home / "config.json").read_text())
    _, validation = split(config, arguments.data)
    of_runs = [validation_maps(run, validation, arguments.profile, arguments.bf16) for run in arguments.run]
    maps = [mean(of_image) for of_image in zip(*of_runs, strict=True)]
    best, tried = tune(hover.NATIVE, validation, maps)
    (home / "operating_point.json").write_text(json.dumps(best.to_dict(), indent=1) + "\n")
    with (home / "operating_points.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(tried[0]))
        writer.writeheader()
        writer.writerows(tried)
    scores = validated(best, validation, maps)
    way = {"runs": [run.name for run in arguments.run], "profile": arguments.profile, "bf16": arguments.bf16}
    (home / "validation.json").write_text(json.dumps(way | scores, indent=1) + "\n")
    try:
        fitted = calibrate.fit(validation, maps, best)
    except calibrate.NothingFound as error:
        print(f"not calibrated: {error}")
    else:
        (home / "calibration.json").write_text(json.dumps(dataclasses.asdict(fitted), indent=1) + "\n")
        print(fitted)
    print(json.dumps({"bpq_at_the_papers_point": score(hover.PAPER, validation, maps), **scores}))
    print(best)


if __name__ == "__main__":
    main()
