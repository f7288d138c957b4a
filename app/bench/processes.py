"""What does a process and its descendants hold? Memory, threads, files; 0 where there is no /proc."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SHM = "/dev/shm/"
LOOKS = 100


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a process tree holds: bytes (PSS), processes, threads, open files, and paths in /dev/shm that it maps."""

    pss_bytes: int
    processes: int
    threads: int
    files: int
    shared_memory: frozenset[str]


def holdings(pid: int) -> Holdings:
    """What a process and all its descendants hold now."""
    tree = [pid, *descendants(pid)]
    return Holdings(
        pss_bytes=pss_bytes(pid),
        processes=len(tree),
        threads=sum(_entries(f"/proc/{one}/task") for one in tree),
        files=sum(_entries(f"/proc/{one}/fd") for one in tree),
        shared_memory=frozenset(path for one in tree for path in _shared(one)),
    )


def pss_bytes(pid: int) -> int:
    """Memory of a process and all its descendants; what several share is counted once. 0 where /proc is not there."""
    return sum(_own_pss_bytes(one) for one in [pid, *descendants(pid)])


def descendants(pid: int) -> list[int]:
    """Process ids of children, their children and so on."""
    return [one for child in children(pid) for one in (child, *descendants(child))]


def children(pid: int) -> list[int]:
    """Process ids of direct children, of any of its threads."""
    for _ in range(LOOKS):
        try:
            tasks = os.listdir(f"/proc/{pid}/task")
        except OSError:
            return []
        # If a thread ends meanwhile, its children are another's: all are asked again. Where the system lists no
        # children, the main thread's list is missing too, and nobody has any.
        with suppress(FileNotFoundError, ProcessLookupError):
            found = [Path(f"/proc/{pid}/task/{task}/children").read_text().split() for task in tasks]
            return [int(child) for listed in found for child in listed]
        if not Path(f"/proc/{pid}/task/{pid}/children").exists():
            return []
    raise RuntimeError(f"the threads of process {pid} come and go too fast to list its children")


def _own_pss_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def _shared(pid: int) -> set[str]:
    try:
        lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    except OSError:
        return set()
    return {line[line.index(SHM) :] for line in lines if SHM in line}


def _entries(folder: str) -> int:
    try:
        return len(os.listdir(folder))
    except OSError:
        return 0
