"""What pictures call the classes: by their names, or by numbers where no font can write these."""

import unicodedata
from collections.abc import Iterable, Sequence

from clevit_jax.system import fonts
from clevit_jax.system.lettering import Lettering

# Packages of Debian and Ubuntu, by how the names of characters begin; else the last one.
_PACKAGES = (
    (("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO"), "fonts-noto-cjk"),
    (("",), "fonts-noto-core"),
)
_SYMBOLS = "fonts-symbola"  # emoji, in outlines


class ClassLabels:
    """What pictures call the classes.

    Attributes:
        texts: for each class its name on one line, or `class 10` where no installed font has its
            characters.
        lettering: draws them.

    Args:
        class_names: names of all classes that may be drawn.
        size: height of the letters in pixels.
        others: further texts that are drawn, such as a heading.
    """

    def __init__(self, class_names: Sequence[str], size: int, *, others: Iterable[str] = ()):
        self._names = [fonts.plain(name) for name in class_names]
        self.lettering = Lettering([*self._names, *others], size)
        self._lacking = [self.lettering.lacking.intersection(name) for name in self._names]
        self.texts = tuple(
            f"class {i}" if lacking or not name else name
            for i, (name, lacking) in enumerate(zip(self._names, self._lacking, strict=True))
        )

    def legend(self, drawn: Iterable[int]) -> str:
        """Which class each number is, of the classes that were drawn; "" if all have their names.

        Lines to print.
        """
        numbers = [i for i in sorted(set(drawn)) if self._lacking[i]]
        if not numbers:
            return ""
        lacking = set().union(*(self._lacking[i] for i in numbers))
        packages = " ".join(sorted(set(map(_package, lacking))))
        what = "1 class name" if len(numbers) == 1 else f"{len(numbers)} class names"
        lines = [
            f"No installed font has the characters of {what}, so pictures show numbers. To see the "
            f"names, install a font that has them (Debian, Ubuntu: apt install {packages}), and "
            "run this again:"
        ]
        return "\n".join([*lines, *(f"  class {i} = {self._names[i]}" for i in numbers)])


def _package(character: str) -> str:
    if unicodedata.category(character)[0] == "S":
        return _SYMBOLS
    name = unicodedata.name(character, "")
    return next(package for begins, package in _PACKAGES if name.startswith(begins))
