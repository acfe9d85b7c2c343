"""The fuzzer process: runs inside the suite's own environment, started by ../autobahn.py.

What comes in: `client` or `server` and a specification file. What goes out: JSON reports in the
specification's `outdir`, one line per case on standard output, and every exception of the fuzzer
itself in `fuzzer-errors.log`. It judges nothing: report.py does.
"""

import faulthandler
import json
import os
import signal
import sys

# How long a finished client under test gets to end its own connection.
STOP_DELAY_S = 0.5


def main(mode, specification):
    faulthandler.enable()
    with open(specification) as file:
        spec = json.load(file)
    errors = log_errors(os.path.join(spec["outdir"], "fuzzer-errors.log"))

    from twisted.internet import reactor
    from autobahntestsuite import fuzzing

    write_plan(fuzzing, spec)
    create_reports = fuzzing.FuzzingFactory.createReports
    factories = []

    def json_only(factory, produceHtml=False, produceJson=True):
        create_reports(factory, produceHtml=False, produceJson=True)
        if mode == "server" and not spec["keep"]:
            reactor.callLater(STOP_DELAY_S, lambda: reactor.running and reactor.stop())

    init = fuzzing.FuzzingFactory.__init__

    def remember(factory, *args, **kwargs):
        init(factory, *args, **kwargs)
        factories.append(factory)

    def finish():
        for factory in factories:
            create_reports(factory, produceHtml=False, produceJson=True)
        if reactor.running:
            reactor.stop()

    fuzzing.FuzzingFactory.createReports = json_only
    fuzzing.FuzzingFactory.__init__ = remember
    if mode == "client":
        reactor.callWhenRunning(fuzzing.startClient, spec)
    else:
        fuzzing.startServer(spec, 0)
        print("LISTENING", flush=True)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: reactor.callFromThread(finish))
    reactor.run(installSignalHandlers=False)
    errors.close()


def log_errors(path):
    from twisted.python import log

    errors = open(path, "w")

    def observe(event):
        if event.get("isError"):
            errors.write((log.textFromEventDict(event) or repr(event)) + "\n\n")
            errors.flush()

    log.startLoggingWithObserver(observe, setStdout=False)
    return errors


def write_plan(fuzzing, spec):
    """Which cases the patterns mean, so that a case without a result is noticed."""
    from autobahntestsuite.caseset import CaseSet

    cases = CaseSet(fuzzing.CaseSetname, fuzzing.CaseBasename, fuzzing.Cases,
                    fuzzing.CaseCategories, fuzzing.CaseSubCategories)
    plan = cases.parseSpecCases(spec)
    unknown = [case for case in plan if case not in cases.CasesById]
    if unknown:
        print("no such case: " + " ".join(unknown))
        sys.exit(2)
    if not plan:
        print("no case matches")
        sys.exit(2)
    with open(os.path.join(spec["outdir"], "plan.json"), "w") as file:
        json.dump({"cases": plan, "suite": len(cases.Cases)}, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
