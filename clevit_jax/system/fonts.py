"""Fonts for names in any script: which installed files have the characters of some texts.

No font has them all. DejaVu Sans, which comes with matplotlib, has Latin, Greek, Cyrillic, Arabic
and more, and goes first; for what it lacks, the fonts of the system are looked at.
"""

import os
import pathlib
import unicodedata
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.ft2font import FT2Font

# No character has these numbers, so a font that draws them draws the same box for everything.
_NO_CHARACTERS = (0x0378, 0x2FE0)
_SHAPES = ("Bold", "Black", "Heavy", "Italic", "Oblique", "Light", "Thin", "Condensed")
_KINDS = (*_SHAPES, "Medium", "Mono", "Serif", "Symbol", "Display", "Looped", "Unifont")


def base_font() -> str:
    """The file of DejaVu Sans."""
    import matplotlib  # here, because importing it takes a moment

    return os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")


def plain(text: str) -> str:
    """A text as one line to draw: composed, blanks in one, no control characters.

    Bytes that were not UTF-8 (surrogates) are escaped.
    """
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    text = " ".join(unicodedata.normalize("NFC", text).split())
    return "".join(c for c in text if unicodedata.category(c) != "Cc" and not _chooses_form(c))


def needs_no_glyph(character: str) -> bool:
    """Whether a character is not seen itself: a joiner, or a mark of direction."""
    return unicodedata.category(character) == "Cf"


def missing(file: str, characters: Iterable[str]) -> set[str]:
    """Those of the characters that a font does not have; all where it cannot be used."""
    font = _open(file)
    return {c for c in characters if font is None or not _has_glyph(font, c)}


def find_fonts(texts: Iterable[str]) -> tuple[str, ...]:
    """The files of the fonts that can draw the texts, as far as fonts are there; DejaVu Sans first.

    Looking at 300 installed fonts takes 0.2 seconds, and is done only where DejaVu Sans lacks
    something.

    Args:
        texts: as `plain` gives them.
    """
    files = [base_font()]
    needed = {c for c in set().union(*texts) if not needs_no_glyph(c)}
    lacking = missing(files[0], needed)
    offers = {file: lacking - missing(file, lacking) for file in _installed() if lacking}
    while lacking and offers:
        best = min(offers, key=lambda file: (-len(offers[file] & lacking), *_preference(file)))
        found = offers.pop(best) & lacking
        if not found:
            break
        files.append(best)
        lacking -= found
    return tuple(files)


def _open(file: str) -> "FT2Font | None":
    """A font, None where the file cannot be used to write."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(file)
        return None if any(map(font.get_char_index, _NO_CHARACTERS)) else font
    except Exception:  # FreeType, or the system, on a damaged file
        return None


def _has_glyph(font: "FT2Font", character: str) -> bool:
    """Whether a font has an outline for a character; what is not seen needs none."""
    if not font.scalable or not font.get_char_index(ord(character)):
        return False
    if character.isspace() or needs_no_glyph(character):
        return True
    try:
        font.load_char(ord(character))
        return len(font.get_path()[0]) > 0  # none in fonts of coloured bitmaps
    except Exception:  # FreeType on a damaged glyph
        return False


def _chooses_form(character: str) -> bool:
    """Whether it only asks for another form of the character before it (U+FE00 to FE0F)."""
    return "\ufe00" <= character <= "\ufe0f" or "\U000e0100" <= character <= "\U000e01ef"


def _installed() -> list[str]:
    from matplotlib import font_manager

    known = {entry.fname for entry in font_manager.fontManager.ttflist}  # those of a user's script
    return sorted(known.union(font_manager.findSystemFonts()))


def _preference(file: str) -> tuple[int, str]:
    """Plain fonts without serifs go before others that have as much."""
    name = pathlib.PurePath(file).name
    return sum(kind.lower() in name.lower() for kind in _KINDS), name
