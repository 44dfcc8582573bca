"""A server of the release build, and what it uses."""
import contextlib, http.client, os, pathlib, socket, subprocess, time, types

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = os.environ.get("H3CAST_BIN", ROOT / "target/release/h3cast")
LINE = b"x" * 199 + b"\n"


def cpu(pid: int) -> float:
    """The seconds of CPU time that a process has used."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")")[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def user(pid: int) -> float:
    """The same without what the system did for it."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")")[1].split()
    return int(fields[11]) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> tuple[int, int]:
    """The memory that a process has now, and had at most, in bytes."""
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return tuple(int(fields[name].split()[0]) * 1024 for name in ("VmRSS", "VmHWM"))


@contextlib.contextmanager
def served(folder: str, *flags: str, under: tuple[str, ...] = ()):
    """A server of one `publish` feed, started by another program if one is given: its port and its process id."""
    args = [*under, PROGRAM, "serve", "--listen", "localhost:0", "--http", "localhost:0", "publish", *flags]
    server = subprocess.Popen(args, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        port = int(server.stdout.readline().strip().rstrip("/").rsplit(":", 1)[1])
        yield types.SimpleNamespace(port=port, pid=server.pid)
    finally:
        server.terminate()
        server.wait()


def publish(port: int, lines: int) -> float:
    """Publishes so many lines in one request, and gives the seconds that it took."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    piece = LINE * 320
    body = (piece[: len(LINE) * min(320, lines - at)] for at in range(0, lines, 320))
    begun = time.monotonic()
    connection.request("POST", "/stream?chunk=lines", body, {"Transfer-Encoding": "chunked"}, encode_chunked=True)
    response = connection.getresponse()
    assert response.status == 200, response.read()
    response.read()
    return time.monotonic() - begun


def read(port: int, query: str, size: int) -> tuple[float, int]:
    """Reads a body of so many bytes: the seconds that it took, and how many lines it has."""
    with contextlib.closing(socket.create_connection(("127.0.0.1", port))) as connection:
        connection.sendall(f"GET /stream?{query} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        begun = time.monotonic()
        head, _, first = connection.recv(1 << 20).partition(b"\r\n\r\n")
        assert b" 200 " in head.split(b"\r\n")[0], head
        got, lines, buffer = len(first), first.count(b"\n"), bytearray(1 << 20)
        while got < size:
            many = connection.recv_into(buffer)
            assert many, f"{got} of {size} bytes"
            got += many
            lines += buffer.count(b"\n", 0, many)
        return time.monotonic() - begun, lines
