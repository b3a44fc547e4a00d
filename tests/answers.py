"""A small run with a report, on images whose files and classes have odd names."""

import pathlib

import numpy as np
import tiny
from PIL import Image

from clevit_jax.train import train_workdir

CLASSES = ("</script><script>alert(1)</script>", "=1+1", "a, \"b\" & 'c'", "-dollar $x$ `${y}`")
FILES = (
    "<img src=x onerror=alert(2)>",
    "=cmd",
    "a,b",
    '"quoted"',
    "new\nline",
    "plus+ é",
    "'x",
    "z",
)


def make_run(folder: pathlib.Path) -> pathlib.Path:
    """Trains two epochs in `folder/run`, on 32 training and 32 test images of `folder/data`."""
    data = folder / "data"
    write_images(data)
    config = tiny.get_config()
    config.epochs = 4
    config.optim.lr = 1.0
    config.data.root = str(data)
    config.log.report = True
    config.log.every_steps = 2
    assert train_workdir(config, folder / "run") == 0
    return folder / "run"


def write_images(data: pathlib.Path) -> None:
    """Eight images a class and split, each class of its own colour, as CSV tables."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        (data / split).mkdir(parents=True)
        lines = ["file,label"]
        for label, class_name in enumerate(CLASSES):
            for number, stem in enumerate(FILES):
                name = f"{split}/{label}{stem}.png" if number % 2 else f"{split}/{stem}{label}.png"
                pixels = rng.integers(0, 60, (16, 16, 3)) + 45 * label
                Image.fromarray(pixels.astype(np.uint8)).save(data / name)
                lines.append(",".join('"' + x.replace('"', '""') + '"' for x in (name, class_name)))
        (data / f"{split}.csv").write_text("\n".join(lines) + "\n")
