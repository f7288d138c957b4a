"""What does the scheduler itself cost per patch? Prints microseconds of CPU time; the device is a clock that jumps."""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import time
from collections.abc import Callable

from app.serving.costs import CostModel
from app.serving.scheduler import Scheduler
from app.serving.work import Bucket, Work, WorkClass

MODEL = (0.002, 0.005, 16.0)
BUCKETS = [Bucket("ensemble@1", 3, 256), Bucket("ensemble@1", 3, 512), Bucket("lite@1", 1, 256)]


def scheduler(max_batch_cost: float) -> Scheduler:
    """An empty one that knows the buckets."""
    fresh = Scheduler()
    for bucket in BUCKETS:
        fresh.calibrate(bucket, CostModel(MODEL[0], MODEL[1], max_batch_cost))
    return fresh


def load(patches: int, tenants: int, buckets: list[Bucket], interactive: float) -> list[Work]:
    """A backlog of patches of many tenants, one class in `interactive` of all cases the other."""
    draw = random.Random(7)
    classes = [WorkClass.INTERACTIVE if draw.random() < interactive else WorkClass.BULK for _ in range(patches)]
    places = [draw.choice(buckets) for _ in range(patches)]
    return [
        Work(i, f"tenant {draw.randrange(tenants)}", one, place, place.cost(), 1e9 + i, 0.0)
        for i, (one, place) in enumerate(zip(classes, places, strict=True))
    ]


def serve(items: list[Work], max_batch_cost: float) -> None:
    """Submit in requests of 16 patches, then run everything."""
    queue, now = scheduler(max_batch_cost), 1.0
    for start in range(0, len(items), 16):
        queue.submit(items[start : start + 16])
    while batch := queue.pick(now, 64).batch:
        queue.done(batch, MODEL[0] * batch.cost + MODEL[1])
        now += 0.01


def serve_lone(items: list[Work], max_batch_cost: float) -> None:
    """One patch at a time: submitted, picked, done."""
    queue = scheduler(max_batch_cost)
    for item in items:
        queue.submit([item])
        batch = queue.pick(1.0, 64).batch
        assert batch is not None
        queue.done(batch, 0.007)


def cancel_all(items: list[Work], max_batch_cost: float) -> None:
    """Queue everything, then cancel it one by one."""
    queue = scheduler(max_batch_cost)
    queue.submit(items)
    for item in items:
        queue.cancel([item.id])


def measure(name: str, work: Callable[[list[Work], float], None], items: list[Work], max_batch_cost: float) -> None:
    """Print the median and the range of seven rounds."""
    micros = []
    for _ in range(7):
        gc.collect()
        began = time.process_time()
        work(items, max_batch_cost)
        micros.append((time.process_time() - began) / len(items) * 1e6)
    print(f"{name:58} {statistics.median(micros):6.1f} us a patch ({min(micros):.1f} to {max(micros):.1f})")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patches", type=int, default=4000)
    patches = parser.parse_args().patches
    one, three = BUCKETS[2:], BUCKETS
    measure("one tenant, one bucket, batches of 16", serve, load(patches, 1, one, 0.0), 16)
    measure("50 tenants, one bucket, batches of 16", serve, load(patches, 50, one, 0.0), 16)
    measure("50 tenants, three buckets, both classes, batches of 16", serve, load(patches, 50, three, 0.3), 48)
    measure("50 tenants, three buckets, both classes, one patch a batch", serve, load(patches, 50, three, 0.3), 1)
    measure("1,000 tenants, three buckets, both classes", serve, load(patches, 1000, three, 0.3), 48)
    measure("alone", serve_lone, load(patches, 50, three, 1.0), 16)
    measure("cancelled in the queue", cancel_all, load(patches, 50, three, 0.3), 16)


if __name__ == "__main__":
    main()
