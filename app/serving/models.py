"""Which models are in memory, and how does one get there? Verified, opened, proven, then kept while it is used."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

from app.nuclei.artifact import Artifact, prove
from app.nuclei.errors import ArtifactError, EngineUnavailable, NotReady
from app.serving.device import DeviceEngine

Load = Callable[[str], Artifact]
OpenEngine = Callable[[Artifact], DeviceEngine]
Phase = Callable[[str, float], None]
Identity = tuple[str, str]
"""Name and version."""
NONE: Identity = ("", "")


@dataclass(frozen=True, slots=True)
class Resident:
    """A model in memory whose engine gave the golden maps."""

    artifact: Artifact
    engine: DeviceEngine


def _as_it_is(resident: Resident) -> None:
    """Nothing is to be done with a new model."""


def _unwatched(resident: Resident, is_there: bool) -> None:
    """Nobody counts what is in memory."""


def _untimed(phase: str, seconds: float) -> None:
    """Nobody watches."""


class Models:
    """Models in memory, each once however requests spell it; of too many the least recently used one leaves.

    What NAME alone means is read from the store once: another version becomes active with a restart.
    """

    def __init__(
        self,
        load: Load,
        open_engine: OpenEngine,
        keep: int,
        enrol: Callable[[Resident], None] = _as_it_is,
        watch: Callable[[Resident, bool], None] = _unwatched,
    ) -> None:
        """No models yet.

        Args:
            load: NAME or NAME@VERSION to a verified artifact; raises UnknownModel or ArtifactError.
            open_engine: an artifact to what runs it.
            keep: models held at once.
            enrol: called with each model that proved itself, before it serves.
            watch: told that a model is in memory (True), or no longer (False).
        """
        self._load = load
        self._open_engine = open_engine
        self._keep = keep
        self._enrol = enrol
        self._watch = watch
        self._residents: OrderedDict[Identity, Resident] = OrderedDict()
        self._meant: dict[str, Identity] = {}
        self._lock = Lock()
        self._loading = Lock()

    def get(self, reference: str) -> Resident:
        """The model of a request, loaded at first use; blocks while another one loads.

        Raises:
            UnknownModel: no such model or version.
            NotReady: it is in the store, but must not be served.
        """
        try:
            return self.find(reference) or self._admit(reference, _untimed)
        except (ArtifactError, EngineUnavailable) as error:
            raise NotReady(f"model {reference} is in the store, but must not be served; the log says why") from error

    def load(self, reference: str, phase: Phase = _untimed) -> Resident:
        """Load, open and prove a model.

        Args:
            reference: NAME or NAME@VERSION.
            phase: told the seconds of each phase: verify, open, prove, enrol.

        Raises:
            UnknownModel, ArtifactError, EngineUnavailable: what is wrong with it.
        """
        return self.find(reference) or self._admit(reference, phase)

    def find(self, reference: str) -> Resident | None:
        """The model if it is in memory; does not block."""
        with self._lock:
            if found := self._residents.get(identity := self._meant.get(reference, NONE)):
                self._residents.move_to_end(identity)
            return found

    def _admit(self, reference: str, phase: Phase) -> Resident:
        with self._loading:
            if found := self.find(reference):  # another thread was faster
                return found
            passed = _stopwatch(phase)
            artifact = self._load(reference)
            passed("verify")
            identity = artifact.name, artifact.version
            with self._lock:
                self._meant[reference] = identity
            resident = self.find(reference) or self._bring_up(artifact, passed)
            self._keep_in_memory(identity, resident)
            return resident

    def _keep_in_memory(self, identity: Identity, resident: Resident) -> None:
        with self._lock:
            is_new = identity not in self._residents
            self._residents[identity] = resident
            gone = [self._residents.popitem(last=False)[1] for _ in range(len(self._residents) - self._keep)]
        if is_new:
            self._watch(resident, True)
        for one in gone:
            self._watch(one, False)

    def _bring_up(self, artifact: Artifact, passed: Callable[[str], None]) -> Resident:
        engine = self._open_engine(artifact)
        passed("open")
        prove(engine, artifact)  # the first run also warms the sessions up
        passed("prove")
        resident = Resident(artifact, engine)
        self._enrol(resident)
        passed("enrol")
        return resident


def _stopwatch(phase: Phase) -> Callable[[str], None]:
    """Tells `phase` the seconds since the last call of what it returns."""
    last = time.perf_counter()

    def passed(name: str) -> None:
        nonlocal last
        began, last = last, time.perf_counter()
        phase(name, last - began)

    return passed
