"""A tally of what is odd about images, kept while they are decoded."""

import threading


class Tally:
    """Counts images as `decode.read_rgb` meets them; safe to use from several threads.

    Attributes:
        deep: 16-bit images whose files do not say how many bits they use.
        highest: the highest value of these.
        cut_short: names of images that lack their last bytes, and were read as far as they go.
    """

    def __init__(self) -> None:
        self.deep, self.highest = 0, 0
        self.cut_short: set[str] = set()
        self._lock = threading.Lock()

    def add_deep(self, highest: int) -> None:
        """Counts a 16-bit image with its highest value."""
        with self._lock:
            self.deep += 1
            self.highest = max(self.highest, highest)

    def add_cut_short(self, name: str) -> None:
        """Counts an image that lacks its last bytes."""
        with self._lock:
            self.cut_short.add(name)
