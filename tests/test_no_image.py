"""Files that are called images and are none: each is called what it is."""

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile

import numpy as np
import pytest

from clevit_jax.data import decode, no_image
from clevit_jax.errors import DataError, DecodeError


def packed(kind):
    stream = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(stream, "w") as file:
            file.writestr("a.jpg", b"x")
    else:
        with tarfile.open(fileobj=stream, mode="w") as file:
            file.addfile(tarfile.TarInfo("a.jpg"))
    return stream.getvalue()


def saved(write, value):
    stream = io.BytesIO()
    write(stream, value)
    return stream.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
PAGE = "<html><head><title>404 Not Found</title></head><body>gone</body></html>"
SVG = '<svg xmlns="http://www.w3.org/2000/svg"><title>a</title></svg>'
XML = '<?xml version="1.0" encoding="UTF-8"?>\n'
DENIED = XML + "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
CASES = {
    "page": (PAGE.encode(), "an HTML page, not an image: the download failed; fetch it again"),
    "doctype": (b"\r\n <!DOCTYPE html PUBLIC '-//W3C'>" + PAGE.encode(), "an HTML page"),
    "capitals": (PAGE.upper().encode(), "an HTML page"),
    "mark": (b"\xef\xbb\xbf" + PAGE.encode(), "an HTML page"),
    "UTF-16": (PAGE.encode("utf-16"), "an HTML page"),
    "Latin-1": (PAGE.replace("gone", "disparu à jamais").encode("latin-1"), "an HTML page"),
    "comment": (b"<!-- x -->\n" + PAGE.encode(), "an HTML page"),
    "xhtml": ((XML + "<!DOCTYPE html><html xmlns='x'></html>").encode(), "an HTML page"),
    "page with a drawing": (f"<!doctype html><html>{SVG}</html>".encode(), "an HTML page"),
    "long page": ((PAGE + "ö" * 5000).encode(), "an HTML page"),
    "svg": (SVG.encode(), "an SVG drawing, which has no pixels; save it as PNG"),
    "svg with a declaration": ((XML + "<!-- x -->" + SVG).encode(), "an SVG drawing"),
    "error of a store": (DENIED.encode(), r"XML text \(AccessDenied\), not an image: the download"),
    "json": (json.dumps({"error": {"code": 403}}).encode(), "JSON text, not an image: the downl"),
    "long json": (json.dumps([{"a": "é" * 9000}]).encode(), "JSON text"),
    "lfs": (LFS, "a Git LFS pointer, not the image itself; fetch that: git lfs pull"),
    "annex": (b"/annex/objects/MD5E-s9--0.jpg\n", "a git-annex pointer, .*: git annex get"),
    "annex link": (b"../../.git/annex/objects/Xk/9/MD5E-s9--0/MD5E-s9--0.jpg", "a git-annex poi"),
    "dvc": (b"outs:\n- md5: 6137cde4\n  size: 9\n  path: a.jpg\n", "a DVC pointer, .*: dvc pull"),
    "link of git": (
        b"../store/rose.jpg",
        r"a text file that holds a path \(\.\./store/rose\.jpg\), as Git writes a link",
    ),
    "text": (b"Not Found", r"a text file, not an image \(it begins with 'Not Found'\)"),
    "long text": (b"word " * 2000, r"a text file, .*begins with 'word word [^']*…'"),
    "pdf": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3", "a PDF document"),
    "zip": (packed("zip"), "a zip archive"),
    "tar": (packed("tar"), "a tar archive"),
    "gzip": (gzip.compress(b"x"), "a gzip archive"),
    "bzip2": (bz2.compress(b"x"), "a bzip2 archive"),
    "xz": (lzma.compress(b"x"), "an xz archive"),
    "npy": (saved(np.save, np.zeros((2, 2))), "a NumPy array"),
    "psd": (b"8BPS\0\1" + bytes(20), "a Photoshop file"),
    "icon": (b"\0\0\1\0\1\0\x10\x10" + bytes(20), r"an icon \(ICO\)"),
    "dicom": (bytes(128) + b"DICM" + bytes(9), "a DICOM file"),
    "video": (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41", "a video"),
    "matroska": (b"\x1aE\xdf\xa3" + bytes(20), "a video"),
    "beside": (b"\0\5\x16\7\0\2\0\0Mac OS X        ", r"what macOS writes beside a file"),
    "nothing": (b"", "an empty file"),
    "zeros": (bytes(70000), "nothing but zeros"),
}


@pytest.mark.parametrize("case", CASES)
def test_is_called_what_it_is(case, tmp_path):
    content, said = CASES[case]
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    for data in (path, content):
        with pytest.raises(DecodeError, match=rf"^.*a\.jpg is {said}") as caught:
            decode.read_rgb(data, "a.jpg")
        assert "\n" not in str(caught.value)
        assert str(caught.value).endswith(".")


@pytest.mark.parametrize("seed", range(20))
def test_noise_is_nothing_known(seed):
    noise = b"\x80" + np.random.default_rng(seed).bytes(5000)
    assert no_image.describe(noise[: no_image.HEAD_BYTES], len(noise)) is None


def test_many_of_a_kind_are_said_once():
    problems = []
    for number in range(5):
        with pytest.raises(DecodeError) as caught:
            decode.read_rgb(LFS, f"{number}.jpg")
        problems.append(caught.value.sentence)
    said = str(DataError(problems))
    assert said == (
        "5 files, each of which is a Git LFS pointer, not the image itself; fetch that: git lfs "
        "pull (0.jpg, 1.jpg, 2.jpg, ...)."
    )
