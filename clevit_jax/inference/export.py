"""Export of a trained Swin as one file that runs without this library: StableHLO or ONNX.

Both hold the parameters and the normalisation, and take any number of uint8 images at a time.
"""

import contextlib
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, Literal

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from clevit_jax.errors import ConfigError
from clevit_jax.inference.classifier import Classifier
from clevit_jax.inference.exported import (
    CHECKED_BATCH_SIZES,
    Exported,
    check_export_target,
    facts_path,
    write_checked,
)
from clevit_jax.inference.forward import make_forward
from clevit_jax.inference.load import load
from clevit_jax.system.logging import quiet
from clevit_jax.system.places import run_place
from clevit_jax.weights.export import PROGRAM_SUFFIXES

PLATFORMS = ("cpu", "cuda", "tpu")
OPSET = 21  # version of ONNX's operators, if none is asked for
OLDEST_OPSET = 18  # since then the axes of sums (ReduceSumSquare) are an input, as they are written
ENDINGS = {suffix: suffix[1:] for suffix in PROGRAM_SUFFIXES}
_SNIPPETS = {
    "stablehlo": """\
To run it, where jax and flatbuffers are installed:
    from jax import export
    model = export.deserialize(bytearray(open({path!r}, "rb").read()))
    logits = model.call(images)["logits"]  # images: uint8 [B, {size}, {size}, 3]""",
    "onnx": """\
To run it, where onnxruntime is installed:
    import onnxruntime
    model = onnxruntime.InferenceSession({path!r})
    logits, features = model.run(None, {{"images": images}})  # uint8 [B, {size}, {size}, 3]""",
}


def export_stablehlo(
    model: Classifier,
    path: str | pathlib.Path,
    *,
    overwrite: bool = False,
) -> Exported:
    """Writes a Swin as serialized StableHLO, whole or not at all.

    `jax.export.deserialize(bytearray(data)).call(images)` runs it, on CPU, CUDA or TPU, with
    nothing but jax and flatbuffers. It takes uint8 [b, S, S, 3] for any b of at least 1 and returns
    a dict of `logits` float32 [b, K] and `features` float32 [b, C]. Before the file takes its place
    it is run on the CPU, and its logits are compared with the classifier's.

    Args:
        model: what `clevit_jax.load` returns; its dtype is that of the activations in the file.
        path: the file; a JSON that describes it is written beside it, see `facts_path`.
        overwrite: whether existing files are replaced.

    Returns:
        What was written.

    Raises:
        ConfigError: a file exists already or cannot be written, or it gives other logits.

    Source: https://docs.jax.dev/en/latest/export/export.html
    """
    size = model.model.image_size
    forward = make_forward(model.model, model.preprocessing)

    def serve(images: jax.Array) -> dict[str, jax.Array]:
        logits, features = forward(model.params, images)
        return {"logits": logits, "features": features}

    def write(file: pathlib.Path) -> None:
        (batch,) = jax.export.symbolic_shape("b")
        images = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.uint8)
        with _without_places():
            exported = jax.export.export(jax.jit(serve), platforms=PLATFORMS)(images)
        file.write_bytes(exported.serialize())

    def open_exported(file: pathlib.Path) -> Callable[[np.ndarray], jax.Array]:
        exported = jax.export.deserialize(bytearray(file.read_bytes()))
        cpu = jax.devices("cpu")[0]
        return lambda images: exported.call(jax.device_put(images, cpu))["logits"]

    return write_checked(
        model,
        path,
        write,
        open_exported,
        kind="stablehlo",
        checker="jax",
        overwrite=overwrite,
        packages=("jax", "jaxlib", "flax"),
        more={"platforms": list(PLATFORMS)},
    )


@contextlib.contextmanager
def _without_places() -> Iterator[None]:
    """What is lowered meanwhile names no source file, so that one model gives the same bytes."""
    # Of full tracebacks JAX remembers the files of former lowerings, so they must be off, too.
    ours = {
        "jax_hlo_source_file_canonicalization_regex": ".*",
        "jax_include_full_tracebacks_in_locations": False,
    }
    before = {name: jax.config.values[name] for name in ours}
    try:
        for name, value in ours.items():
            jax.config.update(name, value)
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def export_onnx(
    model: Classifier,
    path: str | pathlib.Path,
    *,
    opset: int = OPSET,
    overwrite: bool = False,
) -> Exported:
    """Writes a Swin as ONNX, whole or not at all.

    jax2onnx converts it. The file takes `images` uint8 [b, S, S, 3] for any b of at least 1 and
    gives `logits` float32 [b, K] and `features` float32 [b, C], in this order. Before it takes its
    place onnxruntime runs it on the CPU, and its logits are compared with the classifier's.

    Args:
        model: what `clevit_jax.load` returns, in float32.
        path: the file; a JSON that describes it is written beside it, see `facts_path`.
        opset: the version of ONNX's operators, from `OLDEST_OPSET` to the newest that the
            installed onnx knows; what reads the file must know it. The version of the format (IR)
            is no newer than the opset wants.
        overwrite: whether existing files are replaced.

    Returns:
        What was written.

    Raises:
        ConfigError: see `export_stablehlo`; or the classifier is in bfloat16, jax2onnx or
            onnxruntime is not installed, the opset is out of range, or the installed onnxruntime
            does not read it.
    """
    if model.model.dtype != jnp.float32:
        raise ConfigError(
            "ONNX is written in float32 alone, because onnxruntime has no bfloat16 on CPUs; leave "
            "out --dtype, or write a .stablehlo."
        )
    try:
        with quiet():
            import jax2onnx
            import onnx
            import onnxruntime
    except ImportError as error:
        raise ConfigError(
            f"{error.name} is not installed, which ONNX needs; install it: "
            "pip install -e '.[onnx]' -c constraints.txt."
        ) from error
    _check_opset(opset, onnx.defs.onnx_opset_version())

    def write(file: pathlib.Path) -> None:
        with quiet():
            proto = _to_onnx(jax2onnx.to_onnx, model, opset)
        # An onnxruntime that knows an older opset alone refuses the format of newer ones.
        needed = onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)])
        proto.ir_version = min(proto.ir_version, needed)
        file.write_bytes(proto.SerializeToString())

    def open_exported(file: pathlib.Path) -> Callable[[np.ndarray], np.ndarray]:
        try:
            session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors have no class in common
            raise ConfigError(
                f"{path} is not written, since onnxruntime {onnxruntime.__version__}, which checks "
                f"it, does not open it; opset {opset} may be too new for it, then give --opset "
                f"{OPSET}. It says: {' '.join(str(error).split())[:300]}"
            ) from error
        return lambda images: session.run(["logits"], {"images": images})[0]

    return write_checked(
        model,
        path,
        write,
        open_exported,
        kind="onnx",
        checker="onnxruntime",
        overwrite=overwrite,
        packages=("jax", "jax2onnx", "onnx", "onnxruntime"),
        more={"opset": opset},
    )


def _to_onnx(convert: Callable[..., Any], model: Classifier, opset: int) -> Any:
    """The model as jax2onnx's `convert` makes it, a ModelProto."""
    size = model.model.image_size
    forward = make_forward(model.model, model.preprocessing)
    images = jax.ShapeDtypeStruct(("b", size, size, 3), jnp.uint8)
    # The converter's own arithmetic mixes dtypes and ranks, which JAX's strict modes forbid.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return convert(
            lambda images: forward(model.params, images),
            [images],
            model_name="clevit_jax",
            opset=opset,
            input_names=["images"],
            output_names=["logits", "features"],
        )


def _check_opset(opset: int, newest: int) -> None:
    if not OLDEST_OPSET <= opset <= newest:
        raise ConfigError(
            f"--opset is {opset}; it must be from {OLDEST_OPSET}, since when ONNX has the sums of "
            f"squares that a Swin is written with, to {newest}, the newest that the installed onnx "
            f"knows; {OPSET} is the usual one."
        )


def export_workdir(
    path: str | pathlib.Path,
    output: str | pathlib.Path,
    *,
    checkpoint: Literal["last", "best"] | int = "last",
    image_size: int | None = None,
    dtype: str = "float32",
    opset: int | None = None,
    overwrite: bool = False,
) -> int:
    """The mode `export`: exports a trained model, and prints how to run the file.

    Args:
        path: a workdir, a converted checkpoint or a weight file, see `clevit_jax.load`.
        output: the file; its ending, `.stablehlo` or `.onnx`, decides the format.
        checkpoint, image_size, dtype: see `clevit_jax.load`.
        opset: see `export_onnx`; for an `.onnx` alone.
        overwrite: whether existing files are replaced.

    Returns:
        The exit code, 0.

    Raises:
        ConfigError, CheckpointError: in one sentence; nothing is written then.
    """
    output = run_place(output, "--output")
    kind = ENDINGS.get(output.suffix.lower())
    if kind is None:
        raise ConfigError(f"--output is {str(output)!r}; it must end in {' or '.join(ENDINGS)}.")
    if kind == "stablehlo" and opset is not None:
        raise ConfigError(f"--opset is for an .onnx; --output is {str(output)!r}, which has none.")
    check_export_target(output, overwrite=overwrite)
    try:
        model = load(path, checkpoint=checkpoint, image_size=image_size, dtype=dtype)
    except ConfigError:
        raise
    except ValueError as error:  # WeightsError, and settings that do not fit
        raise ConfigError(str(error)) from error
    if kind == "stablehlo":
        exported = export_stablehlo(model, output, overwrite=overwrite)
    else:
        asked = OPSET if opset is None else opset
        exported = export_onnx(model, output, opset=asked, overwrite=overwrite)
    size, dtype_name = model.model.image_size, jnp.dtype(model.model.dtype).name
    counts = " and ".join(map(str, CHECKED_BATCH_SIZES))
    print(
        f"Wrote {output} ({exported.size / 1e6:,.2f} MB) and {facts_path(output).name}: "
        f"{model.source}, {model.model.describe()}, {size} px, {dtype_name}.\n"
        f"{exported.checked_with} gives its logits for {counts} random images "
        f"within {exported.difference:.1e}.\n"
        + _SNIPPETS[kind].format(path=str(output), size=size),
        flush=True,
    )
    return 0
