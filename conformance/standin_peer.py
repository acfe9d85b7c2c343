"""One end of a WebSocket connection, in plain Python: what both stand-ins are made of.

What comes in: the streams of a connection whose handshake is done, and what was agreed about
permessage-deflate. What goes out: RFC 6455 with RFC 7692, strict; or, with `broken`, wrong in one
way. It is slow, keeps no limit but the size of a message, and tests nothing but the tests.
"""

import asyncio
import codecs
import os
import struct
import zlib

MESSAGE_BYTES_MAX = 16 * 1024 * 1024
HEAD_BYTES_MAX = 8192
CHUNK_BYTES = 65536
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
COMPRESSED = 0x40  # RSV1
DEFLATE = "permessage-deflate"
FLUSHED = b"\x00\x00\xff\xff"
# How it can be wrong as a server and as a client alike.
BROKEN = {
    "echo": "changes the last byte of every binary message",
    "utf8": "takes text that is not UTF-8",
    "late": "looks at text only when the whole message is there",
    "unclean": "hangs up where a close frame is due",
    "declines": "has never heard of permessage-deflate",
    "plain": "agrees on permessage-deflate and compresses nothing",
    "takeover": "keeps its window although it agreed not to",
    "window": "uses a window of 15 bits, whatever was agreed",
}


class Failure(Exception):
    """The peer broke the protocol; carries the close code that is due."""

    def __init__(self, code):
        super().__init__(code)
        self.code = code


def extensions(header):
    """A Sec-WebSocket-Extensions header -> [(name, {parameter: value or None})]"""
    found = []
    for element in filter(None, map(str.strip, header.split(","))):
        name, *parameters = map(str.strip, element.split(";"))
        pairs = (parameter.partition("=") for parameter in parameters)
        found.append((name, {key.strip(): value.strip().strip('"') or None
                             for key, _, value in pairs}))
    return found


class Deflate:
    """What one end of a connection compresses with and inflates with."""

    def __init__(self, agreed, client, broken):
        """`agreed`: the parameters of the server's answer."""
        ours, theirs = ("client", "server") if client else ("server", "client")
        self.keeps = f"{ours}_no_context_takeover" not in agreed or broken == "takeover"
        self.bits = int(agreed.get(f"{ours}_max_window_bits") or 15)
        self.peer_keeps = f"{theirs}_no_context_takeover" not in agreed
        self.peer_bits = int(agreed.get(f"{theirs}_max_window_bits") or 15)
        if broken == "window":
            self.bits = 15
        self.deflater = self.inflater = None

    def compress(self, payload):
        # zlib has no raw window of 8 bits, but with 9 it refers back 250 bytes at most.
        if not (self.deflater and self.keeps):
            self.deflater = zlib.compressobj(wbits=-max(self.bits, 9))
        data = self.deflater.compress(payload) + self.deflater.flush(zlib.Z_SYNC_FLUSH)
        return data[:-len(FLUSHED)]

    def start(self):
        if not (self.inflater and self.peer_keeps):
            self.inflater = zlib.decompressobj(wbits=-self.peer_bits)

    def inflate(self, data, room):
        """-> the bytes that `data` stands for, at most `room` + 1"""
        try:
            inflated = self.inflater.decompress(data, room + 1)
        except zlib.error as error:
            raise Failure(1007) from error
        if self.inflater.eof:
            self.inflater = zlib.decompressobj(wbits=-self.peer_bits)
        return inflated


class Peer:
    """Frames until the close. It echoes; a subclass may do something else with a message."""

    client = False

    def __init__(self, reader, writer, broken):
        self.reader, self.writer, self.broken = reader, writer, broken
        self.message, self.opcode, self.decoder = bytearray(), None, None
        self.compressed, self.deflate = False, None

    def received(self, opcode, message):
        self.send(opcode, message)

    async def frames(self):
        """To the end of the connection."""
        try:
            while await self.frame():
                pass
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
                if not self.client:  # it is the server that ends the connection
                    self.writer.write_eof()
                async with asyncio.timeout(1):
                    while await self.reader.read(CHUNK_BYTES):
                        pass
            self.writer.transport.abort()
        except (ConnectionError, OSError, TimeoutError):
            self.writer.transport.abort()

    async def frame(self):
        """Reads one frame and answers it; False once the close handshake is done."""
        first, second = await self.reader.readexactly(2)
        opcode, size = first & 15, second & 127
        if first & 0x30 or opcode not in (0, 1, 2, 8, 9, 10):
            raise Failure(1002)
        if first & COMPRESSED and (not self.deflate or opcode not in (TEXT, BINARY)):
            raise Failure(1002)
        if bool(second & 128) == self.client:
            raise Failure(1002)
        if opcode >= CLOSE:
            if size > 125 or not first & 128:
                raise Failure(1002)
        elif (opcode == CONTINUATION) != (self.opcode is not None):
            raise Failure(1002)
        if size >= 126:
            size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8))
        mask = bytes(4) if self.client else await self.reader.readexactly(4)
        if opcode >= CLOSE:
            return self.control(opcode, unmask(await self.reader.readexactly(size), mask, 0))
        if len(self.message) + size > MESSAGE_BYTES_MAX:
            raise Failure(1009)
        if opcode != CONTINUATION:
            self.begin(opcode, bool(first & COMPRESSED))
        await self.data(size, mask, final=bool(first & 128))
        return True

    def begin(self, opcode, compressed):
        self.opcode, self.compressed = opcode, compressed
        self.decoder = codecs.getincrementaldecoder("utf-8")() if opcode == TEXT else None
        if compressed:
            self.deflate.start()

    async def data(self, size, mask, final):
        done = 0
        while done < size:
            chunk = await self.reader.read(min(size - done, CHUNK_BYTES))
            if not chunk:
                raise asyncio.IncompleteReadError(b"", size)
            self.take(unmask(chunk, mask, done))
            done += len(chunk)
        if final:
            if self.compressed:
                self.take(FLUSHED)
            if self.broken == "late":
                self.check_text(bytes(self.message))
            self.check_text(b"", final=True)
            if self.broken == "echo" and self.opcode == BINARY and self.message:
                self.message[-1] ^= 1
            message, opcode = bytes(self.message), self.opcode
            self.message, self.opcode = bytearray(), None
            self.received(opcode, message)
            await self.writer.drain()

    def take(self, chunk):
        if self.compressed:
            chunk = self.deflate.inflate(chunk, MESSAGE_BYTES_MAX - len(self.message))
        self.message += chunk
        if len(self.message) > MESSAGE_BYTES_MAX:
            raise Failure(1009)
        if self.broken != "late":
            self.check_text(chunk)

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
        first = 128 | opcode
        if self.deflate and opcode < CLOSE and self.broken != "plain":
            first, payload = first | COMPRESSED, self.deflate.compress(payload)
        size, masked = len(payload), 128 if self.client else 0
        head = struct.pack(">BB", first, masked | size) if size < 126 else \
            struct.pack(">BBH", first, masked | 126, size) if size < 65536 else \
            struct.pack(">BBQ", first, masked | 127, size)
        if self.client:
            mask = os.urandom(4)
            head, payload = head + mask, unmask(payload, mask, 0)
        self.writer.write(head + bytes(payload))


def unmask(data, mask, offset):
    """XOR with the mask, as one large number: fast enough for 16 MiB in Python."""
    if mask == bytes(4):
        return data
    turned = mask[offset % 4:] + mask[:offset % 4]
    key = (turned * (len(data) // 4 + 1))[:len(data)]
    return (int.from_bytes(data) ^ int.from_bytes(key)).to_bytes(len(data))
