"""What each `--mode` does with the flags."""

import pathlib
from typing import TYPE_CHECKING, Any, Literal

from absl import flags
from ml_collections import ConfigDict

if TYPE_CHECKING:
    from clevit_jax.analysis.subject import Subject

NAMES = (
    "train", "eval", "check_data", "seeds", "compare", "preflight",
    "predict", "features", "explain", "report", "export", "throughput",
)  # fmt: skip
ANALYSES = ("predict", "features", "explain", "report", "export")
TOGETHER = ("train", "eval")  # which several processes may run
COMPILERS = ("preflight", "throughput")  # say how long compiling takes, so do it each time
# Which flag is for which modes; those that are not here are for all.
ONLY_IN: dict[str, tuple[str, ...]] = {
    "other_split": ("eval",),
    "seeds": ("seeds",),
    "parallel": ("seeds",),
    "topology": ("preflight",),
    "json": ("preflight", "throughput"),
    "largest_batch": ("preflight",),
    "coordinator": TOGETHER,
    "process": TOGETHER,
    "wait": TOGETHER,
    "checkpoint": ANALYSES,
    "input": ("predict", "features", "explain"),
    "output": ANALYSES,
    "top": ("predict",),
    "tta": ("predict",),
    "resume": ("predict",),
    "reference": ("predict",),
    "class": ("explain",),
    "map": ("explain",),
    "overwrite": ("features", "export"),
    "image_size": ("export",),
    "dtype": ("export",),
    "batch_sizes": ("throughput",),
    "peer": ("throughput",),
}


def run(values: flags.FlagValues, rest: list[str], known: tuple[type[Exception], ...]) -> int:
    """Runs the mode that the flags name.

    Args:
        values: the flags of `main`.
        rest: what of the command line is no flag.
        known: errors whose message says all there is to say.

    Returns:
        The exit code.

    Raises:
        ConfigError: flags that do not go together, before anything else is done.
    """
    # Here, for JAX and what stands on it take seconds, and `--help` needs none of them.
    from clevit_jax import compare, compilation_cache, preflight, processes, rundir, seeds
    from clevit_jax.data_check import check_data
    from clevit_jax.experiment import ConfigError

    mode: str = values.mode
    for name, modes in ONLY_IN.items():
        if values[name].present and mode not in modes:
            raise ConfigError(f"--{name} is for --mode {_listed(modes)}, not for {mode}.")
    if mode == "compare":
        return compare.compare([pathlib.Path(folder) for folder in rest])
    if rest:
        raise ConfigError(f"{rest[0]!r} is no flag; settings are --config.NAME=VALUE.")
    config: ConfigDict | None = values.config
    if not values.workdir and (mode not in ("preflight", "throughput") or config is None):
        raise ConfigError("Name the folder of the run: --workdir DIR.")
    workdir = pathlib.Path(values.workdir or "")
    if mode not in TOGETHER and not (mode in COMPILERS and values.compilation_cache == "auto"):
        compilation_cache.enable(values.compilation_cache)
    if mode in ANALYSES:
        processes.check_alone(f"--mode {mode}", values.processes)
        return _analyse(values, mode, config, workdir)
    config = config if config is not None else rundir.load_config(workdir)
    if mode == "preflight":
        more = {"as_json": values.json, "largest_batch": values.largest_batch}
        return preflight.preflight(config, values.topology, **more)
    if mode in ("check_data", "seeds", "throughput"):
        processes.check_alone(f"--mode {mode}", values.processes)
    if mode == "check_data":
        return check_data(config, workdir)
    if mode == "seeds":
        return seeds.train_seeds(config, workdir, seeds=values.seeds, parallel=values.parallel)
    if mode == "throughput":
        return _throughput(values, config)
    return _together(values, mode, config, workdir, known)


def _listed(modes: tuple[str, ...]) -> str:
    return f"{', '.join(modes[:-1])} and {modes[-1]}" if len(modes) > 1 else modes[0]


def _together(
    values: flags.FlagValues,
    mode: str,
    config: ConfigDict,
    workdir: pathlib.Path,
    known: tuple[type[Exception], ...],
) -> int:
    """The modes that several processes may run together."""
    import jax

    from clevit_jax import compilation_cache, host_allocator, processes, scoring, train

    several: dict[str, Any] = {
        name: values[name].value for name in ("processes", "coordinator", "process", "wait")
    }
    with processes.joined(**several, sentences=known):
        compilation_cache.enable(values.compilation_cache, alone=processes.count() == 1)
        if mode == "eval":
            return scoring.evaluate_workdir(config, workdir, other_split=values.other_split)
        if jax.default_backend() == "cpu":
            host_allocator.keep_freed_memory()
        return train.train(config, workdir)


def _analyse(
    values: flags.FlagValues, mode: str, config: ConfigDict | None, workdir: pathlib.Path
) -> int:
    """The modes that are about a trained model."""
    from clevit_jax.experiment import ConfigError

    if mode in ("predict", "explain") and not values.input:
        raise ConfigError(f"--mode {mode} needs --input: a folder, a file or a quoted pattern.")
    if mode != "report" and not values.output:
        raise ConfigError(f"--mode {mode} needs --output; see --help.")
    output = pathlib.Path(values.output) if values.output else None
    checkpoint: Literal["last", "best"] = values.checkpoint
    if mode == "export":
        from clevit_jax.analysis import export

        assert output is not None
        return export.export_workdir(
            workdir, output, checkpoint=checkpoint, image_size=values.image_size,
            dtype=values.dtype, overwrite=values.overwrite,
        )  # fmt: skip
    from clevit_jax.analysis.subject import open_subject

    return _about(values, mode, open_subject(workdir, config, checkpoint=checkpoint), output)


def _about(
    values: flags.FlagValues, mode: str, subject: "Subject", output: pathlib.Path | None
) -> int:
    """The analyses of an open model."""
    if mode == "report":
        from clevit_jax.analysis.report.write import write_report

        print(f"Report: {write_report(subject, output)}")
        return 0
    from clevit_jax.analysis import explain, features, predict

    assert output is not None
    if mode == "features":
        return features.write_features(subject, output, values.input, overwrite=values.overwrite)
    if mode == "explain":
        classes = values["class"].value or ()
        return explain.explain(subject, values.input, output, classes=classes, name=values.map)
    return predict.predict(
        subject,
        values.input,
        output,
        top=values.top,
        flip=values.tta == "flip",
        resume=values.resume,
        reference=pathlib.Path(values.reference) if values.reference else None,
    )


def _throughput(values: flags.FlagValues, config: ConfigDict) -> int:
    from clevit_jax.analysis.throughput import throughput
    from clevit_jax.experiment import ConfigError

    try:
        sizes = [int(size) for size in values.batch_sizes or ()]
    except ValueError as error:
        raise ConfigError(
            f"--batch_sizes is {','.join(values.batch_sizes)}; it must be numbers, as in 8,16,32."
        ) from error
    return throughput(
        config, batch_sizes=sizes or None, peer=values.peer or None, as_json=values.json
    )
