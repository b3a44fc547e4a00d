"""Command and function that convert weights of other libraries to ours, and back.

    clevit_jax_convert swin_base_patch4_window7_224_22k.pth weights/swin_base_22k
    clevit_jax_convert runs/mine mine.safetensors --to timm

In a clone it is `python tools/convert_torch_weights.py`, anywhere `python -m clevit_jax.convert`.

Reads a `.pth` or `.safetensors` file of Microsoft's code (official CLE-ViT), timm, Hugging Face or
torchvision, a converted checkpoint, the workdir of a run, or a name on the Hugging Face hub
(`hf://OWNER/REPO`); recognises library, container and architecture. docs/weights.md says more.
"""

import argparse
import dataclasses
import os
import pathlib
import shlex
import sys

import jax
import numpy as np

from clevit_jax.data import decode
from clevit_jax.errors import ClevitError, WeightsError
from clevit_jax.model.preprocessing import Preprocessing
from clevit_jax.runs.load import (
    Which,
    holds_run,
    is_run_there,
    read_run,
    read_weights,
    read_which,
)
from clevit_jax.runs.workdir import load_config
from clevit_jax.system import faults, output
from clevit_jax.system.addresses import is_fetched
from clevit_jax.system.logging import quiet_command
from clevit_jax.system.places import expand, place, run_place
from clevit_jax.weights import export, from_address, from_hub, verify
from clevit_jax.weights.convert import Weights
from clevit_jax.weights.converted import check_converted_target, write_converted
from clevit_jax.weights.fit import fit_weights, read_class_map
from clevit_jax.weights.variants import CHANNELS, Channels
from clevit_jax.weights.verify_images import verify_images


def convert_weights(
    source: str | pathlib.Path,
    target: str | pathlib.Path,
    *,
    to: str | None = None,
    class_map: str | pathlib.Path | None = None,
    checkpoint: Which | None = None,
    ema: bool = False,
    channels: Channels | None = None,
    entry: str | None = None,
    prefix: str | None = None,
    overwrite: bool = False,
) -> Weights:
    """Converts weights, as the command does.

    Args:
        source: file of weights, converted checkpoint, workdir of a run, or a name on the hub.
        target: folder of the converted checkpoint, or with `to` a file, or a folder of
            "huggingface" or "timm".
        to: library to write for: "microsoft", "timm" or "huggingface"; None for this one.
        class_map: file whose line i, from 0, is the source's class for class i.
        checkpoint: of a run, "last" (if None), "best" or a step.
        ema: of a run, takes its average of parameters.
        channels: of a file whose patch embedding has other than three channels of input, how it is
            brought to three: "sum", "repeat" or "first"; see docs/weights.md.
        entry: of a `.pth` with several state dicts, the name of one; see `runs.load.read_weights`.
        prefix: of a file with several networks, what stands before the names of one.
        overwrite: whether to replace the target.

    Returns:
        The weights, with their load report.

    Raises:
        ClevitError: one sentence that names the file and the mend.
    """
    options = argparse.Namespace(
        source=_source(source),
        target=place(target, "target"),
        to=to,
        class_map=class_map and expand(os.fspath(class_map), "class_map", fetched=True),
        checkpoint=checkpoint,
        ema=ema,
        channels=channels,
        entry=entry,
        prefix=prefix,
        overwrite=overwrite,
    )
    _check_options(options)
    weights = _read_source(options)
    _write_target(weights, options)
    return weights


def main(argv: list[str] | None = None) -> int:
    """Converts; prints a failure as one sentence and returns 2."""
    quiet_command()
    jax.config.update("jax_platforms", "cpu")  # leaves an accelerator to those who train on it
    options = _parser().parse_args(argv)
    try:
        _resolve_places(options)
        _check_options(options)
        weights = _read_source(options)
        if _is_run(options.source) and not options.ema and load_config(options.source).optim.ema:
            print("The run keeps an average, which its scores are of; to take that, add --ema.")
        print(weights, flush=True)
        if options.verify:
            path = _path(options.source)
            verification = verify.verify(weights, path)
            print(verification, flush=True)
            prepared = verify_images(weights, path, _pixels)
            print(prepared, flush=True)
            if not (verification.ok and prepared.ok):
                return 1
        if options.target:
            print(_write_target(weights, options))
    except Exception as error:
        return faults.tell(error, with_traceback=options.traceback)
    except KeyboardInterrupt:
        print("Stopped; nothing was written.", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    # The spellings that the other command knows.
    parser.add_argument("--helpshort", "--helpfull", action="help", help=argparse.SUPPRESS)
    parser.add_argument(
        "source", help="file, converted checkpoint, run, or a name on the hub: hf://OWNER/REPO"
    )
    parser.add_argument(
        "target",
        nargs="?",
        help="folder of the converted checkpoint, or file for --to; without it nothing is written",
    )
    parser.add_argument(
        "--to",
        choices=export.WRITTEN_DIALECTS,
        help="write for this library: .safetensors or .pth; for huggingface and timm also a folder",
    )
    parser.add_argument(
        "--class-map",
        metavar="FILE",
        help="take the head from other classes: line i, from 0, is the source's class for class i",
    )
    parser.add_argument(
        "--checkpoint",
        type=_which,
        metavar="last|best|STEP",
        help="of a run (default: last)",
    )
    parser.add_argument("--ema", action="store_true", help="of a run: its average of parameters")
    parser.add_argument(
        "--channels",
        choices=CHANNELS,
        help="of a network with other than three channels of input: how to bring it to three",
    )
    parser.add_argument(
        "--entry",
        metavar="NAME",
        help="of a .pth that holds several state dicts: which, as state_dict_ema",
    )
    parser.add_argument(
        "--prefix",
        metavar="TEXT",
        help="of a file that holds several networks: how the names of one begin, as backbone.",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the target")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="run a random image, and of a folder with its JSON image files, through the original "
        "in PyTorch and through ours, and compare",
    )
    parser.add_argument(
        "--traceback", action="store_true", help="after an error, print where it came from, too"
    )
    return parser


def _resolve_places(options: argparse.Namespace) -> None:
    options.source = _source(options.source)
    if options.target:
        options.target = place(options.target, "The target")
    if options.class_map:
        options.class_map = expand(options.class_map, "--class-map", fetched=True)


def _source(source: str | pathlib.Path) -> pathlib.Path | str:
    """The path of a source, or its name or address elsewhere, fetched when all else is right."""
    if from_hub.named(source) or (is_fetched(source) and not is_run_there(source)):
        return str(source)
    return run_place(source, "The source")


def _which(text: str) -> Which:
    try:
        return read_which(text)
    except ClevitError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _is_run(source: pathlib.Path | str) -> bool:
    return not isinstance(source, str) and holds_run(source)


def _path(source: pathlib.Path | str) -> pathlib.Path:
    if not isinstance(source, str):
        return source
    fetch = from_address.fetch if is_fetched(source) else from_hub.fetch
    return fetch(source).path


def _check_options(options: argparse.Namespace) -> None:
    """Raises WeightsError on options that do nothing here, and on a target that is there."""
    is_run = _is_run(options.source)
    if is_run and (options.entry, options.prefix) != (None, None):
        raise WeightsError(
            f"--entry and --prefix are for a file of another library, and {options.source} is a "
            "run; drop them."
        )
    if not is_run and (options.ema or options.checkpoint is not None):
        raise WeightsError(
            f"--ema and --checkpoint are for a run, and {options.source} is not a run; drop them."
        )
    if is_run and options.channels:
        raise WeightsError(
            f"--channels is for files of other libraries, and {options.source} is a run; drop it."
        )
    if not options.target and (options.to or options.overwrite):
        raise WeightsError(
            "--to and --overwrite need a target to write to; name one after the source."
        )
    if options.target and options.target.resolve() == pathlib.Path(options.source).resolve():
        raise WeightsError(f"{options.target} is the source itself; name another target.")
    if options.target and options.target.suffix.lower() in export.PROGRAM_SUFFIXES:
        raise WeightsError(
            f"{options.target} is the name of an export, which another command writes: "
            f"python -m clevit_jax.main --mode export --workdir {options.source} "
            f"--output {options.target}."
        )
    if options.target and options.to:
        export.check_torch_target(options.target, options.to, overwrite=options.overwrite)
    elif options.target:
        if options.target.suffix.lower() in export.FILE_SUFFIXES:
            raise WeightsError(
                f"{options.target} is the name of a file, and a converted checkpoint is a folder; "
                f"name one, or a library to write for: --to {'|'.join(export.WRITTEN_DIALECTS)}."
            )
        check_converted_target(options.target, overwrite=options.overwrite)


def _read_source(options: argparse.Namespace) -> Weights:
    """The weights of the source, with the classes of the map where one is given."""
    if _is_run(options.source):
        which: Which = "last" if options.checkpoint is None else options.checkpoint
        weights = read_run(options.source, checkpoint=which, average=options.ema)
    else:
        weights = read_weights(
            options.source,
            entry=options.entry,
            prefix=options.prefix,
            channels=options.channels,
        )
    if not options.class_map:
        return weights
    class_map = read_class_map(options.class_map)
    model = dataclasses.replace(weights.model, num_classes=len(class_map))
    params, report = fit_weights(weights, model, class_map=class_map)
    return dataclasses.replace(
        weights, model=model, params=params, report=report, class_names=(), levels=()
    )


def _pixels(path: pathlib.Path, preprocessing: Preprocessing, size: int) -> np.ndarray:
    """An image file as evaluations see it, uint8 [size, size, 3]."""
    image = decode.read_rgb(path, path.name)
    return decode.centre_crop(image, path.name, preprocessing, crop=size)


def _write_target(weights: Weights, options: argparse.Namespace) -> str:
    """Writes the target; returns the sentence that says so."""
    if options.to:
        export.write_torch_weights(weights, options.target, options.to, overwrite=options.overwrite)
        assumed = ""
        if weights.preprocessing is None and options.target.is_dir():
            assumed = " How images are prepared is not known, and is written as it is assumed."
        return f"Wrote {options.target}, for {options.to}.{assumed}"
    write_converted(weights, options.target, overwrite=options.overwrite)
    path = shlex.quote(str(options.target))
    return f"Wrote {options.target}; train from it: --config.model.pretrained={path}"


def run() -> None:
    """The entry point."""
    with output.unbreakable():
        sys.exit(main())


if __name__ == "__main__":
    run()
