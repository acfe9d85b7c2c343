"""Runs named checks and prints one line for each, then how many there were."""

import asyncio
import traceback

CHECK_TIMEOUT_S = 10


async def run(checks, plan=True):
    """`checks` is {name: coroutine function}; without `plan` more follow. -> exit status"""
    failed = 0
    for name, check in checks.items():
        try:
            await asyncio.wait_for(check(), CHECK_TIMEOUT_S)
            print(f"ok {name}", flush=True)
        except Exception as error:  # whatever it is, this check failed and the next one runs
            failed += 1
            where = traceback.extract_tb(error.__traceback__)[-1]
            why = str(error).split("\n")[0] or where.line
            print(f"not ok {name}: {type(error).__name__}: {why}", flush=True)
    if plan:
        print(f"1..{len(checks)}", flush=True)
    return 1 if failed else 0


def equal(got, wanted, what):
    """Like assert, but short when the values are megabytes."""
    if got != wanted:
        def short(value):
            text = repr(value)
            return text if len(text) < 80 else f"{text[:60]}... ({len(value)} long)"

        raise AssertionError(f"{what}: got {short(got)}, wanted {short(wanted)}")
