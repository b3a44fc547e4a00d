"""Reads the command line: flags, config files and overrides, with mistakes as one sentence."""

import difflib
import pathlib
import sys

from absl import flags


def parse(values: flags.FlagValues, argv: list[str]) -> list[str]:
    """absl's parsing, with config files found from anywhere; exits 2 with one sentence.

    Args:
        values: the flags, among them `config`.
        argv: the command line.

    Returns:
        The program and what is no flag.
    """
    # Config files import `configs.base`; let them, wherever the command is run from.
    sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))
    try:
        rest = values(argv)
        if values["config"].present:
            _ = values.config.to_dict()  # a file that is missing shows at the first use only
        return rest
    except Exception as error:  # a config file may raise anything
        print(f"error: {_explain(values, argv, error)}", file=sys.stderr)
        sys.exit(2)


def _explain(values: flags.FlagValues, argv: list[str], error: Exception) -> str:
    """The sentence for a command line that cannot be parsed."""
    from clevit_jax.experiment import flatten

    path = ""
    for arg, following in zip(argv, [*argv[1:], ""], strict=True):
        name, equals, value = arg.lstrip("-").partition("=")
        if arg.startswith("-") and name == "config":
            path = value if equals else following
    given = [arg.lstrip("-").partition("=")[0] for arg in argv[1:] if arg.startswith("--config.")]
    if not path:
        return f"--{given[0]} needs --config FILE before it." if given else str(error)
    file = pathlib.Path(path.partition(":")[0])
    if not file.is_file():
        near = difflib.get_close_matches(file.name, [p.name for p in file.parent.glob("*.py")])
        mend = f"did you mean {file.with_name(near[0])}?" if near else "give the path of one."
        return f"There is no config file {file}; {mend}"
    try:  # the file by itself, without what the command line overrides
        config = values["config"].parser.parse(path)
        known = [f"config.{name}" for name in flatten(config)]
    except Exception as failure:
        # ml_collections packs a traceback into the message of a ValueError or TypeError.
        cause = failure.__context__ or failure
        text = str(cause) if isinstance(cause, ValueError) else f"{type(cause).__name__}: {cause}"
        return f"The config {path} cannot be loaded: {text.removesuffix('.')}."
    for name in given:
        if name not in known:
            same_end = [k for k in known if k.rsplit(".", 1)[1] == name.rsplit(".", 1)[1]]
            near = same_end or difflib.get_close_matches(name, known, n=1, cutoff=0)
            return f"There is no setting --{name}; the nearest is --{near[0]}."
    return str(error).strip() or type(error).__name__
