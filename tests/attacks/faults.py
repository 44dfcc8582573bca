"""What happens to a server and its viewers, at random from a seed: three things at a time."""

import asyncio
import collections
import contextlib
import json
import os
import pathlib
import random
import signal
import time

import peers
from certificates import Authority
from guests import Guest, Notes, admitted, until
from held import children
from lines import Program, Publication, Web
from logs import Log
from relay import Tcp, Udp
from test_initials import flood
from tokens import Key, Served, Tokens
from victim import H3CAST, H3cast

# Connections, requests, publications that one event makes. Many, so that what each leaves adds up; two crowds at once,
# or one and silent connects, are fewer than the handshakes of one address: a client that is refused tries for 10 s.
CROWD, SILENT, REQUESTS, KEYS = 120, 100, 500, 100
# Connections of each kind by which a server comes to rest.
FEW = 20
LANES = 3
COMMAND = "chaos command"
# Between files, an URL that is asked every 10 s at most, and a busy machine.
SOON = 30.0
# A command that is killed often waits 30 s before it is run again.
RESTARTED = 30.0 + SOON
# For how long clients that were moved may take to be followed before they are moved again, in seconds.
FOLLOWED = 2.0


def loud(folder: pathlib.Path) -> pathlib.Path:
    """While this file is there, the command `clock` has still to write its outburst."""
    return folder / "loud"


def clock(folder: pathlib.Path) -> str:
    """The command `clock`. Asked for an outburst, it writes more to the log than the log's queue holds (1 MiB), whichever
    of its processes runs by then, and is done once the server has read all but what a pipe holds."""
    outburst = "head -c 2000000 /dev/zero | tr '\\0' x | fold -w 60000 >&2"
    told = f"if [ -e {loud(folder)} ]; then {outburst}; rm {loud(folder)}; fi"
    return f"exec:: {COMMAND}; while :; do date; {told}; sleep 0.2; done"


class Chaos:
    def __init__(
        self,
        server: H3cast,
        seed: str,
        authority: Authority,
        tokens: Tokens,
        served: Served,
        log: Log,
        web: Web,
        folder: pathlib.Path,
    ) -> None:
        self.server, self.authority, self.tokens, self.served = server, authority, tokens, served
        self.log, self.web = log, web
        self._seed, self._loud = seed, loud(folder)
        self.happened: collections.Counter = collections.Counter()
        # What it made the server do, by what a leak would be counted in.
        self.made: collections.Counter = collections.Counter()
        self.programs: list[Program] = []
        self.publication: Publication | None = None
        # Crowds' alone: the others are few.
        self.handshakes = 0
        self._running: set = set()
        # Whoever needs the command has it: killed again as soon as it is back, it takes longer than is waited for.
        self._command = asyncio.Lock()
        self._began = time.monotonic()
        self._number = 0

    async def start(self) -> "Chaos":
        address = self.server.address
        # The one loses and stalls, the other only moves its clients: no connection through it may break.
        self.udp, self.moving = await Udp.start(address, self._seed), await Udp.start(address, self._seed)
        self.tcp = await Tcp.start(address)
        epochs = {feed["name"]: feed["epoch"] for feed in json.loads(self.server.plain("/feeds"))["feeds"]}
        self.notes = Notes(Web(self.server.cacert, self.tcp.port), self.tokens.publisher, epochs["notes"])
        return self

    def close(self) -> None:
        for relay in (self.udp, self.moving, self.tcp):
            relay.close()

    # The network.

    async def loss(self, chance: random.Random) -> None:
        self.udp.loss = chance.uniform(0.02, 0.2)
        dropped = self.udp.dropped
        await asyncio.sleep(chance.uniform(0.5, 2))
        # Nothing may be under way just now: more lines are published for as long as this takes.
        await until("a datagram is lost", SOON, lambda: self.udp.dropped > dropped)
        self.udp.loss = 0.0

    async def stall(self, chance: random.Random) -> None:
        self.udp.stalled = True
        self.tcp.stall(True)
        await asyncio.sleep(chance.uniform(0.3, 2))
        self.udp.stalled = False
        self.tcp.stall(False)

    async def cut(self, _: random.Random) -> None:
        await until("there is a connection to cut", SOON, lambda: self.tcp.connections)
        self.tcp.cut()

    async def move(self, chance: random.Random) -> None:
        """Every client has another port, or another address, from one datagram to the next (RFC 9000 §9)."""
        address = chance.choice(["127.0.0.1", f"127.77.0.{chance.randrange(1, 250)}"])
        abrupt, before, end = chance.random() < 0.25, self.moved, time.monotonic() + SOON
        # Those that were moved may have had all of their lines just then.
        while self.moved == before:
            assert time.monotonic() < end, f"no client was followed to {address}"
            await self.udp.move(address, abrupt)
            await self.moving.move(address)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FOLLOWED):
                    await until("a client is followed", SOON, lambda: self.moved > before)

    @property
    def moved(self) -> int:
        """How many clients the server has followed."""
        return self.udp.moved + self.moving.moved

    # Viewers and publishers.

    async def kill_a_viewer(self, chance: random.Random) -> None:
        viewer = await self._viewer(chance)
        viewer.signal(signal.SIGKILL)

    async def freeze_a_viewer(self, chance: random.Random) -> None:
        viewer = await self._viewer(chance)
        viewer.signal(signal.SIGSTOP)
        await asyncio.sleep(chance.uniform(0.5, 3))
        viewer.signal(signal.SIGCONT)

    async def _viewer(self, chance: random.Random) -> Program:
        """One that runs."""
        await until("a viewer runs", SOON, lambda: any(viewer.runs for viewer in self.programs))
        return chance.choice([viewer for viewer in self.programs if viewer.runs])

    async def restart_the_publisher(self, _: random.Random) -> None:
        await until("a publication runs", SOON, lambda: self.publication.runs)
        self.publication.restart()

    async def retry_publications(self, chance: random.Random) -> None:
        """Bodies that are sent whole again and again, each under its Idempotency-Key."""
        await self.notes.publish(KEYS, chance)
        self.made["publications"] += KEYS

    # The server.

    async def stop_the_server(self, chance: random.Random) -> None:
        os.kill(self.server.process.pid, signal.SIGSTOP)
        await asyncio.sleep(chance.uniform(0.3, 1.2))
        os.kill(self.server.process.pid, signal.SIGCONT)

    async def kill_the_command(self, _: random.Random) -> None:
        async with self._command:
            await until("the command runs", RESTARTED, self._commands)
            for command in self._commands():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(command, signal.SIGKILL)

    async def stall_the_log(self, chance: random.Random) -> None:
        """Standard error takes nothing, as when a disk is full, while more is to be logged than the queue holds."""
        async with self._command:
            before = self.log.losses()
            self.log.stall(True)
            try:
                self._loud.touch()
                await until("the command has written its outburst", RESTARTED, lambda: not self._loud.exists())
                await asyncio.sleep(chance.uniform(0.1, 0.5))
            finally:
                self.log.stall(False)
            await until("the log tells of lines that were lost", SOON, lambda: self.log.losses() > before)

    def _commands(self) -> list[int]:
        found = children(self.server.proc)
        # Not what watches over them.
        return [pid for pid, command in found.items() if COMMAND in command]

    # What it reads again while it runs.

    async def renew_the_certificate(self, _: random.Random) -> None:
        self.authority.certify(self.server.certs)

    async def withdraw_a_token(self, chance: random.Random) -> None:
        name = self._name()
        token = f"the-token-of-{name}"
        self.tokens.add(name, token)
        await until(f"{name} is admitted", SOON, lambda: admitted(self.web, token))
        guests = await Guest.all(self.server, self.web, token, SOON)
        assert guests, f"viewers with the token of {name} do not get in"
        if chance.random() < 0.5:
            # What cannot be read changes nothing.
            self.tokens.break_them()
            await asyncio.sleep(chance.uniform(1.0, 2.0))
            assert not any(guest.done for guest in guests), "a broken file of tokens ended a viewer"
        self.tokens.withdraw(name)
        await Guest.expire(guests, SOON)
        assert not await admitted(self.web, token), f"the token of {name} is withdrawn"

    async def rotate_the_keys(self, _: random.Random) -> None:
        """In the file: what runs ends with its token, and not with its key."""
        key = Key(self._name())
        self.tokens.add_key(key)
        await until(f"{key.name} is known", SOON, lambda: admitted(self.web, key.token()))
        guests = []
        for seconds in (0.0, 5.0, 25.0):
            # Clocks may differ by 5 s, so it is valid for longer than it says; and a busy machine needs longer.
            guests = guests or await Guest.all(self.server, self.web, key.token(seconds), seconds + 4)
        assert guests, f"viewers with a token of {key.name} do not get in"
        self.tokens.withdraw_key(key)
        await Guest.expire(guests, SOON)
        await until(f"{key.name} is withdrawn", SOON, lambda: refused(self.web, key.token()))

    async def rotate_the_served_keys(self, chance: random.Random) -> None:
        """At the URL: a token of a key that is not known has it asked for."""
        self.served.down = True
        assert await admitted(self.web, self.served.key.token()), "keys that were known count while the URL is down"
        await asyncio.sleep(chance.uniform(0.1, 1.0))
        self.served.down = False
        key = Key(self._name())
        self.served.keys = {self.served.key.name: self.served.key, key.name: key}
        await until(f"{key.name} is known", SOON, lambda: admitted(self.web, key.token()))

    def _name(self) -> str:
        self._number += 1
        return f"guest-{self._number}"

    # Floods and crowds.

    async def flood_of_initials(self, _: random.Random) -> None:
        told = await asyncio.to_thread(flood, self.server, "initials", "--rate", 2000, "--seconds", 1, "--sources", 100)
        self.made["Initials"] += told["sent"]

    async def silent_connects(self, chance: random.Random) -> None:
        silent = [peers.begin(self.server.address) for _ in range(SILENT)]
        await asyncio.sleep(chance.uniform(0.5, 2))
        for sock in silent:
            sock.close()
        self.made["TCP connections"] += len(silent)

    async def rapid_resets(self, _: random.Random) -> None:
        def attack() -> None:
            sock = peers.http2(self.server.address)
            cancel = peers.frame(peers.RST_STREAM, 0, 1, (8).to_bytes(4, "big"))
            peers.pour(sock, [(peers.get(1, "/stream/clock") + cancel) for _ in range(100)], 1)
            sock.close()

        await asyncio.to_thread(attack)

    async def requests(self, _: random.Random) -> None:
        """Many on one connection, one after the other."""

        def ask() -> None:
            path = f"/stream/chaos?from=start&limit=1&token={self.tokens.viewer}"
            request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n".encode()
            sock = peers.tls(self.server.address, "http/1.1")
            sock.settimeout(SOON)
            sock.sendall((request + b"\r\n") * (REQUESTS - 1) + request + b"Connection: close\r\n\r\n")
            answers = 0
            rest = b""
            while data := sock.recv(65536):
                rest += data
                answers += rest.count(b"HTTP/1.1 200 ")
                rest = rest[-12:]
            sock.close()
            assert answers == REQUESTS, answers

        await asyncio.to_thread(ask)
        self.made["requests"] += REQUESTS

    async def crowd_over_http3(self, _: random.Random) -> None:
        await self._crowd("QUIC connections", "--http", "h3")

    async def crowd_of_sessions(self, _: random.Random) -> None:
        await self._crowd("sessions", "--webtransport")

    async def crowd_over_tcp(self, chance: random.Random) -> None:
        await self._crowd("TCP connections", "--http", chance.choice(["h2", "h1"]))

    async def viewers_that_read_nothing(self, chance: random.Random) -> None:
        """Of a feed without end, and then they vanish."""
        version = chance.choice(["h3", "h2", "h1"])
        options = ["--http", version, "--stalled", "100", "--viewers", "20", "--duration", "30"]
        before = await asyncio.to_thread(self._reading_bulk)
        bench = await self._bench("bulk?", options)
        await until("they view", SOON, lambda: asyncio.to_thread(lambda: self._reading_bulk() > before))
        await asyncio.sleep(chance.uniform(1.0, 2.0))
        bench.kill()
        await bench.wait()

    def _reading_bulk(self) -> float:
        return self.server.metric('h3cast_feed_viewers{feed="bulk"}')

    async def quiet(self) -> None:
        """A few clients of each kind: with these, each thread of the server comes past what others have freed."""
        for options in (["--http", "h3"], ["--webtransport"], ["--http", "h2"], ["--http", "h1"]):
            await self._crowd("quiet", *options, viewers=FEW)

    async def fill(self, handshakes: int) -> None:
        """So many handshakes."""
        while self.handshakes < handshakes:
            await self.crowd_over_http3(random.Random())

    async def _crowd(self, what: str, *options: str, viewers: int = CROWD) -> None:
        """Viewers that come all at once, each on a connection of its own, and leave after a chunk."""
        bench = await self._bench("chaos?from=start&limit=1&", [*options, "--viewers", str(viewers), "--duration", "5"])
        out, errors = await bench.communicate()
        assert bench.returncode == 0, errors.decode()
        connected = json.loads(out)["connected"]
        assert connected, f"none of {viewers} viewers was connected: {out.decode()}"
        self.made[what] += connected
        self.handshakes += connected

    async def _bench(self, feed: str, options: list[str]) -> asyncio.subprocess.Process:
        url = f"https://localhost:{self.server.port}/stream/{feed}token={self.tokens.viewer}"
        command = [H3CAST, "bench", url, "--cacert", self.server.cacert, "--warm-up", "0", "--pace", "0", "--json"]
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(*command, *options, stdout=pipe, stderr=pipe)

    EVENTS = {
        loss: 3,
        stall: 3,
        cut: 3,
        move: 3,
        kill_a_viewer: 4,
        freeze_a_viewer: 2,
        restart_the_publisher: 2,
        retry_publications: 4,
        stop_the_server: 2,
        kill_the_command: 1,
        stall_the_log: 1,
        renew_the_certificate: 1,
        withdraw_a_token: 2,
        rotate_the_keys: 1,
        rotate_the_served_keys: 1,
        flood_of_initials: 2,
        silent_connects: 1,
        rapid_resets: 1,
        requests: 2,
        crowd_over_http3: 3,
        crowd_of_sessions: 3,
        crowd_over_tcp: 3,
        viewers_that_read_nothing: 1,
    }

    async def each(self) -> None:
        """Each kind once."""
        kinds = list(self.EVENTS)
        random.Random(f"{self._seed} each").shuffle(kinds)
        lanes = iter(kinds)

        async def lane(number: int) -> None:
            for event in lanes:
                await self._happen(event, random.Random(f"{self._seed} each {number} {event.__name__}"))

        await self._in_lanes(lane)

    async def any(self, seconds: float, part: int) -> None:
        end = time.monotonic() + seconds

        async def lane(number: int) -> None:
            chance = random.Random(f"{self._seed} {part} {number}")
            while time.monotonic() < end:
                [event] = chance.choices([*self.EVENTS], [*self.EVENTS.values()])
                # So that how long it took changes nothing of what comes next.
                own = random.Random(chance.random())
                if event not in self._running:
                    await self._happen(event, own)

        await self._in_lanes(lane)

    async def _in_lanes(self, lane) -> None:
        async with asyncio.TaskGroup() as tasks:
            for number in range(LANES):
                tasks.create_task(lane(number))

    async def _happen(self, event, chance: random.Random) -> None:
        self.happened[event.__name__] += 1
        self._running.add(event)
        with contextlib.ExitStack() as stack:
            stack.callback(self._running.discard, event)
            began = time.monotonic()
            await event(self, chance)
            print(f"    {time.monotonic() - self._began:5.1f} s: {event.__name__}, {time.monotonic() - began:.1f} s", flush=True)
            await asyncio.sleep(chance.uniform(0.1, 0.8))


async def refused(web: Web, token: str) -> bool:
    return not await admitted(web, token)
