"""Tables as lines of text."""

from collections.abc import Collection, Sequence


def align(rows: Sequence[Sequence[str]], *, left: Collection[int] = (0,)) -> list[str]:
    """Lines of a table whose columns are as wide as their widest cell, two spaces apart.

    The last cell of a row that is shorter than the others runs on to the right: a heading, or a
    sentence in the place of figures.

    Args:
        rows: of cells.
        left: columns that are aligned to the left; the others are to the right.
    """
    count = max(map(len, rows), default=0)
    widths = [0] * count
    for row in rows:
        in_columns = row if len(row) == count else row[:-1]
        for k, cell in enumerate(in_columns):
            widths[k] = max(widths[k], len(cell))
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if k in left or k == len(row) - 1 < count - 1 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=False))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines
