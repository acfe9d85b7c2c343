"""The five calls of txaio that autobahn's WebSocket code makes, for Twisted."""
from twisted.internet import defer, reactor


def use_twisted():
    pass


def create_future():
    return defer.Deferred()


def resolve(future, value):
    future.callback(value)


def call_later(delay, fun, *args, **kwargs):
    return reactor.callLater(delay, fun, *args, **kwargs)
