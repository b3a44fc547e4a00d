"""The values of a table by columns, which tell what its columns are where their names do not."""

from collections.abc import Sequence

from clevit_jax.data.layouts.columns import called, is_unnamed

_ENOUGH = 2  # rows of a class, on average, in a column that no name tells


class Values:
    """Columns by position, and how they go together.

    Attributes:
        header: names of the columns.
        free: positions of those that have a name and are nothing else.
    """

    def __init__(self, header: Sequence[str], rows: Sequence[Sequence[str]], taken: set[int]):
        """Of a table, less the columns that are something else, at the positions `taken`."""
        self.header = [name.strip() for name in header]
        self.free = [i for i in range(len(header)) if i not in taken and not is_unnamed(header[i])]
        self._rows = rows
        self._columns: dict[int, list[str]] = {}

    def of(self, position: int) -> list[str]:
        """The values of a column, a row each, without blanks around them."""
        if position not in self._columns:
            self._columns[position] = [row[position].strip() for row in self._rows]
        return self._columns[position]

    def called(self, names: Sequence[str]) -> list[int]:
        """Positions of the free columns that have one of some plain names."""
        return [i for i in called(self.header, names) if i in self.free]

    def count(self, *positions: int) -> int:
        """Number of distinct values, of several columns together."""
        return len(set(zip(*(self.of(i) for i in positions), strict=True)))

    def is_coarser(self, coarse: int, fine: int) -> bool:
        """Whether each value of `fine` goes with one of `coarse`, and not the other way round."""
        return self.count(coarse) < self.count(fine) == self.count(coarse, fine)

    def is_same(self, one: int, other: int) -> bool:
        """Whether two columns go together one to one."""
        return self.count(one) == self.count(other) == self.count(one, other)

    def is_number(self, position: int) -> bool:
        """Whether all values of a column are numbers."""
        return all(_is_number(text) for text in set(self.of(position)))

    def repeats(self, position: int) -> bool:
        """Whether a column may hold classes: there are several, of more than a row each."""
        return 1 < self.count(position) <= len(self._rows) / _ENOUGH


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
