"""Orthanc in a network of its own: `python -m tests.archive FOLDER SERVER PLUGIN`, under `unshare -n`.

Orthanc 1.10.1 listens on every interface, whatever its settings say. Here there is none but loopback, and nothing
outside this network reaches it. Sends the .dcm files of FOLDER and puts what the archive gives back into FOLDER/back.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import httpx
from pydicom import dcmread

from app.formats.dicomweb import send

ADDRESS = "http://127.0.0.1:8042"
DICOM_PARTS = 'multipart/related; type="application/dicom"; transfer-syntax=*'


def main(folder: Path, server: Path, plugin: Path) -> None:
    """Send, fetch, compare by whoever called."""
    interfaces = [name for _, name in socket.if_nameindex()]
    if interfaces != ["lo"]:
        sys.exit(f"not a network of its own: {interfaces}")
    loopback_up()
    user, password = "karyon", secrets.token_hex(16)
    (folder / "netrc").write_text(f"machine 127.0.0.1 login {user} password {password}\n")
    (folder / "netrc").chmod(0o600)
    os.environ["NETRC"] = str(folder / "netrc")
    (folder / "orthanc.json").write_text(json.dumps(settings(folder, plugin, user, password)))
    with subprocess.Popen(
        [server, str(folder / "orthanc.json")], stdout=subprocess.DEVNULL, stderr=sys.stderr
    ) as orthanc:
        try:
            with httpx.Client(base_url=ADDRESS, auth=(user, password), timeout=60) as client:
                wait_for(client, orthanc)
                assert httpx.get(f"{ADDRESS}/system").status_code == 401
                exchange(folder, client)
        finally:
            orthanc.terminate()


def settings(folder: Path, plugin: Path, user: str, password: str) -> dict[str, object]:
    """Of an archive that keeps its files in `folder`."""
    return {
        **{"StorageDirectory": str(folder / "kept"), "IndexDirectory": str(folder / "kept")},
        **{"HttpPort": 8042, "HttpBindAddresses": ["127.0.0.1"], "RemoteAccessAllowed": False},
        **{"DicomServerEnabled": False, "AuthenticationEnabled": True, "RegisteredUsers": {user: password}},
        **{"Plugins": [str(plugin)], "DicomWeb": {"Enable": True, "Root": "/dicom-web/"}},
    }


def loopback_up() -> None:
    """What `ip link set lo up` does."""
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS, up and running


def wait_for(client: httpx.Client, orthanc: subprocess.Popen[bytes]) -> None:
    """Until the archive answers."""
    for _ in range(300):
        if orthanc.poll() is not None:
            sys.exit(f"Orthanc ended with status {orthanc.returncode}")
        try:
            client.get("/system").raise_for_status()
            return
        except httpx.TransportError:
            time.sleep(0.2)
    sys.exit("Orthanc does not answer")


def exchange(folder: Path, client: httpx.Client) -> None:
    """Send every file, and fetch it again."""
    (folder / "back").mkdir()
    for file in sorted(folder.glob("*.dcm")):
        send(file, f"{ADDRESS}/dicom-web")
        said = dcmread(file, stop_before_pixels=True)
        path = f"studies/{said.StudyInstanceUID}/series/{said.SeriesInstanceUID}/instances/{said.SOPInstanceUID}"
        answer = client.get(f"/dicom-web/{path}", headers={"Accept": DICOM_PARTS}).raise_for_status()
        boundary = b"--" + answer.headers["content-type"].partition("boundary=")[2].split(";")[0].strip('"').encode()
        [part] = answer.content.split(boundary)[1:-1]
        (folder / "back" / file.name).write_bytes(part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n"))
    print(json.dumps({each.name for each in (folder / "back").iterdir()}, default=sorted))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
