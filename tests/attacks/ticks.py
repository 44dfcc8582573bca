"""What viewers read while a server is attacked: ticks, ten a second, each with the moment at which it was made.

python ticks.py            to standard output, for h3cast
python ticks.py backend    over plain HTTP on a free port, which is printed, for a reverse proxy; and /bulk without
                           end. What is sent with POST is read to its end
"""

import asyncio
import sys
import time

EVERY = 0.1


def tick(number: int) -> bytes:
    # The clock is the same for all processes of a machine.
    return b"%d %.3f\n" % (number, time.monotonic())


def to_stdout() -> None:
    for number in range(1 << 62):
        sys.stdout.buffer.write(tick(number))
        sys.stdout.buffer.flush()
        time.sleep(EVERY)


async def receive(reader: asyncio.StreamReader, length: int | None) -> None:
    """A body of that length, or a chunked one."""
    if length is not None:
        await reader.readexactly(length)
        return
    while size := int(await reader.readline() or b"0", 16):
        await reader.readexactly(size + 2)
    await reader.readline()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while request := await reader.readline():
            length = 0
            while field := (await reader.readline()).strip().lower():
                name, _, value = field.partition(b":")
                if name == b"content-length":
                    length = int(value)
                elif name == b"transfer-encoding":
                    length = None
            if request.startswith(b"POST "):
                await receive(reader, length)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                continue
            path = request.split()[1]
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n")
            bulk, number = path.startswith(b"/stream/bulk"), 0
            while True:
                data = bytes(65536) if bulk else tick(number)
                writer.write(b"%x\r\n%s\r\n" % (len(data), data))
                await writer.drain()
                number += 1
                if not bulk:
                    await asyncio.sleep(EVERY)
    except (ConnectionError, asyncio.IncompleteReadError, IndexError):
        pass
    finally:
        writer.close()


async def backend() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(backend()) if sys.argv[1:] == ["backend"] else to_stdout()
    except (KeyboardInterrupt, BrokenPipeError):
        pass
