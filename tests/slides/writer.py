"""Writers that say after each commit what they have kept, until they are killed: `writer.py URL SLIDE`.

For each line on stdin a writer is forked off, so that ten of them cost one start of Python.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from app.slides.database import Database
from app.slides.store import Store
from tests.slides.kept import cut_up

PIECES = cut_up(64, overlap=24)


def say(*words: object) -> None:
    """One line by one call: whoever is killed has said it or not, never half of it."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def write(url: str, slide: str) -> None:
    store = Store(Database.open(url))
    say("writing")
    for tile in PIECES:
        kept = store.put_tile(slide, tile)
        say("kept", kept.tile_id, tile.content_sha256)


if __name__ == "__main__":
    for _ in sys.stdin:
        if (child := os.fork()) == 0:
            write(*sys.argv[1:])
            os._exit(0)
        say("pid", child)
        os.waitpid(child, 0)
        say("ended")
