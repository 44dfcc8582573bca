"""Loss, stalls, kills, restarts, reloads and floods at random: nothing is lost, and nothing stays.

H3CAST_CHAOS_SEED=… repeats what happened and when, as far as a machine repeats itself; H3CAST_CHAOS_SECONDS says
for how long. The seed is printed."""

import asyncio
import collections
import json
import os
import pathlib
import random
import signal
import time
import urllib.request

import peers
import pytest
from certificates import Authority
from confined import MIB
from lines import EventSource, Lines, Program, Publication, Web
from relay import Tcp, Udp
from test_initials import flood
from victim import HOST, H3cast

# In two parts: each kind once, in 15 s or so, then whatever comes.
SECONDS = float(os.environ.get("H3CAST_CHAOS_SECONDS", 10))
SEED = os.environ.get("H3CAST_CHAOS_SEED") or str(random.SystemRandom().randrange(1 << 32))
# Lines a second. Before the chaos, so many at another rate fill the history, so that the history is no growth. A
# viewer may be away for a minute without a gap.
RATE, EARLIER, EARLIER_RATE = 100, 16_000, 4000
HISTORY = "4M"
# What the program may hold more after the second part than after the first; and than before both, in MiB: what the
# allocator keeps for the next flood.
GROWTH, KEPT = 1.10, 32
# Threads more than at the start, in all: the pool for blocking work keeps as many as were busy at once, since work that
# comes every second wakes each of them in turn. A thread for each event would be many more, in either part.
POOL = 4
# A peer that vanished is forgotten after 30 s, and then everything is to be as it was.
SETTLED = 60.0


class Chaos:
    def __init__(self, server: H3cast, authority: Authority, udp: Udp, tcp: Tcp) -> None:
        self.server, self.authority, self.udp, self.tcp = server, authority, udp, tcp
        self.random = random.Random(SEED)
        self.happened: collections.Counter = collections.Counter()
        self.programs: list[Program] = []
        self.publication: Publication | None = None
        self.seconds = self.random.uniform

    async def loss(self) -> None:
        self.udp.loss = self.seconds(0.02, 0.2)
        await asyncio.sleep(self.seconds(0.5, 2))
        self.udp.loss = 0.0

    async def stall(self) -> None:
        self.udp.stalled = True
        self.tcp.stall(True)
        await asyncio.sleep(self.seconds(0.3, 2))
        self.udp.stalled = False
        self.tcp.stall(False)

    async def cut(self) -> None:
        self.tcp.cut()

    async def kill_a_viewer(self) -> None:
        self.random.choice(self.programs).signal(signal.SIGKILL)

    async def freeze_a_viewer(self) -> None:
        viewer = self.random.choice(self.programs)
        viewer.signal(signal.SIGSTOP)
        await asyncio.sleep(self.seconds(0.5, 3))
        viewer.signal(signal.SIGCONT)

    async def restart_the_publisher(self) -> None:
        self.publication.restart()

    async def kill_the_command(self) -> None:
        for child in children(self.server.process.pid):
            os.kill(child, signal.SIGKILL)

    async def renew_the_certificate(self) -> None:
        self.authority.certify(self.server.certs)

    async def flood_of_initials(self) -> None:
        await asyncio.to_thread(flood, self.server, "initials", "--rate", 2000, "--seconds", 1, "--sources", 100)

    async def silent_connects(self) -> None:
        silent = [peers.begin(self.server.address) for _ in range(200)]
        await asyncio.sleep(self.seconds(0.5, 2))
        for sock in silent:
            sock.close()

    async def rapid_resets(self) -> None:
        def attack() -> None:
            sock = peers.http2(self.server.address)
            cancel = peers.frame(peers.RST_STREAM, 0, 1, (8).to_bytes(4, "big"))
            peers.pour(sock, [(peers.get(1, "/stream/chaos") + cancel) for _ in range(100)], 1)
            sock.close()

        await asyncio.to_thread(attack)

    EVENTS = {
        loss: 3,
        stall: 3,
        cut: 3,
        kill_a_viewer: 4,
        freeze_a_viewer: 2,
        restart_the_publisher: 2,
        kill_the_command: 1,
        renew_the_certificate: 1,
        flood_of_initials: 1,
        silent_connects: 1,
        rapid_resets: 1,
    }

    async def each(self) -> None:
        kinds = list(self.EVENTS)
        self.random.shuffle(kinds)
        for event in kinds:
            await self._happen(event)

    async def any(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await self._happen(self.random.choices([*self.EVENTS], [*self.EVENTS.values()])[0])

    async def _happen(self, event) -> None:
        self.happened[event.__name__] += 1
        await event(self)
        await asyncio.sleep(self.seconds(0.1, 0.8))


def children(pid: int) -> list[int]:
    """The commands of a server: `sh`, but not what watches over them."""
    found = pathlib.Path(f"/proc/{pid}/task").glob("*/children")
    pids = {int(child) for file in found for child in file.read_text().split()}
    return [pid for pid in pids if b"chaos command" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()]


def feeds(server: H3cast) -> dict[str, dict]:
    with urllib.request.urlopen(f"http://{HOST}:{server.http_port}/feeds", timeout=15) as response:
        return {feed["name"]: feed for feed in json.load(response)["feeds"]}


def held(server: H3cast) -> dict[str, float]:
    """What must not grow."""
    return {"descriptors": server.descriptors(), "threads": server.threads(), "rss": server.rss() / MIB}


async def settled(server: H3cast, allowed: dict[str, float]) -> dict[str, float]:
    """Waits until no more is held than allowed, and until no viewer is left."""
    end = time.monotonic() + SETTLED
    while True:
        now, viewers = held(server), sum(feed["viewers"] for feed in feeds(server).values())
        if not viewers and all(now[name] <= allowed[name] for name in now):
            return now
        assert time.monotonic() < end, f"seed {SEED}: allowed {allowed}, now {now}, {viewers} viewers"
        await asyncio.sleep(0.5)


class Audience:
    """Viewers of every kind, and the publication that they view."""

    def __init__(self, server: H3cast, udp: Udp, tcp: Tcp) -> None:
        self._server, self._udp, self._web = server, udp, Web(server.cacert, tcp.port)
        self._lines, self._next = Lines(SEED), 0
        self.kills = self.publications = 0

    async def view(self, count: int, rate: float, each_kind: int, chaos: Chaos | None = None, act=None) -> None:
        """Publishes `count` lines while `act` happens, and sees that each viewer got them all, once."""
        if self._next == 0:
            # Viewers need a line before those that they wait for.
            await Publication(self._web, self._lines, "first").publish(0, 1, rate)
            self._next = 1
        first, end = self._next, self._next + count
        places = self._lines, first, end, feeds(self._server)["chaos"]["epoch"]
        ca = self._server.cacert
        programs = [Program(*places, self._udp.port, ca, session) for session in (False, True) * each_kind]
        viewers = [*programs, *(EventSource(*places, self._web) for _ in range(each_kind))]
        publication = Publication(self._web, self._lines, f"after {first}")
        if chaos:
            chaos.programs, chaos.publication = programs, publication
        async with asyncio.timeout((end - first) / rate + 60), asyncio.TaskGroup() as tasks:
            tasks.create_task(publication.publish(first, end, rate))
            for viewer in viewers:
                tasks.create_task(viewer.read())
            if act:
                await act
        whole = self._lines.sha256(first, end)
        assert [viewer.sha256() for viewer in viewers] == [whole] * len(viewers)
        self._next = end
        self.kills += sum(viewer.kills for viewer in programs)
        self.publications += publication.attempts


async def scenario() -> None:
    authority = Authority()
    command = "exec:: chaos command; while :; do date; sleep 0.2; done"
    sources = ("chaos=publish", f"clock={command}")
    with H3cast("--history", HISTORY, "--restart", sources=sources, authority=authority) as server:
        udp, tcp = await Udp.start(server.address, SEED), await Tcp.start(server.address)
        chaos, audience = Chaos(server, authority, udp, tcp), Audience(server, udp, tcp)
        await audience.view(EARLIER, EARLIER_RATE, 1)
        start = held(server)
        threads = start["threads"] + POOL
        await audience.view(15 * RATE, RATE, 3, chaos, chaos.each())
        before = await settled(server, start | {"rss": start["rss"] + KEPT, "threads": threads})
        began = time.monotonic()
        await audience.view(int(SECONDS * RATE), RATE, 3, chaos, chaos.any(SECONDS))
        took = time.monotonic() - began
        after = await settled(server, before | {"rss": before["rss"] * GROWTH, "threads": threads})
        lost = f"{udp.dropped} of {udp.dropped + udp.passed} datagrams lost, {tcp.cuts} TCP connections cut"
        print(f"{dict(chaos.happened)}\n{lost}, {audience.kills} viewers killed, {audience.publications} publications")
        print(f"{took:.0f} s, then {time.monotonic() - began - took:.0f} s until all was as before")
        print(f"{start} at first, {before} after each kind, {after} in the end")
        # A fault that did not strike shows nothing.
        assert udp.dropped and tcp.cuts and audience.kills and audience.publications > 3
        assert feeds(server)["clock"]["state"] == "open"
        udp.close()
        tcp.close()


@pytest.mark.timeout(SECONDS * 2 + 240)
def test_chaos():
    print(f"\nH3CAST_CHAOS_SEED={SEED} H3CAST_CHAOS_SECONDS={SECONDS:.0f}")
    asyncio.run(scenario())
