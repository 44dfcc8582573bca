"""A bad network between viewers and the server: UDP that is lost, delayed and duplicated, TCP that stalls and breaks."""

import asyncio
import random

HOST = "127.0.0.1"


class Udp(asyncio.DatagramProtocol):
    """One socket towards the server for each client's address. `loss` is a share of the datagrams of each
    direction; while `stalled`, none arrives. What it dropped is counted: a fault that never struck shows nothing."""

    def __init__(self, server: tuple[str, int], seed: str) -> None:
        self.server, self.loss, self.stalled, self.dropped, self.passed = server, 0.0, False, 0, 0
        self._random = random.Random(seed)
        self._clients: dict[tuple, asyncio.DatagramTransport] = {}
        self._early: dict[tuple, list[bytes]] = {}

    @classmethod
    async def start(cls, server: tuple[str, int], seed: str) -> "Udp":
        loop = asyncio.get_running_loop()
        transport, relay = await loop.create_datagram_endpoint(lambda: cls(server, seed), local_addr=(HOST, 0))
        relay.port = transport.get_extra_info("sockname")[1]
        return relay

    def connection_made(self, transport) -> None:
        self.transport = transport

    def _passes(self) -> bool:
        lost = self.stalled or self._random.random() < self.loss
        self.dropped += lost
        self.passed += not lost
        return not lost

    def datagram_received(self, data: bytes, client: tuple) -> None:
        if not self._passes():
            return
        if upstream := self._clients.get(client):
            upstream.sendto(data)
        elif client in self._early:
            self._early[client].append(data)
        else:
            self._early[client] = [data]
            self._opening = asyncio.ensure_future(self._open(client))

    async def _open(self, client: tuple) -> None:
        relay = self

        class Upstream(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, _: tuple) -> None:
                if relay._passes():
                    relay.transport.sendto(data, client)

        loop = asyncio.get_running_loop()
        upstream, _ = await loop.create_datagram_endpoint(Upstream, remote_addr=self.server)
        self._clients[client] = upstream
        for data in self._early.pop(client):
            upstream.sendto(data)

    def close(self) -> None:
        for upstream in [*self._clients.values(), self.transport]:
            upstream.close()


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

    def cut(self) -> None:
        self.cuts += len(self._writers) // 2
        for writer in self._writers:
            writer.transport.abort()

    def close(self) -> None:
        self.cut()
        self._listener.close()
