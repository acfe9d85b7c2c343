#!/usr/bin/env python3
"""A plain echo server that takes the flags of the echo example: it tests the tests.

What comes in: --addr, --config, --reactor, as the example takes them. What goes out: a strict
RFC 6455 echo (and a raw TCP echo with --raw) on that address; or, with --broken, one that is
wrong in a chosen way, so that everybody can see each gate pass and each gate fail before
blaming the product. It must never become part of the product, and needs Python alone.

    conformance/run --no-compare --server "conformance/standin.py"
    conformance/run --no-compare --server "conformance/standin.py --broken echo"
"""

import argparse
import asyncio
import base64
import codecs
import hashlib
import signal
import struct
import sys
import tomllib
import urllib.parse

MESSAGE_BYTES_MAX = 16 * 1024 * 1024
HEAD_BYTES_MAX = 8192
CHUNK_BYTES = 65536
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
BROKEN = {
    "echo": "changes the last byte of every binary message",
    "utf8": "takes text that is not UTF-8",
    "late": "looks at text only when the whole message is there",
    "unclean": "hangs up where a close frame is due",
    "origin": "lets every Origin in",
    "exit": "ends with status 3 on SIGTERM",
    "hang": "does not end on SIGTERM",
}


class Failure(Exception):
    """The peer broke the protocol; carries the close code that is due."""

    def __init__(self, code):
        super().__init__(code)
        self.code = code


class Refused(Exception):
    """The request is answered with this HTTP status line."""


class Connection:
    """One accepted connection: the handshake, then frames until the close."""

    def __init__(self, reader, writer, origins, broken):
        self.reader, self.writer, self.origins, self.broken = reader, writer, origins, broken
        self.message, self.opcode, self.decoder = bytearray(), None, None

    async def serve(self):
        try:
            await self.handshake()
            while await self.frame():
                pass
        except Refused as refused:
            self.writer.write(
                f"HTTP/1.1 {refused}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        except Failure as failure:
            self.close(struct.pack(">H", failure.code))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        await self.hang_up()

    async def hang_up(self):
        """Everything goes out, then what still comes is read: else a reset could overtake it."""
        try:
            if self.broken != "unclean":
                await self.writer.drain()
                self.writer.write_eof()
                async with asyncio.timeout(1):
                    while await self.reader.read(CHUNK_BYTES):
                        pass
            self.writer.transport.abort()
        except (ConnectionError, OSError, TimeoutError):
            self.writer.transport.abort()

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
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")

    async def frame(self):
        """Reads one frame and answers it; False once the close handshake is done."""
        first, second = await self.reader.readexactly(2)
        opcode, size = first & 15, second & 127
        if first & 0x70 or not second & 128 or opcode not in (0, 1, 2, 8, 9, 10):
            raise Failure(1002)
        if opcode >= CLOSE:
            if size > 125 or not first & 128:
                raise Failure(1002)
        elif (opcode == CONTINUATION) != (self.opcode is not None):
            raise Failure(1002)
        if size >= 126:
            size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8))
        mask = await self.reader.readexactly(4)
        if opcode >= CLOSE:
            return self.control(opcode, unmask(await self.reader.readexactly(size), mask, 0))
        if len(self.message) + size > MESSAGE_BYTES_MAX:
            raise Failure(1009)
        await self.data(opcode, size, mask, final=bool(first & 128))
        return True

    async def data(self, opcode, size, mask, final):
        if opcode != CONTINUATION:
            self.opcode = opcode
            self.decoder = codecs.getincrementaldecoder("utf-8")() if opcode == TEXT else None
        done = 0
        while done < size:
            chunk = await self.reader.read(min(size - done, CHUNK_BYTES))
            if not chunk:
                raise asyncio.IncompleteReadError(b"", size)
            chunk = unmask(chunk, mask, done)
            done += len(chunk)
            self.message += chunk
            if self.broken != "late":
                self.check_text(chunk)
        if final:
            if self.broken == "late":
                self.check_text(bytes(self.message))
            self.check_text(b"", final=True)
            if self.broken == "echo" and self.opcode == BINARY and self.message:
                self.message[-1] ^= 1
            self.send(self.opcode, self.message)
            self.message, self.opcode = bytearray(), None
            await self.writer.drain()

    def check_text(self, chunk, final=False):
        if self.decoder and self.broken != "utf8":
            try:
                self.decoder.decode(chunk, final)
            except UnicodeDecodeError as error:
                raise Failure(1007) from error

    def control(self, opcode, payload):
        if opcode == PING:
            self.send(PONG, payload)
        if opcode != CLOSE:
            return True
        if payload:
            code = int.from_bytes(payload[:2])
            known = 1000 <= code <= 1014 and code not in (1004, 1005, 1006)
            if len(payload) == 1 or not (known or 3000 <= code <= 4999):
                raise Failure(1002)
            try:
                payload[2:].decode()
            except UnicodeDecodeError as error:
                raise Failure(1007) from error
        self.close(payload[:2])
        return False

    def close(self, payload):
        if self.broken != "unclean":
            self.send(CLOSE, payload)

    def send(self, opcode, payload):
        size = len(payload)
        head = struct.pack(">BB", 128 | opcode, size) if size < 126 else \
            struct.pack(">BBH", 128 | opcode, 126, size) if size < 65536 else \
            struct.pack(">BBQ", 128 | opcode, 127, size)
        self.writer.write(head + bytes(payload))


def unmask(data, mask, offset):
    """XOR with the mask, as one large number: fast enough for 16 MiB in Python."""
    turned = mask[offset % 4:] + mask[:offset % 4]
    key = (turned * (len(data) // 4 + 1))[:len(data)]
    return (int.from_bytes(data) ^ int.from_bytes(key)).to_bytes(len(data))


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
    origins = []
    if args.config:
        with open(args.config, "rb") as file:
            origins = tomllib.load(file)["websocket"]["origins"]

    async def serve(reader, writer):
        await Connection(reader, writer, origins, args.broken).serve()

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
    parser.add_argument("--config", metavar="FILE", help="of which websocket.origins counts")
    parser.add_argument("--reactor", help="taken and not used")
    parser.add_argument("--raw", action="store_true", help="echo bytes, no WebSocket")
    parser.add_argument("--broken", choices=sorted(BROKEN), help="; ".join(
        f"{name}: {what}" for name, what in sorted(BROKEN.items())))
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
