"""Judges the results of a run by themselves, by explained.toml and by the committed results.

What comes in: {case: [behavior, behaviorClose]}. What goes out: sentences, one for every reason
to fail. It runs nothing.
"""

import json
import pathlib
import tomllib

from suite import environment, report

HERE = pathlib.Path(__file__).resolve().parent
RESULTS = HERE / "results"
# From best to worst; a word that is not here is worse than all of them.
RANKS = ("OK", "INFORMATIONAL", "NON-STRICT", "FAILED BY CLIENT", "UNIMPLEMENTED")


def load_explained():
    with open(HERE / "explained.toml", "rb") as file:
        return tomllib.load(file)


def quick_parts():
    """The parts of a quick run: [{"cases": [pattern], "reason": sentence}]"""
    with open(HERE / "quick.toml", "rb") as file:
        return tomllib.load(file)["part"]


def committed(name):
    """The committed results of a run as {case: [behavior, behaviorClose]}, or None."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text())["cases"] if path.exists() else None


def write_results(path, reactor, cases, excluded):
    """One line per case, sorted, without times: a difference in git is a difference in result."""
    version = environment.SDISTS["autobahntestsuite"][0]
    head = {"suite": f"autobahntestsuite {version}", "reactor": reactor, "excluded": excluded}
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
    rows = [f"    {json.dumps(case)}: {json.dumps(cases[case])}"
            for case in sorted(cases, key=report.case_key)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{\n" + "\n".join(lines) + '\n  "cases": {\n' + ",\n".join(rows) + "\n  }\n}\n")


def rank(word):
    return RANKS.index(word) if word in RANKS else len(RANKS)


def judge(cases, absent, before, allowed):
    """-> every reason why these results fail, as sentences; none means that they pass.

    `absent`: planned cases without a result. `before`: the committed results, or None.
    `allowed`: what explained.toml says about the side under test.
    """
    reasons = [f"{case}: no result" for case in absent]
    soft = []
    for case in sorted(cases, key=report.case_key):
        words = cases[case]
        if all(word in report.GOOD for word in words):
            pass
        elif all(word in report.GOOD + report.SOFT for word in words):
            soft.append(case)
            if case not in allowed["non_strict"]:
                reasons.append(f"{case}: {' / '.join(words)}, not explained in explained.toml")
        else:
            reasons.append(f"{case}: {' / '.join(words)}")
        if before is None:
            continue
        if case not in before:
            reasons.append(f"{case}: not among the committed results (--update writes them)")
        elif any(rank(now) > rank(then) for now, then in zip(words, before[case])):
            reasons.append(f"{case}: {' / '.join(words)}, committed: {' / '.join(before[case])}")
    if len(soft) > allowed["non_strict_max"]:
        reasons.append(f"{len(soft)} NON-STRICT cases, at most {allowed['non_strict_max']}: "
                       + " ".join(soft))
    return reasons
