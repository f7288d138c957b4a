"""How do DICOM results reach an archive? By STOW-RS, to the address that the operator set. Needs the extra `dicom`."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import requests
from dicomweb_client import DICOMwebClient
from pydicom import dcmread
from pydicom.dataset import Dataset

from app.formats import dicomparts  # noqa: F401 - before anything is read: nothing may be said of a patient in a log
from app.nuclei.errors import NotStored

TIMEOUT_S = (10, 300)  # until the archive is reached, and until it answers
logging.getLogger("dicomweb_client").setLevel(logging.CRITICAL)


def send(file: Path, url: str, token: str | None = None) -> None:
    """Store one object and see that the archive confirms it.

    Args:
        file: of the object; it is read into memory.
        url: of the archive's DICOMweb service.
        token: bearer token; None sends none.

    Raises:
        NotStored: if it does not answer, refuses, or does not say that it took the object.
    """
    made = dcmread(file)
    try:
        with requests.Session() as session:
            answer = _client(session, url, token).store_instances([made])
    except requests.HTTPError as error:
        status = "an error" if error.response is None else error.response.status_code
        raise NotStored(f"the archive answered {status} to {file.name}") from None
    except requests.RequestException as error:
        raise NotStored(f"the archive was not reached with {file.name}: {type(error).__name__}") from None
    except (KeyError, SyntaxError):  # no Content-Type, or broken XML
        raise NotStored(f"the archive answered to {file.name} what cannot be read") from None
    _check_taken(made.SOPInstanceUID, answer, file.name)


def _client(session: requests.Session, url: str, token: str | None) -> DICOMwebClient:
    if token:
        session.auth = partial(_with_token, token=token)  # a header alone would give way to an entry in ~/.netrc
    session.hooks["response"].append(_plainly)
    client = DICOMwebClient(url.rstrip("/"), session, timeout=TIMEOUT_S)
    client.set_http_retry_params(retry=False)  # it would send the rest of what it has sent already
    return client


def _plainly(response: requests.Response, **_: object) -> None:
    """Take parameters off the answer's type: with a charset, the client would not read which objects were taken."""
    if kind := response.headers.get("Content-Type"):
        response.headers["Content-Type"] = kind.partition(";")[0].strip()


def _with_token(request: requests.PreparedRequest, token: str) -> requests.PreparedRequest:
    request.headers["Authorization"] = f"Bearer {token}"
    return request


def _check_taken(uid: str, answer: Dataset, name: str) -> None:
    """An archive may answer 200 or 202 and list what it did not take (DICOM PS3.18, 10.5.3)."""
    for item in answer.get("FailedSOPSequence") or ():
        reason = item.get("FailureReason")
        raise NotStored(f"the archive did not take {name}: reason {f'{reason:04X}' if reason else 'unknown'}")
    if uid not in {item.get("ReferencedSOPInstanceUID") for item in answer.get("ReferencedSOPSequence") or ()}:
        raise NotStored(f"the archive did not confirm that it took {name}")
