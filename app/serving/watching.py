"""What does the runner tell whoever keeps metrics and logs? By itself, nobody listens."""

from __future__ import annotations

from dataclasses import dataclass

from app.serving.work import Batch


@dataclass(frozen=True, slots=True)
class Ran:
    """A batch that is through.

    Attributes:
        batch: that ran.
        device: kind of device that it ran on.
        seconds: that the device was busy with it.
        limit: the most cost that a batch of its bucket should hold.
        splits: how often memory did not suffice.
        rebuilt: whether the engine was opened anew.
        padding: share of its rows that were there to fill it up.
        copied_s: seconds of bringing it to the device while another one ran; None if that was part of its run.
    """

    batch: Batch
    device: str
    seconds: float
    limit: float
    splits: int = 0
    rebuilt: bool = False
    padding: float = 0.0
    copied_s: float | None = None


class Watcher:
    """Told what happens on the device; called from its thread and from those that cancel, and must be quick."""

    def ran(self, ran: Ran) -> None:
        """A batch is through, well or badly."""

    def cancelled(self, queued: int, running: int) -> None:
        """Patches that nobody wants any more: so many left the queue, so many were on the device."""

    def kept_memory(self, error: Exception) -> None:
        """Memory could not be given back."""

    def broke(self, error: BaseException) -> None:
        """The device or its thread is broken for good."""
