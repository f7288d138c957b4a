"""Which processes separate nuclei for a service?"""

from __future__ import annotations

from pathlib import Path

from app.bench.processes import children


def nursery_of(service: int) -> int:
    """The process that a service's workers are forked from; there must be one."""
    (found,) = [one for one in children(service) if b"app.serving.nursery" in Path(f"/proc/{one}/cmdline").read_bytes()]
    return found


def workers_of(service: int) -> list[int]:
    """A service's workers."""
    return children(nursery_of(service))


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True
