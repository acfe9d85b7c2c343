#!/usr/bin/env python3
"""A plain WebSocket client that takes the flags of the client examples: it tests the tests.

As `autobahn_client` it runs every case that a fuzzing server has, as an echo, and asks for the
reports. As `client` it sends each line of its input as a text message and prints each message
that comes, one a line. With --broken it is wrong in a chosen way. It needs Python alone.

    standin_client.py --url ws://127.0.0.1:9100 --agent NAME [--reactor R]
    standin_client.py ws://127.0.0.1:9001/ --count N [--compression C] [--reactor R] < LINES
"""

import argparse
import asyncio
import base64
import hashlib
import os
import sys
import urllib.parse

import standin_peer
from standin_peer import CLOSE, DEFLATE, GUID, TEXT, Deflate, Peer, extensions

BROKEN = standin_peer.BROKEN | {
    "exit": "ends with status 3",
    "hang": "does not end",
    "stops": "goes away after the first case, as if all were well",
}
# What it asks for, beside saying that its window may be limited.
OFFERS = {
    "no_context": "; server_no_context_takeover; client_no_context_takeover",
    "shared_window": "; client_no_context_takeover",
    "dedicated_window": "",
}
ANSWER_TIMEOUT_S = 60
CASE_TIMEOUT_S = 600
PROGRESS_EVERY = 50


class Socket(Peer):
    """A connection that this end opened. It echoes, or hands messages to `listener`."""

    client = True
    listener = None

    def received(self, opcode, message):
        if self.listener:
            self.listener(message)
        else:
            super().received(opcode, message)


async def connect(url, compression, broken):
    parts = urllib.parse.urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    key = base64.b64encode(os.urandom(16)).decode()
    offer = "" if compression == "off" or broken == "declines" else \
        f"Sec-WebSocket-Extensions: {DEFLATE}{OFFERS[compression]}; client_max_window_bits\r\n"
    query = f"?{parts.query}" if parts.query else ""
    writer.write(
        f"GET {parts.path or '/'}{query} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Key: {key}\r\n{offer}\r\n".encode())
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.strip().lower(): value.strip()
               for name, _, value in (line.partition(":") for line in lines[1:-2])}
    accept = base64.b64encode(hashlib.sha1(key.encode() + GUID).digest()).decode()
    if " 101 " not in lines[0] or headers.get("sec-websocket-accept") != accept:
        raise ConnectionError(f"the server said {lines[0]!r}")
    socket = Socket(reader, writer, broken)
    agreed = extensions(headers.get("sec-websocket-extensions", ""))
    if agreed:
        [(name, parameters)] = agreed
        if name != DEFLATE or not offer:
            raise ConnectionError(f"the server wants {name}, which was not offered")
        socket.deflate = Deflate(parameters, True, broken)
    return socket


async def answer(url):
    """The one message that a control path of the fuzzing server sends."""
    got = []
    socket = await connect(url, "off", None)
    socket.listener = got.append
    async with asyncio.timeout(ANSWER_TIMEOUT_S):
        await socket.frames()
    return got[0].decode() if got else ""


async def cases(args):
    count = int(await answer(args.url + "/getCaseCount"))
    agent = urllib.parse.quote(args.agent)
    for case in range(1, count + 1):
        socket = await connect(f"{args.url}/runCase?case={case}&agent={agent}", args.compression,
                               args.broken)
        async with asyncio.timeout(CASE_TIMEOUT_S):
            await socket.frames()
        if case % PROGRESS_EVERY == 0 or case == count:
            print(f"case {case} of {count}", flush=True)
        if args.broken == "stops":
            return
    await answer(f"{args.url}/updateReports?agent={agent}")


async def lines(args):
    socket = await connect(args.target, args.compression, args.broken)
    got = 0

    def print_it(message):
        nonlocal got
        got += 1
        print(message.decode(), flush=True)
        if got == args.count:
            socket.send(CLOSE, (1000).to_bytes(2))

    socket.listener = print_it
    for line in sys.stdin.buffer.read().split(b"\n")[:-1]:
        socket.send(TEXT, line)
    async with asyncio.timeout(ANSWER_TIMEOUT_S):
        await socket.frames()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", nargs="?", help="the URL of an echo server")
    parser.add_argument("--url", help="the URL of a fuzzing server")
    parser.add_argument("--agent", default="standin")
    parser.add_argument("--count", type=int, default=1, help="messages to wait for")
    parser.add_argument("--compression", choices=["off", *OFFERS], default="dedicated_window")
    parser.add_argument("--reactor", help="taken and not used")
    parser.add_argument("--broken", choices=sorted(BROKEN), help="; ".join(
        f"{name}: {what}" for name, what in sorted(BROKEN.items())))
    args = parser.parse_args()
    if bool(args.url) == bool(args.target):
        parser.error("either --url or the URL of an echo server")
    asyncio.run(cases(args) if args.url else lines(args))
    if args.broken == "hang":
        asyncio.run(asyncio.Event().wait())
    return 3 if args.broken == "exit" else 0


if __name__ == "__main__":
    sys.exit(main())
