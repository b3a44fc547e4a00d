"""Lines of text in pictures, in any script: each drawn with the fonts that have its characters."""

import functools
import string
import unicodedata
from collections.abc import Callable, Iterable

from PIL import ImageDraw, ImageFont

from clevit_jax.system import fonts

_CUT = "\u2026"  # an ellipsis
_ALWAYS = string.ascii_letters + string.digits + string.punctuation + " " + _CUT


class Lettering:
    """Draws lines of text with several fonts: each line with the first that has all of it.

    Where none has all, each character takes the first font that has it. Pillow's Raqm, where it is
    there, joins Arabic letters and orders what is written from right to left.

    Attributes:
        size: height of the letters in pixels.
        files: the fonts, as `fonts.find_fonts` gives them for all texts that may be drawn.
        lacking: characters of these texts that no font has.
    """

    def __init__(self, texts: Iterable[str], size: int):
        """Takes all texts that may be drawn, as `fonts.plain` gives them."""
        texts = list(texts)
        self.size, self.files = size, fonts.find_fonts(texts)
        every = set(_ALWAYS).union(*texts)
        unknown = {file: fonts.missing(file, every) for file in self.files}
        unseen = set(filter(fonts.needs_no_glyph, every))
        self._lacks = {file: characters - unseen for file, characters in unknown.items()}
        self._left_out = {file: characters & unseen for file, characters in unknown.items()}
        self.lacking = frozenset(set.intersection(*self._lacks.values()))
        self._font = functools.cache(functools.partial(ImageFont.truetype, size=size))

    def draw(
        self, draw: ImageDraw.ImageDraw, corner: tuple[float, float], text: str, fill: str = "black"
    ) -> float:
        """Draws one line, its upper left corner given; returns where it ends, x in pixels."""
        x, y = corner
        baseline = y + self._font(self.files[0]).getmetrics()[0]
        for run, file in self._runs(text):
            font = self._font(file)
            draw.text((x, baseline), run, fill=fill, font=font, anchor="ls")
            x += font.getlength(run)
        return x

    def length(self, text: str) -> float:
        """Width of a line in pixels."""
        return sum(self._font(file).getlength(run) for run, file in self._runs(text))

    def fitted(self, text: str, width: float) -> str:
        """The text, its middle cut out if it is wider than `width` pixels."""
        return cut_middle(text, lambda shorter: self.length(shorter) <= width)

    def without_boxes(self, text: str) -> str:
        """The text with a question mark for each character that no font has."""
        return "".join("?" if c in self.lacking else c for c in text)

    def _runs(self, text: str) -> list[tuple[str, str]]:
        """Parts of a line, each with the file of its font."""
        whole = next((file for file in self.files if not self._lacks[file] & set(text)), None)
        if whole is not None:
            return [(self._without_unknown(text, whole), whole)]
        runs: list[tuple[str, str]] = []
        for character in text:
            file = runs[-1][1] if runs and _follows(character) else self._file_of(character)
            if runs and runs[-1][1] == file:
                runs[-1] = (runs[-1][0] + character, file)
            else:
                runs.append((character, file))
        return [(self._without_unknown(run, file), file) for run, file in runs]

    def _file_of(self, character: str) -> str:
        having = (file for file in self.files if character not in self._lacks[file])
        return next(having, self.files[0])

    def _without_unknown(self, run: str, file: str) -> str:
        """A run without joiners and marks of direction that its font would draw as boxes."""
        return "".join(c for c in run if c not in self._left_out[file])


def cut_middle(text: str, fits: Callable[[str], bool]) -> str:
    """The text, or as much of its beginning and end as fits, with an ellipsis between."""
    if fits(text):
        return text
    least, most = 0, len(text) - 1  # characters that are kept
    while least < most:
        kept = (least + most + 1) // 2
        if fits(_ends(text, kept)):
            least = kept
        else:
            most = kept - 1
    return _ends(text, least)


def _ends(text: str, kept: int) -> str:
    head, tail = text[: (kept + 1) // 2], text[len(text) - kept // 2 :]
    while tail and _follows(tail[0]):  # an accent without its letter
        tail = tail[1:]
    return f"{head.rstrip()}{_CUT}{tail.lstrip()}"


def _follows(character: str) -> bool:
    """Whether a character goes with the one before it: an accent, a vowel sign, a joiner."""
    return unicodedata.category(character)[0] == "M" or fonts.needs_no_glyph(character)
