"""The Autobahn suite for Python 3: its environment, its conversion, its fuzzer, its report."""
