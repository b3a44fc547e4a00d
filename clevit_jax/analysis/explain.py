"""The mode `explain`: pictures of where a model looks.

For each image a PNG: the square that the model saw, then for the predicted class, and for each
class that was named, the CAM and the attention roll-out over it.
"""

import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm.auto import tqdm

from clevit_jax.analysis import deletion, input_files
from clevit_jax.analysis.deletion import Deletion
from clevit_jax.analysis.ood import say
from clevit_jax.analysis.trained_model import TrainedModel
from clevit_jax.errors import ConfigError, DataError, DecodeError
from clevit_jax.inference import cam, explanation, prediction
from clevit_jax.inference.stream import ItemOutput, stream
from clevit_jax.runs.workdir import MAPS_FILE
from clevit_jax.system.files import read_json_object, replacing, write_json

AUTO = "auto"
_SHOWN = 224  # pixels a side of each tile, at least
_MARGIN, _TEXT = 8, 14
_Tile = tuple[tuple[str, str], Image.Image | None]  # two lines, and what stands under them


def explain(
    trained: TrainedModel,
    source: str,
    output: pathlib.Path,
    *,
    classes: Sequence[str] = (),
    name: str = AUTO,
) -> int:
    """Writes a picture for each image, `output/FILE.png`, folders as they lie below `source`.

    Args:
        trained: the model.
        source: a folder, a file or a pattern; see `inputs.find`.
        output: folder, made if it is not there; pictures in it are replaced.
        classes: names of classes to explain besides the predicted one.
        name: name of the CAM, of `cam.map_names`; "auto" takes the one that the deletion test
            chooses: on the test images of a run, once; else on the images of `source`.

    Returns:
        The exit code: 0, or 1 where an image could not be read.

    Raises:
        ConfigError: no image, no such class or map, or no such folder can be made.
    """
    classifier = trained.classifier
    try:
        named = [classifier.class_number(class_) for class_ in classes]
        if name != AUTO:
            cam.make_maps(classifier.model, (name,))
    except ValueError as error:
        raise ConfigError(str(error)) from error
    paths = list(input_files.find_images(source))
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--output {output} cannot be made: {error.strerror}.") from error
    if name == AUTO:
        name = choose_map(trained, paths)
    base = pathlib.Path(source) if pathlib.Path(source).is_dir() else None
    errors = 0
    stack = stream(
        classifier,
        paths,
        classifier.pixels,
        batch_size=trained.batch_size,
        threads=trained.threads,
    )
    for found in tqdm(stack, total=len(paths), unit=" images", desc="Explaining"):
        if found.error:
            errors += 1
            say(found.error)
            continue
        place = found.item.relative_to(base) if base else pathlib.Path(found.item.name)
        path = output / place.parent / f"{place.name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        _save(path, draw_sheet(trained, found, named, name))
    print(f"{len(paths) - errors} pictures, with {name} and {cam.ROLLOUT}: {output}")
    return 1 if errors else 0


def draw_sheet(
    trained: TrainedModel, found: ItemOutput, named: Sequence[int], name: str
) -> Image.Image:
    """The picture of one image."""
    classifier, pixels = trained.classifier, found.pixels
    probabilities = prediction.softmax(found.logits)
    labels = list(dict.fromkeys([int(probabilities.argmax()), *named]))
    columns = dict.fromkeys([name, cam.ROLLOUT])
    several = np.stack([pixels] * len(labels))
    maps = classifier.maps(several, np.array(labels), tuple(columns))
    side = max(_SHOWN, len(pixels))
    tiles: list[list[_Tile]] = [[(("image", ""), Image.fromarray(pixels))]]
    for row, label in enumerate(labels):
        if row:
            tiles.append([(("", ""), None)])
        said = " ".join(
            f"{classifier.class_names[label]} {100 * probabilities[label]:.1f} %".split()
        )
        for column in columns:
            grid = explanation.enlarge(maps[column][row], len(pixels))
            shown = column.partition(":")[0].replace("_", "-")
            tiles[-1].append(((said, shown), explanation.overlay(pixels, grid)))
    return _sheet(tiles, side)


def _sheet(tiles: list[list[_Tile]], side: int) -> Image.Image:
    """Rows of tiles, as one picture."""
    font = ImageFont.load_default(_TEXT)
    head = 2 * (_TEXT + 4)
    columns = max(map(len, tiles))
    width = _MARGIN + columns * (side + _MARGIN)
    sheet = Image.new("RGB", (width, _MARGIN + len(tiles) * (head + side + _MARGIN)), "white")
    draw = ImageDraw.Draw(sheet)
    for row, line in enumerate(tiles):
        for column, (text, image) in enumerate(line):
            left = _MARGIN + column * (side + _MARGIN)
            top = _MARGIN + row * (head + side + _MARGIN)
            for number, words in enumerate(text):
                draw.text((left, top + number * (_TEXT + 3)), _fit(words, side, font),
                          fill="black", font=font)  # fmt: skip
            if image is not None:
                tile = image.resize((side, side), Image.Resampling.BICUBIC)
                sheet.paste(tile, (left, top + head))
    return sheet


def _fit(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The text, its middle cut out where it is wider than its column."""
    half = len(text) // 2
    while half > 1 and font.getlength(text) > width:
        half -= 1
        text = f"{text[:half]}...{text[-half:]}"
    return text


def _save(path: pathlib.Path, image: Image.Image) -> None:
    try:
        with replacing(path) as new:
            image.save(new, format="PNG")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}.") from error


def choose_map(trained: TrainedModel, paths: Sequence[pathlib.Path] = ()) -> str:
    """The CAM that the deletion test prefers; of a run, kept in its `maps.json`."""
    if trained.config is not None:
        try:
            return run_deletion_test(trained).chosen
        except DataError as error:
            say(f"The test images are not there ({error.problems[0]}); "
                "the map is chosen on the images of --input.")  # fmt: skip
    pixels = []
    for path in paths:
        try:
            pixels.append(trained.classifier.pixels(path))
        except (DecodeError, OSError):
            continue  # it is named when it is its turn
        if len(pixels) == deletion.IMAGES:
            break
    return _compare(trained, pixels).chosen if pixels else cam.default_map(trained.classifier.model)


def run_deletion_test(trained: TrainedModel) -> Deletion:
    """The deletion test on the test images; of a run, kept in its workdir.

    Raises:
        DataError: they cannot be read.
    """
    kept = trained.path / MAPS_FILE
    print_of = trained.classifier.fingerprint
    if trained.is_run and kept.is_file():
        facts = read_json_object(kept)
        if facts.get("fingerprint") == print_of:
            names = ("drops", "random", "images", "cells", "deleted")
            return Deletion(**{name: facts[name] for name in names})
    test = trained.dataset().test
    rows = np.random.RandomState(0).permutation(len(test))[: deletion.IMAGES]
    try:
        pixels = [trained.classifier.pixels(test[i].data, test[i].name) for i in rows]
    except (DecodeError, OSError) as error:
        raise DataError([str(error)]) from error
    found = _compare(trained, pixels)
    if not trained.is_run:
        return found
    try:
        write_json(kept, {**found.to_json(), "fingerprint": print_of})
    except OSError as error:
        say(f"{kept} cannot be written: {error.strerror}.")
    return found


def _compare(trained: TrainedModel, pixels: list[np.ndarray]) -> Deletion:
    found = deletion.compare_maps(trained.classifier, np.stack(pixels))
    say(f"Deletion test: {found}.")
    return found
