"""What a file is that is no image: a page, a pointer, an archive, told by how it begins."""

import codecs
import json
import os
import re
import string

HEAD_BYTES = 4096  # of a file that `describe` looks at
_AGAIN = "the download failed; fetch it again"
_SAVE = "save it as PNG or JPEG"
_UNPACK = "unpack it, and name the images in it"
_VIDEO = "a video, not an image; save frames of it as JPEG or PNG"

# Where a mark stands, the mark, and what it says.
_MARKS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"%PDF-", f"a PDF document, not an image; {_SAVE}"),
    (0, b"%!PS", f"a PostScript drawing, which is not read; {_SAVE}"),
    (0, b"PK\x03\x04", f"a zip archive (or a document that is one), not an image; {_UNPACK}"),
    (0, b"PK\x05\x06", "an empty zip archive, not an image; leave it out"),
    (0, b"\x1f\x8b", f"a gzip archive, not an image; {_UNPACK}"),
    (0, b"BZh", f"a bzip2 archive, not an image; {_UNPACK}"),
    (0, b"\xfd7zXZ\0", f"an xz archive, not an image; {_UNPACK}"),
    (0, b"\x28\xb5\x2f\xfd", f"a zstandard archive, not an image; {_UNPACK}"),
    (0, b"7z\xbc\xaf\x27\x1c", f"a 7z archive, not an image; {_UNPACK}"),
    (0, b"Rar!", f"a RAR archive, not an image; {_UNPACK}"),
    (257, b"ustar", f"a tar archive, not an image; {_UNPACK}"),
    (0, b"8BPS", f"a Photoshop file, which is not read; {_SAVE}"),
    (0, b"gimp xcf", f"a GIMP file, which is not read; {_SAVE}"),
    (0, b"\0\0\1\0", f"an icon (ICO), which is not read; {_SAVE}"),
    (0, b"icns", f"an icon (ICNS), which is not read; {_SAVE}"),
    (0, b"DDS ", f"a DDS texture, which is not read; {_SAVE}"),
    (0, b"v/1\x01", f"an OpenEXR image, which is not read; {_SAVE}"),
    (0, b"#?RADIANCE", f"a Radiance HDR image, which is not read; {_SAVE}"),
    (0, b"qoif", f"a QOI image, which is not read; {_SAVE}"),
    (0, b"BPG\xfb", f"a BPG image, which is not read; {_SAVE}"),
    (0, b"AT&TFORM", f"a DjVu document, which is not read; {_SAVE}"),
    (0, b"II\xbc", f"a JPEG XR image, which is not read; {_SAVE}"),
    (0, b"FUJIFILMCCD-RAW", f"a raw file of a camera, which is not read; {_SAVE}"),
    (0, b"IIU\0", f"a raw file of a camera, which is not read; {_SAVE}"),
    (0, b"IIRO", f"a raw file of a camera, which is not read; {_SAVE}"),
    (0, b"FOVb", f"a raw file of a camera, which is not read; {_SAVE}"),
    (4, b"ftypcrx", f"a raw file of a camera, which is not read; {_SAVE}"),
    (128, b"DICM", f"a DICOM file, which is not read; {_SAVE}"),
    (0, b"SIMPLE  =", f"a FITS file, which is not read; {_SAVE}"),
    (0, b"\x93NUMPY", f"a NumPy array, not an image; {_SAVE}"),
    (0, b"\x89HDF\r\n\x1a\n", f"an HDF5 file, not an image; {_SAVE}"),
    (0, b"PAR1", "a Parquet table, not an image; give its folder as data.root"),
    (0, b"SQLite format 3\0", "a database (SQLite), not an image; leave it out"),
    (0, b"\x7fELF", "a program, not an image; leave it out"),
    (0, b"MZ", "a program of Windows, not an image; leave it out"),
    (0, b"\x00\x05\x16\x07", "what macOS writes beside a file (AppleDouble), not an image; "
                             "delete it"),
    (0, b"\x1aE\xdf\xa3", _VIDEO),
    (8, b"AVI ", _VIDEO),
    (0, b"FLV\x01", _VIDEO),
    (0, b"\0\0\1\xba", _VIDEO),
    (8, b"WAVE", "a sound, not an image; leave it out"),
    (0, b"ID3", "a sound, not an image; leave it out"),
    (0, b"OggS", "a sound or a video, not an image; leave it out"),
)  # fmt: skip
_FTYP_VIDEO = re.compile(rb"isom|iso\d|mp4\d|avc1|qt  |M4V |3gp|mmp4|MSNV|dash")
_HTML = re.compile(r"<(!doctype\s+html|html|head|body|title|script|meta|h1|div|p)[\s>]", re.I)
_ERROR_CODE = re.compile(r"<Code>\s*(\w+)\s*</Code>")
_PRINTABLE = set(string.printable.encode())


def describe(head: bytes, size: int) -> str | None:
    """What a file is that Pillow cannot read: "an HTML page, not an image; ...".

    Args:
        head: its first `HEAD_BYTES`, or all of it.
        size: of the file, bytes.

    Returns:
        What follows "is" in a sentence, without the full stop; None where nothing is known.
    """
    if not size:
        return "an empty file"
    if not head.strip(b"\0"):
        return "nothing but zeros, as a copy or a download leaves that broke off; fetch it again"
    for place, mark, what in _MARKS:
        if head.startswith(mark, place):
            return what
    if head[4:8] == b"ftyp" and _FTYP_VIDEO.match(head, 8):
        return _VIDEO
    text = _text(head)
    return None if text is None else _describe_text(text, size)


def _text(head: bytes) -> str | None:
    """The beginning of a text file, or None where it is not one."""
    for mark, encoding in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if head.startswith(mark):
            return head[2:].decode(encoding, "replace")
    try:
        # A letter may be cut in two at the end.
        decoder = codecs.getincrementaldecoder("utf-8-sig")()
        text = decoder.decode(head, final=len(head) < HEAD_BYTES)
    except UnicodeDecodeError:
        if sum(byte not in _PRINTABLE for byte in head) > len(head) // 10:
            return None
        text = head.decode("latin-1")
    controls = sum(letter < " " and letter not in "\t\n\r\f" for letter in text)
    return text if not controls else None


def pointer_at(path: str | os.PathLike[str]) -> str | None:
    """What a list or a table is that Git LFS, git-annex or DVC left a pointer of; None if none.

    As `describe` says it: what follows "is" in a sentence, without the full stop.
    """
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    text = _text(head) if len(head) < HEAD_BYTES else None
    return None if text is None else _describe_pointer(text.lstrip(), "file")


def _describe_pointer(start: str, kind: str) -> str | None:
    lead = f"not the {kind} itself; fetch that"
    if re.match(r"version https://(git-lfs|hawser)\.github\.com/spec/", start):
        return f"a Git LFS pointer, {lead}: git lfs pull"
    if re.match(r"(\.\./)*(\.git)?/annex/objects/", start) or "/.git/annex/objects/" in start[:500]:
        return f"a git-annex pointer, {lead}: git annex get"
    if re.match(r"(md5: \w+\s+)?outs:\s", start):
        return f"a DVC pointer, {lead}: dvc pull"
    return None


def _describe_text(text: str, size: int) -> str:
    start = text.lstrip()
    if (told := _describe_pointer(start, "image")) is not None:
        return told
    if start.startswith("<"):
        return _describe_markup(start)
    if start.startswith("#!"):
        return "a script, not an image; leave it out"
    if start[:1] in "{[" and _is_json(start, size):
        return f"JSON text, not an image: {_AGAIN}"
    line = " ".join(start[:200].split())
    if "\n" not in start.strip() and size < 400 and re.fullmatch(r"\S+\.\w{3,5}", line):
        return (
            f"a text file that holds a path ({line}), as Git writes a link where links cannot be; "
            "copy that image here"
        )
    shown = line if len(line) <= 40 else line[:39] + "…"
    return f"a text file, not an image (it begins with {shown!r}); {_AGAIN}"


def _describe_markup(start: str) -> str:
    """HTML, SVG or other XML; a declaration or comments may stand before what tells."""
    if re.search(r"<(\w+:)?svg[\s>]", start) and not re.match(r"<(!doctype\s+)?html", start, re.I):
        return f"an SVG drawing, which has no pixels; {_SAVE}"
    if _HTML.search(start):
        return f"an HTML page, not an image: {_AGAIN}"
    code = _ERROR_CODE.search(start)
    said = f" ({code[1]})" if code else ""
    return f"XML text{said}, not an image: {_AGAIN}"


def _is_json(start: str, size: int) -> bool:
    try:
        json.loads(start)
    except ValueError:
        # Of a longer text only the beginning is here.
        return size > HEAD_BYTES and bool(re.match(r'\{\s*"|\[\s*[\[{"\d]', start))
    return True
