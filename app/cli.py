"""What can be done from a shell? The command `karyon`: serve, segment an image or a slide, look after models, measure.

Heavy parts are imported by the command that needs them, so that `karyon --help` answers at once.
"""
# ruff: noqa: PLC0415

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from app import __version__, dicomcommand, slidecommand
from app.arguments import count, output, positive
from app.nuclei.errors import ArtifactError, EngineUnavailable, KaryonError, NotStored, UnknownModel

if TYPE_CHECKING:
    from app.settings import Settings

OK, USAGE, REFUSED, MODEL, NOT_STORED, INTERRUPTED = 0, 2, 3, 4, 6, 130
EXAMPLES = """examples:
  karyon serve --port 8000
  karyon segment tile.png --mpp 0.5 -o nuclei.geojson
  karyon segment tile.tif -o nuclei.csv
  karyon segment tile.jpg --mpp 0.25 --profile accurate -o overlay.png
  karyon slide slide.svs -o nuclei.geojson
  karyon slide slide.tif --mpp 0.25 -o nuclei.csv
  karyon dicom slide-folder -o results --kind ann,sr
  karyon models list
  karyon models import ./my-model
  karyon bench --tiles ./my-tiles --json bench.json

exit status:
  0  done
  2  wrong usage, a file that cannot be opened, or a setting that does not exist
  3  the image or slide was refused: not readable, too large, without scale, or a parameter out of range
  4  the model is unknown, damaged, or cannot run here
  5  bench: some requests got neither an answer nor a refusal
  6  dicom: the archive did not take a file, or did not confirm that it did

Settings are environment variables with the prefix KARYON_; the README lists them.
Research use only. Not for diagnostic procedures."""
SEGMENT = """Find, classify and measure the nuclei of one image, in this process, without a server.

The ending of OUT decides what is written:
  .geojson  outlines, classes and measurements, as QuPath reads them
  .png      the image with outlines and a legend
  .csv      a row of measurements per nucleus
  .json     hover_net's JSON
Without -o, GeoJSON goes to standard output. Counts and warnings go to standard error."""
BENCH = """Measure a service on this machine, with real tissue tiles over HTTP.

Starts a service of its own on a free port with your settings, or takes one that runs (--url, loopback only). First one
request a second; then so many callers at once as --callers says, which shows what it can do at most; then Poisson
arrivals at 25, 50, 75 and 90 % of that, or at the rates that you give. Latency counts from the time at which a
request was to be sent, so a slow service cannot hide behind a sender that waits for it. A phase counts from when
three windows of 5 s in a row lie within 10 %."""
Subparsers = Any  # argparse's own type is private


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
    arguments = parser().parse_args(argv)
    run = cast("Callable[[argparse.Namespace], int]", arguments.run)
    try:
        return run(arguments)
    except (UnknownModel, ArtifactError, EngineUnavailable) as error:
        return complain(error, MODEL)
    except NotStored as error:
        return complain(error, NOT_STORED)
    except KaryonError as error:
        return complain(error, REFUSED)
    except (OSError, SettingsRefused) as error:
        return complain(error, USAGE)
    except KeyboardInterrupt:
        return INTERRUPTED


class SettingsRefused(Exception):
    """The environment names settings that do not exist or are out of range."""


def complain(error: BaseException, status: int) -> int:
    """Say what is wrong on standard error; the status for the shell."""
    print(f"karyon: {error}", file=sys.stderr)
    return status


def parser() -> argparse.ArgumentParser:
    """The command's grammar."""
    raw = argparse.RawDescriptionHelpFormatter
    top = argparse.ArgumentParser(
        "karyon", description="Nuclei of H&E tissue: outlines, classes, counts.", epilog=EXAMPLES, formatter_class=raw
    )
    top.add_argument("--version", action="version", version=f"karyon {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="answer over HTTP until stopped", description="Answer over HTTP.")
    serve.add_argument("--host", help="address to listen on (KARYON_HOST, 127.0.0.1); a public one needs API keys")
    serve.add_argument("--port", type=int, help="port to listen on (KARYON_PORT, 8000); 0 takes a free one")
    serve.set_defaults(run=run_serve)
    segment = commands.add_parser("segment", help="analyse one image", description=SEGMENT, formatter_class=raw)
    _add_segment_arguments(segment)
    slidecommand.add(commands, settings_with)
    dicomcommand.add(commands, settings_with)
    models = commands.add_parser("models", help="list, verify and import models", description="Look after models.")
    _add_models_commands(models.add_subparsers(required=True, metavar="COMMAND"))
    bench = commands.add_parser(
        "bench", help="measure a service on this machine", description=BENCH, formatter_class=raw
    )
    _add_bench_arguments(bench)
    return top


def _add_segment_arguments(segment: argparse.ArgumentParser) -> None:
    segment.add_argument("image", type=Path, metavar="IMAGE", help="a PNG, JPEG or TIFF")
    segment.add_argument(
        "--mpp", type=float, metavar="F", help="um per pixel; default: the file's own, else the model's"
    )
    segment.add_argument("--model", metavar="NAME[@V]", help="model to use (KARYON_MODEL, karyon-lite)")
    segment.add_argument("--profile", choices=["fast", "accurate"], help="one view, or the paper's three")
    segment.add_argument("-o", dest="out", type=output, metavar="OUT", help=".geojson, .png, .csv or .json")
    segment.set_defaults(run=run_segment)


def _add_models_commands(commands: Subparsers) -> None:
    listing = commands.add_parser("list", help="what the store holds, * marks the active version of a name")
    listing.set_defaults(run=run_list)
    verify = commands.add_parser("verify", help="check digests and golden pairs; all models, or the one named")
    verify.add_argument("model", nargs="?", metavar="NAME[@V]")
    verify.set_defaults(run=run_verify)
    bring = commands.add_parser("import", help="verify a model folder and copy it into the store")
    bring.add_argument("folder", type=Path, metavar="FOLDER")
    bring.add_argument("--activate", action="store_true", help="serve this version when a request names none")
    bring.set_defaults(run=run_import)


def _add_bench_arguments(bench: argparse.ArgumentParser) -> None:
    bench.add_argument("--url", help="a service that runs on this machine; default: one of its own")
    bench.add_argument("--key-file", type=Path, metavar="FILE", help="file with an API key for it")
    bench.add_argument("--tiles", type=Path, metavar="FOLDER", help="images to cut into tiles; default: shipped tissue")
    bench.add_argument("--rate", type=positive, action="append", metavar="F", help="requests per second; repeatable")
    bench.add_argument("--seconds", type=positive, default=20.0, metavar="F", help="of each phase (20)")
    bench.add_argument("--requests", type=count, default=20_000, metavar="N", help="of each phase at most (20000)")
    bench.add_argument("--callers", type=count, default=8, metavar="N", help="at once, to find the most (8)")
    bench.add_argument("--objective-ms", type=positive, default=2000.0, metavar="F", help="a good answer's time (2000)")
    bench.add_argument("--seed", type=int, default=0, metavar="N", help="of the times of arrival (0)")
    bench.add_argument("--json", type=Path, metavar="OUT", help="write all figures there as well")
    bench.set_defaults(run=run_bench)


def run_serve(arguments: argparse.Namespace) -> int:
    """`karyon serve`."""
    from app.main import serve

    settings = settings_with(host=arguments.host, port=arguments.port)
    _require_runtime()
    return serve(settings)


def run_segment(arguments: argparse.Namespace) -> int:
    """`karyon segment`."""
    from app.api import inprocess

    settings = settings_with(model=arguments.model)
    data = arguments.image.read_bytes()
    result = inprocess.analyse(data, settings, arguments.mpp, arguments.profile)
    written = inprocess.write(result, arguments.out.suffix.lower() if arguments.out else ".geojson")
    if arguments.out:
        arguments.out.write_bytes(written)
    else:
        sys.stdout.buffer.write(written)
    print(inprocess.describe(result), file=sys.stderr)
    return OK


def run_list(arguments: argparse.Namespace) -> int:
    """`karyon models list`."""
    from app.nuclei.artifact import list_artifacts, read_manifest

    status = OK
    for folder, active in list_artifacts(_store(settings_with())):
        try:
            manifest = read_manifest(folder / "manifest.json")
        except ArtifactError as error:
            status = complain(error, MODEL)
            continue
        mark = "*" if active else " "
        print(f"{mark} {manifest.name}@{manifest.version}  {manifest.mpp:g} um/pixel  {manifest.licence}")
    return status


def run_verify(arguments: argparse.Namespace) -> int:
    """`karyon models verify`."""
    from tqdm import tqdm

    from app.api.inprocess import opener_of
    from app.nuclei.artifact import list_artifacts, load_artifact, open_folder, prove

    settings, status = settings_with(), OK
    if arguments.model:
        folders = [load_artifact(arguments.model, settings.model_store).folder]
    else:
        folders = [folder for folder, _ in list_artifacts(_store(settings))]
    if not folders:
        return complain(UnknownModel("the store holds no model"), MODEL)
    for folder in tqdm(folders, unit="model", disable=None, leave=False):
        try:
            artifact = open_folder(folder)
            drift = prove(opener_of(settings)(artifact), artifact)
        except ArtifactError as error:
            status = complain(error, MODEL)
            continue
        print(f"{artifact.name}@{artifact.version}  sha256:{artifact.sha256}  golden pair off by {drift:.1e}")
    return status


def run_import(arguments: argparse.Namespace) -> int:
    """`karyon models import`."""
    from tqdm import tqdm

    from app.api.inprocess import opener_of
    from app.nuclei.artifact import default_store
    from app.serving.store import import_model

    settings = settings_with()
    total = sum(path.stat().st_size for path in arguments.folder.iterdir() if path.is_file())
    with tqdm(total=total, unit="B", unit_scale=True, disable=None, leave=False) as bar:
        store = settings.model_store or default_store()
        artifact = import_model(arguments.folder, store, opener_of(settings), arguments.activate, bar.update)
    print(f"imported {artifact.name}@{artifact.version}  sha256:{artifact.sha256}  licence {artifact.manifest.licence}")
    return OK


def run_bench(arguments: argparse.Namespace) -> int:
    """`karyon bench`."""
    from app.bench.command import run
    from app.bench.server import BenchRefused

    if arguments.url is None:
        settings_with()  # a setting that does not exist is told here, not in the log of a service
        _require_runtime()
    try:
        return run(arguments)
    except BenchRefused as error:
        return complain(error, USAGE)


def settings_with(**given: Any) -> Settings:
    """The settings, with what was given on the command line."""
    from app.settings import load_settings

    try:
        return load_settings(**{name: value for name, value in given.items() if value is not None})
    except SystemExit as refused:
        raise SettingsRefused(str(refused.code)) from None


def _store(settings: Settings) -> Path:
    """The store of the settings; a check of one that is not there has checked nothing."""
    from app.nuclei.artifact import default_store

    store = settings.model_store or default_store()
    if not store.is_dir():
        raise UnknownModel(f"KARYON_MODEL_STORE: there is no folder {store}")
    return store


def _require_runtime() -> None:
    """Say what to install before a server is up that could never be ready."""
    from importlib.util import find_spec

    if find_spec("onnxruntime") is None:
        raise EngineUnavailable("ONNX Runtime is not installed: pip install 'karyon[cpu]', or 'karyon[gpu]' for NVIDIA")


if __name__ == "__main__":
    sys.exit(main())
