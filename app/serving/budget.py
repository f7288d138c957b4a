"""Is there room for so much work, will it be done in time, and if not, when is it worth asking again?

Work is counted in cost (`Bucket.cost`), from the moment it is admitted until it is answered: a request for one patch
and one for four hundred do not weigh the same. Bulk may fill the queue to 70 % only, so that a person finds room
behind any job, and no tenant may hold more than a share of it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from app.nuclei.errors import DeadlineUnattainable, Overloaded, PayloadTooLarge, TenantQuota
from app.serving.admission import seconds_to_wait
from app.serving.allowance import Allowance
from app.serving.rules import Rules
from app.serving.work import WorkClass

K = TypeVar("K")
SHARE = {WorkClass.INTERACTIVE: 1.0, WorkClass.BULK: 0.7}
PATIENCE_S = {WorkClass.INTERACTIVE: 10.0, WorkClass.BULK: 1800.0}
TIMES_THE_ESTIMATE = 3.0
LEAST = 1.0  # cost of the smallest patch, seen once by one network


class Pace(Protocol):
    """What is known of the device: the time, and the cost that it does per second (0 while nobody knows)."""

    clock: Callable[[], float]
    cost_per_s: float


@dataclass(frozen=True, slots=True)
class Claim:
    """What a request asks for.

    Attributes:
        tenant: who asks.
        work_class: interactive or bulk.
        cost: of all its patches.
        deadline: on the device's clock, if the caller set one.
    """

    tenant: str
    work_class: WorkClass
    cost: float
    deadline: float | None = None


class Reservation:
    """Cost that a request holds.

    Attributes:
        claim: what was asked for.
        deadline: on the device's clock; after it nobody wants the answer.
        left: cost that is not done.
    """

    def __init__(self, claim: Claim, deadline: float, give_back: Callable[[float], None]) -> None:
        self.claim = claim
        self.deadline = deadline
        self.left = claim.cost
        self._give_back = give_back

    def release(self, cost: float | None = None) -> None:
        """Give a part back that is done, or all that is left."""
        cost = self.left if cost is None else min(cost, self.left)
        self.left -= cost
        self._give_back(cost)


class Budget:
    """All cost that is admitted and not answered. Used from the event loop alone, so it needs no lock."""

    def __init__(
        self,
        most: float,
        per_tenant: float,
        pace: Pace,
        rules: Rules,
        jitter: Callable[[], float] = random.random,
        rate: float | None = None,
        longest_wait_s: float = math.inf,
    ) -> None:
        """Nothing admitted.

        Args:
            most: cost at which an interactive request finds no room; bulk does at 70 % of it.
            per_tenant: cost that one tenant may hold.
            pace: of the device.
            rules: weights of the classes.
            jitter: draws from 0..1.
            rate: cost per second that one tenant may have done in the long run, `per_tenant` at once; None: any.
            longest_wait_s: for an interactive request whose caller named no deadline; who would wait longer for the
                work before it is refused, as an answer that comes late helps nobody and delays the next one.
        """
        self._most = most
        self._per_tenant = per_tenant
        self._pace = pace
        self._weights = {WorkClass.INTERACTIVE: rules.interactive_weight, WorkClass.BULK: rules.bulk_weight}
        self._slice_s = rules.bulk_slice_s
        self._jitter = jitter
        self._longest_wait_s = longest_wait_s
        self._allowance = Allowance(rate, per_tenant)
        self._held: dict[WorkClass, float] = {}
        self._tenants: dict[str, float] = {}
        self._reservations: set[Reservation] = set()

    @property
    def held(self) -> float:
        """Cost admitted and not answered."""
        return sum(self._held.values())

    def check(self, tenant: str, work_class: WorkClass, deadline: float | None = None) -> None:
        """Refuse before it is known how much work is asked for, if there is no room for any.

        Raises:
            TenantQuota, Overloaded: as `reserve`.
        """
        least = Claim(tenant, work_class, LEAST, deadline)
        self._check(least)
        self._check_wait(least)

    @contextmanager
    def reserve(self, claim: Claim) -> Iterator[Reservation]:
        """Hold a claim's cost; what is left of it at the end is given back.

        Raises:
            PayloadTooLarge: it is too much even for an idle replica.
            TenantQuota: the tenant holds too much already, or had too much done lately.
            Overloaded: the queue is too long for its class, or for somebody who waits.
            DeadlineUnattainable: it would not be done before the caller's deadline.
        """
        self._check(claim)
        now = self._pace.clock()
        self._check_deadline(claim, now)
        self._check_wait(claim)
        patience = max(PATIENCE_S[claim.work_class], TIMES_THE_ESTIMATE * self._ahead_s(claim.work_class, claim.cost))
        deadline = now + patience if claim.deadline is None else claim.deadline
        reservation = Reservation(claim, deadline, lambda cost: self._hold(claim, -cost))
        self._hold(claim, claim.cost)
        self._allowance.spend(claim.tenant, claim.cost, now)
        self._reservations.add(reservation)
        try:
            yield reservation
        finally:
            reservation.release()
            self._reservations.discard(reservation)

    def seconds(self, claim: Claim) -> float:
        """Estimated seconds until a claim that comes now is done, if nothing comes after it.

        Requests take turns, so until then another one gets no more than this one does, and another tenant no more
        than this one's tenant.
        """
        held: dict[str, float] = {claim.tenant: claim.cost}
        for one in self._reservations:
            if one.claim.work_class is claim.work_class:
                tenant = one.claim.tenant
                cost = min(one.left, claim.cost) if tenant == claim.tenant else one.left
                held[tenant] = held.get(tenant, 0.0) + cost
        return self._served_s(claim.work_class, sum(min(cost, held[claim.tenant]) for cost in held.values()))

    def _check_deadline(self, claim: Claim, now: float) -> None:
        if claim.deadline is None or now + (estimate := self.seconds(claim)) <= claim.deadline:
            return
        alone = self._at_pace(claim.cost)
        if now + alone <= claim.deadline:
            raise DeadlineUnattainable(
                f"the answer would take about {estimate:.1f} s, which is past the deadline", self._wait(claim)
            )
        raise DeadlineUnattainable(
            f"even an idle service takes about {alone:.1f} s for this, which is past the deadline whenever it is sent; "
            f"with {math.ceil(estimate * 1000)} ms it would be answered now"
        )

    def _check_wait(self, claim: Claim) -> None:
        if claim.deadline is not None or claim.work_class is WorkClass.BULK:
            return
        wait_s = self.seconds(claim) - self._at_pace(claim.cost)
        if wait_s > self._longest_wait_s:
            raise Overloaded(f"{wait_s:.1f} s of work are before this", seconds_to_wait(wait_s, self._jitter))

    def _check(self, claim: Claim) -> None:
        room = self._most * SHARE[claim.work_class]
        if claim.cost > min(room, self._per_tenant):
            raise PayloadTooLarge(
                f"this is work of cost {claim.cost:g}; at most {min(room, self._per_tenant):g} are taken in one request"
            )
        over = self._tenants.get(claim.tenant, 0.0) + claim.cost - self._per_tenant
        if over > 0:
            raise TenantQuota(
                f"with this request you would hold work of cost {self._per_tenant + over:g} at once; "
                f"{self._per_tenant:g} are allowed",
                seconds_to_wait(self._at_pace(over), self._jitter),
            )
        if short_s := self._allowance.short_s(claim.tenant, claim.cost, self._pace.clock()):
            raise TenantQuota(
                f"your allowance has no room for work of cost {claim.cost:g} yet; it refills as time passes",
                seconds_to_wait(short_s, self._jitter),
            )
        if self.held + claim.cost > room:
            raise Overloaded("the queue is full", self._wait(claim))

    def _wait(self, claim: Claim) -> int:
        return seconds_to_wait(self._ahead_s(claim.work_class, 0.0), self._jitter)

    def _ahead_s(self, work_class: WorkClass, cost: float) -> float:
        """Seconds for all that a class holds and `cost` more."""
        return self._served_s(work_class, self._held.get(work_class, 0.0) + cost)

    def _served_s(self, work_class: WorkClass, cost: float) -> float:
        """Seconds until a class is served this cost, while the other class is served by its weight."""
        others = self._held.get(work_class.other, 0.0)
        meanwhile = min(others, cost * self._weights[work_class.other] / self._weights[work_class])
        return self._at_pace(cost + meanwhile) + (self._slice_s if others else 0.0)

    def _at_pace(self, cost: float) -> float:
        return cost / self._pace.cost_per_s if self._pace.cost_per_s > 0 else 0.0

    def _hold(self, claim: Claim, cost: float) -> None:
        _add(self._held, claim.work_class, cost)
        _add(self._tenants, claim.tenant, cost)


def _add(held: dict[K, float], key: K, cost: float) -> None:
    """Change one sum; one that comes back to nothing leaves, so that tenants of the past take no room."""
    held[key] = held.get(key, 0.0) + cost
    if math.isclose(held[key], 0.0, abs_tol=1e-6):
        del held[key]
