"""Was this very question asked before by the same caller? Then the answer is there, if it was kept.

Off unless `KARYON_CACHE_BYTES` says otherwise, and not for bulk: jobs ask once. A kept answer is the fresh one, byte
for byte, but for the id of the request; `provenance.created` says when the analysis was made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from cachetools import LRUCache

from app import __version__
from app.nuclei.artifact import Artifact
from app.nuclei.types import Mpp, Profile

OVERHEAD = 1024  # bytes that an entry takes beside its answer, roughly


class Question(NamedTuple):
    """All that decides an answer, and who may have it.

    The bytes received stand for the pixels: a file that holds the same ones in another way has another provenance.
    """

    tenant: str
    input_sha256: str
    mpp: Mpp | None
    profile: Profile
    media_type: str
    model: str
    code: str


def question(
    tenant: str, data: bytes, mpp: Mpp | None, profile: Profile, media_type: str, artifact: Artifact, revision: str
) -> Question:
    """The question that a request asks; hashes its bytes, so it is asked in a thread."""
    model = f"{artifact.name}@{artifact.version}:{artifact.sha256}"
    digest = hashlib.sha256(data).hexdigest()
    return Question(tenant, digest, mpp, profile, media_type, model, f"{__version__}+{revision}")


@dataclass(frozen=True, slots=True)
class Written:
    """An answer as it is sent.

    Attributes:
        body: the bytes.
        headers: that say what made it, those of one request left out.
        request_id: of the request that it was written for.
        bucket, nuclei: what the log says of it.
    """

    body: bytes
    headers: Mapping[str, str]
    request_id: str
    bucket: str
    nuclei: int

    def again(self, request_id: str) -> Written:
        """The same answer for another request."""
        old, new = (f'"request_id":"{one}"'.encode() for one in (self.request_id, request_id))
        return Written(self.body.replace(old, new, 1), self.headers, request_id, self.bucket, self.nuclei)


class ResultCache:
    """The answers asked for last, as many as fit. Used from the event loop alone, so it needs no lock."""

    def __init__(self, most_bytes: int) -> None:
        """Nothing kept.

        Args:
            most_bytes: of all answers together; 0 keeps none.
        """
        self._kept: LRUCache[Question, Written] = LRUCache(most_bytes, lambda written: len(written.body) + OVERHEAD)

    def __bool__(self) -> bool:
        return self._kept.maxsize > 0

    @property
    def bytes(self) -> int:
        """That the kept answers take."""
        return int(self._kept.currsize)

    def get(self, asked: Question, request_id: str) -> Written | None:
        """The answer, if it is kept."""
        found = self._kept.get(asked)
        return None if found is None else found.again(request_id)

    def put(self, asked: Question, written: Written) -> None:
        """Keep an answer; one that does not fit at all is not kept."""
        if len(written.body) + OVERHEAD <= self._kept.maxsize:
            self._kept[asked] = written
