"""Lines of lists of images: `<file> <label>`, with blanks, commas or tabs, the file first or last.

Which of these a list has is told by where the images are named, line by line; names without their
ending (`apple_pie/1005649`) are told by the files that are there.
"""

import csv
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from clevit_jax.data.layouts.listing import BLANKS, EXTENSIONS
from clevit_jax.data.split_names import split_called

_SAMPLE = 60  # lines that the form is told by
_ENDING = "|".join(re.escape(ending) for ending in EXTENSIONS)
# The longest beginning that ends as an image does: names may hold blanks.
_IMAGE_FIRST = re.compile(
    rf"(.*(?:{_ENDING}))(?:(?:[{BLANKS}]*[:=][{BLANKS}]*|[{BLANKS}]+)(.*))?", re.IGNORECASE
)
_IMAGE_LAST = re.compile(rf".*(?:{_ENDING})", re.IGNORECASE)
_BETWEEN = re.compile(rf"[{BLANKS}]+")
_NUMBER = re.compile(r"[-+]?[0-9]{1,18}(?:\.[0-9]*)?")
_WHOLE = re.compile(r"([-+]?[0-9]{1,18})(?:\.0*)?")
# Names of columns, of which one at least is in a header.
_COLUMNS = re.compile(
    r"#?\W*(image|file|path|img|name|label|class|category|target|species|id|dir)", re.IGNORECASE
)


class Line(NamedTuple):
    """A line of a list.

    Attributes:
        number: of the line, from 1.
        file: as it is written.
        fields: what else the line says, as the columns of the list are.
    """

    number: int
    file: str
    fields: tuple[str, ...]


class Parsed(NamedTuple):
    """The lines of a list.

    Attributes:
        lines: those that have the form of most.
        odd: (number, text) of the others.
        columns: a name for each of a line's fields: of the header, or "column 2".
        file_last: whether the file stands after all else.
    """

    lines: list[Line]
    odd: list[tuple[int, str]]
    columns: tuple[str, ...]
    file_last: bool


class _Form(NamedTuple):
    """How a line is written.

    Attributes:
        delimiter: "," or ";", "|" or a tab; "" for blanks.
        file: where the file stands: "first", "last", "between" or "alone".
        ended: whether files are written with their ending.
        lead: of files that stand last after blanks, or between, the number of fields before.
    """

    delimiter: str
    file: str
    ended: bool
    lead: int = 1


def is_comment(line: str) -> bool:
    """Whether a line is one on the list itself."""
    return line.startswith("#") and not _IMAGE_FIRST.match(line)


def names_images(lines: Sequence[str]) -> bool:
    """Whether at least half of the lines name an image with its ending, first or last."""
    return 0 < len(lines) <= 2 * sum(_has_image(line) for line in lines)


def _has_image(line: str) -> bool:
    line = _unquoted(line)
    if _IMAGE_FIRST.fullmatch(line) or _IMAGE_LAST.fullmatch(line):
        return True
    return any(_IMAGE_LAST.fullmatch(field.strip(' "')) for field in re.split(r"[,;\t|]", line))


def _unquoted(line: str) -> str:
    """A line without the quotes around the file that it begins with."""
    return line.replace('" ', " ").lstrip('"') if line.startswith('"') else line


def first_names(line: str) -> list[str]:
    """What may be a file without its ending in a line: the line, its first and its last word."""
    words = [word.strip('"') for word in re.split(r"[,;|\s]+", line) if word]
    return list(dict.fromkeys([line, *words[:1], *words[-1:]]))


def parse(
    lines: Sequence[tuple[int, str]], has: Callable[[str], bool], wanted: str = ""
) -> Parsed | None:
    """Parses a list.

    Args:
        lines: (number, stripped text) of each line that is not blank.
        has: whether there is a file of a name, written without its ending or folder, perhaps.
        wanted: the column of labels that the user names; a header that has it is one.

    Returns:
        None if no line has a file.
    """
    lines = [(number, line) for number, line in lines if not is_comment(line)]
    if [bool(re.fullmatch(r"[0-9]+", line)) for _, line in lines[:2]] == [True, False]:
        lines = lines[1:]  # it says how many follow
    header = ""
    form = _form([line for _, line in lines[1:]] or [line for _, line in lines], has)
    if form is not None and len(lines) > 1 and _is_header(lines[0][1], form, has, wanted):
        header, lines = lines[0][1], lines[1:]
    if form is None:
        return None
    parsed, odd = list[Line](), list[tuple[int, str]]()
    for number, line in lines:
        split = _split(line, form)
        if split is None:
            odd.append((number, line))
        else:
            parsed.append(Line(number, *split))
    return _columns(parsed, odd, form, header)


def _form(lines: Sequence[str], has: Callable[[str], bool]) -> _Form | None:
    """The form that most of the first lines have."""
    sample = lines[:_SAMPLE]
    best, most = None, 0
    for form in _forms(sample):
        if best is not None and best.ended > form.ended and 2 * most > len(sample):
            break
        count = sum(_sign(_split(line, form), form, has) for line in sample)
        # `3 rose.jpg`: a name with a blank, or a label before a file.
        equal = best is not None and count == most and best.ended and form.ended
        if count > most or (equal and not _any_there(sample, best, has) and
                            _any_there(sample, form, has)):  # fmt: skip
            best, most = form, count
    return best


def _sign(
    split: tuple[str, tuple[str, ...]] | None, form: _Form, has: Callable[[str], bool]
) -> int:
    """How much a line speaks for a form: 0 for not at all."""
    if split is None or not split[0] or any(map(_IMAGE_LAST.fullmatch, split[1])):
        return 0
    if form.ended:
        return int(_IMAGE_LAST.fullmatch(split[0]) is not None)
    # A name with its folder is a better sign than a number that is the name of a file as well.
    return has(split[0]) * (1 + ("/" in split[0]))


def _any_there(sample: Sequence[str], form: _Form | None, has: Callable[[str], bool]) -> bool:
    """Whether a file of the first lines, read so, is there."""
    splits = [_split(line, form) for line in sample[:20] if form is not None]
    return any(split is not None and has(split[0]) for split in splits)


def _forms(sample: Sequence[str]) -> list[_Form]:
    """The forms that the lines may have, the more special first."""
    forms = list[_Form]()
    leads = [_numbers_ahead(line) for line in sample]
    for ended in (True, False):
        for delimiter in "\t,;|":
            if 2 * sum(delimiter in line for line in sample) > len(sample):
                forms += [_Form(delimiter, "first", ended), _Form(delimiter, "last", ended)]
                count = max(line.count(delimiter) for line in sample)
                forms += [_Form(delimiter, "between", ended, k) for k in range(1, min(count, 9))]
        forms += [
            _Form("", "alone", ended),
            _Form("", "first", ended),
            _Form("", "last", ended, max(1, min(leads, default=1))),
        ]
    return forms


def _numbers_ahead(line: str) -> int:
    """How many numbers stand before all else."""
    count = 0
    for word in _BETWEEN.split(line):
        if not _NUMBER.fullmatch(word):
            break
        count += 1
    return count


def _split(line: str, form: _Form) -> tuple[str, tuple[str, ...]] | None:
    """The file and the fields of a line; None if it has another form."""
    if form.delimiter:
        fields = line.split(form.delimiter)
        if '"' in line:
            try:
                fields = next(csv.reader([line], delimiter=form.delimiter, skipinitialspace=True))
            except (csv.Error, StopIteration):
                return None
        fields = [field.strip(BLANKS) for field in fields]
        while len(fields) > 2 and not fields[-1]:  # a comma too many
            fields.pop()
        place = {"first": 0, "last": len(fields) - 1}.get(form.file, form.lead)
        if len(fields) < 2 or place >= len(fields):
            return None
        return fields[place], (*fields[:place], *fields[place + 1 :])
    if form.file == "alone":
        return line.strip('"'), ()
    if form.file == "last":
        words = _BETWEEN.split(line, form.lead)
        if len(words) <= form.lead:
            return None
        return words[-1].strip('"'), tuple(words[:-1])
    if form.ended:
        match = _IMAGE_FIRST.fullmatch(_unquoted(line))
        return None if match is None else (match[1], (match[2],) if match[2] else ())
    file, *rest = _BETWEEN.split(line, 1)
    return file.strip('"'), tuple(rest)


def _is_header(line: str, form: _Form, has: Callable[[str], bool], wanted: str) -> bool:
    words = [word.strip('" ') for word in re.split(r"[,;| \t]+", line) if word.strip('" ')]
    if not any(_COLUMNS.match(word) or word == wanted for word in words):
        return False
    if form.ended:
        return not _has_image(line)
    split = _split(line, form)
    return split is None or not has(split[0])


def _columns(
    lines: list[Line], odd: list[tuple[int, str]], form: _Form, header: str
) -> Parsed | None:
    """Cuts what stands beside the files into columns, the same for all lines."""
    if not form.delimiter and form.file == "first":
        lines = _cut_words(_cut_splits(lines), len(header.split()) - 1)
    counts = [len(line.fields) for line in lines]
    usual = max(set(counts), key=counts.count, default=0)
    odd += [(line.number, " ".join((line.file, *line.fields))) for line in lines
            if len(line.fields) != usual]  # fmt: skip
    lines = [line for line in lines if len(line.fields) == usual]
    if not lines:
        return None
    names = [name.strip(' "#') for name in header.split(form.delimiter or None)]
    place = {"first": 0, "alone": 0, "last": usual}.get(form.file, form.lead)
    names = names if len(names) == usual + 1 else [f"column {k + 1}" for k in range(usual + 1)]
    columns = (*names[:place], *names[place + 1 :])
    return Parsed(lines, sorted(odd), columns, form.file == "last")


def _cut_splits(lines: list[Line]) -> list[Line]:
    """Cuts off the last word of each line where these are names of splits: `rose train`."""
    parts = [line.fields[0].rsplit(None, 1) if line.fields else [] for line in lines]
    if not all(len(part) == 2 for part in parts):
        return lines
    last = {part[1] for part in parts}
    if len(last) < 2 or "train" not in map(split_called, last) or not all(map(split_called, last)):
        return lines
    return [line._replace(fields=tuple(part)) for line, part in zip(lines, parts, strict=True)]


def _cut_words(lines: list[Line], named: int) -> list[Line]:
    """Cuts `0 1 3` into numbers and `3 Sweet Cherry` into both; `Cessna 172` stays whole.

    Where a header names as many columns as each line has words, these are cut.
    """
    if any(len(line.fields) > 1 for line in lines):
        return [
            line._replace(fields=(*cut.fields, *line.fields[1:]))
            for line, cut in zip(
                lines,
                _cut_words([line._replace(fields=line.fields[:1]) for line in lines], named - 1),
                strict=True,
            )
        ]
    rests = [line.fields[0] if line.fields else "" for line in lines]
    words = [tuple(filter(None, _BETWEEN.split(rest))) for rest in rests]
    if named > 1 and all(len(each) == named for each in words):
        return [line._replace(fields=each) for line, each in zip(lines, words, strict=True)]
    numbers = {
        rest: all(map(_WHOLE.fullmatch, _BETWEEN.split(rest))) for rest in set(rests) if rest
    }
    whole = sum(numbers.get(rest, False) for rest in rests)
    if 2 * whole > len(lines):
        return [line._replace(fields=tuple(filter(None, _BETWEEN.split(rest))))
                for line, rest in zip(lines, rests, strict=True)]  # fmt: skip
    pairs = [re.fullmatch(rf"([0-9]+)[{BLANKS}]+(.+)", rest) for rest in rests]
    if all(pairs):
        return [line._replace(fields=(pair[1], pair[2]))
                for line, pair in zip(lines, pairs, strict=True) if pair]  # fmt: skip
    return lines


def whole(text: str) -> str | None:
    """A whole number without its `.0`; None if `text` is none."""
    match = _WHOLE.fullmatch(text)
    return match[1] if match else None
