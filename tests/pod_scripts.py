"""Scripts of tools/pods/, and stand-ins for what they start."""

import pathlib

ROOT = pathlib.Path(__file__).parents[1]
PODS = ROOT / "tools" / "pods"
AGAIN = (75, 76, 77, 134, 135, 137, 139, 143)  # codes after which a run is started again
# Ends with the codes of a file, one for each start; a code "wait" is a SIGTERM away.
STAND_IN = """#!/bin/bash
read -r code < codes; sed -i 1d codes; echo "$*" >> starts
trap 'echo TERM >> signals; code=75' TERM
while [ "$code" = wait ]; do echo $$ > waits; sleep 0.01; done
case $code in -*) kill "$code" $$ ;; esac
exit "$code"
"""


def script(path, text):
    """Writes a script that can be run, and its folder."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def lines(path):
    """Of a file, none where there is no file."""
    return path.read_text().splitlines() if path.exists() else []
