#!/bin/bash
# Makes .venv of this clone, once for each revision: bash tools/pods/install.sh
#
# Images of TPU hosts come with Ubuntu 22.04, whose Python 3.10 is too old. Where no better one is
# found, uv brings one. From the environment:
#   EXTRAS=tpu,gcs   what is installed besides; cuda,gcs for GPUs
#   PYTHON=          the Python to take, 3.11 or newer
set -eu
cd "$(dirname "$0")/../.."
extras=${EXTRAS:-tpu,gcs}
stamp=.venv/pods.stamp
wanted="$(git rev-parse HEAD) $extras"
if [ "$(cat "$stamp" 2> /dev/null)" = "$wanted" ]; then
    exit
fi

good() {
    "$1" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2> /dev/null
}

python=
for each in ${PYTHON:-python3.13 python3.12 python3.11 python3}; do
    if good "$each"; then
        python=$each
        break
    fi
done
if [ -z "$python" ]; then
    if [ -n "${PYTHON:-}" ]; then
        echo "error: $PYTHON is no Python from 3.11 on with venv; leave PYTHON empty, and one is" \
            "brought." >&2
        exit 2
    fi
    python3 -m pip --version > /dev/null 2>&1 || apt-get install --yes --quiet python3-pip
    uv=$(mktemp -d)
    python3 -m pip install --quiet --target "$uv" uv
    "$uv/bin/uv" python install --quiet 3.12
    python=$("$uv/bin/uv" python find 3.12)
    rm -r "$uv"
fi
sh tools/make_venv.sh "$python"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
    --editable ".[$extras]"
echo "$wanted" > "$stamp"
