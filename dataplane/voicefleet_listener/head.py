"""How many bytes the head of a request (RFC 9112 §2.1: request line and headers) has, as it arrives."""


class HeadMeter:
    """Counts until the empty line. Each byte is looked at once, however it is cut up."""

    def __init__(self) -> None:
        self.size, self.complete = 0, False
        self._begun, self._tail = False, b""

    def feed(self, data: bytes) -> None:
        """Count what belongs to the head."""
        if self.complete:
            return
        skipped = 0
        if not self._begun:  # RFC 9112 §2.2: empty lines before a request are ignored
            skipped = len(data) - len(data.lstrip(b"\r\n"))
            self._begun = skipped < len(data)
        window = self._tail + data[skipped:]
        end = window.find(b"\r\n\r\n")
        if end >= 0:
            self.complete = True
            self.size += skipped + end + 4 - len(self._tail)
        else:
            self.size += len(data)
            self._tail = window[-3:]
