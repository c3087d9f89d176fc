"""A real S3 server for tests and benchmarks: SeaweedFS, started on free ports and never left behind.

A small process, the keeper, reads from a pipe that only its parent can write to. When the parent
lets go or dies, however it died, the keeper kills the server and deletes its folder.
"""

import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from catbird_db import Settings

ACCESS_KEY, SECRET_KEY = "catbird", "not-a-secret"
BUCKET = "catbird"
STARTS_WITHIN = 60.0
ROLES = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc")
ROLES += ("filer.port", "filer.port.grpc", "s3.port", "s3.port.grpc")

KEEPER = """
import glob, os, shutil, subprocess, sys

folder, *command = sys.argv[1:]
log = open(folder + "/log", "ab")
letter = b"+"
while letter:  # "+" starts the server, "-" kills it, and the end of the pipe ends all
    if letter == b"+":
        server = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder
        )
    else:
        server.kill()
        server.wait()
        os.write(1, letter)
    letter = os.read(0, 1)
server.kill()
server.wait()
for option in command:
    for left in glob.glob("/tmp/seaweedfs-*-grpc-" + option.rpartition("=")[2] + ".sock"):
        os.unlink(left)
shutil.rmtree(folder, ignore_errors=True)
"""


@dataclass
class Seaweed:
    """A running server with one bucket."""

    folder: Path
    port: int
    keeper: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def settings(self, bucket: str = BUCKET, **others: object) -> Settings:
        """Settings of an object store in a bucket of this server."""
        return Settings(
            object_store="s3",
            s3_url=self.url,
            s3_bucket=bucket,
            s3_region="us-east-1",
            s3_access_key=ACCESS_KEY,
            s3_secret_key=SECRET_KEY,
            **others,
        )

    def make_bucket(self, bucket: str) -> None:
        from minio import Minio

        client = Minio(
            f"127.0.0.1:{self.port}", access_key=ACCESS_KEY, secret_key=SECRET_KEY, secure=False
        )
        client.make_bucket(bucket)

    def go_away(self) -> None:
        """Kill the server; its data stay."""
        self._tell(b"-")
        assert self.keeper.stdout is not None
        self.keeper.stdout.read(1)

    def come_back(self) -> None:
        self._tell(b"+")
        self.wait()

    def _tell(self, letter: bytes) -> None:
        assert self.keeper.stdin is not None
        self.keeper.stdin.write(letter)
        self.keeper.stdin.flush()

    def wait(self) -> None:
        """Until it answers."""
        deadline = time.monotonic() + STARTS_WITHIN
        while time.monotonic() < deadline:
            with suppress(OSError), urllib.request.urlopen(f"{self.url}/status", timeout=1):
                return
            time.sleep(0.05)
        raise AssertionError(
            f"SeaweedFS does not start:\n{(self.folder / 'log').read_text()[-3000:]}"
        )

    def stop(self) -> None:
        assert self.keeper.stdin is not None
        self.keeper.stdin.close()
        self.keeper.wait()


@contextmanager
def seaweed() -> Generator[Seaweed]:
    """A server of the caller's own, gone with the block or with the process."""
    folder = Path(tempfile.mkdtemp(prefix="catbird-weed-", dir="/tmp"))
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    (folder / "data").mkdir()
    ports = dict(zip(ROLES, free_ports(len(ROLES)), strict=True))
    options = [f"-{role}={port}" for role, port in ports.items()]
    options += ["-dir=data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3"]
    options += ["-s3.config=s3.json", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    options += ["-master.telemetry=false", "-master.electionTimeout=1s"]
    options += ["-master.volumeSizeLimitMB=512", "-volume.max=40"]
    options += [f"-filer.localSocket={folder}/filer.sock", f"-s3.localSocket={folder}/s3.sock"]
    keeper = subprocess.Popen(
        [
            sys.executable,
            "-c",
            KEEPER,
            folder,
            Path(sys.executable).parent / "weed",
            "server",
            *options,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # a Ctrl-C at the terminal is not for it
    )
    server = Seaweed(folder, ports["s3.port"], keeper)
    try:
        server.wait()
        server.make_bucket(BUCKET)
        yield server
    finally:
        server.stop()


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
