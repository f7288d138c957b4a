"""Every way in which Karyon says no.

KaryonError
  Refusal               the caller's request cannot be served; each has one HTTP answer in app.api.errors
    InvalidImage        empty, truncated or broken image
    UnsupportedMediaType  not PNG, JPEG or TIFF, declared or detected
    PayloadTooLarge     too many bytes or pixels
    InvalidParameter    a parameter out of range; names it
    UnknownModel        no such model or version in the store
    NotAcceptable       no Accept entry that we can write
    MppRequired         a slide job on a slide whose scale nobody has said
    NotDicom            DICOM results of a slide that is no DICOM
    ViewportTooDense    more nuclei in a viewport than are sent at once
    Conflict            two writers on one thing, or two models on one slide
    StorageFull         the store has no room for this
    NotFound            no such thing under this address
    MissingExtra        an optional part is not installed
    Overloaded          every place is taken; try again
    TenantQuota         this caller has too much work outstanding
    DeadlineUnattainable  it would not be done before the caller's deadline
    NotReady            starting, or the model did not prove itself
    Draining            stopping
    InferenceFailed     the model or a worker failed on this request
    DeviceFault         the device is broken; this process must be replaced
    DeadlineExceeded    the answer would come after the deadline
  ArtifactError         a model folder that must not be served
    ArtifactInvalid     unreadable or incomplete manifest
    DigestMismatch      a file is not what the manifest says
    ArtifactDrift       the golden pair does not come out
  Abandoned             nobody waits for this work any more
  EngineUnavailable     no ONNX Runtime, or not on the device that was demanded
  NotStored             an archive did not take what was sent to it
  StoreDamaged          what the store gives back is not what was put in
"""

from __future__ import annotations


class KaryonError(Exception):
    """Base of every error that Karyon raises on purpose."""


class Refusal(KaryonError):
    """A request that cannot be served; the message is written for the caller and holds no path or name of theirs."""


class InvalidImage(Refusal):
    """The bytes are empty, truncated, or no image that can be decoded."""


class UnsupportedMediaType(Refusal):
    """The declared or detected format is not PNG, JPEG or TIFF, or holds pixels we cannot read as RGB."""


class PayloadTooLarge(Refusal):
    """More bytes or pixels than the limits allow."""


class InvalidParameter(Refusal):
    """A parameter is out of range.

    Attributes:
        name: the parameter, as the caller wrote it.
    """

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(detail)
        self.name = name


class UnknownModel(Refusal):
    """The model store has no model, or no version, of this name."""


class NotAcceptable(Refusal):
    """None of the media types in `Accept` can be written."""


class NotFound(Refusal):
    """No such thing under this address."""


class MppRequired(Refusal):
    """Neither the caller nor the slide's file says how large a pixel is; a whole slide is not analysed on a guess."""


class NotDicom(Refusal):
    """DICOM results refer to the DICOM object of the slide; this slide has none."""


class ViewportTooDense(Refusal):
    """A viewport holds more nuclei than are sent at once.

    Attributes:
        limit: nuclei that are sent at once.
        count: nuclei that the viewport holds at least.
    """

    def __init__(self, detail: str, limit: int = 0, count: int = 0) -> None:
        super().__init__(detail)
        self.limit, self.count = limit, count


class Conflict(Refusal):
    """It contradicts what is kept already: another model's results, or another writer's."""


class StorageFull(Refusal):
    """The disk or the quota has no room for this; nothing of it was kept."""


class MissingExtra(Refusal):
    """An optional part of Karyon is not installed; the message names the extra."""


class Overloaded(Refusal):
    """There is no room for more work now, or too much of it before this.

    Attributes:
        retry_after_s: seconds after which room is likely.
    """

    def __init__(self, detail: str, retry_after_s: int = 1) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class TenantQuota(Refusal):
    """This caller's work that is not answered yet, and this request, are more than one caller may hold.

    Attributes:
        retry_after_s: seconds after which enough of it is likely to be done.
    """

    def __init__(self, detail: str, retry_after_s: int = 1) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class DeadlineUnattainable(Refusal):
    """The caller set a deadline that the work ahead leaves no time for.

    Attributes:
        retry_after_s: seconds after which the work ahead is likely to be done; None if waiting does not help, because
            the deadline is shorter than the work itself.
    """

    def __init__(self, detail: str, retry_after_s: int | None = None) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class NotReady(Refusal):
    """The service is starting, or its model did not prove itself."""


class Draining(Refusal):
    """The service is stopping and takes no new work."""


class InferenceFailed(Refusal):
    """The model or a worker failed on this request; other requests are not affected."""


class DeviceFault(Refusal):
    """The device is in a state that only a new process leaves; another replica may serve the request."""


class DeadlineExceeded(Refusal):
    """The deadline passed, or could no longer be kept, while the request waited for the device."""


class Abandoned(KaryonError):
    """Whoever asked for this work has gone; nobody reads what becomes of it."""


class ArtifactError(KaryonError):
    """A model folder that must not be served."""


class ArtifactInvalid(ArtifactError):
    """The manifest is missing, unreadable or incomplete."""


class DigestMismatch(ArtifactError):
    """A file of the artifact is not the one that its manifest names."""


class ArtifactDrift(ArtifactError):
    """The engine does not give the golden maps back."""


class EngineUnavailable(KaryonError):
    """ONNX Runtime is not installed, or does not run on the device that was demanded."""


class NotStored(KaryonError):
    """A DICOM archive did not take an object, did not confirm that it did, or did not answer."""


class StoreDamaged(KaryonError):
    """Bytes of the store do not decode, or were written by a newer version."""
