"""The mode `explain`: pictures of where a model looks.

For each image a PNG: the square that the model saw, then for the predicted class, and for each
class that was named, the CAM and the attention roll-out over it.
"""

import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from clevit_jax.analysis import deletion, input_files, neighbours
from clevit_jax.analysis.deletion import Deletion
from clevit_jax.analysis.ood import say
from clevit_jax.analysis.trained_model import TrainedModel
from clevit_jax.errors import ConfigError, DataError, DecodeError, first_line
from clevit_jax.inference import cam, explanation, prediction
from clevit_jax.inference.stream import ItemOutput, stream
from clevit_jax.runs.load import read_maps
from clevit_jax.runs.workdir import MAPS_FILE
from clevit_jax.system.faults import mend, os_reason
from clevit_jax.system.files import check_can_be_made, replacing, write_json
from clevit_jax.system.own_files import png_mark
from clevit_jax.system.progress import progress_bar

AUTO = "auto"
_MIN_SIDE = 224  # smallest side of a tile, pixels
_MARGIN, _TEXT = 8, 14  # pixels between tiles, and height of the text
_Tile = tuple[tuple[str, str], Image.Image | None]  # two lines of text, and the picture below them


def explain(
    trained: TrainedModel,
    source: str,
    output: pathlib.Path,
    *,
    classes: Sequence[str] = (),
    name: str = AUTO,
) -> int:
    """Writes one picture per image, `output/FILE.png`, in the same folders as below `source`.

    Args:
        trained: the model.
        source: a folder, a file or a pattern; see `input_files.find_images`.
        output: folder; made if it does not exist, and pictures in it are replaced.
        classes: names of classes to explain besides the predicted one.
        name: name of the CAM, of `cam.map_names`; "auto" takes the one that the deletion test
            chooses: on the test images of a run, once; else on the images of `source`.

    Returns:
        The exit code: 0, or 1 where an image could not be read.

    Raises:
        ConfigError: there is no image, or no such class or map, or the folder cannot be made.
    """
    classifier = trained.classifier
    try:
        labels = [classifier.class_number(class_) for class_ in classes]
        if name != AUTO:
            cam.make_maps(classifier.model, (name,))
    except ValueError as error:
        raise ConfigError(str(error)) from error
    paths = list(input_files.find_images(source, say=True))
    try:
        check_can_be_made(output)
    except OSError as error:
        raise ConfigError(
            f"--output {output} cannot be made: {error.strerror}; name another folder."
        ) from error
    if name == AUTO:
        name = choose_map(trained, paths)
    base = pathlib.Path(source) if pathlib.Path(source).is_dir() else None
    errors = 0
    outputs = stream(
        classifier,
        paths,
        classifier.pixels,
        batch_size=trained.batch_size,
        threads=trained.threads,
    )
    for image in progress_bar(outputs, total=len(paths), unit=" images", desc="Explaining"):
        if image.error:
            errors += 1
            say(image.error)
            continue
        relative = image.item.relative_to(base) if base else pathlib.Path(image.item.name)
        path = output / relative.parent / f"{relative.name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        _save(path, draw_sheet(trained, image, labels, name))
    print(f"{len(paths) - errors} pictures, with {name} and {cam.ROLLOUT}: {output}")
    return 1 if errors else 0


def draw_sheet(
    trained: TrainedModel, image: ItemOutput, labels: Sequence[int], name: str
) -> Image.Image:
    """The picture of one image: a row of maps for its predicted class, and one per label.

    Args:
        trained: the model.
        image: the outputs of the image.
        labels: classes besides the predicted one.
        name: name of the CAM.
    """
    classifier, pixels = trained.classifier, image.pixels
    probabilities = prediction.softmax(image.logits)
    rows = list(dict.fromkeys([int(probabilities.argmax()), *labels]))
    columns = dict.fromkeys([name, cam.ROLLOUT])
    maps = classifier.maps(np.stack([pixels] * len(rows)), np.array(rows), tuple(columns))
    tiles: list[list[_Tile]] = [[(("image", ""), Image.fromarray(pixels))]]
    for row, label in enumerate(rows):
        if row:
            tiles.append([(("", ""), None)])  # below the image
        probability = f"{100 * probabilities[label]:.1f} %"
        # `split`, because a class name may hold line breaks.
        caption = " ".join(f"{classifier.class_names[label]} {probability}".split())
        for column in columns:
            grid = explanation.enlarge(maps[column][row], len(pixels))
            kind = column.partition(":")[0].replace("_", "-")
            tiles[-1].append(((caption, kind), explanation.overlay(pixels, grid)))
    return _paste_tiles(tiles, max(_MIN_SIDE, len(pixels)))


def _paste_tiles(tiles: list[list[_Tile]], side: int) -> Image.Image:
    """Rows of tiles as one picture; `side` is that of a tile in pixels."""
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
                corner = (left, top + number * (_TEXT + 3))
                draw.text(corner, _shorten(words, side, font), fill="black", font=font)
            if image is not None:
                tile = image.resize((side, side), Image.Resampling.BICUBIC)
                sheet.paste(tile, (left, top + head))
    return sheet


def _shorten(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The text, with its middle cut out if it is wider than `width` pixels."""
    half = len(text) // 2
    while half > 1 and font.getlength(text) > width:
        half -= 1
        text = f"{text[:half]}...{text[-half:]}"
    return text


def _save(path: pathlib.Path, image: Image.Image) -> None:
    try:
        with replacing(path) as new:
            image.save(new, format="PNG", pnginfo=png_mark())
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {os_reason(error)}{mend(error)}.") from error


def choose_map(trained: TrainedModel, paths: Sequence[pathlib.Path] = ()) -> str:
    """Name of the CAM that the deletion test chooses, on the test images or else on `paths`."""
    if trained.config is not None:
        try:
            tested = run_deletion_test(trained)
            return tested.chosen if tested else cam.default_map(trained.classifier.model)
        except (ConfigError, DataError) as error:
            why = first_line(error).removesuffix(".")
            say(
                f"The test images are not there ({why}), so the map is chosen on the images of "
                "--input."
            )
    pixels = []
    for path in paths:
        try:
            pixels.append(trained.classifier.pixels(path))
        except (DecodeError, OSError):
            continue  # `explain` reports it
        if len(pixels) == deletion.IMAGES:
            break
    if not pixels:
        return cam.default_map(trained.classifier.model)
    return _test_maps(trained, pixels).chosen


def run_deletion_test(trained: TrainedModel) -> Deletion | None:
    """The deletion test on the test images. That of a run is kept in its workdir.

    None where there are fewer than `neighbours.FEW`, among which chance decides; that is said.

    Raises:
        DataError: the test images cannot be read.
    """
    kept = trained.path / MAPS_FILE
    fingerprint = trained.classifier.fingerprint
    if trained.is_run and kept.is_file():
        facts = read_maps(trained.path)
        tested = Deletion.from_json(facts)
        if tested is None:
            say(f"{kept} is damaged, so the deletion test is made again.")
        elif facts.get("fingerprint") == fingerprint and tested.images >= neighbours.FEW:
            return tested
    test = trained.dataset().test
    if len(test) < neighbours.FEW:
        say(
            f"{len(test)} test image(s) are too few for the deletion test (at least "
            f"{neighbours.FEW}), so the map is the usual one."
        )
        return None
    rows = np.random.RandomState(0).permutation(len(test))[: deletion.IMAGES]
    try:
        pixels = [trained.classifier.pixels(test[i].data, test[i].name) for i in rows]
    except (DecodeError, OSError) as error:
        raise DataError([str(error)]) from error
    tested = _test_maps(trained, pixels)
    if not trained.is_run:
        return tested
    try:
        write_json(kept, {**tested.to_json(), "fingerprint": fingerprint})
    except OSError as error:
        say(f"{kept} cannot be written: {error.strerror}. The test will be made anew next time.")
    return tested


def _test_maps(trained: TrainedModel, pixels: list[np.ndarray]) -> Deletion:
    tested = deletion.compare_maps(trained.classifier, np.stack(pixels))
    say(f"Deletion test: {tested}.")
    return tested
