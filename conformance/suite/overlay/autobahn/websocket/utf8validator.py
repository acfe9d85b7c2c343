"""An incremental UTF-8 validator that rejects at the first octet that cannot be right."""
import codecs


class Utf8Validator(object):
    def __init__(self):
        self.reset()

    def reset(self):
        self.tail = b""
        self.total = 0
        self.bad = False

    def validate(self, data):
        """-> (valid so far, ends on a code point, index in data, index overall)"""
        if isinstance(data, str):
            data = data.encode("latin-1")
        if self.bad:
            return False, False, 0, self.total
        had = len(self.tail)
        buf = self.tail + bytes(data)
        try:
            used = codecs.utf_8_decode(buf, "strict", False)[1]
        except UnicodeDecodeError as e:
            at = (e.start if "start byte" in e.reason else e.end) - had
            return self._reject(at)
        self.tail = buf[used:]
        if len(self.tail) == 2 and self.tail[0] == 0xED and self.tail[1] >= 0xA0:
            # half a surrogate: the codec waits for its third octet, this does not
            return self._reject(len(data) - 1)
        self.total += len(data)
        return True, not self.tail, len(data), self.total

    def _reject(self, at):
        self.bad = True
        self.total += at
        return False, False, at, self.total
