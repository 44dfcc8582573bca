"""The servers that are attacked, each under a memory limit, and what they used meanwhile."""

import contextlib
import dataclasses
import os
import pathlib
import queue
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

from certificates import Authority
from confined import Confined
from logs import Log

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TARGET = ROOT / os.environ.get("CARGO_TARGET_DIR", "target")
H3CAST = os.environ.get("H3CAST_BIN", str(TARGET / "release/h3cast"))
CADDY = str(pathlib.Path(sys.executable).parent / "caddy")
CLOCK = os.sysconf("SC_CLK_TCK")
HOST = "127.0.0.1"
# The length of h3cast's /stream/bulk, in bytes: longer than anything that viewers who do not read can hold.
BULK = 1 << 30
# The length of /large.bin, in bytes.
FILE = 256 << 20


@dataclasses.dataclass
class Used:
    """What a server used between `begin` and `end`: bytes and seconds."""

    idle: int
    peak: int
    cpu: float
    seconds: float
    # TCP buffers in the kernel at the most; None where that cannot be told.
    tcp: int | None

    @property
    def above(self) -> int:
        return self.peak - self.idle


class Died(AssertionError):
    """The attack ended the server."""


class Process:
    """A child that is ended by its process id, and whose lines of output can be waited for."""

    def __init__(
        self, command: list[str], stdin=subprocess.DEVNULL, env: dict | None = None, log: Log | None = None
    ) -> None:
        self.errors = log.file if log else tempfile.TemporaryFile("w+")
        self.child = subprocess.Popen(
            command,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=log.end if log else self.errors,
            text=True,
            env=os.environ | (env or {}),
        )
        if log:
            log.started()
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def pid(self) -> int:
        return self.child.pid

    def _read(self) -> None:
        for line in self.child.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def log(self, size: int = 8192) -> str:
        self.errors.seek(0)
        return self.errors.read()[-size:]

    def line(self, pattern: str, seconds: float = 20) -> re.Match:
        deadline = time.monotonic() + seconds
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no line {pattern!r} in {seconds} s\n{self.log()}") from None
            assert line is not None, f"the process ended before a line {pattern!r}\n{self.log()}"
            if match := re.search(pattern, line):
                return match

    def kill(self) -> None:
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait(timeout=15)


class Victim:
    """A server that has /stream/live (ticks) and /healthz; with `bulk` /stream/bulk (as fast as it is read), and with
    `files` a folder in which /large.bin is FILE bytes long."""

    name: str
    process: Process
    port: int

    def __init__(self, confined: dict) -> None:
        self._stack = contextlib.ExitStack()
        self.confined = Confined(**confined)
        self._stack.callback(self.confined.close)
        self.certs = pathlib.Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="h3cast-attacks-")))
        self.cacert = str(self.certs / "cert.pem")
        self._sampling = threading.Event()

    def _started(self, process: Process) -> Process:
        self._stack.callback(process.kill)
        return process

    @property
    def address(self) -> tuple[str, int]:
        return HOST, self.port

    @property
    def proc(self) -> pathlib.Path:
        return pathlib.Path(f"/proc/{self.process.pid}")

    def _proc(self, name: str) -> str:
        return (self.proc / name).read_text()

    def _status(self, key: str) -> int:
        """A value of /proc/PID/status, in bytes where it is in kB."""
        line = next(line for line in self._proc("status").splitlines() if line.startswith(key + ":"))
        number, *unit = line.split()[1:]
        return int(number) * (1024 if unit == ["kB"] else 1)

    def rss(self) -> int:
        return self._status("VmRSS")

    def cpu(self) -> float:
        """Seconds of CPU that it has used, without its children."""
        fields = self._proc("stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / CLOCK

    def begin(self) -> None:
        # Makes VmHWM start again from what there is.
        (self.proc / "clear_refs").write_text("5")
        self._before = self.rss(), self.cpu(), time.monotonic()
        self._tcp = self._tcp_before = self.confined.tcp()
        self._sampling.clear()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._stack.callback(self._sampler.join)
        self._stack.callback(self._sampling.set)
        self._sampler.start()

    def begin_again(self) -> None:
        """What was used so far, by viewers who wait, is not of the attack."""
        pathlib.Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")
        self._before = self.rss(), *self._before[1:]

    def _sample(self) -> None:
        while not self._sampling.wait(0.05):
            if (tcp := self.confined.tcp()) is not None:
                self._tcp = max(self._tcp, tcp)

    def end(self) -> Used:
        self._sampling.set()
        self._sampler.join()
        self.alive()
        idle, cpu, began = self._before
        tcp = None if self._tcp is None else self._tcp - self._tcp_before
        return Used(idle, self._status("VmHWM"), self.cpu() - cpu, time.monotonic() - began, tcp)

    def alive(self, patience: float = 0) -> None:
        """Raises `Died` if it has ended, or does so within `patience` seconds."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.child.wait(patience)
        code = self.process.child.poll()
        how = f"; the kernel killed {self.confined.killed()} processes at the limit" if self.confined.killed() else ""
        if code is not None:
            raise Died(f"{self.name} ended with {code} during the attack{how}\n{self.process.log()}")

    def __enter__(self) -> "Victim":
        return self

    def __exit__(self, kind, *_: object) -> None:
        try:
            if kind is None:
                self.stop()
        finally:
            self._stack.close()

    def stop(self) -> None:
        """Asks it to stop, and sees that it does."""
        self.process.child.send_signal(signal.SIGTERM)
        try:
            code = self.process.child.wait(timeout=20)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"SIGTERM did not end {self.name} in 20 s\n{self.process.log()}") from None
        log = self.process.log(1 << 20)
        assert code == 0, f"exit code {code}\n{log[-8192:]}"
        assert "panicked at" not in log, log[-8192:]


class H3cast(Victim):
    name = "h3cast"

    def __init__(
        self,
        *arguments: str,
        bulk: bool = False,
        files: bool = False,
        sources: tuple[str, ...] = (),
        authority: Authority | None = None,
        confined: dict | None = None,
        token: str | None = None,
        log: Log | None = None,
        env: dict[str, str] | None = None,
    ) -> None:
        """With an authority, the server has a certificate of its; it is renewed with `authority.certify(certs)`.
        `confined` are the limits, if not the usual ones; by the token its feeds and metrics are read."""
        super().__init__(confined or {})
        self._token = token
        # Their pipe is the server's standard input.
        ticks = subprocess.Popen([sys.executable, str(HERE / "ticks.py")], stdout=subprocess.PIPE)
        self._stack.callback(ticks.wait, 15)
        self._stack.callback(ticks.kill)
        command = [H3CAST, "serve", "live=-", *sources]
        if bulk:
            # Read from its beginning for each viewer, so that no two hold the same bytes.
            command += [f"bulk=file:{sparse(self.certs / 'bulk', BULK)}", "--chunk=bulk=bytes"]
        if files:
            command += [f"--static={sparse(self.certs / 'files/large.bin', FILE).parent}"]
        command += ["--listen", f"{HOST}:0", "--http", f"{HOST}:0", "--grace=1s"]
        if authority:
            authority.certify(self.certs)
            self.cacert = str(self.certs / "ca.pem")
            command += [f"--cert={self.certs}/cert.pem", f"--key={self.certs}/key.pem"]
        else:
            command += ["--certs", str(self.certs)]
        # Its notes are not for the tester.
        env = {"XDG_RUNTIME_DIR": str(TARGET / "run")} | (env or {})
        self.process = self._started(Process(self.confined.wrap([*command, *arguments]), ticks.stdout, env, log))
        ticks.stdout.close()
        # It prints the page's URL first, over plain HTTP.
        self.http_port = int(self.process.line(r"http://[\w.]+:(\d+)/")[1])
        self.port = int(self.process.line(r"https://[\w.]+:(\d+)/")[1])

    def plain(self, path: str) -> str:
        """What it answers over plain HTTP."""
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        request = urllib.request.Request(f"http://{HOST}:{self.http_port}{path}", headers=headers)
        with urllib.request.urlopen(request, timeout=15) as response:
            return response.read().decode()

    def metrics(self, *names: str) -> list[float]:
        """The sum of each metric's values, whatever their labels if its name has none; 0 when there is none."""
        text = self.plain("/metrics")

        def value(name: str) -> float:
            labels = "" if "{" in name else r"(?:{[^}]*})?"
            return sum(map(float, re.findall(rf"^{re.escape(name)}{labels} ([0-9.e+]+)$", text, re.M)))

        return [value(name) for name in names]

    def metric(self, name: str) -> float:
        return self.metrics(name)[0]


CADDYFILE = """{{
    admin off
    persist_config off
    auto_https off
    log {{
        level ERROR
    }}
}}
https://localhost:{port} {{
    bind {host}
    tls {certs}/cert.pem {certs}/key.pem
    respond /healthz 200
    handle /large.bin {{
        root * {certs}/files
        file_server
    }}
    reverse_proxy {host}:{backend} {{
        flush_interval -1
    }}
}}
"""


class Caddy(Victim):
    """The same through Caddy, which proxies all but files from a backend outside the limit, whatever the feed."""

    name = "caddy"

    def __init__(
        self,
        *_: str,
        bulk: bool = False,
        files: bool = False,
        sources: tuple[str, ...] = (),
        confined: dict | None = None,
    ) -> None:
        super().__init__(confined or {})
        if files:
            sparse(self.certs / "files/large.bin", FILE)
        Authority().certify(self.certs)
        self.cacert = str(self.certs / "ca.pem")
        backend = self._started(Process([sys.executable, str(HERE / "ticks.py"), "backend"]))
        backend_port = int(backend.line(r"^(\d+)$")[1])
        file = self.certs / "Caddyfile"
        for _ in range(5):
            # It cannot choose a port that is free for both UDP and TCP: one is tried.
            self.port = free_port()
            file.write_text(CADDYFILE.format(port=self.port, host=HOST, certs=self.certs, backend=backend_port))
            command = [CADDY, "run", "--config", str(file), "--adapter", "caddyfile"]
            home = {"HOME": str(self.certs), "XDG_DATA_HOME": str(self.certs), "XDG_CONFIG_HOME": str(self.certs)}
            self.process = self._started(Process(self.confined.wrap(command), env=home))
            if self._listens():
                return
        raise AssertionError(f"Caddy does not start\n{self.process.log()}")

    def stop(self) -> None:
        """How long it would wait for its connections is not what is measured."""
        self.process.kill()

    def _listens(self) -> bool:
        for _ in range(200):
            if self.process.child.poll() is not None:
                return False
            with contextlib.suppress(OSError), socket.create_connection(self.address, 1):
                return True
            time.sleep(0.05)
        return False


def sparse(path: pathlib.Path, length: int) -> pathlib.Path:
    """A file of zeros, which takes no room on the disk."""
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        file.truncate(length)
    return path


def free_port() -> int:
    with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        tcp.bind((HOST, 0))
        udp.bind(tcp.getsockname())
        return tcp.getsockname()[1]


SERVERS = {"h3cast": H3cast, "caddy": Caddy}
