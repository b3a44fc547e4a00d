"""A finding of the data check: what was found, why it matters, and what to do."""

from collections.abc import Sequence
from typing import Any, NamedTuple


class Finding(NamedTuple):
    """One thing that is wrong or odd.

    Attributes:
        kind: a short name, for programs.
        sentence: for people.
        number: how many images, files, classes or groups it is about.
        items: them: names, or groups of {"file", "split", "class"}; of problems that were merged,
            the sentence of each.
        advice: why it matters, and what to do; "" where the sentence says it.
    """

    kind: str
    sentence: str
    number: int = 1
    items: Sequence[Any] = ()
    advice: str = ""


# Kind of a finding -> why it matters and what to do.
_ADVICE = {
    "unreadable": (
        "Training stops at such a file. Replace it or remove it, or go on without such files: "
        "--config.data.on_bad_image=skip."
    ),
    "several_labels": "No model can be right on both: remove the image, or the wrong label.",
    "same_pixels_across": (
        "The model is tested on pictures that it was trained on, so the score will be too good: "
        "keep each picture in one split."
    ),
    "same_pixels_within": "A picture that is there twice counts twice: remove the copies.",
    "alike_across": (
        "Copies that were saved anew, or shots of one series, make the score too good: look at the "
        "pairs, and keep each series in one split."
    ),
    "alike_within": "Look at them: remove those that are copies of one picture.",
    "alike_with_several_labels": "Look at them: one of the labels is probably wrong.",
    "shared_stems": (
        "If such a pair shows one plant, the score will be too good: keep all images of a plant in "
        "one split. If each split just counts its files from 1, nothing is wrong."
    ),
    "no_image": "Nothing will be known of how well the model tells them: add images if you can.",
    "single_training_image": (
        "From one image no model learns what varies within a class: add images if you can."
    ),
    "uneven": (
        "A model leans to the large classes: judge it by the mean per class, and add "
        "images to the small ones if you can."
    ),
    "name": "Training reads them; other systems and programs may not. Rename them if they travel.",
}


def _advice(kind: str) -> str:
    """The advice for a kind of finding, `alike_in_train_and_test` and the like included."""
    if kind.startswith(("same_pixels_in", "alike_in")):
        where = "across" if "_and_" in kind else "within"
        return _ADVICE[f"{kind.partition('_in_')[0]}_{where}"]
    plain = kind if kind in _ADVICE else kind.partition("_in_")[0]
    return _ADVICE.get(plain, _ADVICE["name"] if kind.startswith("name_") else "")


def with_advice(listed: Sequence[Finding]) -> list[Finding]:
    """Findings, each with the advice for its kind."""
    return [finding._replace(advice=finding.advice or _advice(finding.kind)) for finding in listed]


def counted(number: int, single: str, several: str) -> str:
    """`1 <single>` or `2 <several>`."""
    return f"1 {single}" if number == 1 else f"{number:,} {several}"


def first_five(items: Sequence[str]) -> str:
    """The first five of some names, in brackets."""
    more = f", and {len(items) - 5:,} more" if len(items) > 5 else ""
    return f"({', '.join(items[:5])}{more})"
