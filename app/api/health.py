"""What does each probe ask of the process? The state if it is well, a refusal if not; from any thread."""

from __future__ import annotations

from app.api.services import Services
from app.nuclei.errors import DeviceFault


def startup(services: Services) -> str:
    """Is the start over, well or badly?

    Raises:
        NotReady, Draining: not yet.
    """
    if not services.lifecycle.started:
        services.lifecycle.require_ready()
    return services.lifecycle.state


def ready(services: Services) -> str:
    """May requests be sent? The model is proven, the device well, and the service is not stopping. Load plays no part.

    Raises:
        NotReady, Draining, DeviceFault: why not.
    """
    services.lifecycle.require_ready()
    if not services.runner.healthy:
        raise DeviceFault("the device of this service is broken")
    return services.lifecycle.state


def live(services: Services) -> str:
    """Does the process get anywhere? The event loop turns, the device is well, and work that is there gets done.

    Raises:
        DeviceFault: it should be replaced.
    """
    if complaint := services.vitals.complaint():
        raise DeviceFault(complaint)
    return services.lifecycle.state
