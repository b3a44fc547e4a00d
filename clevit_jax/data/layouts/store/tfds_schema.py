"""Features of a TFDS data set that are read: its image, its label and its file name."""

import pathlib
from typing import Any, NamedTuple

from clevit_jax.data.layouts.listing import Request
from clevit_jax.errors import DataError

NAME_FEATURE = "file_name"  # what `data.write_tfds` writes names to
_NAMED_BY = (NAME_FEATURE, "filename", "image/filename", "name")


class TfdsSchema(NamedTuple):
    """The features that are read.

    Attributes:
        label: key of the class label.
        name: key of the text that names the image; None where there is none.
        class_names: one name for each label.
        image: the image alone.
    """

    label: str
    name: str | None
    class_names: tuple[str, ...]
    image: "ImageFeature"


class ImageFeature(NamedTuple):
    """The image of a record, which is taken out without decoding it."""

    key: str
    features: Any
    decoders: Any

    def encoded(self, record: bytes) -> bytes:
        return self.features.deserialize_example_np(record, decoders=self.decoders)[self.key]


def choose_features(folder: pathlib.Path, info: Any, request: Request) -> TfdsSchema:
    """Chooses image, label and name; raises DataError where one is missing or ambiguous.

    The image and the label are those of the supervised keys, else the only ones, unless the request
    names others.
    """
    import numpy as np
    import tensorflow_datasets as tfds

    features = dict(sorted(info.features.items()))  # TFDS has them in another order each time
    images = [
        key
        for key, feature in features.items()
        # A float image is stored as a PNG of its bits.
        if isinstance(feature, tfds.features.Image) and feature.np_dtype in (np.uint8, np.uint16)
    ]
    labels = [key for key, f in features.items() if isinstance(f, tfds.features.ClassLabel)]
    supervised = [key for key in info.supervised_keys or () if isinstance(key, str)]
    problems: list[str] = []
    chosen = []
    for what, setting, forced, candidates in (
        ("an image", "data.file_column", request.file_column, images),
        ("a class label", "data.label_column", request.label_column, labels),
    ):
        preferred = [key for key in candidates if key in supervised] or candidates
        if forced:
            preferred = [forced] if forced in candidates else []
        chosen.append(next(iter(preferred), ""))
        there = f"; it has {', '.join(features)}"
        if forced and not preferred:
            problems.append(f"{folder}: {setting} = {forced!r} is not {what}{there}.")
        elif not preferred:
            problems.append(f"{folder} has no feature that is {what}{there}.")
        elif len(preferred) > 1:
            problems.append(
                f"{folder}: each of {', '.join(preferred)} may be {what}; set {setting} to one."
            )
    image, label = chosen
    if label and not features[label].num_classes:
        problems.append(
            f"{folder}: the class label {label!r} does not say how many classes it has."
        )
    if problems:
        raise DataError(problems)
    texts = [key for key, f in features.items() if isinstance(f, tfds.features.Text)]
    name = next((key for key in _NAMED_BY if key in texts), None)
    alone = tfds.features.FeaturesDict({image: features[image]})
    as_stored = ImageFeature(image, alone, {image: tfds.decode.SkipDecoding()})
    return TfdsSchema(label, name, tuple(features[label].names), as_stored)
