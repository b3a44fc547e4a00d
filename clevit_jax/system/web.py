"""A file on the web: looked at and read by Python's own client, which takes proxies and redirects.

A page has no folders, so what is read is one file. An address may let somebody in by its query or
by a password; neither is in a message.
"""

import base64
import contextlib
import dataclasses
import email.message
import errno
import http.client
import pathlib
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

from clevit_jax.errors import ConfigError, first_line
from clevit_jax.system import addresses

_SECONDS = 60.0  # without a byte, after which a request is given up
_PIECE = 1 << 20
_AGENT = "clevit_jax"  # some hosts refuse Python's own name


@dataclasses.dataclass(frozen=True)
class Found:
    """What a page says of its file.

    Attributes:
        name: of the file.
        size: bytes, -1 where it does not say.
        mark: its ETag, or else when it was changed; "" where it does not say.
    """

    name: str
    size: int
    mark: str


@dataclasses.dataclass(frozen=True)
class Page:
    """A file by its address, http:// or https://."""

    address: str

    def look(self) -> Found:
        """Asks for the first byte: addresses that are signed for reading refuse all else.

        Raises:
            OSError: as a disk would raise it: nothing is there, it may not be read, no answer.
            ConfigError: it is a page for people, and no file.
        """
        with self._told():
            try:
                answer = self._ask("bytes=0-0")
            except urllib.error.HTTPError as error:
                if error.code != 416:  # an empty file has no first byte
                    raise
                answer = error
            with answer:
                headers = answer.headers
                part = re.fullmatch(r"bytes \d+-\d+/(\d+)", headers.get("Content-Range", ""))
                told = part[1] if part else headers.get("Content-Length", "")
                size = int(told) if told.isdecimal() else -1
                size = 0 if answer.status == 416 else size
        name = _name(headers, self.address)
        if headers.get_content_type() == "text/html" and not name.endswith((".html", ".htm")):
            raise ConfigError(
                f"{addresses.shown(self.address)} is a page for people, and no file; folders "
                "cannot be read from the web, so give the address of the file itself."
            )
        return Found(name, size, _mark(headers))

    def pieces(self, start: int, mark: str) -> Iterator[bytes]:
        """The contents from a byte on.

        Raises:
            OSError: as `look`; ESTALE where the mark is another one by now.
        """
        with self._told():
            answer = self._ask(f"bytes={start}-" if start else "")
            with answer:
                if mark and _mark(answer.headers) != mark:
                    raise OSError(errno.ESTALE, "it was changed", addresses.shown(self.address))
                passed = 0 if answer.status == 206 else start  # not every server knows parts
                while piece := answer.read(_PIECE):
                    if passed < len(piece):
                        yield piece[passed:]
                    passed = max(0, passed - len(piece))

    def _ask(self, part: str) -> Any:
        kind, _, rest = self.address.partition("#")[0].partition("://")
        place, slash, path = rest.partition("/")
        user, at, host = place.rpartition("@")
        quoted = urllib.parse.quote(path, safe="/%?&=+,;:@!$'()*~-._[]")
        request = urllib.request.Request(f"{kind}://{host}{slash}{quoted}")
        request.add_header("User-Agent", _AGENT)
        if part:
            request.add_header("Range", part)
        if at:  # not handed on to where a redirect leads
            word = base64.b64encode(urllib.parse.unquote(user).encode()).decode()
            request.add_unredirected_header("Authorization", f"Basic {word}")
        return urllib.request.urlopen(request, timeout=_SECONDS)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except ConfigError:
            raise
        except (OSError, http.client.HTTPException, ValueError) as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            raise os_error(error, addresses.shown(self.address)) from None  # it has the address


def os_error(error: Exception, shown: str) -> OSError:
    """The OSError that a disk would raise.

    Args:
        error: of urllib.
        shown: the address, as messages have it.
    """
    if isinstance(error, urllib.error.HTTPError):
        if error.code in (404, 410):
            return FileNotFoundError(errno.ENOENT, f"nothing is there ({error.code})", shown)
        if error.code in (401, 403, 407):
            return PermissionError(
                errno.EACCES,
                f"the server refuses it ({error.code}); the address may lack a token, or have "
                "expired",
                shown,
            )
        reason = http.client.responses.get(error.code, "")
        return OSError(errno.EIO, f"the server answers {error.code} {reason}".rstrip(), shown)
    if isinstance(error, OSError) and error.errno == errno.ESTALE:
        return error
    inner = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(inner, TimeoutError):
        return TimeoutError(errno.ETIMEDOUT, "the server does not answer", shown)
    if isinstance(inner, ssl.SSLCertVerificationError):
        return OSError(errno.EPROTO, f"its certificate is not trusted ({first_line(inner)})", shown)
    said = getattr(inner, "strerror", None) or (
        first_line(inner) if isinstance(inner, Exception) else str(inner)
    )
    return OSError(errno.EHOSTUNREACH, f"the server cannot be reached ({said})", shown)


def _mark(headers: email.message.Message) -> str:
    return headers.get("ETag") or headers.get("Last-Modified") or ""


def _name(headers: email.message.Message, address: str) -> str:
    """The name of the file: of the address, or of the answer where that has no ending."""
    name = addresses.last_name(address)
    told = pathlib.PurePosixPath((headers.get_filename() or "").replace("\\", "/")).name
    if told and not pathlib.PurePosixPath(name).suffix:
        name = told
    return name.strip().replace("/", "_").replace("\0", "") or "file"
