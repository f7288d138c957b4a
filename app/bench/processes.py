"""What does a process and its descendants hold? Memory, threads, files; 0 where there is no /proc."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

SHM = "/dev/shm/"


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
    while True:
        try:
            tasks = os.listdir(f"/proc/{pid}/task")
        except OSError:
            return []
        try:
            found = [Path(f"/proc/{pid}/task/{task}/children").read_text().split() for task in tasks]
        except OSError:
            # A thread ended meanwhile, and its children are another's now; where the system lists none, nobody has any.
            if Path(f"/proc/{pid}/task/{pid}/children").exists():
                continue
            return []
        return [int(child) for listed in found for child in listed]


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
