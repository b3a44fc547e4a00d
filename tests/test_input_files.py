"""Which files `--input` names, and what is said of the others."""

import glob
import os

import pytest
from PIL import Image

from clevit_jax.analysis import input_files
from clevit_jax.data.decode import read_rgb
from clevit_jax.errors import ConfigError, DecodeError
from clevit_jax.system.own_files import png_mark


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def touch(*files):
        for file in files:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).touch()
        return tmp_path

    return touch


def found(text, *, say=False):
    return [str(path) for path in input_files.find_images(text, say=say)]


def test_what_is_left_out_is_counted(place, capsys):
    """By ending, once; not hidden files and what systems leave; images that are not read are in."""
    place(
        *("in/a.JPG", "in/b/c.png", "in/layers.psd", "in/drawing.svg", "in/raw.CR2", "in/b/x.ico"),
        *("in/b/y.heic", "in/b/z.avif", "in/b/z.jxl"),
        *("in/1.txt", "in/b/2.TXT", "in/b/3.txt", "in/clip.mp4", "in/README"),
        *("in/.DS_Store", "in/b/Thumbs.db", "in/desktop.ini", "in/.hidden.png", "in/.git/x.png"),
        *("in/__MACOSX/a.png", "in/b/@eaDir/c.png"),
    )
    assert found("in", say=True) == [
        *("in/a.JPG", "in/drawing.svg", "in/layers.psd", "in/raw.CR2", "in/b/c.png", "in/b/x.ico"),
        *("in/b/y.heic", "in/b/z.avif", "in/b/z.jxl"),
    ]
    assert capsys.readouterr().out == "in: left out: 3 .txt, 1 .mp4, 1 without an ending.\n"
    found("in")
    assert capsys.readouterr().out == ""
    place(*(f"many/x.{number:02}" for number in range(12)), "many/x.png")
    found("many", say=True)
    assert capsys.readouterr().out.endswith("1 .07, 4 with other endings.\n")


def test_links_are_followed(place, capsys):
    """To files and to folders, each loop once around at most; a link to nothing is not lost."""
    root = place("store/c/2.jpg", "in/1.jpg", "other/x/3.jpg")
    (root / "in/c").symlink_to(root / "store/c")
    (root / "in/link.jpg").symlink_to(root / "store/c/2.jpg")
    (root / "in/gone.jpg").symlink_to(root / "nowhere/4.jpg")
    (root / "in/gone").symlink_to(root / "nowhere")
    (root / "in/self.jpg").symlink_to("self.jpg")
    (root / "in/up").symlink_to(root / "in")
    # A circle of two: other/x/back leads to in, and in/other to other.
    (root / "in/other").symlink_to(root / "other")
    (root / "other/x/back").symlink_to(root / "in")
    assert found("in", say=True) == [
        *("in/1.jpg", "in/gone.jpg", "in/link.jpg", "in/self.jpg"),
        *("in/c/2.jpg", "in/other/x/3.jpg"),
    ]
    said = capsys.readouterr().out
    assert "in/gone, a link to nothing" in said
    assert "in/up, a link that leads back to where it is" in said
    assert "in/other/x/back, a link that leads back" in said
    with pytest.raises(ConfigError, match=r"in/gone.jpg is a link to .*4.jpg, which is not there"):
        input_files.find_images("in/gone.jpg")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read(place, capsys):
    (place("in/1.jpg", "in/shut/2.jpg") / "in/shut").chmod(0)
    assert found("in", say=True) == ["in/1.jpg"]
    assert "in/shut, which cannot be read (Permission denied)" in capsys.readouterr().out


def test_patterns(place, capsys):
    place("in/a/1.jpg", "in/b/1.jpg", "in/b/2.svg", "in/b/notes.txt", "in/3.png", "in/4.csv")
    assert found("in/*/1.jpg") == ["in/a/1.jpg", "in/b/1.jpg"]
    assert found("in/**") == ["in/3.png", "in/a/1.jpg", "in/b/1.jpg", "in/b/2.svg"]
    assert found("in/b/*", say=True) == ["in/b/1.jpg", "in/b/2.svg"]
    assert capsys.readouterr().out == "in/b/*: left out: 1 .txt.\n"
    assert found("in/b/*.txt") == ["in/b/notes.txt"]
    # Files and folders match: what lies in folders is said. Folders alone: it is taken.
    assert found("in/*", say=True) == ["in/3.png"]
    assert "1 .csv, 2 folder(s) (in/a, in/b)" in capsys.readouterr().out
    assert found("in/[ab]") == ["in/a/1.jpg", "in/b/1.jpg", "in/b/2.svg"]
    for text, part in (("none", "There is no file none"), ("in/*.gif", "There is no file in/")):
        with pytest.raises(ConfigError, match=part):
            input_files.find_images(text)


def test_files_without_an_ending(place):
    """Where nothing has one, a pattern means them."""
    place("in/0a1", "in/0a2")
    assert found("in/*") == ["in/0a1", "in/0a2"]
    with pytest.raises(
        ConfigError, match=r"in holds no image .*; left out: 2 without an ending; n"
    ):
        input_files.find_images("in")


def test_names_that_look_like_patterns(place):
    place("in [old]/a[1].jpg", "in [old]/b[2].jpg", "in o/c.jpg", "what?.png", "whats.png")
    assert found("in [old]") == ["in [old]/a[1].jpg", "in [old]/b[2].jpg"]
    assert found("in [old]/a[1].jpg") == ["in [old]/a[1].jpg"]
    assert found("in [old]/*.jpg") == ["in [old]/a[1].jpg", "in [old]/b[2].jpg"]
    assert found("what?.png") == ["what?.png"]


@pytest.mark.parametrize(
    ("text", "base"),
    [
        ("in", "in"),
        ("in/a/1.jpg", "in/a"),
        ("in/*/1.jpg", "in"),
        ("in/a/*.jpg", "in/a"),
        ("in/**/*.jpg", "in"),
        ("*/*/1.jpg", "."),
        ("in [old]/*", "in [old]"),
    ],
)
def test_the_folder_that_pictures_are_named_from(place, text, base):
    root = place("in/a/1.jpg", "in/b/1.jpg", "in [old]/x/2.jpg")
    assert str(input_files.base_folder(text)) == base
    assert str(input_files.base_folder(f"{root}/{text}")) == str(root / base)


def test_our_own_pictures(place, capsys):
    root = place("in/1.jpg")
    Image.new("RGB", (4, 4)).save(root / "in/1.jpg.png", pnginfo=png_mark())
    assert found("in", say=True) == ["in/1.jpg"]
    assert "what this program wrote itself is not taken" in capsys.readouterr().out


def test_names_that_are_not_utf8(place, capsysbinary):
    root = place("in/1.jpg")
    with open(os.fsencode(root) + b"/in/\xff.\xfe", "wb"):
        pass
    assert found("in", say=True) == ["in/1.jpg"]
    assert rb"1 .\xfe" in capsysbinary.readouterr().out.replace(b"\\udcfe", rb"\xfe")


def test_a_link_to_nothing_is_named(place):
    """By whoever reads it: what it leads to, and what to do."""
    root = place("in/1.jpg")
    (root / "in/gone.jpg").symlink_to("../nowhere/2.jpg")
    with pytest.raises(
        DecodeError,
        match=r"gone\.jpg cannot be decoded: No such file or directory; it is a link to "
        r"\.\./nowhere/2\.jpg, so fetch that file or mend the link\.",
    ):
        read_rgb(root / "in/gone.jpg")


def test_a_pattern_of_any_depth(place):
    """As `glob` matches it; and links that lead back do not go round."""
    root = place("in/1.jpg", "in/a/2.jpg", "in/a/b/3.jpg", "in/.h/4.jpg", "in/a/.5.jpg", "in/x.PNG")
    (root / "away").symlink_to(root / "in/a")
    for text in ("**", "in/**/*.jpg", "**/b/*.jpg", "in/**/[23].jpg", "in/a/**", "**/.h/*", "*/**"):
        files = {path for path in glob.glob(text, recursive=True) if os.path.isfile(path)}
        assert set(input_files._matching(text, input_files._LeftOut(text))) == files, text
    for name, to in (("a/up", ".."), ("a/b/up", "../.."), ("a/b/side", "../../a")):
        (root / "in" / name).symlink_to(to)
    assert found("in/**/*.jpg") == ["in/1.jpg", "in/a/2.jpg", "in/a/b/3.jpg"]
