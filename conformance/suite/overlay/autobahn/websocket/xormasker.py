"""Masking of frames as the XOR of one large number, which is fast enough in plain Python."""


class XorMaskerNull(object):
    def __init__(self, mask=None):
        self.ptr = 0

    def pointer(self):
        return self.ptr

    def reset(self):
        self.ptr = 0

    def process(self, data):
        self.ptr += len(data)
        return data


class XorMasker(XorMaskerNull):
    def __init__(self, mask):
        assert len(mask) == 4
        self.mask = bytes(mask)
        self.ptr = 0

    def process(self, data):
        n = len(data)
        at = self.ptr & 3
        key = ((self.mask[at:] + self.mask[:at]) * (n // 4 + 1))[:n]
        self.ptr += n
        masked = int.from_bytes(data, "little") ^ int.from_bytes(key, "little")
        return masked.to_bytes(n, "little")


def createXorMasker(mask, length=None):
    return XorMasker(mask)
