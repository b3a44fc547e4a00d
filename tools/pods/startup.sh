#!/bin/bash
# What a host of a slice does each time it boots: fetches the code, installs it, and keeps the run
# going. It is the metadata key startup-script; tpu_vm.sh and instance_group.sh put it there, with
#   clevit-repository   address for git
#   clevit-revision     tag or commit, so that all hosts have the same
#   clevit-command      the command, quoted for a shell, from the folder of the clone
#
# The run is the unit clevit of systemd: when the host is taken away it gets SIGTERM while the
# network is still there, and saves. Its words are in /var/log/clevit.log. A run that ended with 0,
# 1 or 2 stays ended when the host boots again.
set -euo pipefail
export HOME=${HOME:-/root} # git, pip and uv want one, and systemd gives none
state=${CLEVIT_STATE:-/var/lib/clevit}
clone=${CLEVIT_CLONE:-/opt/clevit_jax}
log=${CLEVIT_LOG:-/var/log/clevit.log}
server=http://${GCE_METADATA_HOST:-metadata.google.internal}

attribute() {
    curl --silent --fail --retry 5 --header 'Metadata-Flavor: Google' \
        "$server/computeMetadata/v1/instance/attributes/$1"
}

# A network that is not up yet is no reason to end a run.
try() {
    local pause=${CLEVIT_PAUSE:-5}
    for _ in 1 2 3 4; do
        "$@" && return
        sleep "$pause"
        pause=$((pause * 2))
    done
    "$@"
}

fetch() {
    git init --quiet "$clone"
    git -C "$clone" fetch --quiet --depth 1 "$repository" "$revision"
    git -C "$clone" checkout --quiet --force --detach FETCH_HEAD
}

case $(cat "$state/code" 2> /dev/null || true) in
0 | 1 | 2)
    echo "The run has ended with $(cat "$state/code"); $log says how."
    exit
    ;;
esac
if systemctl is-active --quiet clevit; then
    echo "The run goes on already; see $log."
    exit
fi
repository=$(attribute clevit-repository)
revision=$(attribute clevit-revision)
command=$(attribute clevit-command)

# Without the code there is no report.sh yet.
if ! try fetch; then
    mkdir -p "$state"
    echo 2 > "$state/code"
    curl --silent --request PUT --data 2 --header 'Metadata-Flavor: Google' \
        "$server/computeMetadata/v1/instance/guest-attributes/clevit/code" || true
    echo "error: $revision of $repository cannot be fetched; is the name right, and does this" \
        "host reach it (Cloud NAT)?" >&2
    exit 2
fi
bash "$clone/tools/pods/report.sh" running
if ! try bash "$clone/tools/pods/install.sh"; then
    echo "error: The code cannot be installed; the lines above say why." >&2
    bash "$clone/tools/pods/report.sh" 2
    exit 2
fi
eval "words=($command)" # what bash quoted, bash takes apart
# TPUs need memory that stays where it is: LimitMEMLOCK.
# shellcheck disable=SC2154 # eval sets it
systemd-run --unit=clevit --collect \
    --property=KillMode=mixed --property=TimeoutStopSec=300 \
    --property=Wants=network-online.target --property=After=network-online.target \
    --property=LimitMEMLOCK=infinity --property=LimitNOFILE=65536 \
    --property=StandardOutput="append:$log" --property=StandardError="append:$log" \
    --property=WorkingDirectory="$clone" \
    --setenv=HOME="$HOME" --setenv=PYTHONUNBUFFERED=1 \
    --setenv=RERUN_REPORT="$clone/tools/pods/report.sh" \
    /bin/bash "$clone/tools/pods/run.sh" "${words[@]}"
