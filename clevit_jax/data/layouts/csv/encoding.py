"""The letters of a text file, told from its bytes: UTF-8, UTF-16 and, where asked, Windows-1252."""

import codecs
import re
from typing import NamedTuple

_MARKS = {  # the longer first: that of UTF-32 begins as that of UTF-16 does
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_SAMPLE = 4096  # bytes that tell UTF-16 without a mark
# Letters and signs of western words; other writings give other signs, or long rows of these.
_WESTERN = re.compile(
    r"[\x00-\x7fA-Za-zÀ-ÖØ-öø-ÿŒœŠšŽžŸ\xa0°·«»®©ªº¿¡\u2013\u2014\u2018\u2019\u201c\u201d\u2026]*"
)
_LINE_END = re.compile(rb"\r\n|\n|\r")
_FOREIGN = re.compile(r"[^\x00-\x7f]{3}")


class Decoded(NamedTuple):
    """A text, and what there is to say of its bytes.

    Attributes:
        text: without a byte-order mark; None where it cannot be told.
        odd_line: the first line, from 1, that is not UTF-8; 0 where all are, or it is UTF-16.
    """

    text: str | None
    odd_line: int


def decode(data: bytes, *, western: bool = False) -> Decoded:
    """The text of a file.

    Args:
        data: the file, or its beginning.
        western: whether text that is not UTF-8 may be Windows-1252, which has Latin-1 in it. It is
            taken for that only where its letters look like those of a western language: words of
            ASCII with single accents.
    """
    for mark, name in _MARKS.items():
        if data.startswith(mark):
            try:
                return Decoded(data.decode(name), 0)
            except UnicodeDecodeError:
                return Decoded(None, 1)
    if (wide := _unmarked_utf16(data)) is not None:
        return Decoded(wide, 0)
    try:
        return Decoded(data.decode("utf-8-sig"), 0)
    except UnicodeDecodeError as error:
        line = len(_LINE_END.findall(data[: error.start])) + 1
    if western:
        try:
            text = data.decode("cp1252")
        except UnicodeDecodeError:
            return Decoded(None, line)
        if _WESTERN.fullmatch(text) and not _FOREIGN.search(text):
            return Decoded(text, line)
    return Decoded(None, line)


def begun(data: bytes) -> str:
    """The text that a file begins with; letters that cannot be told are replaced."""
    for mark, name in _MARKS.items():
        if data.startswith(mark):
            return data.decode(name, "replace")
    if (wide := _unmarked_utf16(data[: len(data) // 2 * 2])) is not None:
        return wide
    # Bytes that may be cut within a letter are no sign of another encoding.
    whole = decode(data[:-4] if len(data) > _SAMPLE else data, western=True).text
    return data.decode("utf-8-sig", "replace") if whole is None else whole


def _unmarked_utf16(data: bytes) -> str | None:
    """The text of UTF-16 without a mark: every other byte of its ASCII letters is 0."""
    sample = data[:_SAMPLE]
    for name, zeros, letters in (
        ("utf-16-le", sample[1::2], sample[::2]),
        ("utf-16-be", sample[::2], sample[1::2]),
    ):
        if len(sample) > 3 and zeros.count(0) > 0.7 * len(zeros) and letters.count(0) == 0:
            try:
                return data.decode(name)
            except UnicodeDecodeError:
                return None
    return None
