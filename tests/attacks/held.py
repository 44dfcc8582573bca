"""What a server holds, by name, so that what it has kept can be found: descriptors, threads, children, memory, and
what its metrics count."""

import dataclasses
import ipaddress
import os
import pathlib
import re
import sys
from collections import Counter

from confined import MIB

TCP_STATES = "? ESTABLISHED SYN_SENT SYN_RECV FIN_WAIT1 FIN_WAIT2 TIME_WAIT CLOSE CLOSE_WAIT LAST_ACK LISTEN CLOSING".split()
# What runs for a client, and ends with it.
GAUGES = ("connections", "half_open", "requests", "sessions", "publications", "processes")
MOST_NAMED = 20


@dataclasses.dataclass
class Held:
    # Each with what names it for a reader: a path or a socket's addresses; a thread's name and what it waits for.
    descriptors: dict[int, str]
    threads: dict[int, str]
    children: dict[int, str]
    gauges: dict[str, float]
    # MiB: resident in all, and without files. Pages of the program itself become resident as its code is first used.
    rss: float
    anon: float

    def more_than(self, before: "Held", threads: int) -> list[str]:
        """What is more than before, `threads` more being allowed; each by name."""
        found = named("descriptors", self.descriptors, before.descriptors)
        found += named("threads", self.threads, before.threads, threads)
        found += named("children", self.children, before.children)
        for name, value in self.gauges.items():
            if value > before.gauges[name]:
                found.append(f"h3cast_{name}: {value:.0f}, before {before.gauges[name]:.0f}")
        return found

    def __str__(self) -> str:
        counts = f"{len(self.descriptors)} descriptors, {len(self.threads)} threads, {len(self.children)} children"
        return f"{counts}, {self.rss:.1f} MiB resident ({self.anon:.1f} without files)"


def named(kind: str, now: dict[int, str], before: dict[int, str], allowed: int = 0) -> list[str]:
    if len(now) <= len(before) + allowed:
        return []
    # Numbers are used again, so it is the names that are compared.
    new = Counter(now.values()) - Counter(before.values())
    listed = [f"{count} × {name}" if count > 1 else name for name, count in new.most_common(MOST_NAMED)]
    rest = f"; and {len(new) - MOST_NAMED} more" if len(new) > MOST_NAMED else ""
    return [f"{kind}: {len(now)}, before {len(before)}, allowed {len(before) + allowed}; new: {'; '.join(listed)}{rest}"]


def held(server) -> Held:
    proc = server.proc
    status = dict(re.findall(r"^(\w+):\s+(\d+) kB$", (proc / "status").read_text(), re.M))
    gauges = dict(zip(GAUGES, server.metrics(*(f"h3cast_{name}" for name in GAUGES))))
    rss, files = int(status["VmRSS"]) * 1024 / MIB, int(status["RssFile"]) * 1024 / MIB
    return Held(descriptors(proc), threads(proc), children(proc), gauges, rss, rss - files)


def descriptors(proc: pathlib.Path) -> dict[int, str]:
    # Read before the descriptors: a socket that is opened meanwhile has no address, and one that is closed no number.
    known, found = sockets(proc), {}
    for number in os.listdir(proc / "fd"):
        try:
            target = os.readlink(proc / "fd" / number)
        except OSError:
            continue
        inode = re.fullmatch(r"socket:\[(\d+)\]", target)
        found[int(number)] = known.get(inode[1], "a socket without an address") if inode else re.sub(r"\d{4,}", "…", target)
    return found


def sockets(proc: pathlib.Path) -> dict[str, str]:
    """By inode: `TCP 127.0.0.1:4433 to 127.0.0.1:51000, ESTABLISHED`."""
    found = {}
    for kind in ("tcp", "tcp6", "udp", "udp6"):
        try:
            lines = (proc / "net" / kind).read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            state = f", {TCP_STATES[min(int(fields[3], 16), 11)]}" if kind.startswith("tcp") else ""
            found[fields[9]] = f"{kind.upper()} {address(fields[1])} to {address(fields[2])}{state}"
    for fields in map(str.split, (proc / "net/unix").read_text().splitlines()[1:]):
        found[fields[6]] = f"a Unix socket {' '.join(fields[7:])}".strip()
    return found


def address(text: str) -> str:
    """`0100007F:1151` of /proc/net: words in the machine's byte order."""
    digits, port = text.split(":")
    words = [bytes.fromhex(digits[at : at + 8]) for at in range(0, len(digits), 8)]
    if sys.byteorder == "little":
        words = [word[::-1] for word in words]
    return f"{ipaddress.ip_address(b''.join(words))}:{int(port, 16)}"


def threads(proc: pathlib.Path) -> dict[int, str]:
    found = {}
    for task in (proc / "task").iterdir():
        try:
            name, wait = (task / "comm").read_text().strip(), (task / "wchan").read_text()
        except OSError:
            continue
        found[int(task.name)] = f"{name} ({wait})" if wait not in ("", "0") else name
    return found


def children(proc: pathlib.Path) -> dict[int, str]:
    """The processes that it has started and that have not been waited for: commands, and what watches over them."""
    found = {}
    for file in (proc / "task").glob("*/children"):
        try:
            pids = file.read_text().split()
        except OSError:
            continue
        for pid in pids:
            try:
                command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            found[int(pid)] = command.strip() or "one that has ended and was not waited for"
    return found
