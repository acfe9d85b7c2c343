"""Plain TCP against a running raw echo server (the reactor_echo example).

What comes in: HOST:PORT as the only argument. What goes out: one line per check, `ok NAME` or
`not ok NAME: why`, then `1..N`; status 1 when a check failed.
"""

import asyncio
import socket
import struct
import sys

import tap

HOST, _, PORT = sys.argv[1].rpartition(":")
MIB = 1024 * 1024


async def exchange(data):
    """Sends everything, says so with a half close, and reads until the server closes."""
    reader, writer = await asyncio.open_connection(HOST, int(PORT))

    async def send():
        writer.write(data)
        await writer.drain()
        writer.write_eof()

    _, answer = await asyncio.gather(send(), reader.read(-1))
    writer.close()
    return answer


async def small():
    tap.equal(await exchange(b"hello\n"), b"hello\n", "echo")


async def mebibyte():
    data = bytes(range(256)) * (MIB // 256)
    tap.equal(await exchange(data), data, "echo")


async def nothing():
    tap.equal(await exchange(b""), b"", "echo")


async def back_and_forth():
    reader, writer = await asyncio.open_connection(HOST, int(PORT))
    for number in range(100):
        line = f"line {number}\n".encode()
        writer.write(line)
        tap.equal(await reader.readexactly(len(line)), line, "echo")
    writer.close()


async def reset():
    """A peer that resets is no reason to stop serving the next one."""
    plain = socket.create_connection((HOST, int(PORT)))
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    plain.sendall(b"gone")
    plain.close()
    tap.equal(await exchange(b"next"), b"next", "echo")


async def many_connections():
    answers = await asyncio.gather(*(exchange(f"{n}".encode()) for n in range(100)))
    tap.equal(answers, [f"{n}".encode() for n in range(100)], "echoes")


CHECKS = {
    "a line": small,
    "1 MiB, half closed": mebibyte,
    "nothing at all": nothing,
    "100 lines back and forth": back_and_forth,
    "a reset, then the next peer": reset,
    "100 connections at once": many_connections,
}

if __name__ == "__main__":
    sys.exit(asyncio.run(tap.run(CHECKS)))
