"""The `websockets` package of PyPI against a running echo server that compresses.

What comes in: the URL, and what the server's key `compression` says. What goes out: one line per
check, `ok NAME` or `not ok NAME: why`, then `1..N`; status 1 when a check failed. Each check is a
connection with another offer; the library refuses an answer that RFC 7692 does not allow, and
what it lets pass is compared with the key. Then every message must come back, with RSV1 and
shorter where that is possible.
"""

import asyncio
import functools
import hashlib
import itertools
import json
import sys

from websockets.asyncio.client import connect
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

import tap

URL, COMPRESSION = sys.argv[1:]
RECORD = {"id": 4711, "name": "Grüße", "tags": ["a", "b", "c"], "ok": True}


def noise(length, seed):
    """Bytes that cannot be made smaller, the same in every run."""
    blocks = (hashlib.sha256(f"{seed} {i}".encode()).digest() for i in itertools.count())
    return b"".join(itertools.islice(blocks, length // 32 + 1))[:length]


# {what: (message, whether it can be made smaller)}
MESSAGES = {
    "empty text": ("", False),
    "1 byte": (b"\x07", False),
    "1 KiB of JSON": (json.dumps([RECORD] * 16)[:1024], True),
    "100 KB of text": ("All work and no play makes Jack a dull boy.\n" * 2300, True),
    "100 KB of noise": (noise(100_000, "noise"), False),
    "multibyte text": ("Grüße, 世界 \U0001f30d! " * 800, True),
    "empty binary": (b"", False),
    "text in fragments": (["All work ", "", "and no play ", "世" * 1000], None),
}


def watch(socket):
    """-> a list that gets (RSV1, bytes on the wire) of every data frame"""
    frames = []
    [extension] = socket.protocol.extensions
    decode = extension.decode

    def seen(frame, **options):
        if frame.opcode <= 2:
            frames.append((frame.rsv1, len(frame.data)))
        return decode(frame, **options)

    extension.decode = seen
    return frames


async def exchange(offer):
    factory = ClientPerMessageDeflateFactory(**offer)
    async with connect(URL, max_size=None, ping_interval=None, compression=None,
                       extensions=[factory]) as socket:
        answer = socket.response.headers.get("Sec-WebSocket-Extensions", "")
        agreed = {part.split("=")[0].strip() for part in answer.split(";")}
        tap.equal(len(socket.protocol.extensions), 1, f"extensions agreed on, of {answer!r}")
        # Which window the server keeps, and lets us keep, is what its key is about.
        tap.equal("server_no_context_takeover" in agreed, COMPRESSION != "dedicated_window"
                  or offer["server_no_context_takeover"], answer)
        if not offer["client_no_context_takeover"]:
            tap.equal("client_no_context_takeover" in agreed, COMPRESSION == "no_context", answer)
        frames = watch(socket)
        for what, (message, smaller) in MESSAGES.items():
            frames.clear()
            await socket.send(message)
            wanted = "".join(message) if isinstance(message, list) else message
            tap.equal(await socket.recv(), wanted, what)
            if smaller:
                tap.equal(frames[0][0], True, f"{what}: RSV1")
                size = sum(length for _, length in frames)
                length = len(message.encode())
                tap.equal(size <= length / 2, True, f"{what}: {size} bytes for {length}: halved")
        sent = [message for message, _ in MESSAGES.values() if not isinstance(message, list)]
        for message in sent:
            await socket.send(message)
        for message in sent:
            tap.equal(await socket.recv(), message, "one of many in a row")


def offers():
    """Every combination of takeover with every choice of bits of one side."""
    bits = [{}, {"server_max_window_bits": 9}, {"client_max_window_bits": 9},
            {"client_max_window_bits": None}]
    for server, client, window in itertools.product((False, True), (False, True), bits):
        yield {"server_no_context_takeover": server, "client_no_context_takeover": client, **window}


def name(offer):
    words = [key if value is True else f"{key}={value}"
             for key, value in offer.items() if value is not False]
    return ", ".join(words) or "default"


CHECKS = {name(offer): functools.partial(exchange, offer) for offer in offers()}

if __name__ == "__main__":
    sys.exit(asyncio.run(tap.run(CHECKS)))
