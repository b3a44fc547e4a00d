"""Class names in every script: drawn by a font that has them, or as numbers with a legend."""

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

from clevit_jax.analysis.class_labels import ClassLabels
from clevit_jax.analysis.tsne import save_picture
from clevit_jax.system import fonts
from clevit_jax.system.lettering import Lettering, cut_middle

ROSE, LILY = "\u73ab\u7470", "\u767e\u5408"  # in Chinese, which DejaVu Sans lacks
FAMILY = "\U0001f468\u200d\U0001f469"  # two emoji and a joiner


def write_font(path, characters, *, empty=False, upside_down=False):
    """A font that draws each character as a black square (or triangle), or as nothing."""
    names = {ord(character): f"u{ord(character):05X}" for character in characters}
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((1000, 800), (1000, 0)) if upside_down else ((0, 1000), (1000, 1000), (1000, 0)):
        pen.lineTo(corner)
    pen.closePath()
    shape, nothing = pen.glyph(), TTGlyphPen(None).glyph()
    builder = FontBuilder(1000)
    builder.setupGlyphOrder([".notdef", *names.values()])
    builder.setupCharacterMap(names)
    builder.setupGlyf(
        {".notdef": nothing} | dict.fromkeys(names.values(), nothing if empty else shape)
    )
    builder.setupHorizontalMetrics(dict.fromkeys([".notdef", *names.values()], (1000, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": path.stem, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return str(path)


@pytest.fixture
def installed(monkeypatch):
    """`installed(*files)`: the only fonts of the system from then on, besides matplotlib's."""

    def install(*files):
        monkeypatch.setattr(font_manager, "findSystemFonts", lambda: list(files))
        own = [e for e in font_manager.fontManager.ttflist if "mpl-data" in e.fname]
        monkeypatch.setattr(font_manager.fontManager, "ttflist", own)

    install()
    return install


def drawn(letters, text):
    image = Image.new("L", (300, 30), 255)
    end = letters.draw(ImageDraw.Draw(image), (4, 4), text, fill="black")
    return np.asarray(image), end


def boxes(font_size, text):
    """The picture of a text in DejaVu Sans alone."""
    image = Image.new("L", (300, 30), 255)
    font = ImageFont.truetype(fonts.base_font(), font_size)
    ImageDraw.Draw(image).text((4, 4), text, fill="black", font=font)
    return np.asarray(image)


def test_which_characters_a_font_has():
    """Against the table of the font itself."""
    text = "Aé\u0416\u0639\u73ab\U0001f339$"
    table = FT2Font(fonts.base_font()).get_charmap()
    assert fonts.missing(fonts.base_font(), text) == {c for c in text if ord(c) not in table}
    assert fonts.missing(__file__, "a") == {"a"}  # no font


def test_the_font_that_has_most_is_found(installed, tmp_path):
    """Not one of coloured bitmaps, nor one that has a box for everything, nor a damaged one."""
    some = write_font(tmp_path / "Some.ttf", ROSE)
    serif = write_font(tmp_path / "A-Serif-Bold.ttf", ROSE + LILY)
    plain = write_font(tmp_path / "Plain.ttf", ROSE + LILY)
    emoji = write_font(tmp_path / "Emoji.ttf", ROSE + LILY + "\U0001f339", empty=True)
    last = write_font(tmp_path / "Last.ttf", ROSE + LILY + "\U0001f339\u0378")
    (tmp_path / "damaged.ttf").write_bytes(b"\0\1\0\0damaged")
    installed(some, serif, plain, emoji, last, str(tmp_path / "damaged.ttf"))
    assert fonts.find_fonts(["Rose"]) == (fonts.base_font(),)
    assert fonts.find_fonts([ROSE, f"{LILY} Lily"]) == (fonts.base_font(), plain)
    installed(some, emoji)
    assert fonts.find_fonts([ROSE, LILY]) == (fonts.base_font(), some)


def test_a_line_in_several_fonts(installed, tmp_path):
    """Each character as its font draws it, one after the other."""
    chinese = write_font(tmp_path / "Chinese.ttf", ROSE)
    installed(chinese)
    letters = Lettering([f"Rose {ROSE}"], 14)
    pixels, end = drawn(letters, f"Rose {ROSE}")
    latin = ImageFont.truetype(fonts.base_font(), 14)
    assert end == pytest.approx(4 + latin.getlength("Rose ") + 2 * 14)
    assert letters.length(f"Rose {ROSE}") == pytest.approx(end - 4)
    # Squares of 14 pixels on the line, black throughout.
    left = round(4 + latin.getlength("Rose "))
    assert (pixels[6:16, left + 2 : left + 26] == 0).all()
    plain, _ = drawn(letters, "Rose ")
    np.testing.assert_array_equal(pixels[:, : left - 2], plain[:, : left - 2])
    assert letters.lacking == frozenset()


def test_latin_is_drawn_by_pillow_alone(installed):
    pixels, _ = drawn(Lettering(["Quad Cab 2009"], 14), "Quad Cab 2009")
    np.testing.assert_array_equal(pixels, boxes(14, "Quad Cab 2009"))


def test_no_font_has_them(installed):
    labels = ClassLabels(["Rose", ROSE, "\u0631\u0648\u0632", LILY, FAMILY, ""], 14)
    assert labels.texts == (
        "Rose",
        "class 1",
        "\u0631\u0648\u0632",
        "class 3",
        "class 4",
        "class 5",
    )
    assert labels.legend([0, 2]) == ""
    lines = labels.legend([3, 1, 0, 1]).splitlines()
    assert lines[0].startswith(
        "No installed font has the characters of 2 class names, so pictures show numbers."
    )
    assert "apt install fonts-noto-cjk)" in lines[0]
    assert lines[1:] == [f"  class 1 = {ROSE}", f"  class 3 = {LILY}"]
    assert "apt install fonts-symbola)" in labels.legend([4])
    # What is drawn has nothing of the box that a missing character leaves.
    pixels, _ = drawn(labels.lettering, labels.texts[1])
    np.testing.assert_array_equal(pixels, boxes(14, "class 1"))
    assert labels.lettering.without_boxes(f"a {ROSE}") == "a ??"


def test_with_a_font_that_has_them(installed, tmp_path):
    installed(write_font(tmp_path / "Chinese.ttf", ROSE + LILY))
    labels = ClassLabels(["Rose", ROSE, LILY], 14)
    assert labels.texts == ("Rose", ROSE, LILY)
    assert labels.legend([0, 1, 2]) == ""


def test_what_is_not_seen_needs_no_glyph(installed, tmp_path):
    """A joiner that the font lacks is left out, and one line is made of any name."""
    installed(write_font(tmp_path / "Emoji.ttf", "\U0001f468\U0001f469"))
    labels = ClassLabels([FAMILY, "a\n b\tc\0", "e\u0301", "\ud8ff", "x\ufe0f"], 14)
    assert labels.texts == (FAMILY, "a b c", "\u00e9", "\\ud8ff", "x")
    assert labels.lettering.length(FAMILY) == pytest.approx(28)
    assert [run for run, _ in labels.lettering._runs(FAMILY)] == [FAMILY.replace("\u200d", "")]


def test_names_are_cut_in_the_middle(installed):
    letters = Lettering([], 14)
    name = "Dodge Ram Pickup 3500 Quad Cab 2009"
    cut = letters.fitted(name, 160)
    head, tail = cut.split("\u2026")
    assert name.startswith(head)
    assert name.endswith(tail)
    assert abs(len(head) - len(tail)) <= 2
    assert letters.length(cut) <= 160
    assert letters.length(f"{head}mm\u2026{tail}") > 160
    assert letters.fitted(name, 1000) == name
    assert cut_middle("abcdefgh", lambda text: len(text) <= 5) == "ab\u2026gh"
    assert cut_middle("abcdefgh", lambda text: False) == "\u2026"
    # No accent without its letter.
    assert cut_middle("abcde\u0301f", lambda text: len(text) <= 5) == "abc\u2026f"


def test_the_picture_of_features(installed, tmp_path):
    """Names that matplotlib would take for formulas are drawn; numbers are explained."""
    points = np.random.RandomState(0).standard_normal((12, 2))
    labels = np.arange(12) % 3
    names = ("a$x$_b^2", ROSE, "<b>b</b>")
    path = tmp_path / "f.png"
    legend = save_picture(path, points, labels, names, title=f"$t${ROSE}")
    assert legend.splitlines()[1:] == [f"  class 1 = {ROSE}"]
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("L")).astype(int)
    # The legend's first row, letter for letter.
    letters = Lettering([], 14)
    row = Image.new("L", (300, 30), 255)
    letters.draw(ImageDraw.Draw(row), (0, 0), names[0], fill="black")
    width = int(letters.length(names[0]))
    expected = np.asarray(row)[:18, :width].astype(int)
    top, left = 60, 864 + 24 + 16
    np.testing.assert_array_equal(pixels[top : top + 18, left : left + width], expected)
    assert save_picture(path, points, np.full(12, -1), (), title="t") == ""
