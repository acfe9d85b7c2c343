"""The `websockets` package of PyPI against a running echo server.

What comes in: the URL as the only argument. What goes out: one line per check, `ok NAME` or
`not ok NAME: why`, then `1..N`; status 1 when a check failed.
"""

import asyncio
import sys
import urllib.parse

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

import tap

URL = sys.argv[1]
HOST = urllib.parse.urlsplit(URL).netloc
MIB = 1024 * 1024


def open_client(url=URL, **options):
    return connect(url, max_size=None, ping_interval=None, close_timeout=5, **options)


async def echo_of(message, **options):
    async with open_client(**options) as socket:
        await socket.send(message)
        return await socket.recv()


async def text():
    tap.equal(await echo_of("Grüße, 世界 \U0001f30d"), "Grüße, 世界 \U0001f30d", "echo")


async def binary():
    tap.equal(await echo_of(bytes(range(256))), bytes(range(256)), "echo")


async def mebibyte():
    message = bytes(range(256)) * (MIB // 256)
    tap.equal(await echo_of(message), message, "echo")


async def mebibyte_of_text():
    message = "世界" * (MIB // 6)
    tap.equal(await echo_of(message), message, "echo")


async def fragmented():
    tap.equal(await echo_of(["Hello, ", "wor", "ld"]), "Hello, world", "text echo")
    tap.equal(await echo_of([b"\x00" * 70000, b"", b"\x01" * 70000]),
              b"\x00" * 70000 + b"\x01" * 70000, "binary echo")


async def ping_amid_fragments():
    async with open_client() as socket:
        async def pieces():
            yield "before "
            await (await socket.ping(b"amid"))
            yield "after"

        await socket.send(pieces())
        tap.equal(await socket.recv(), "before after", "echo")


async def close_code():
    async with open_client() as socket:
        await socket.close(4242, "enough")
        await socket.wait_closed()
        tap.equal(socket.protocol.close_rcvd and socket.protocol.close_rcvd.code, 4242,
                  "the server's close code")


async def close_without_code():
    async with open_client() as socket:
        socket.protocol.send_close(None)
        socket.send_data()
        await asyncio.wait_for(socket.wait_closed(), 5)
        received = socket.protocol.close_rcvd
        tap.equal(received is not None and received.code in (1000, 1005), True,
                  "a close frame without a code is answered with one")


async def bad_text():
    """Sends bytes that are no UTF-8 as text: the server must say 1007."""
    async with open_client() as socket:
        try:
            await socket.send(b"\xc3\x28", text=True)
            await socket.recv()
        except ConnectionClosed as closed:
            tap.equal(closed.rcvd and closed.rcvd.code, 1007, "close code")
            return
        raise AssertionError("the server went on")


async def both_paths():
    root = urllib.parse.urlunsplit(urllib.parse.urlsplit(URL)._replace(path="/"))
    tap.equal(await echo_of("at the root", url=root), "at the root", "echo")


async def many_connections():
    async def one(number):
        tap.equal(await echo_of(f"number {number}"), f"number {number}", "echo")

    await asyncio.gather(*(one(number) for number in range(100)))


async def same_origin():
    tap.equal(await echo_of("hello", origin=f"http://{HOST}"), "hello", "echo")


async def foreign_origin():
    try:
        async with open_client(origin="http://foreign.example"):
            raise AssertionError("the server let it in")
    except InvalidStatus as refused:
        tap.equal(refused.response.status_code, 403, "status")


async def null_origin():
    try:
        async with open_client(origin="null"):
            raise AssertionError("the server let it in")
    except InvalidStatus as refused:
        tap.equal(refused.response.status_code, 403, "status")


CHECKS = {
    "text message": text,
    "binary message": binary,
    "1 MiB of binary": mebibyte,
    "1 MiB of text": mebibyte_of_text,
    "fragmented messages": fragmented,
    "ping amid fragments": ping_amid_fragments,
    "close code comes back": close_code,
    "close without a code": close_without_code,
    "text that is not UTF-8 is closed with 1007": bad_text,
    "path /": both_paths,
    "100 connections at once": many_connections,
    "its own origin is let in": same_origin,
    "foreign origin is refused with 403": foreign_origin,
    "origin null is refused with 403": null_origin,
}

if __name__ == "__main__":
    sys.exit(asyncio.run(tap.run(CHECKS)))
