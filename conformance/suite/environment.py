"""The environment that the suite runs in: a venv and the converted tree, built once and cached.

What comes in: the package index that pip is set up for, and the pins here and in
requirements.txt. What goes out: the path of a Python and of the tree. Nothing is taken that does
not have the committed SHA-256.
"""

import contextlib
import fcntl
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import time

from . import convert

REQUIREMENTS = pathlib.Path(__file__).with_name("requirements.txt")
SDISTS = {
    "autobahntestsuite":
        ("25.10.1", "b083d6e15330fc16f3e5f0975cce2b15f21bfa0c6db09547316b1852c6dbd6df"),
    "autobahn":
        ("0.10.9", "3fecc1e2a26a0421128ddcfb4e577f0bc669dd65d0e0fdad1c773965cbcef75a"),
}


class SetupError(Exception):
    """The environment cannot be built; the sentence says why and what to try."""


def cache_root():
    """Where everything fetched lives: $HIOLOAD_CACHE, else the user's cache folder."""
    named = os.environ.get("HIOLOAD_CACHE")
    user = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(named or os.path.join(user, "hioload")).expanduser().resolve()


def prepare(say):
    """-> (python of the venv, folder of the converted tree); `say` reports progress."""
    version = "%d.%d" % sys.version_info[:2]
    root = cache_root() / "autobahn" / f"py{version}"
    recipe = hashlib.sha256(repr(SDISTS).encode() + convert.recipe()).hexdigest()[:12]
    tree = root / f"tree-{recipe}"
    with _locked(root):
        began = time.monotonic()
        python = make_venv(root / "venv", REQUIREMENTS, say)
        if not tree.exists():
            say(f"fetching and converting the suite into {tree}")
            archives = {name: _fetch(python, name, root) for name in SDISTS}
            unfinished = root / f"{tree.name}.new"
            shutil.rmtree(unfinished, ignore_errors=True)
            try:
                convert.convert(python, archives, str(unfinished))
            except convert.ConversionError as error:
                raise SetupError(str(error)) from error
            unfinished.rename(tree)
            say(f"ready after {time.monotonic() - began:.0f} s")
    return python, tree


def make_venv(folder, requirements, say):
    """A venv with exactly what `requirements` pins; rebuilt when that file changes."""
    python, stamp = folder / "bin" / "python", folder / "requirements.sha256"
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return str(python)
    say(f"building the Python environment {folder}")
    shutil.rmtree(folder, ignore_errors=True)
    _call([sys.executable, "-m", "venv", str(folder)],
          "is the venv module installed (Debian: python3-venv)?")
    _call([str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check",
           "--only-binary", ":all:", "--require-hashes", "-r", str(requirements)],
          "is the package index reachable, and does it have wheels for this machine?")
    stamp.write_text(wanted)
    return str(python)


@contextlib.contextmanager
def _locked(root):
    """One builder at a time; others wait and then find it ready."""
    root.mkdir(parents=True, exist_ok=True)
    with open(root / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch(python, name, where):
    version, digest = SDISTS[name]
    path = where / f"{name}-{version}.tar.gz"
    if not path.exists():
        _call([python, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps",
               "--no-binary", ":all:", "-d", str(where), f"{name}=={version}"],
              "is the package index reachable?")
    got = hashlib.sha256(path.read_bytes()).hexdigest()
    if got != digest:
        raise SetupError(f"{path} has SHA-256 {got}, wanted {digest}: remove it and look why")
    return path


def _call(argv, hint):
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise SetupError(f"{' '.join(argv)} failed with status {done.returncode}; {hint}\n"
                         f"{done.stdout[-3000:]}")
