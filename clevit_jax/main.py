"""Classifies what differs very little, from a handful of images per class.

    clevit_jax --config demo --workdir runs/demo
    clevit_jax --config folder --config.data.root=DIR --workdir runs/mine
    clevit_jax --mode predict --workdir runs/mine --input DIR --output classes.csv

`python -m clevit_jax.main` is the same command.
"""

import os
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any

from clevit_jax.system import output, signals

if TYPE_CHECKING:
    from absl import flags

_LEAVING = 3.0  # seconds that threads of libraries get to end by themselves


def main(argv: list[str], values: "flags.FlagValues | None" = None) -> int:
    """Runs the mode and returns the exit code; a failure is printed as one sentence.

    Args:
        argv: the command line, of which the flags are taken out.
        values: the flags; absl's own if not given.
    """
    from absl import flags

    from clevit_jax import modes
    from clevit_jax.system import faults

    values = flags.FLAGS if values is None else values
    try:
        return modes.run(values, argv[1:])
    except KeyboardInterrupt:  # of a mode that has nothing to save
        print("Stopped; run the same command to go on.", file=sys.stderr)
        return 130
    except Exception as error:
        return faults.tell(error, f"--mode {values.mode}", with_traceback=values.traceback)


def run() -> None:
    """The entry point of the command."""
    output.open_standard_streams()
    with output.unbreakable():
        signals.take()
        # Imported here, where a signal is heard already.
        from absl import app
        from absl import flags as absl_flags

        from clevit_jax import flags

        values = absl_flags.FLAGS
        flags.define(values)
        sys.modules["__main__"].__doc__ = flags.help_text(__doc__ or "")  # of absl's `--help`
        code: Any = 1
        try:
            app.run(main, flags_parser=lambda argv: flags.parse(values, argv))
        except SystemExit as end:
            code = end.code
        except Exception:  # a bug; by itself it would wait for the threads that it leaves
            traceback.print_exc()
        _leave(code)


def _leave(code: Any) -> None:
    """Ends the process with this code, also when a thread of a library does not end.

    A save that failed leaves threads that wait minutes for its other half.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    output.last_words()
    number = code if isinstance(code, int) else 0 if code is None else 1
    last = threading.Timer(_LEAVING, os._exit, [number])
    last.daemon = True
    last.start()
    sys.exit(code)


if __name__ == "__main__":
    run()
