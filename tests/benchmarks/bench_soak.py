"""Does the service grow? Half an hour of mixed load: tiles, batches, callers who hang up, bad input.

    python -m tests.benchmarks.bench_soak [--seconds 1800] [--every 10]

Load is about half of what the service can do. The figure is the growth of the process tree's memory (PSS, so what
processes share counts once) in MB per hour after the first fifth, as the median of the slopes between all looks.
Threads, files and processes must be back to what they were once the load is over.
"""

from __future__ import annotations

import os

import anyio

from tests.benchmarks.loading import entry, options, real_tiles, report, service
from tests.benchmarks.soaking import HOLDS, leaked, slope_mb_h, soak

BAR = 5.0
WARM_SHARE = 0.2
SHOWN = 20


def main() -> None:
    """Measure, print, merge."""
    own = options(__doc__, 1800.0, every=10.0)
    tiles = real_tiles()
    with service(**HOLDS) as server:
        found = anyio.run(soak, server, tiles, own.seconds, own.every)
    kept = [look for look in found.pss if look[0] >= WARM_SHARE * own.seconds]
    slope = slope_mb_h(kept)
    print(f"statuses {dict(found.statuses)}; {len(kept)} looks, {kept[0][1] / 1e6:.0f} to {kept[-1][1] / 1e6:.0f} MB")
    print("MB over time:", *(f"{size / 1e6:.0f}" for _, size in found.pss[:: max(1, len(found.pss) // SHOWN)]))
    print(f"idle before {found.before}\nidle after  {found.after}")
    left = sum(os.path.exists(path) for path in found.shared)
    gone = sum(leaked(found.before, found.after).values())
    errors = sum(n for status, n in found.statuses.items() if status >= 500 and status != 503)
    report(
        [
            entry("soak_rss_slope_mb_h", slope, "MB/h of PSS", BAR, slope < BAR),
            entry("soak_leaked", gone + left, "threads, files, processes, segments", 0, gone + left == 0),
            entry("soak_errors", errors, "answers 5xx that were no refusal", 0, errors == 0),
        ]
    )


if __name__ == "__main__":
    main()
