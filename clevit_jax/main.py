"""Classifies what differs very little, from a handful of images per class.

    clevit_jax --config demo --workdir runs/demo
    clevit_jax --config folder --config.data.root=DIR --workdir runs/mine
    clevit_jax --mode predict --workdir runs/mine --input DIR --output classes.csv

`python -m clevit_jax.main` is the same command.
"""

import sys

from absl import app
from absl import flags as absl_flags

from clevit_jax import flags, modes
from clevit_jax.errors import ClevitError


def main(argv: list[str], values: absl_flags.FlagValues = absl_flags.FLAGS) -> int:
    """Runs the mode and returns the exit code; a failure is printed as one sentence."""
    try:
        return modes.run(values, argv[1:])
    except (ClevitError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # outside the updates, where there is nothing to save
        print("Stopped; run the same command to go on.", file=sys.stderr)
        return 130


def run() -> None:
    """The entry point of the command."""
    values = absl_flags.FLAGS
    flags.define(values)
    sys.modules["__main__"].__doc__ = flags.help_text(__doc__ or "")  # absl's `--help` prints it
    app.run(main, flags_parser=lambda argv: flags.parse(values, argv))


if __name__ == "__main__":
    run()
