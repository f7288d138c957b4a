"""How much work may one caller have done in the long run, and when may it ask for more?

A token bucket per tenant, kept as one number: the time at which its bucket is full again. Libraries for rate limits
count whole requests, or need a clock and a store of their own; work here is counted in cost, and only what was
admitted is spent.
"""

from __future__ import annotations

SMALL = 64  # tenants that are not worth a clean-up


class Allowance:
    """What each tenant may still spend: at most `burst` at once, refilled at `rate`; all times from one clock."""

    def __init__(self, rate: float | None, burst: float) -> None:
        """Every bucket full.

        Args:
            rate: cost per second that flows back, positive; None: nobody is limited.
            burst: cost that a full bucket holds.
        """
        self._rate = rate
        self._burst = burst
        self._full_at: dict[str, float] = {}
        self._crowded = SMALL

    def __len__(self) -> int:
        return len(self._full_at)

    def short_s(self, tenant: str, cost: float, now: float) -> float:
        """Seconds until a tenant may spend this cost; 0 if it may now."""
        if self._rate is None:
            return 0.0
        spent = max(0.0, self._full_at.get(tenant, now) - now) * self._rate
        return max(0.0, spent + cost - self._burst) / self._rate

    def spend(self, tenant: str, cost: float, now: float) -> None:
        """Take a cost out of a tenant's bucket, whether it is there or not."""
        if self._rate is None:
            return
        self._full_at[tenant] = max(now, self._full_at.get(tenant, now)) + cost / self._rate
        if len(self._full_at) > self._crowded:  # full buckets say nothing: tenants of the past take no room
            self._full_at = {one: at for one, at in self._full_at.items() if at > now}
            self._crowded = 2 * len(self._full_at) + SMALL
