"""Starts and stops the server under test; used by `run` and by `clients/run`.

What comes in: the command line of a server that takes --config, --reactor and --addr. What goes
out: its port while it runs, and a sentence for everything that is wrong with how it starts or
ends. It knows nothing of the protocol and stops only what it started.
"""

import contextlib
import os
import pathlib
import random
import signal
import socket
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT = ROOT / "conformance" / "out"
HOST = "127.0.0.1"
START_TIMEOUT_S = 20
# More than shutdown.drain_ms of the default configuration (10 s).
STOP_TIMEOUT_S = 15
POLL_S = 0.02


class HarnessError(Exception):
    """The server could not be built, started or stopped as it should."""


def build(*examples):
    """Builds the examples in release. -> {name: path of the program}"""
    command = ["cargo", "build", "--release", "--locked", "--package", "hioload-examples"]
    for name in examples:
        command += ["--example", name]
    print("$ " + " ".join(command), flush=True)
    if subprocess.run(command, cwd=ROOT).returncode:
        raise HarnessError("the examples do not build: see above")
    target = ROOT / (os.environ.get("CARGO_TARGET_DIR") or "target")
    return {name: [str(target / "release" / "examples" / name)] for name in examples}


def free_port():
    """A port that nobody uses, below those that the kernel gives to outgoing connections: of the
    hundreds that the clients open one would take it before its server listens."""
    for port in random.sample(range(10_000, 32_000), 100):
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise HarnessError("of a hundred ports none is free")


@contextlib.contextmanager
def serving(command, reactor, config, log, ends_with=(0,)):
    """Runs `command` for the time of the `with` block. -> its port.

    On leaving: it must still run, and must end on SIGTERM within the drain time, with one of the
    statuses `ends_with`. `reactor` and `config` may be None for a program that takes none. What
    it prints goes to the file `log`.
    """
    port = free_port()
    argv = [*command, "--addr", f"{HOST}:{port}"]
    if reactor:
        argv += ["--reactor", reactor]
    if config:
        argv += ["--config", str(config)]
    log = pathlib.Path(log)
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w") as output:
        try:
            server = subprocess.Popen(argv, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT)
        except OSError as error:
            raise HarnessError(f"{argv[0]} cannot be started: {error}") from error
    try:
        _wait_until_it_accepts(server, port, argv, log)
        yield port
        _stop(server, argv, log, ends_with)
    finally:
        if server.poll() is None:
            server.kill()
            server.wait()


def _wait_until_it_accepts(server, port, argv, log):
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise HarnessError(f"{' '.join(argv)} ended with status {server.returncode} before "
                               f"it accepted a connection:\n{tail(log)}")
        try:
            socket.create_connection((HOST, port), timeout=1).close()
            return
        except OSError:
            time.sleep(POLL_S)
    raise HarnessError(f"{' '.join(argv)} accepted no connection on {HOST}:{port} within "
                       f"{START_TIMEOUT_S} s:\n{tail(log)}")


def _stop(server, argv, log, ends_with):
    if server.poll() is not None:
        raise HarnessError(f"{' '.join(argv)} ended with status {server.returncode} while it was "
                           f"tested:\n{tail(log)}")
    server.send_signal(signal.SIGTERM)
    try:
        status = server.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise HarnessError(f"{' '.join(argv)} still ran {STOP_TIMEOUT_S} s after SIGTERM:\n"
                           f"{tail(log)}") from None
    if status not in ends_with:
        raise HarnessError(f"{' '.join(argv)} ended with status {status} on SIGTERM, wanted "
                           f"{' or '.join(map(str, ends_with))}:\n{tail(log)}")


def tail(log):
    """The last lines of what a program printed."""
    lines = log.read_text(errors="replace").splitlines()
    return "\n".join("    " + line for line in lines[-20:]) or "    (it printed nothing)"


def fail(text):
    """On standard output, between the results that it belongs to."""
    print(f"FAIL: {text}", flush=True)
