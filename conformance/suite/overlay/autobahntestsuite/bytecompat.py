"""Where the byte-per-character text of the cases meets the bytes of autobahn."""
import binascii as _binascii
import zlib as _zlib

from autobahn.twisted import websocket as _ws
from autobahn.twisted.websocket import (  # noqa: F401: the fuzzer imports them from here
    WebSocketClientFactory,
    WebSocketServerFactory,
    connectWS,
    listenWS,
)


def to_bytes(x):
    return x.encode("latin-1") if isinstance(x, str) else x


def to_text(x):
    return bytes(x).decode("latin-1") if isinstance(x, (bytes, bytearray)) else x


def jsonable(x):
    if isinstance(x, (bytes, bytearray)):
        return to_text(x)
    raise TypeError(repr(x))


class binascii(object):
    @staticmethod
    def b2a_hex(x):
        return _binascii.b2a_hex(to_bytes(x)).decode("ascii")

    hexlify = b2a_hex


def binLogData(data, maxlen=64):
    data = to_bytes(data)
    return binascii.b2a_hex(data[:maxlen]) + (" ..." if len(data) > maxlen - 4 else "")


def asciiLogData(data, maxlen=64, replace=False):
    data = to_bytes(data)
    shown = data[:maxlen] + b" ..." if len(data) > maxlen - 4 else data
    try:
        return shown.decode("utf8", "replace" if replace else "strict")
    except UnicodeDecodeError:
        return "0x" + binLogData(data, maxlen)


class ssl(object):
    """Stands where the fuzzer looks for TLS, of which there is none here."""

    @staticmethod
    def ClientContextFactory():
        return None

    @staticmethod
    def optionsForClientTLS(hostname):
        raise Exception("TLS is not supported by this conversion")

    DefaultOpenSSLContextFactory = optionsForClientTLS


def _outgoing(name):
    def call(self, *args, **kwargs):
        inherited = getattr(super(Boundary, self), name)
        return inherited(*map(to_bytes, args), **{k: to_bytes(v) for k, v in kwargs.items()})

    call.__name__ = name
    return call


class Boundary(object):
    """Turns what the cases send into bytes, and what they receive back into text."""

    def dataReceived(self, data):
        try:
            super(Boundary, self).dataReceived(data)
        except _zlib.error as error:
            # the peer's fault, not the fuzzer's; the connection ends as with any exception
            if self.runCase:
                self.runCase.result = "What the peer compressed cannot be inflated: %s" % error
            self.transport.abortConnection()

    def _onMessage(self, payload, isBinary):
        super(Boundary, self)._onMessage(to_text(payload), isBinary)

    def _onPong(self, payload):
        super(Boundary, self)._onPong(to_text(payload))


for _name in (
    "sendFrame", "sendMessage", "sendMessageFrame", "sendMessageFrameData", "sendPing",
    "sendPong", "sendCloseFrame",
):
    setattr(Boundary, _name, _outgoing(_name))


class WebSocketServerProtocol(Boundary, _ws.WebSocketServerProtocol):
    pass


class WebSocketClientProtocol(Boundary, _ws.WebSocketClientProtocol):
    pass
