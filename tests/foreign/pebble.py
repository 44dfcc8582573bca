"""A certificate authority on this machine: Pebble, the ACME server that Let's Encrypt tests clients with."""

import http.client
import json
import os
import pathlib
import shutil
import socket
import ssl
import subprocess
import time

from certificates import self_signed
from server import free_port


class Pebble:
    """`tls` and `http` are the ports at which it validates names; all names lead to this machine."""

    def __init__(self, folder: pathlib.Path, tls: int, http: int, seconds: int = 3600) -> None:
        self.folder = folder
        self.port, self.management, self.dns, self.control = (free_port() for _ in range(4))
        self.directory = f"https://localhost:{self.port}/dir"
        self._children: list[subprocess.Popen] = []
        # Its own certificate, which clients have to be told to trust.
        self.ca = folder / "directory.pem"
        self_signed("localhost", self.ca, folder / "directory.key")
        (folder / "pebble.json").write_text(
            json.dumps(
                {
                    "pebble": {
                        "listenAddress": f"127.0.0.1:{self.port}",
                        "managementListenAddress": f"127.0.0.1:{self.management}",
                        "certificate": str(self.ca),
                        "privateKey": str(folder / "directory.key"),
                        "httpPort": http,
                        "tlsPort": tls,
                        "ocspResponderURL": "",
                        "externalAccountBindingRequired": False,
                        "certificateValidityPeriod": seconds,
                    }
                }
            )
        )
        self.log = folder / "pebble.log"

    def _run(self, name: str, *arguments: str) -> None:
        program = shutil.which(name)
        assert program, f"there is no {name}: tests/run debian installs it"
        with open(self.log, "ab") as log:
            # It refuses one nonce in five, as clients must bear, and does not wait before it validates.
            env = os.environ | {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "20"}
            self._children.append(subprocess.Popen([program, *arguments], stdout=log, stderr=log, env=env))

    def start(self) -> "Pebble":
        """From an empty state: the authority forgets accounts when it ends."""
        at = f"127.0.0.1:{self.dns}"
        none = ["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", "", "-defaultIPv4", "127.0.0.1"]
        self._run("pebble-challtestsrv", "-management", f"127.0.0.1:{self.control}", "-dns01", at, *none)
        self._run("pebble", "-config", str(self.folder / "pebble.json"), "-dnsserver", at)
        for port in (self.port, self.management, self.control):
            self._answers(port)
        return self

    def _answers(self, port: int) -> None:
        end = time.monotonic() + 15
        while True:
            try:
                return socket.create_connection(("127.0.0.1", port), timeout=1).close()
            except OSError:
                assert time.monotonic() < end, f"nothing listens at {port}\n{self.log.read_text()[-4096:]}"
                assert all(child.poll() is None for child in self._children), self.log.read_text()[-4096:]
                time.sleep(0.02)

    def stop(self) -> None:
        for child in self._children:
            child.kill()
        for child in self._children:
            child.wait(timeout=15)
        self._children = []

    def __enter__(self) -> "Pebble":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def root(self) -> pathlib.Path:
        """The CA certificate that a client of its certificates has to trust."""
        context = ssl.create_default_context(cafile=str(self.ca))
        connection = http.client.HTTPSConnection("localhost", self.management, context=context, timeout=15)
        connection.request("GET", "/roots/0")
        file = self.folder / "root.pem"
        file.write_bytes(connection.getresponse().read())
        connection.close()
        return file

    def issued(self) -> int:
        """How many certificates it has issued since it was started."""
        return self.log.read_text().count("Issued certificate serial")
