"""The modes of the command: each calls its function with the flags that it takes."""

import pathlib
from typing import TYPE_CHECKING, Any, Literal

from absl import flags
from ml_collections import ConfigDict

from clevit_jax.errors import ConfigError
from clevit_jax.flags import ANALYSES, COMPILERS, SAVING, TOGETHER, check_mode, own_run
from clevit_jax.system import environment, signals
from clevit_jax.system.places import expand, run_place

if TYPE_CHECKING:
    from clevit_jax.analysis.trained_model import TrainedModel


def run(values: flags.FlagValues, rest: list[str]) -> int:
    """Runs the mode that the flags name.

    Args:
        values: the flags of `flags.FLAGS`.
        rest: arguments of the command line that are not flags.

    Returns:
        The exit code.

    Raises:
        ConfigError: flags that do not go together, before anything else is done.
    """
    mode: str = values.mode
    check_mode(values)
    environment.check()
    # Imported here: JAX and what needs it take seconds to import, and `--help` needs none of it.
    from clevit_jax.distributed import processes
    from clevit_jax.sweeps.compare import compare_runs
    from clevit_jax.system import compilation_cache
    from clevit_jax.system.logging import quiet_command

    if mode not in SAVING:
        signals.give_back()
    quiet_command()
    if mode == "compare":
        return compare_runs([run_place(folder, "A run to compare") for folder in rest])
    if rest:
        if values.input and pathlib.Path(rest[0]).exists():
            raise ConfigError(
                f"{rest[0]!r} is not a flag; the shell has put files in the place of a pattern, so "
                "write it in quotes: --input 'DIR/*.jpg'."
            )
        raise ConfigError(f"{rest[0]!r} is not a flag; settings are --config.NAME=VALUE.")
    config: ConfigDict | None = values.config
    if not values.workdir and config is None and mode == "train":
        raise ConfigError(
            "Say what to train, and where: clevit_jax --config demo --workdir runs/demo; --help "
            "names every mode and flag."
        )
    if not values.workdir and (mode not in COMPILERS or config is None):
        raise ConfigError("Name the folder of the run: --workdir DIR.")
    workdir = run_place(values.workdir or "", "--workdir")
    origin: str = values["from"].value or ""
    cache = compilation_cache.place_of(values.compilation_cache)
    if mode not in TOGETHER and not (mode in COMPILERS and cache == "auto"):
        compilation_cache.enable(cache)
    if mode not in (*TOGETHER, "preflight"):
        processes.check_alone(f"--mode {mode}", values.processes)
    if mode in ANALYSES:
        return _analyse(values, mode, config, workdir)
    config = config if config is not None else _own_config(mode, workdir, origin)
    if origin:
        from clevit_jax.runs.origin import begin_from

        config = begin_from(config, origin, workdir)
    if mode in TOGETHER:
        return _together(values, mode, config, workdir)
    return _alone(values, mode, config, workdir)


def _own_config(mode: str, workdir: pathlib.Path, origin: str) -> ConfigDict:
    """The config of the run that the command line names. Raises ConfigError where it names none."""
    from clevit_jax.runs.results import seed_folders
    from clevit_jax.runs.workdir import CONFIG_FILE, load_config

    run = own_run(str(workdir), origin)
    if run is None and origin:
        from clevit_jax.runs.origin import check_origin

        check_origin(origin)
        raise ConfigError(
            f"--from {origin} is not a run, so it has no config to go by; name one: --config FILE."
        )
    seeds = seed_folders(workdir)
    if mode in TOGETHER and seeds and not (workdir / CONFIG_FILE).exists():
        folders = ", ".join(str(folder) for folder in seeds.values())
        raise ConfigError(f"{workdir} holds seeds, not a run; name one of them: {folders}.")
    return load_config(workdir if run is None else run)


def _together(
    values: flags.FlagValues, mode: str, config: ConfigDict, workdir: pathlib.Path
) -> int:
    """The modes that several processes may run together."""
    import jax

    from clevit_jax.distributed import processes
    from clevit_jax.evaluate import evaluate_workdir
    from clevit_jax.runs.goodput import process_began
    from clevit_jax.runs.profile import read_steps
    from clevit_jax.system import compilation_cache
    from clevit_jax.system.malloc import keep_freed_memory
    from clevit_jax.train import train_workdir

    profiled = read_steps(values.profile_steps) if values.profile_steps is not None else range(0)
    names = ("processes", "coordinator", "process", "wait", "heartbeat")
    several: dict[str, Any] = {name: values[name].value for name in names}
    with processes.joined(**several):
        cache = compilation_cache.place_of(values.compilation_cache)
        compilation_cache.enable(cache, alone=processes.count() == 1)
        if mode == "eval":
            which = None if values.checkpoint is None else _which(values)
            return evaluate_workdir(
                config, workdir, other_split=values.other_split, checkpoint=which
            )
        if jax.default_backend() == "cpu":
            keep_freed_memory()
        return train_workdir(
            config, workdir, extend=values.extend, profiled=profiled, began=process_began()
        )


def _alone(values: flags.FlagValues, mode: str, config: ConfigDict, workdir: pathlib.Path) -> int:
    """The modes that one process runs, from a config."""
    if mode == "check_data":
        from clevit_jax.config import resolve_data
        from clevit_jax.data.audit.command import check_data

        return check_data(resolve_data(config), workdir)
    if mode == "seeds":
        from clevit_jax.sweeps.seeds import train_seeds

        return train_seeds(config, workdir, seeds=values.seeds, parallel=values.parallel)
    if mode == "preflight":
        from clevit_jax.performance.preflight import preflight

        more = {"as_json": values.json, "largest_batch": values.largest_batch}
        return preflight(config, values.topology, **more)
    from clevit_jax.performance.throughput import read_batch_sizes, throughput

    sizes = read_batch_sizes(values.batch_sizes)
    return throughput(config, batch_sizes=sizes, as_json=values.json)


def _analyse(
    values: flags.FlagValues, mode: str, config: ConfigDict | None, workdir: pathlib.Path
) -> int:
    """The modes that are about a trained model."""
    if mode in ("predict", "explain") and not values.input:
        raise ConfigError(f"--mode {mode} needs --input: a folder, a file or a quoted pattern.")
    if mode != "report" and not values.output:
        raise ConfigError(f"--mode {mode} needs --output; see --help.")
    _check_submission(values)
    output = run_place(values.output, "--output") if values.output else None
    checkpoint = _which(values)
    if mode == "export":
        from clevit_jax.inference import export

        assert output is not None
        return export.export_workdir(
            workdir,
            output,
            checkpoint=checkpoint,
            image_size=values.image_size,
            dtype=values.dtype,
            opset=values.opset,
            overwrite=values.overwrite,
        )
    from clevit_jax.analysis.trained_model import open_trained_model

    trained = open_trained_model(workdir, config, checkpoint=checkpoint)
    return _analyse_trained(values, mode, trained, output)


def _check_submission(values: flags.FlagValues) -> None:
    """Raises ConfigError for flags that do not go with `--submission`, or only with it."""
    if values.form_classes and not values.submission:
        raise ConfigError("--form_classes is for --submission FORM.")
    for name in ("top", "resume", "reference") if values.submission else ():
        if values[name].present:
            raise ConfigError(
                f"--{name} does not go with --submission, whose form says what is written."
            )


def _which(values: flags.FlagValues) -> Literal["last", "best"] | int:
    """The checkpoint that `--checkpoint` names; the last, if it names none."""
    from clevit_jax.runs.load import read_which

    try:
        return read_which(values.checkpoint or "last")
    except ConfigError as error:
        raise ConfigError(f"--checkpoint: {error}") from error


def _analyse_trained(
    values: flags.FlagValues, mode: str, trained: "TrainedModel", output: pathlib.Path | None
) -> int:
    """The modes that need the model itself, which export does not."""
    if mode == "report":
        from clevit_jax.analysis.report.write import write_report

        print(f"Report: {write_report(trained, output)}")
        return 0
    from clevit_jax.analysis import explain, features, predict, submission
    from clevit_jax.system.fetch import local

    assert output is not None
    source = expand(values.input or "", "--input", fetched=True)
    if mode == "features":
        return features.write_features(trained, output, source or None, overwrite=values.overwrite)
    if mode == "explain":
        classes = values["class"].value or ()
        return explain.explain(trained, source, output, classes=classes, name=values.map)
    flip = values.tta == "flip"
    if values.submission:
        form = local(values.submission, "--submission", trained.copy_to)
        written = values.form_classes or ""
        return submission.write_submission(
            trained, source, output, form, classes=written, flip=flip
        )
    return predict.predict(
        trained,
        source,
        output,
        top=values.top,
        flip=flip,
        resume=values.resume,
        reference=(
            local(values.reference, "--reference", trained.copy_to) if values.reference else None
        ),
    )
