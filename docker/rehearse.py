"""Does the CPU image work, as far as that shows without a container engine? `make image-steps`

Carries out the COPY and RUN lines of docker/Dockerfile in an empty folder, with the paths of the image moved into it,
and starts the service by the image's own ENTRYPOINT, CMD and ENV: as user 10001 if this is run by root, so that
nothing but the cache folder can be written. Prints sizes, and the time to ready with the kernels that came with the
image and without. What it cannot show is the base image: the interpreter and the system's libraries are this machine's.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

from skimage.data import immunohistochemistry

from app.demo import as_png, wait_until_ready

PROJECT = Path(__file__).parents[1]
USER = 10001
TO_STOP_S = 75
UNUSED = {"libtbb.so.12", "libgomp.so.1.0.0"}  # numba's ways to run loops in parallel, which no kernel asks for
PORTS = {"KARYON_PORT": "18000", "KARYON_ADMIN_PORT": "18001", "KARYON_HOST": "127.0.0.1"}


@dataclass
class Image:
    """What a Dockerfile says, all stages in one.

    Attributes:
        steps: COPY and RUN lines in their order.
        env: names to values, `$NAME` replaced.
        command: ENTRYPOINT and CMD.
    """

    steps: list[tuple[str, str]] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    command: list[str] = field(default_factory=list)


def read(dockerfile: str) -> Image:
    """The instructions of a Dockerfile that concern what is in the image and how it starts."""
    image, variables = Image(), {"PATH": os.defpath}
    lines = "\n".join(line for line in dockerfile.splitlines() if not line.startswith("#"))
    for instruction, rest in re.findall(r"^([A-Z]+) (.+)$", lines.replace("\\\n", " "), re.MULTILINE):
        if instruction in ("RUN", "COPY"):
            image.steps.append((instruction, rest))
        elif instruction == "ARG":
            variables |= dict([rest.split("=", 1)])
        elif instruction == "ENV":
            for name, value in (word.split("=", 1) for word in shlex.split(rest)):
                image.env[name] = variables[name] = Template(value).substitute(variables)
        elif instruction in ("ENTRYPOINT", "CMD") and rest.startswith("["):
            image.command += json.loads(rest)
    return image


def moved(text: str, root: Path) -> str:
    """A command or a value with the image's folders moved below `root`."""
    return re.sub(r"(?<![\w/.])/(?=(source|opt|viewer|var/(cache|lib))\b)", f"{root}/", text)


def build(image: Image, root: Path, python: str) -> None:
    """Carry out the steps; all stages share one root, so that COPY from another one matters only to another path."""
    # How this machine reaches its registries stays; what concerns Karyon and its parts is the image's.
    env = {name: value for name, value in os.environ.items() if not name.startswith(("KARYON_", "NUMBA_", "PYTHON"))}
    env |= {name: value for name, value in image.env.items() if name.startswith(("NUMBA_CPU", "ORT_"))}
    env |= {"PYTHON": python, "PIP": f"{sys.executable} -m pip"}
    for instruction, rest in image.steps:
        if rest.startswith("npm") and not shutil.which("npm"):
            print("left out for want of npm, so there is no viewer:", rest)
        elif instruction == "RUN":
            print(f"RUN {rest}", flush=True)
            subprocess.run(["sh", "-euc", moved(rest, root)], env=env, cwd=root, check=True)
        elif not rest.startswith("--from"):
            copy(rest.split(), root)
        else:
            source, target = (Path(moved(word, root)) for word in rest.split()[1:])
            if source != target and source.exists():
                shutil.copytree(source, target, dirs_exist_ok=True)


def copy(words: list[str], root: Path) -> None:
    """One COPY line from the checkout; `.` is what the .dockerignore lets through."""
    *names, target = words
    folder = Path(moved(target, root))
    folder.mkdir(parents=True, exist_ok=True)
    for name in sent() if names == ["."] else names:
        source = PROJECT / name
        if source.is_dir():  # of a folder that is named, COPY takes what is in it
            ignored = shutil.ignore_patterns("__pycache__", "*.pyc", "node_modules", "dist")
            shutil.copytree(source, folder / name if names == ["."] else folder, ignore=ignored, dirs_exist_ok=True)
        else:
            shutil.copy(source, folder / source.name)


def sent() -> list[str]:
    """What the .dockerignore lets through to the builder."""
    lines = (PROJECT / "docker/Dockerfile.dockerignore").read_text().splitlines()
    return [line[1:] for line in lines if line.startswith("!")]


@contextmanager
def started(image: Image, root: Path, kernels: Path) -> Iterator[tuple[Mapping[str, str], str, str]]:
    """The service as the image starts it, with empty folders: its environment, its address, how long it took."""
    folders = [root / "var" / kind / "karyon" for kind in ("cache", "lib")]
    for folder in folders:
        shutil.rmtree(folder)
        folder.mkdir()
    env = {name: moved(value, root) for name, value in image.env.items()} | PORTS | {"KERNELS": str(kernels)}
    command = [moved(word, root) for word in image.command]
    if os.geteuid() == 0:
        for folder in folders:
            os.chown(folder, USER, USER)
        command = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--no-new-privs", *command]
    began = time.perf_counter()
    with subprocess.Popen(command, env=env, cwd="/tmp", stderr=subprocess.PIPE, text=True) as process:
        try:
            address = wait_until_ready(process)
            took = f"{time.perf_counter() - began:.1f} s and {cpu_seconds(process.pid):.1f} s of CPU"
            yield env, address, took
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=TO_STOP_S)
    if process.returncode:
        raise SystemExit(f"the service ended with status {process.returncode}")


def cpu_seconds(pid: int) -> float:
    """What a process has used of the CPU so far, which other processes disturb less than the clock."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, after_name[11:13])) / os.sysconf("SC_CLK_TCK")


def try_it(env: Mapping[str, str], address: str, root: Path) -> int:
    """Ask the probe as the image's HEALTHCHECK does, and send a tile; how many nuclei came back."""
    probe = [f"{root}/opt/karyon/bin/python", "-IS", f"{root}/opt/bin/healthcheck.py", "ready"]
    subprocess.run(probe, env=env, check=True, stdout=subprocess.DEVNULL)
    tile = as_png(immunohistochemistry())  # type: ignore[no-untyped-call]
    request = urllib.request.Request(
        f"{address}/v1/segment?mpp=0.5", tile, {"Content-Type": "image/png", "Accept": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return int(json.load(answer)["summary"]["total"])


def libraries(root: Path) -> tuple[set[str], set[str]]:
    """Shared libraries that the image's modules take from the system, and those that nobody brings."""
    modules = [str(path) for path in root.glob("opt/**/*.so*") if path.is_file()]
    # What a package brings it finds by the module that loads it, so only names that nobody brings count.
    brought = {Path(module).name for module in modules} | UNUSED
    said = subprocess.run(["ldd", *modules], capture_output=True, text=True, check=False).stdout
    asked = {line.split()[0]: line for line in said.splitlines() if "=>" in line and line.split()[0] not in brought}
    missing = {name for name, line in asked.items() if line.endswith("not found")}
    return {name for name, line in asked.items() if str(root) not in line} - missing, missing


def megabytes(folder: Path) -> int:
    """Size on disk, as `du -sm` says."""
    return int(subprocess.run(["du", "-sm", folder], capture_output=True, text=True, check=True).stdout.split()[0])


def interpreter() -> str:
    """A Python that another user may run as well, as far as there is one; else this one."""
    for name in ("/usr/local/bin/python3", "/usr/bin/python3"):
        check = "import sys; sys.exit(sys.version_info < (3, 11))"
        if Path(name).exists() and subprocess.run([name, "-c", check], check=False).returncode == 0:
            return name
    return os.path.realpath(sys.executable)


def main() -> int:
    """Rehearse; 0 if all held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=interpreter(), help="stands in for the base image's (%(default)s)")
    python = parser.parse_args().python
    image = read((PROJECT / "docker/Dockerfile").read_text())
    with tempfile.TemporaryDirectory(prefix="karyon-image-") as name:
        root = Path(name)
        root.chmod(0o755)
        build(image, root, python)
        print(
            f"dependencies {megabytes(root / 'opt/karyon')} MB, application {megabytes(root / 'opt/app')} MB (du -sm)"
        )
        system, missing = libraries(root)
        print("libraries of the system:", *sorted(system))
        if missing:
            raise SystemExit(f"libraries that nobody brings: {', '.join(sorted(missing))}")
        nothing = root / "nothing"
        nothing.mkdir()
        for kernels, what in ((root / "opt/app/kernels", "with"), (nothing, "without")):
            with started(image, root, kernels) as (env, address, took):
                found = try_it(env, address, root)
                print(f"ready after {took} {what} the image's kernels; {found} nuclei", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
