#!/bin/sh
# Makes .venv, unless a good one is there: sh tools/make_venv.sh PYTHON [GOAL of make]
#
# Plain sh, since it runs before there is a Python that can be relied on. A .venv that an older
# Python left, whose making was cut short, or whose folder or Python is gone, is made anew; one
# that cannot be made leaves nothing behind.
python=$1
goal=${2:-demo}
new_enough='import sys; sys.exit(sys.version_info < (3, 11))'

# Whether pip of .venv runs, lies in .venv, and on a Python that is new enough.
good() {
    from=$(.venv/bin/pip --version 2> /dev/null) || return 1
    from=${from#pip * from } # pip 24.0 from FOLDER (python 3.12)
    .venv/bin/python -c "import os, pip, sys
if not os.path.samefile(pip.__path__[0], sys.argv[1]): sys.exit(1)
$new_enough" "${from% (python *}" 2> /dev/null
}

fail() {
    echo "error: $1" >&2
    exit 2
}

# What to type instead: a Python that is here, if there is one.
another() {
    for other in python3.13 python3.12 python3.11 python3.14 python3; do
        if "$other" -c "$new_enough" 2> /dev/null; then
            echo "type: make $goal PYTHON=$other"
            return
        fi
    done
    echo "install one, and type: make $goal PYTHON=python3.12"
}

good && exit
needs="and CLE-ViT needs 3.11 or newer"
version=$("$python" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2> /dev/null) ||
    fail "There is no Python as $python, $needs; $(another)"
"$python" -c "$new_enough" || fail "$python is Python $version, $needs; $(another)"
"$python" -c 'import ensurepip, venv' 2> /dev/null ||
    fail "$python lacks venv, which makes the environment .venv; install it (on Debian and Ubuntu: \
apt install python${version%.*}-venv), and type: make $goal"
if [ -d .venv ]; then
    echo ".venv is of no use (an older Python, a folder that moved, or half made); it is made anew."
elif [ -e .venv ] || [ -L .venv ]; then
    fail ".venv is not a folder, and the packages are to be installed there; move it away."
fi
trap 'rm -rf .venv' EXIT
trap 'exit 130' INT
trap 'exit 143' HUP TERM
"$python" -m venv --clear .venv >&2 || fail ".venv could not be made; the lines above say why."
good || fail "The pip that $python put into .venv does not run; $(another)"
trap - EXIT
