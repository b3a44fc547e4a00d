"""Command that writes a data set in the array_record form of TFDS, for pods and many small files.

    python tools/prepare_tfds.py data/leaves prepared
    python tools/prepare_tfds.py data/leaves prepared --name leaves --val-fraction 0.1 --shards 16

Reads any layout that training reads, and writes prepared/leaves/1.0.0 with the encoded images as
they are, without TensorFlow. Splits that the data set does not have are cut as training would cut
them, and kept so.
"""

import argparse
import pathlib
import shlex
import sys

from clevit_jax.data import sources, write_tfds
from clevit_jax.data.dataset import Dataset
from clevit_jax.data.layouts.listing import Request
from clevit_jax.errors import DataError
from clevit_jax.system import cpus
from clevit_jax.system.places import place
from clevit_jax.system.progress import progress_bar


def main(argv: list[str] | None = None) -> int:
    """Writes the data set; prints one sentence per problem and returns 2 where it cannot."""
    options = _parser().parse_args(argv)
    try:
        options.root, options.out = place(options.root, "root"), place(options.out, "out")
        name = options.name or write_tfds.default_name(options.root)
        _check_options(options, name)
        dataset = _load_dataset(options)
        counts = ", ".join(f"{split} {len(rows)}" for split, rows in dataset.splits.items())
        print(f"Layout {dataset.layout} ({dataset.recognised_by}): {counts}.", flush=True)
        for warning in dataset.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        total = 2 * sum(map(len, dataset.splits.values()))
        with progress_bar(total=total, unit=" images", desc="Checking, then writing") as bar:
            folder = write_tfds.write_tfds(
                dataset,
                options.out,
                name=name,
                shards=options.shards,
                threads=cpus.usable(),
                max_bad=options.max_bad if options.on_bad_image == "skip" else None,
                truncated=options.truncated,
                say=lambda sentence: print(f"warning: {sentence}", file=sys.stderr),
                progress=lambda done, _: bar.update(done - bar.n) and None,
            )
    except (DataError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped; nothing was written.", file=sys.stderr)
        return 130
    path = shlex.quote(str(folder.parent))
    print(f"Wrote {folder}; train from it: --config.data.root={path}")
    return 0


def _parser() -> argparse.ArgumentParser:
    default = sources.SplitConfig()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=pathlib.Path, help="folder of the data set")
    parser.add_argument("out", type=pathlib.Path, help="folder of TFDS data sets to write to")
    parser.add_argument("--name", help="of the data set (default: that of its folder)")
    parser.add_argument("--layout", default="auto", help="of the data set (default: recognised)")
    for flag, metavar, text in (
        ("--file-column", "NAME", "of a table, what names the image (default: told by its name)"),
        ("--label-column", "NAME", "likewise, what names the class"),
        ("--split-column", "NAME", "likewise, what says train, val or test"),
        ("--label-pattern", "REGEX", "the class in a file's name"),
    ):
        parser.add_argument(flag, default="", metavar=metavar, help=text)
    parser.add_argument(
        "--header",
        default="auto",
        choices=("auto", "true", "false"),
        help="whether the first line of a table names its columns (default: found out)",
    )
    parser.add_argument(
        "--truncated",
        action="store_true",
        help="keep images that lack their last bytes; train from them with data.truncated=true",
    )
    parser.add_argument(
        "--class-level",
        default="auto",
        metavar="LEVEL",
        help="of folders in folders, which are the classes: top, leaf, 1, 2, ... (default: auto)",
    )
    parser.add_argument(
        "--test-fraction",
        type=float,
        default=default.test_fraction,
        metavar="F",
        help="cut for testing where there is no test split (default: %(default)s)",
    )
    parser.add_argument(
        "--val-fraction",
        type=float,
        default=default.val_fraction,
        metavar="F",
        help="of the training images, cut for validation (default: %(default)s)",
    )
    parser.add_argument(
        "--split-seed",
        type=int,
        default=default.seed,
        metavar="N",
        help="of these cuts (default: %(default)s)",
    )
    parser.add_argument(
        "--shards",
        type=int,
        metavar="N",
        help="files per split, at most one per image (default: of 256 MB at most)",
    )
    parser.add_argument(
        "--on-bad-image",
        choices=("stop", "skip"),
        default="stop",
        help="what an image that cannot be read does (default: %(default)s)",
    )
    parser.add_argument(
        "--max-bad",
        type=float,
        default=0.01,
        metavar="F",
        help="share of the images of each split that may be skipped (default: %(default)s)",
    )
    return parser


def _check_options(options: argparse.Namespace, name: str) -> None:
    """Raises DataError on a target that is there or lies in the data set, and on no shards."""
    if options.shards is not None and options.shards < 1:
        raise DataError([f"--shards is {options.shards}; it must be at least 1."])
    if not 0 <= options.max_bad < 1:
        raise DataError([f"--max-bad is {options.max_bad}; it must be at least 0 and below 1."])
    root, out = options.root.resolve(), options.out.resolve()
    if root in (out, *out.parents):
        raise DataError(
            [f"{options.out} lies in the data set {options.root}; name another folder."]
        )
    write_tfds.check_tfds_target(options.out, name)


def _load_dataset(options: argparse.Namespace) -> Dataset:
    return sources.load_dataset(
        options.root,
        layout=options.layout,
        request=Request(
            file_column=options.file_column,
            label_column=options.label_column,
            split_column=options.split_column,
            header=options.header,
            class_level=options.class_level,
            label_pattern=options.label_pattern,
        ),
        split=sources.SplitConfig(
            test_fraction=options.test_fraction,
            val_fraction=options.val_fraction,
            seed=options.split_seed,
        ),
    )


if __name__ == "__main__":
    sys.exit(main())
