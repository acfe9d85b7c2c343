"""The one call of pkg_resources that the suite makes."""
import importlib
import os


def resource_filename(package, path):
    return os.path.join(os.path.dirname(importlib.import_module(package).__file__), path)
