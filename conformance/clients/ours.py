"""Our client (the `client` example) against an echo server made of the `ws` package of npm.

What comes in: the reactor, and the command of a client that takes a URL, --reactor, --compression
and --count, sends each line of its input, and prints each message as a line. What goes out: one
line per check, `ok NAME` or `not ok NAME: why`, then `1..N`; status 1 when a check failed. The
server runs once for every combination of what it can ask of permessage-deflate, and meets the
client with every value of --compression.
"""

import asyncio
import contextlib
import functools
import pathlib
import subprocess
import sys

import tap

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import harness  # noqa: E402: it lies one folder up

REACTOR, *COMMAND = sys.argv[1:]
CLIENT_TIMEOUT_S = 8
COMPRESSIONS = ("off", "no_context", "shared_window", "dedicated_window")
SERVERS = (
    (),
    ("--server-no-context-takeover",),
    ("--client-no-context-takeover",),
    ("--server-no-context-takeover", "--client-no-context-takeover"),
    ("--server-max-window-bits", "9"),
    ("--client-max-window-bits", "9"),
    ("--off",),
)
RECORD = '{"id": 4711, "name": "Grüße", "tags": ["a", "b", "c"], "ok": true}'
# The digits of the powers of 3 are as good as random, but the lines stay lines.
LINES = ["hello", "", "x", RECORD, RECORD, ", ".join([RECORD] * 20), "世界 \U0001f30d " * 2000,
         "All work and no play makes Jack a dull boy. " * 2300, str(3 ** 9000),
         *(f"line {number}" for number in range(200)), "", "the end"]


def command(port, compression):
    return [*COMMAND, f"ws://{harness.HOST}:{port}/", "--reactor", REACTOR,
            "--compression", compression, "--count", str(len(LINES))]


async def exchange(port, log, compression, off):
    """Every line comes back, in order, and the server agreed to what it should have."""
    before = log.read_text().count("extensions: ")
    done = await asyncio.to_thread(
        subprocess.run, command(port, compression), input="".join(f"{line}\n" for line in LINES),
        capture_output=True, text=True, encoding="utf-8", timeout=CLIENT_TIMEOUT_S)
    said = done.stderr.strip().rpartition("\n")[2]
    tap.equal(done.returncode, 0, f"status, having said {said!r}")
    tap.equal(done.stdout.splitlines(), LINES, "what it printed")
    answers = [line for line in log.read_text().splitlines() if line.startswith("extensions: ")]
    [answer] = answers[before:]
    compressed = answer.startswith("extensions: permessage-deflate")
    tap.equal(compressed, compression != "off" and not off, f"compressed, by {answer!r}")
    if compression == "no_context":
        tap.equal(not compressed or "server_no_context_takeover" in answer, True, answer)


def main():
    planned = failed = 0
    for flags in SERVERS:
        log = harness.OUT / "clients" / f"{REACTOR}-ws-server.log"
        checks = [(compression, f"{' '.join(flags) or 'plain'}: {compression}")
                  for compression in COMPRESSIONS]
        planned += len(checks)
        server = ["node", str(HERE / "server.mjs"), *flags]
        with contextlib.ExitStack() as stack:
            try:
                port = stack.enter_context(harness.serving(server, None, None, log))
            except harness.HarnessError as error:
                print(f"not ok ws server {' '.join(flags)}: {error}")
                failed += 1
                continue
            failed += asyncio.run(tap.run({
                name: functools.partial(exchange, port, log, compression, flags == ("--off",))
                for compression, name in checks}, plan=False))
    print(f"1..{planned}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
