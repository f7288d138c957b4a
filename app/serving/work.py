"""What waits for the device, and what goes to it together?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

UNIT = 256  # pixels: one view of one member over a patch of this side costs 1


class WorkClass(StrEnum):
    """Who waits: a person, or a job. In order of preference at a tie."""

    INTERACTIVE = "interactive"
    BULK = "bulk"

    @property
    def other(self) -> WorkClass:
        """The class that this one shares the device with."""
        return WorkClass.BULK if self is WorkClass.INTERACTIVE else WorkClass.INTERACTIVE


@dataclass(frozen=True, slots=True)
class Bucket:
    """Patches that may share a batch: the same network sees them in the same shape.

    Attributes:
        model: NAME@VERSION/PROFILE: what tells networks and their views apart.
        views: symmetries that the network sees of each patch.
        patch_size: side in pixels.
    """

    model: str
    views: int
    patch_size: int

    @property
    def label(self) -> str:
        """NAME/PROFILE/SIZE: short and of a small set, for metrics."""
        name, _, rest = self.model.partition("@")
        return f"{name}/{rest.partition('/')[2] or self.views}/{self.patch_size}"

    def cost(self, members: int = 1) -> float:
        """Cost of one patch for a model of so many members; 1 is one view of 256 x 256 by one member."""
        return (self.patch_size / UNIT) ** 2 * self.views * members


@dataclass(frozen=True, slots=True)
class Work:
    """One patch that waits for the device.

    Attributes:
        id: unique among those queued and running.
        tenant: whom it is for; tenants share the device equally.
        work_class: interactive or bulk.
        bucket: what it may share a batch with.
        cost: see `Bucket.cost`; positive.
        deadline: time on the clock of `enqueued` at which the answer is worthless; finite.
        enqueued: when it arrived, in seconds.
        request: which of its tenant's requests it belongs to; they share their tenant's turns equally.
    """

    id: int
    tenant: str
    work_class: WorkClass
    bucket: Bucket
    cost: float
    deadline: float
    enqueued: float
    request: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.cost < math.inf:
            raise ValueError(f"cost must be positive and finite, not {self.cost}")
        if not math.isfinite(self.deadline):
            raise ValueError(f"deadline must be finite, not {self.deadline}")


@dataclass(frozen=True)
class Batch:
    """Patches of one bucket that go to the device together, in this order.

    Attributes:
        serial: tells batches of one scheduler apart.
        bucket: of every item.
        items: at least one; interactive ones first.
        estimate_s: seconds that the device was expected to take when the batch was picked.
    """

    serial: int
    bucket: Bucket
    items: tuple[Work, ...]
    estimate_s: float

    @cached_property
    def cost(self) -> float:
        """Cost of all items."""
        return sum(item.cost for item in self.items)

    @cached_property
    def shares(self) -> dict[WorkClass, float]:
        """Each class's share of the cost; classes that are not in the batch have 0, all sum to 1."""
        return {one: sum(w.cost for w in self.items if w.work_class is one) / self.cost for one in WorkClass}

    @property
    def is_slice(self) -> bool:
        """Whether it is bulk alone, and so gives way to an interactive item while it is only staged."""
        return self.items[0].work_class is WorkClass.BULK
