"""Turns the Python 2 sources of the suite into a tree that Python 3 runs.

What comes in: the two source archives, already checked. What goes out: a folder with the
converted packages and the modules of `overlay/`. It fetches nothing and runs no case.

How the conversion stays faithful: in Python 2 a str is a byte string. The converted cases keep
using str, but every character stands for one byte (sources are read as latin-1), so indexing,
slicing, chr/ord, concatenation and comparison behave as they did. Text becomes bytes and back
only where the cases touch autobahn's protocol class (overlay/autobahntestsuite/bytecompat.py).
A rule that does not match what it was written for is an error, never a silent difference.
"""

import fnmatch
import os
import pathlib
import re
import subprocess
import tarfile

OVERLAY = pathlib.Path(__file__).with_name("overlay")

# What is taken out of each archive.
WANTED = {
    "autobahn": [
        "__init__.py", "_logging.py", "util.py", "websocket/*.py",
        "twisted/__init__.py", "twisted/util.py", "twisted/websocket.py",
    ],
    "autobahntestsuite": ["_version.py", "case/*.py", "caseset.py", "fuzzing.py", "testdata/*"],
}

_FUZZING = "autobahntestsuite/fuzzing.py"
_CASES = "autobahntestsuite/case/case*.py"
_PROTOCOL = "autobahn/websocket/protocol.py"
_TWISTED = "autobahn/twisted/websocket.py"
_COMPAT = "autobahntestsuite.bytecompat"

# (file pattern, regular expression, replacement, least number of matches over those files);
# applied in this order, before the fixers.
RULES = [
    # the WAMP half of autobahn is not needed, and not converted
    (_TWISTED, r"from autobahn\.wamp import websocket\n", "", 1),
    (_TWISTED, r"(?s)\nclass WampWebSocketServerProtocol\(.*\Z", "\n", 1),
    (_TWISTED, r"(?s)\n__all__ = \(.*?\n\)\n", "\n", 1),
    # integer division
    (_PROTOCOL, r"range\(payload_len / len\(payload\)\)",
     "range(payload_len // len(payload))", 1),
    ("autobahntestsuite/case/case10_1_1.py", r"len\(self\.payload\) / self",
     "len(self.payload) // self", 1),
    # Python 2 decoded surrogates; a peer's bad close reason must not raise inside the fuzzer
    (_PROTOCOL, r"reasonRaw\.decode\('utf8'\)", "reasonRaw.decode('utf8', 'replace')", 1),
    # Python 2 pickles compared equal exactly where the values do
    ("autobahntestsuite/case/case.py", r"pickle\.dumps\(obj1\) == pickle\.dumps\(obj2\)",
     "obj1 == obj2", 1),
    # a classic base class listed after object
    (_CASES, r"\(object, Case, \)", "(Case, )", 5),
    # a case that the suite itself has switched off, and that needs an older zope.interface
    ("autobahntestsuite/case/__init__.py", r"from case9_9_1 import \*\n", "", 1),
    # hex of byte-per-character text, as text
    (_CASES, r"(?m)^(import .*), binascii$", r"\1\nimport binascii", 1),
    (_CASES, r"(?m)^import binascii$", f"from {_COMPAT} import binascii", 8),
    # the deflate cases hash real bytes
    ("autobahntestsuite/case/case12_x_x.py", r"(def onMessage\(self, msg, binary\):\n)",
     r"\1   msg = msg.encode('latin-1')\n", 1),
    # a case pattern names whole cases: 12.*.1 is not 12.1.10
    ("autobahntestsuite/caseset.py", r"p = re\.compile\(s\)", "p = re.compile(s + '$')", 1),
    # the fuzzer itself
    (_FUZZING, r"import os, json, binascii, ", "import os, json, ", 1),
    (_FUZZING, r"import reactor, ssl\n", "import reactor\n", 1),
    (_FUZZING, r"from autobahn\.twisted\.websocket import", f"from {_COMPAT} import", 2),
    (_FUZZING, r"(?s)\ndef binLogData\(.*?\nclass FuzzingProtocol:",
     f"\nfrom {_COMPAT} import binascii, ssl, jsonable, binLogData, asciiLogData\n"
     "\nclass FuzzingProtocol:", 1),
    (_FUZZING, r"from report import (?:\w+, \\\n\s*)*\w+\n", "", 1),  # HTML only
    (_FUZZING, r"p = ''\.join\(payload\)", "p = b''.join(payload)", 1),
    (_FUZZING, r"json\.dumps\(case, sort_keys",
     "json.dumps(case, default = jsonable, sort_keys", 1),
    (_FUZZING, r"json\.loads\(msg\)", "json.loads(msg.encode('latin-1'))", 1),
    (_FUZZING, r"listenWS\(factory, sslContext\)",
     "listenWS(factory, sslContext, interface = '127.0.0.1')", 1),
]
FIXERS = ["print", "has_key", "except", "raise", "xrange", "import", "ne", "long", "unicode"]

# Runs in the environment that has fissix; compiles each result, so a bad one stops here.
_REFACTOR = """
import sys
from fissix.refactor import RefactoringTool
tool = RefactoringTool(["fissix.fixes.fix_" + n for n in sys.argv[1].split(",")], {}, [])
for path in sys.argv[2:]:
    with open(path, encoding="utf-8") as source:
        text = source.read()
    out = str(tool.refactor_string(text if text.endswith("\\n") else text + "\\n", path))
    compile(out, path, "exec")
    with open(path, "w", encoding="utf-8") as target:
        target.write(out)
"""


class ConversionError(Exception):
    """The archives are not what the rules were written for."""


def convert(python, archives, tree):
    """Fills `tree` from `archives` ({package: path}); `python` is one that has fissix."""
    texts = {}
    for package, archive in archives.items():
        texts.update(_unpack(package, archive, tree))
    _substitute(texts)
    for path, text in texts.items():
        (pathlib.Path(tree) / path).write_text(text, encoding="utf-8")
    for source in sorted(OVERLAY.rglob("*.py")):
        target = pathlib.Path(tree) / source.relative_to(OVERLAY)
        target.write_bytes(source.read_bytes())
    # the import fixer asks the disk what is a package: the overlay has to be there by now
    _refactor(python, [os.path.join(tree, path) for path in sorted(texts)
                       if path.startswith("autobahntestsuite/")])


def recipe():
    """Everything that the converted tree depends on, beside the archives."""
    overlay = [(str(p.relative_to(OVERLAY)), p.read_bytes()) for p in sorted(OVERLAY.rglob("*.py"))]
    return repr((WANTED, RULES, FIXERS, _REFACTOR, overlay)).encode()


def _unpack(package, archive, tree):
    """Writes the wanted data files into `tree`; returns the sources as {path: text}."""
    texts = {}
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            # NAME-VERSION/NAME/inside
            parts = member.name.split("/", 2)
            if not member.isfile() or len(parts) != 3 or parts[1] != package:
                continue
            inside = parts[2]
            if ".." in inside.split("/") or not _is_wanted(package, inside):
                continue
            data = tar.extractfile(member).read()
            target = os.path.join(tree, package, inside)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            if inside.endswith(".py"):
                text = data.decode("latin-1").replace("\r\n", "\n")
                declaration = r"(?m)\A((?:#.*\n)?)#.*coding[:=].*\n"
                texts[f"{package}/{inside}"] = re.sub(declaration, r"\1", text)
            else:
                with open(target, "wb") as file:
                    file.write(data)
    return texts


def _is_wanted(package, inside):
    return any(fnmatch.fnmatchcase(inside, pattern) and inside.count("/") == pattern.count("/")
               for pattern in WANTED[package])


def _substitute(texts):
    for pattern, expression, replacement, least in RULES:
        count = 0
        for path in texts:
            if fnmatch.fnmatchcase(path, pattern):
                texts[path], n = re.subn(expression, replacement, texts[path])
                count += n
        if count < least:
            raise ConversionError(
                f"rule {expression!r} matched {count} times in {pattern}, expected at least "
                f"{least}: the archive is not the one the rules were written for")


def _refactor(python, paths):
    done = subprocess.run(
        [python, "-W", "ignore", "-c", _REFACTOR, ",".join(FIXERS), *paths],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise ConversionError(f"the converted sources do not compile:\n{done.stdout[-3000:]}")
