#!/usr/bin/env python3
"""Runs the Autobahn WebSocket suite against a server or a client, from package archives alone.

  autobahn.py server ws://127.0.0.1:PORT/ws   test a server
  autobahn.py client --port PORT --run CMD    test a client; {url} in CMD is replaced
  autobahn.py setup                           only build the environment
  autobahn.py report --out DIR                only print the table of an earlier run

Case patterns are comma-separated: --cases '1.*,2.*' --exclude '9.*'. The suite (PyPI:
autobahntestsuite) is Python 2 code on top of autobahn 0.10.9. The first run fetches both source
archives, checks their SHA-256, converts them to Python 3 (suite/convert.py says how) and keeps
the result under $HIOLOAD_CACHE (default ~/.cache/hioload).

Exit status: 0 pass; 1 a case FAILED or ended UNCLEAN or with a WRONG CODE, or a planned case has
no result, or the client did not end with status 0, or NON-STRICT with --strict, or UNIMPLEMENTED
with --require-deflate; 2 usage or setup; 3 the fuzzer itself raised an exception.
"""

import argparse
import collections
import contextlib
import glob
import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import threading
import time

from suite import environment, report

DRIVER = pathlib.Path(__file__).resolve().parent / "suite" / "drive.py"
PROGRESS_EVERY = 50
# How long the suite outlives a client that went away, and a client the suite.
CLIENT_GRACE_S = 3


def say(text):
    print(f"autobahn: {text}", file=sys.stderr, flush=True)


class Client:
    """The client under test: started once the suite listens, and ended with it."""

    def __init__(self, argv, log=None, cwd=None):
        self.argv, self.log, self.cwd = argv, log, cwd
        self.process = None

    def start(self, url, worker):
        argv = [word.replace("{url}", url) for word in self.argv]
        with open(self.log, "w") if self.log else contextlib.nullcontext() as output:
            self.process = subprocess.Popen(argv, stdout=output, stderr=output, cwd=self.cwd)

        def end_the_suite_too():
            self.process.wait()
            try:
                worker.wait(CLIENT_GRACE_S)
            except subprocess.TimeoutExpired:
                worker.terminate()

        threading.Thread(target=end_the_suite_too, daemon=True).start()

    def problem(self):
        """After the suite has ended: what is wrong with how the client did, or None."""
        if self.process is None:
            return "the client was never started"
        try:
            status = self.process.wait(CLIENT_GRACE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return f"the client still ran {CLIENT_GRACE_S} s after the suite had ended"
        return f"the client ended with status {status}" if status else None


def run(mode, out, target, cases="*", exclude="", timeout_s=3600, client=None, keep=False,
        say=say):
    """Runs the fuzzer to its end. -> verdict so far: PASS means that there are results to read.

    mode "server": `target` is the URL of a server under test. mode "client": `target` is the port
    to listen on, and `client` is the Client under test, if it is to be started from here; the
    caller asks for its problem().
    """
    python, tree = environment.prepare(say)
    out = os.path.abspath(out)
    spec = _write_spec(mode, out, target, cases, exclude, keep)
    env = dict(os.environ, PYTHONUNBUFFERED="1", PYTHONPATH=str(tree))
    began = time.monotonic()
    worker = subprocess.Popen(
        [python, "-P", "-W", "ignore", str(DRIVER), "server" if mode == "client" else "client",
         os.path.join(out, "spec.json")],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env, text=True, errors="replace",
        cwd=out)
    expired = threading.Event()

    def expire():
        expired.set()
        worker.terminate()

    timer = threading.Timer(timeout_s, expire)
    timer.daemon = True
    if timeout_s:
        timer.start()
    try:
        tail = _follow(worker, out, began, say, lambda: client and client.start(
            spec["url"], worker))
        status = worker.wait()
    except BaseException:
        worker.terminate()
        worker.wait()
        raise
    finally:
        timer.cancel()
    if expired.is_set():
        say(f"stopped after {timeout_s} s")
    if status or not os.path.exists(os.path.join(out, "index.json")):
        sys.stderr.write("".join(tail))
        say(f"the fuzzer ended with status {status}")
        if not os.path.exists(os.path.join(out, "index.json")):
            return report.FAIL if expired.is_set() else \
                report.SETUP if status == 2 else report.FUZZER
    say(f"{time.monotonic() - began:.1f} s")
    return report.PASS


def _write_spec(mode, out, target, cases, exclude, keep):
    """The fuzzer's specification, in a folder freed from an earlier run's reports."""
    os.makedirs(out, exist_ok=True)
    for pattern in ("*_case_*.json", "index.*", "plan.json", "fuzzer-errors.log"):
        for old in glob.glob(os.path.join(glob.escape(out), pattern)):
            os.unlink(old)
    spec = {"outdir": out, "cases": cases.split(","),
            "exclude-cases": [case for case in exclude.split(",") if case],
            "exclude-agent-cases": {}}
    if mode == "server":
        spec["servers"] = [{"agent": "server", "url": target}]
    else:
        spec["url"] = f"ws://127.0.0.1:{target}"
        spec["keep"] = keep
    with open(os.path.join(out, "spec.json"), "w") as file:
        json.dump(spec, file, indent=1)
    return spec


def _follow(worker, out, began, say, listening):
    """Copies the fuzzer's output to run.log and reports progress. -> its last lines."""
    tail = collections.deque(maxlen=40)
    started = 0
    with open(os.path.join(out, "run.log"), "w") as log:
        for line in worker.stdout:
            log.write(line)
            log.flush()
            tail.append(line)
            if line.startswith("Running test case"):
                started += 1
                if started % PROGRESS_EVERY == 0:
                    say(f"{started} cases started, {time.monotonic() - began:.0f} s")
            elif line.startswith("LISTENING"):
                say("the fuzzing server listens")
                listening()
    return tail


def parse(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    modes = parser.add_subparsers(dest="mode", required=True)
    output = argparse.ArgumentParser(add_help=False)
    output.add_argument("--out", default="autobahn-report", help="folder of the JSON reports")
    output.add_argument("--strict", action="store_true", help="NON-STRICT is a failure")
    output.add_argument("--require-deflate", action="store_true",
                        help="UNIMPLEMENTED is a failure")
    running = argparse.ArgumentParser(add_help=False, parents=[output])
    running.add_argument("--cases", default="*", help="comma-separated patterns, default all")
    running.add_argument("--exclude", default="", help="comma-separated patterns")
    running.add_argument("--timeout", type=int, default=3600, metavar="SECONDS",
                         help="for the whole run, 0 for none")
    server = modes.add_parser("server", parents=[running], help="test a server")
    server.add_argument("url")
    client = modes.add_parser("client", parents=[running], help="test a client")
    client.add_argument("--port", type=int, required=True)
    client.add_argument("--run", metavar="CMD", help="started once the suite listens")
    client.add_argument("--keep", action="store_true",
                        help="go on serving after /updateReports, until SIGTERM")
    modes.add_parser("setup", help="only build the environment")
    modes.add_parser("report", parents=[output], help="only print an earlier run's table")
    return parser.parse_args(argv)


def main():
    args = parse(sys.argv[1:])
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if args.mode == "setup":
            environment.prepare(say)
            return report.PASS
        problem = None
        if args.mode != "report":
            is_server = args.mode == "server"
            client = None if is_server or not args.run else Client(shlex.split(args.run))
            verdict = run(
                args.mode, args.out, args.url if is_server else args.port, args.cases,
                args.exclude, args.timeout, client, not is_server and args.keep)
            problem = client and client.problem()
            if problem:
                say(problem)
            if verdict != report.PASS:
                return verdict
        verdict = report.show(args.out, args.strict, args.require_deflate)
        if verdict == report.PASS and problem:
            verdict = report.FAIL
        print("\n" + report.VERDICTS[verdict])
        return verdict
    except (environment.SetupError, OSError) as error:
        say(str(error))
        return report.SETUP
    except KeyboardInterrupt:
        say("interrupted")
        return report.FAIL


if __name__ == "__main__":
    sys.exit(main())
