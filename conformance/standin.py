#!/usr/bin/env python3
"""A plain echo server that takes the flags of the echo example: it tests the tests.

What comes in: --addr, --config, --reactor, as the example takes them. What goes out: a strict
RFC 6455 echo with permessage-deflate as the configuration says (and a raw TCP echo with --raw) on
that address; or, with --broken, one that is wrong in a chosen way, so that everybody can see each
gate pass and each gate fail before blaming the product. It must never become part of the product,
and needs Python alone.

    conformance/run server --no-compare --server "conformance/standin.py"
    conformance/run server --no-compare --server "conformance/standin.py --broken echo"
"""

import argparse
import asyncio
import base64
import hashlib
import signal
import sys
import tomllib
import urllib.parse

import standin_peer
from standin_peer import CHUNK_BYTES, DEFLATE, GUID, HEAD_BYTES_MAX, Deflate, Peer

BROKEN = standin_peer.BROKEN | {
    "origin": "lets every Origin in",
    "exit": "ends with status 3 on SIGTERM",
    "hang": "does not end on SIGTERM",
}
# What the server asks for on its own, for each value of the key `compression`.
ASKED = {
    "no_context": ("server_no_context_takeover", "client_no_context_takeover"),
    "shared_window": ("server_no_context_takeover",),
    "dedicated_window": (),
}


class Refused(Exception):
    """The request is answered with this HTTP status line."""


def agree(header, compression):
    """The client's offers -> the parameters of the answer, or None: declined (RFC 7692, 7.1)."""
    for name, offer in standin_peer.extensions(header):
        if name != DEFLATE or compression not in ASKED:
            continue
        answer = dict.fromkeys(ASKED[compression])
        for flag in ("server_no_context_takeover", "client_no_context_takeover"):
            if flag in offer:
                answer[flag] = None
        for bits in ("server_max_window_bits", "client_max_window_bits"):
            if offer.get(bits):
                answer[bits] = offer[bits]
        return answer
    return None


class Connection(Peer):
    """One accepted connection: the handshake, then frames until the close."""

    def __init__(self, reader, writer, websocket, broken):
        super().__init__(reader, writer, broken)
        self.origins = websocket.get("origins", [])
        self.compression = websocket.get("compression", "off")

    async def serve(self):
        try:
            await self.handshake()
        except Refused as refused:
            self.writer.write(
                f"HTTP/1.1 {refused}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            await self.hang_up()
        except (asyncio.IncompleteReadError, ConnectionError):
            await self.hang_up()
        else:
            await self.frames()

    async def handshake(self):
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError as overrun:
            raise Refused("431 Request Header Fields Too Large") from overrun
        lines = head.decode("latin-1").split("\r\n")
        headers = {}
        for line in lines[1:-2]:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        key = headers.get("sec-websocket-key")
        if not lines[0].startswith("GET ") or headers.get("upgrade", "").lower() != "websocket":
            raise Refused("426 Upgrade Required")
        if headers.get("sec-websocket-version") != "13":
            raise Refused("426 Upgrade Required\r\nSec-WebSocket-Version: 13")
        if not key:
            raise Refused("400 Bad Request")
        origin = headers.get("origin")
        same = not origin or urllib.parse.urlsplit(origin).netloc == headers.get("host")
        if not same and origin not in self.origins and self.broken != "origin":
            raise Refused("403 Forbidden")
        accept = base64.b64encode(hashlib.sha1(key.encode() + GUID).digest())
        self.writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n"
            + self.answer(headers.get("sec-websocket-extensions", "")) + b"\r\n")

    def answer(self, offers):
        """-> the header line that agrees on permessage-deflate, or nothing"""
        agreed = None if self.broken == "declines" else agree(offers, self.compression)
        if agreed is None:
            return b""
        self.deflate = Deflate(agreed, False, self.broken)
        words = [DEFLATE] + [key + (f"={value}" if value else "") for key, value in agreed.items()]
        return f"Sec-WebSocket-Extensions: {'; '.join(words)}\r\n".encode()


async def serve_raw(reader, writer):
    try:
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except ConnectionError:
        pass
    writer.close()


async def run(args):
    websocket = {}
    if args.config:
        with open(args.config, "rb") as file:
            websocket = tomllib.load(file)["websocket"]
    if args.compression:
        websocket["compression"] = args.compression

    async def serve(reader, writer):
        await Connection(reader, writer, websocket, args.broken).serve()

    host, _, port = args.addr.rpartition(":")
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await asyncio.start_server(
        serve_raw if args.raw else serve, host, int(port), limit=HEAD_BYTES_MAX)
    await ended.wait()
    if args.broken == "hang":
        await asyncio.Event().wait()
    return 3 if args.broken == "exit" else 0


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--addr", default="127.0.0.1:9001", metavar="HOST:PORT")
    parser.add_argument("--config", metavar="FILE",
                        help="of which websocket.origins and websocket.compression count")
    parser.add_argument("--compression", choices=["off", *ASKED],
                        help="whatever the configuration says")
    parser.add_argument("--reactor", help="taken and not used")
    parser.add_argument("--raw", action="store_true", help="echo bytes, no WebSocket")
    parser.add_argument("--broken", choices=sorted(BROKEN), help="; ".join(
        f"{name}: {what}" for name, what in sorted(BROKEN.items())))
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
