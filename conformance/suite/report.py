"""Reads the fuzzer's JSON reports, prints the table, and judges.

What comes in: the folder of a run. What goes out: text, and a verdict. It never changes the
reports.
"""

import collections
import json
import os

PASS, FAIL, SETUP, FUZZER = 0, 1, 2, 3
GOOD = ("OK", "INFORMATIONAL")
BAD = ("FAILED", "UNCLEAN", "WRONG CODE")
SOFT = ("NON-STRICT", "FAILED BY CLIENT")
VERDICTS = {PASS: "PASS", FAIL: "FAIL", FUZZER: "FUZZER ERROR"}
ORDER = GOOD + ("NON-STRICT", "UNIMPLEMENTED", "FAILED BY CLIENT", "WRONG CODE", "UNCLEAN",
                "FAILED")


def case_key(case):
    """Sorts 9.10.1 after 9.2.1."""
    return tuple(map(int, case.split(".")))


def load(out):
    """-> ({agent: {case: result}}, plan or None) of the run in the folder `out`."""
    with open(os.path.join(out, "index.json")) as file:
        index = json.load(file)
    plan = None
    if os.path.exists(os.path.join(out, "plan.json")):
        with open(os.path.join(out, "plan.json")) as file:
            plan = json.load(file)
    return index, plan


def missing(results, plan):
    """The planned cases that have no result, sorted."""
    return sorted(set(plan["cases"]) - set(results), key=case_key) if plan else []


def fuzzer_errors(out):
    """What the fuzzer itself raised, or nothing."""
    path = os.path.join(out, "fuzzer-errors.log")
    if not os.path.exists(path):
        return ""
    with open(path) as file:
        return file.read()


def show(out, strict=False, require_deflate=False):
    """Prints the table of every agent and returns the verdict."""
    index, plan = load(out)
    verdict = PASS if index else FAIL
    if not index:
        print("no results at all")
    for agent in sorted(index):
        results = index[agent]
        planned = f" of {len(plan['cases'])} planned ({plan['suite']} in the suite)" if plan else ""
        print(f"\nagent {agent}: {len(results)} cases with a result{planned}")
        _show_totals(results)
        for case in sorted(results, key=case_key):
            _show_case(out, case, results[case])
            if _is_failure(results[case], strict, require_deflate):
                verdict = FAIL
        absent = missing(results, plan)
        if absent:
            print(f"  no result for {len(absent)} planned cases: {' '.join(absent)}")
            verdict = FAIL
    errors = fuzzer_errors(out)
    if errors:
        print(f"\nthe fuzzer itself raised exceptions, the first ones:\n{errors[:1500]}")
        verdict = FUZZER
    return verdict


def _show_totals(results):
    behavior = collections.Counter(r["behavior"] for r in results.values())
    closing = collections.Counter(r["behaviorClose"] for r in results.values())
    others = sorted((set(behavior) | set(closing)) - set(ORDER))
    print(f"  {'':18} {'behavior':>10} {'behaviorClose':>14}")
    for name in list(ORDER) + others:
        if behavior[name] or closing[name]:
            print(f"  {name:18} {behavior[name]:10} {closing[name]:14}")


def _show_case(out, case, result):
    """One line for a case that is not simply good."""
    behavior, closing = result["behavior"], result["behaviorClose"]
    if behavior in GOOD and closing in GOOD:
        return
    reason = ""
    try:
        with open(os.path.join(out, result["reportfile"])) as file:
            detail = json.load(file)
        reason = detail["resultClose"] if behavior in GOOD else detail["result"]
    except (OSError, ValueError, KeyError):
        reason = "(its report cannot be read)"
    if behavior == "UNIMPLEMENTED":
        reason = "permessage-deflate was not negotiated"
    code = result["remoteCloseCode"]
    print(f"  {case:8} {behavior:14} close: {closing:17} code: {code!s:5} {reason}")


def _is_failure(result, strict, require_deflate):
    """What is not known to be good is bad: an unheard-of word of the suite fails too."""
    behavior, closing = result["behavior"], result["behaviorClose"]
    if behavior == "UNIMPLEMENTED":
        return require_deflate
    bad = any(word in BAD or word not in GOOD + SOFT for word in (behavior, closing))
    return bad or (strict and (behavior in SOFT or closing in SOFT))
