"""The mode `explain`: pictures of where a model looks.

For each image a PNG: the square that the model saw, then for the predicted class, and for each
class that was named, the CAM and the attention roll-out over it.
"""

import hashlib
import os
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image

from clevit_jax.analysis import deletion, input_files, neighbours, sheet
from clevit_jax.analysis.class_labels import ClassLabels
from clevit_jax.analysis.deletion import Deletion
from clevit_jax.analysis.ood import say
from clevit_jax.analysis.trained_model import TrainedModel
from clevit_jax.errors import ConfigError, DataError, DecodeError, first_line, said_once
from clevit_jax.inference import cam
from clevit_jax.inference.stream import stream
from clevit_jax.runs.load import read_maps
from clevit_jax.runs.workdir import MAPS_FILE
from clevit_jax.system.copied import ImagePath
from clevit_jax.system.faults import mend, os_reason
from clevit_jax.system.files import check_can_be_made, replacing, write_json
from clevit_jax.system.own_files import png_mark
from clevit_jax.system.progress import progress_bar

AUTO = "auto"
_LONGEST = 200  # bytes of a name; a file's may have 255, and more is added while it is written


def explain(
    trained: TrainedModel,
    source: str,
    output: pathlib.Path,
    *,
    classes: Sequence[str] = (),
    name: str = AUTO,
) -> int:
    """Writes one picture per image, `output/FILE.png`, in the same folders as below `source`.

    Of a pattern that is the folder that the pattern begins with, so that images of one name in
    several folders have each their own picture, and the same one whenever they are explained.

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
    classifier.check_head()
    try:
        labels = [classifier.class_number(class_) for class_ in classes]
        if name != AUTO:
            cam.make_maps(classifier.model, (name,))
    except ValueError as error:
        raise ConfigError(str(error)) from error
    paths = list(input_files.find_images(source, say=True, copy_to=trained.copy_to))
    try:
        check_can_be_made(output)
    except OSError as error:
        raise ConfigError(
            f"--output {output} cannot be made: {error.strerror}; name another folder."
        ) from error
    if name == AUTO:
        name = choose_map(trained, paths)
    base = input_files.base_folder(source, trained.copy_to)
    errors = _draw_all(trained, paths, labels, name, output, base)
    folders = f", in folders as below {base}" if {path.parent for path in paths} - {base} else ""
    print(f"{len(paths) - errors} pictures, with {name} and {cam.ROLLOUT}: {output}{folders}")
    return 1 if errors else 0


def _draw_all(
    trained: TrainedModel,
    paths: Sequence[ImagePath],
    labels: Sequence[int],
    name: str,
    output: pathlib.Path,
    base: ImagePath,
) -> int:
    """Draws the pictures; returns how many images could not be read, and says why."""
    classifier = trained.classifier
    class_labels = ClassLabels(classifier.class_names, sheet.TEXT)
    errors, drawn = list[str](), set[int]()
    outputs = stream(
        classifier,
        paths,
        classifier.pixels,
        batch_size=trained.batch_size,
        threads=trained.threads,
    )
    try:
        for image in progress_bar(outputs, total=len(paths), unit=" images", desc="Explaining"):
            if image.error:
                errors.append(image.error)
                continue
            picture, shown = sheet.draw_sheet(classifier, image, labels, name, class_labels)
            relative = image.item.relative_to(base)
            path = output / relative.parent / _picture_name(relative.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            _save(path, picture)
            drawn.update(shown)
    finally:  # also of what was drawn before the user stopped it
        for line in (*said_once(errors), class_labels.legend(drawn)):
            if line:
                say(line)
    return len(errors)


def _picture_name(name: str) -> str:
    """The name of an image with .png, shorter where no file may have so long a name."""
    if len(os.fsencode(name)) <= _LONGEST:
        return f"{name}.png"
    stem, ending = os.path.splitext(name)
    begins = os.fsencode(stem)[: _LONGEST - 40].decode("utf-8", "ignore")
    return f"{begins}~{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}{ending[:20]}.png"


def _save(path: pathlib.Path, image: Image.Image) -> None:
    try:
        with replacing(path) as new:
            image.save(new, format="PNG", pnginfo=png_mark())
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {os_reason(error)}{mend(error)}.") from error


def choose_map(trained: TrainedModel, paths: Sequence[ImagePath] = ()) -> str:
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
