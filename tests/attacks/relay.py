"""A bad network between viewers and the server: UDP that is lost, delayed and duplicated, TCP that stalls and breaks."""

import asyncio
import random
import time

HOST = "127.0.0.1"
# A client that has sent nothing for so long, in seconds, is gone.
FORGOTTEN = 60.0
# For how long a path that was left still works.
OVERLAP = 3.0


class Udp(asyncio.DatagramProtocol):
    """One socket towards the server for each client's address. `loss` is a share of the datagrams of each
    direction; while `stalled`, none arrives; `move` gives each client another address. What struck is counted: a
    fault that never did shows nothing."""

    def __init__(self, server: tuple[str, int], seed: str) -> None:
        self.server, self.loss, self.stalled, self.dropped, self.passed, self.moved = server, 0.0, False, 0, 0, 0
        self._random = random.Random(seed)
        self._clients: dict[tuple, Upstream] = {}
        self._early: dict[tuple, list[bytes]] = {}

    @classmethod
    async def start(cls, server: tuple[str, int], seed: str) -> "Udp":
        loop = asyncio.get_running_loop()
        transport, relay = await loop.create_datagram_endpoint(lambda: cls(server, seed), local_addr=(HOST, 0))
        relay.port = transport.get_extra_info("sockname")[1]
        return relay

    def connection_made(self, transport) -> None:
        self.transport = transport

    def passes(self) -> bool:
        lost = self.stalled or self._random.random() < self.loss
        self.dropped += lost
        self.passed += not lost
        return not lost

    def datagram_received(self, data: bytes, client: tuple) -> None:
        if not self.passes():
            return
        if upstream := self._clients.get(client):
            upstream.send(data)
        elif client in self._early:
            self._early[client].append(data)
        else:
            self._early[client] = [data]
            self._opening = asyncio.ensure_future(self._open(client))

    async def _open(self, client: tuple) -> None:
        self._clients[client] = await Upstream.open(self, client)
        for data in self._early.pop(client):
            self._clients[client].send(data)

    async def move(self, address: str, abrupt: bool = False) -> None:
        """From now on, what clients send comes from this address, and from another port. What is sent to where they
        were before still reaches them for a moment, unless it is abrupt: then they hear nothing until they send
        something, which those that only listen do every 12 s."""
        for client, upstream in list(self._clients.items()):
            if time.monotonic() - upstream.used > FORGOTTEN:
                del self._clients[client]
            else:
                self._clients[client] = await Upstream.open(self, client, address, moved=True)
            upstream.close() if abrupt else asyncio.get_running_loop().call_later(OVERLAP, upstream.close)

    def close(self) -> None:
        for upstream in self._clients.values():
            upstream.close()
        self.transport.close()


class Upstream(asyncio.DatagramProtocol):
    """A client as the server sees it."""

    @classmethod
    async def open(cls, relay: Udp, client: tuple, address: str = HOST, moved: bool = False) -> "Upstream":
        loop = asyncio.get_running_loop()
        _, upstream = await loop.create_datagram_endpoint(cls, local_addr=(address, 0), remote_addr=relay.server)
        upstream.relay, upstream.client, upstream.moved, upstream.used = relay, client, moved, time.monotonic()
        return upstream

    def connection_made(self, transport) -> None:
        self.transport, self.moved = transport, False

    def send(self, data: bytes) -> None:
        self.used = time.monotonic()
        self.transport.sendto(data)

    def datagram_received(self, data: bytes, _: tuple) -> None:
        if self.relay.passes():
            # The server has followed it.
            self.relay.moved += self.moved
            self.moved = False
            self.relay.transport.sendto(data, self.client)

    def close(self) -> None:
        self.transport.close()


class Tcp:
    """While `stalled`, nothing arrives on either side; `cut` breaks all connections."""

    def __init__(self, server: tuple[str, int]) -> None:
        self.server, self.cuts = server, 0
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._writers: set[asyncio.StreamWriter] = set()

    @classmethod
    async def start(cls, server: tuple[str, int]) -> "Tcp":
        relay = cls(server)
        relay._listener = await asyncio.start_server(relay._serve, HOST, 0)
        relay.port = relay._listener.sockets[0].getsockname()[1]
        return relay

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection(*self.server)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, upstream_writer}
        self._writers |= both
        directions = [self._copy(reader, upstream_writer), self._copy(upstream_reader, writer)]
        await asyncio.gather(*directions, return_exceptions=True)
        for one in both:
            one.transport.abort()
        self._writers -= both

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(16384):
            await self._flowing.wait()
            writer.write(data)
            await writer.drain()
        writer.close()

    def stall(self, stalled: bool) -> None:
        self._flowing.clear() if stalled else self._flowing.set()

    @property
    def connections(self) -> int:
        return len(self._writers) // 2

    def cut(self) -> None:
        self.cuts += self.connections
        for writer in self._writers:
            writer.transport.abort()

    def close(self) -> None:
        self.cut()
        self._listener.close()
