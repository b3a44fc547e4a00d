"""Seconds to open a data set of 100,000 small files, layout by layout.

    python -m benchmarks.opening [--layouts ufg-anno,csv]

Opening is `sources.load_dataset`: finding out the layout, listing, labels, and cutting the test
split where there is none. Where torchvision's `ImageFolder` can list the same files, it does, in
turn. Seconds are of wall time and of CPU, medians of several rounds; the folders are in the
system's cache.
"""

import argparse
import csv
import io
import json
import pathlib
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence

import pyarrow
import pyarrow.parquet
from PIL import Image

from benchmarks import official_loader
from clevit_jax.data import sources, write_tfds
from clevit_jax.system import cpus

CLASSES = 1000


def image() -> bytes:
    """A JPEG of 8 x 8 pixels."""
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "JPEG")
    return stream.getvalue()


class Names:
    """The file names <class>_<k>_<split>.jpg, a fifth of them for testing."""

    def __init__(self, count: int):
        splits = ["test" if i // CLASSES % 5 == 4 else "train" for i in range(count)]
        self.of = {
            split: [f"{i % CLASSES}_{i}_{split}.jpg" for i in range(count) if splits[i] == split]
            for split in ("train", "test")
        }

    @staticmethod
    def label(name: str) -> int:
        return int(name.split("_")[0])

    @classmethod
    def in_folder(cls, name: str) -> str:
        """<class>/<class>_<k>.jpg, which does not tell the split."""
        return f"{cls.label(name)}/{name.rsplit('_', 1)[0]}.jpg"


def write_images(folder: pathlib.Path, names: Names) -> None:
    folder.mkdir(parents=True)
    for name in names.of["train"] + names.of["test"]:
        (folder / name).write_bytes(image())


def write_ufg(root: pathlib.Path, names: Names) -> None:
    write_images(root / "images", names)


def write_ufg_anno(root: pathlib.Path, names: Names) -> None:
    write_images(root / "images", names)
    (root / "anno").mkdir()
    for split, files in names.of.items():
        rows = [f"{file} {names.label(file) + 1}\n" for file in files]
        (root / "anno" / f"{split}.txt").write_text("".join(rows))


def write_class_folders(root: pathlib.Path, files: list[str]) -> None:
    for label in range(CLASSES):
        (root / str(label)).mkdir(parents=True)
    for file in files:
        (root / Names.in_folder(file)).write_bytes(image())


def write_folders(root: pathlib.Path, names: Names) -> None:
    for split, files in names.of.items():
        write_class_folders(root / split, files)


def write_folders_cut(root: pathlib.Path, names: Names) -> None:
    write_class_folders(root, names.of["train"] + names.of["test"])


def write_cub(root: pathlib.Path, names: Names) -> None:
    files = names.of["train"] + names.of["test"]
    write_class_folders(root / "images", files)
    columns: dict[str, Sequence[object]] = {
        "images": [names.in_folder(file) for file in files],
        "image_class_labels": [names.label(file) + 1 for file in files],
        "train_test_split": [int(file.endswith("_train.jpg")) for file in files],
    }
    for name, values in columns.items():
        rows = [f"{i} {value}\n" for i, value in enumerate(values, start=1)]
        (root / f"{name}.txt").write_text("".join(rows))


def write_csv(root: pathlib.Path, names: Names) -> None:
    write_class_folders(root / "images", names.of["train"] + names.of["test"])
    for split, files in names.of.items():
        with (root / f"{split}.csv").open("w", newline="") as stream:
            rows = [(names.label(file), names.in_folder(file)) for file in files]
            csv.writer(stream).writerows([("class_id", "dir"), *rows])


def write_lists(root: pathlib.Path, names: Names) -> None:
    write_class_folders(root / "images", names.of["train"] + names.of["test"])
    (root / "meta").mkdir()
    for split, files in names.of.items():
        rows = [f"{names.in_folder(file)},{names.label(file)}\n" for file in files]
        (root / "meta" / f"{split}.txt").write_text("".join(rows))


def write_parquet(root: pathlib.Path, names: Names) -> None:
    (root / "data").mkdir(parents=True)
    for split, files in names.of.items():
        columns = {
            "image": [{"bytes": image(), "path": file} for file in files],
            "label": [names.label(file) for file in files],
        }
        table = pyarrow.table(columns)
        pyarrow.parquet.write_table(table, root / "data" / f"{split}-00000-of-00001.parquet")


def write_coco(root: pathlib.Path, names: Names) -> None:
    write_class_folders(root / "images", names.of["train"] + names.of["test"])
    for split, files in names.of.items():
        content = {
            "images": [
                {"id": i, "file_name": names.in_folder(file)} for i, file in enumerate(files)
            ],
            "annotations": [
                {"image_id": i, "category_id": names.label(file)} for i, file in enumerate(files)
            ],
            "categories": [{"id": label, "name": f"class {label}"} for label in range(CLASSES)],
        }
        (root / f"{split}.json").write_text(json.dumps(content))


def write_arrow(root: pathlib.Path, names: Names) -> None:
    for split, files in names.of.items():
        columns = {
            "image": [{"bytes": image(), "path": file} for file in files],
            "label": [names.label(file) for file in files],
        }
        table = pyarrow.table(columns)
        (root / split).mkdir(parents=True)
        (root / split / "state.json").write_text('{"_data_files": [{"filename": "0.arrow"}]}')
        with pyarrow.ipc.new_stream(str(root / split / "0.arrow"), table.schema) as writer:
            writer.write_table(table, 1000)


def write_webdataset(root: pathlib.Path, names: Names) -> None:
    root.mkdir()
    for split, files in names.of.items():
        with tarfile.open(root / f"{split}-000000.tar", "w") as tar:
            for file in files:
                stem = pathlib.PurePath(file).stem
                for ending, data in (("jpg", image()), ("cls", b"%d" % names.label(file))):
                    info = tarfile.TarInfo(f"{stem}.{ending}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))


def write_tfds_records(root: pathlib.Path, names: Names) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_ufg(pathlib.Path(folder) / "ufg", names)
        dataset = sources.load_dataset(pathlib.Path(folder) / "ufg")
        write_tfds.write_tfds(dataset, root.parent, name=root.name, threads=cpus.usable())


# How to write the layout, and the folders in it that ImageFolder lists.
LAYOUTS: dict[str, tuple[Callable[[pathlib.Path, Names], None], list[str]]] = {
    "ufg-anno": (write_ufg_anno, []),
    "ufg-names": (write_ufg, []),
    "cub": (write_cub, ["images"]),
    "folders": (write_folders, ["train", "test"]),
    "folders-cut": (write_folders_cut, ["."]),
    "lists": (write_lists, ["images"]),
    "csv": (write_csv, []),
    "coco": (write_coco, []),
    "parquet": (write_parquet, []),
    "arrow": (write_arrow, []),
    "webdataset": (write_webdataset, []),
    "tfds": (write_tfds_records, []),
}


def seconds(call: Callable[[], object]) -> tuple[float, float]:
    """Seconds of wall time and of CPU that a call takes."""
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def compare(root: pathlib.Path, listed: list[str], rounds: int, count: int) -> str:
    """A line of the table: our seconds, ImageFolder's, and their ratio."""
    list_folder = official_loader.import_torchvision().datasets.ImageFolder
    dataset = sources.load_dataset(root)
    assert len(dataset.train) + len(dataset.test) == count
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(seconds(lambda: sources.load_dataset(root)))
        theirs.append(seconds(lambda: [list_folder(root / part) for part in listed]))
    wall, cpu = (statistics.median(column) for column in zip(*ours, strict=True))
    line = f"{wall:7.2f} ({cpu:.2f})"
    if listed:
        their_wall, their_cpu = (statistics.median(column) for column in zip(*theirs, strict=True))
        line += f"{their_wall:8.2f} ({their_cpu:.2f}){cpu / their_cpu:15.1f}"
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds to open a large data set.")
    parser.add_argument("--count", type=int, default=100_000, help="images")
    parser.add_argument("--layouts", default=",".join(LAYOUTS), help="which, with commas between")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    official_loader.import_torchvision()  # before any work
    names = Names(args.count)
    print(f"{args.count} images, {CLASSES} classes; in brackets of CPU")
    print(f"{'':12}{'seconds':>14}{'ImageFolder':>15}{'ours / it, CPU':>16}")
    for layout in args.layouts.split(","):
        write, listed = LAYOUTS[layout]
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder) / layout.replace("-", "_")
            write(root, names)
            print(f"{layout:12}{compare(root, listed, args.rounds, args.count)}", flush=True)


if __name__ == "__main__":
    main()
