"""What does a service tell Prometheus? Read as Prometheus would."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families


async def samples(service) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Value of every series by metric and sorted labels."""
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families((await service.http.get("/metrics")).text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found
