"""A proxy that cuts what passes through it where it is told, and remembers it.

What comes in: connections to its port. What goes out: the same bytes to the server behind it, and
back. It knows packets only to write down where each one ends.
"""

import socket
import struct
import threading
import time

HEADER = struct.Struct("<III")
# Long enough that who is there reads what came, short enough for hundreds of cuts.
PAUSE_S = 0.002
PATIENCE_S = 60

TO_SERVER, TO_CLIENT = 0, 1


class Proxy:
    """Between clients and one server, for the time of a `with` block.

    `cuts` are for the connections in turn: (direction, byte) or None. `seen` has, for each of them,
    what passed, in order: (direction, bytes).
    """

    def __init__(self, address, cuts=()):
        host, port = address.rsplit(":", 1)
        self._server = (host, int(port))
        self._cuts = list(cuts)
        self.seen = []
        self._threads = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self._listener.getsockname()[1]

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._listener.close()
        for thread in self._threads:
            thread.join(PATIENCE_S)

    def total(self, direction, connection=0):
        """How many bytes passed."""
        return sum(len(data) for way, data in self.seen[connection] if way == direction)

    def packets(self, connection=0):
        """What passed on a connection, packet by packet, in the order of their last bytes."""
        held, packets = [b"", b""], []
        for way, data in self.seen[connection]:
            held[way] += data
            while len(held[way]) >= HEADER.size:
                end = HEADER.size + HEADER.unpack_from(held[way])[1]
                if len(held[way]) < end:
                    break
                packets.append((way, held[way][:end]))
                held[way] = held[way][end:]
        return packets

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            number = len(self.seen)
            cut = self._cuts[number] if number < len(self._cuts) else None
            seen = []
            self.seen.append(seen)
            server = socket.create_connection(self._server)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for way, source, sink in ((TO_SERVER, client, server), (TO_CLIENT, server, client)):
                at = cut[1] if cut and cut[0] == way else None
                thread = threading.Thread(target=_pump, args=(source, sink, way, at, seen))
                thread.daemon = True
                thread.start()
                self._threads.append(thread)


def _pump(source, sink, way, cut, seen):
    passed = 0
    try:
        while data := source.recv(65536):
            seen.append((way, data))
            here = None if cut is None else cut - passed
            if here is not None and 0 < here < len(data):
                sink.sendall(data[:here])
                time.sleep(PAUSE_S)
                sink.sendall(data[here:])
            else:
                sink.sendall(data)
            passed += len(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        # One of them is gone: so is the connection, and its own program says whether it should be.
        source.close()
        sink.close()
