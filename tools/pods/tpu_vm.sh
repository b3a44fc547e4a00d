#!/bin/bash
# A run on a v4 or v5e slice, by the Cloud TPU API, until it is done:
#
#   NAME=clevit ZONE=us-west4-a TYPE=v5litepod-16 VERSION=v2-alpha-tpuv5-lite \
#   REPOSITORY=ADDRESS REVISION=TAG SERVICE_ACCOUNT=runs@PROJECT.iam.gserviceaccount.com \
#     bash tools/pods/tpu_vm.sh .venv/bin/python -m clevit_jax.main ... --workdir gs://BUCKET/run
#
# Asks for the slice in the queue, has startup.sh run the command on each host, and watches. A slice
# that was taken away is deleted and asked for anew. Ends with 0, 1 or 2 when the run does, and
# deletes the slice. Started again, it watches the slice that is there.
#
#   TYPE, VERSION   v4-32 and tpu-ubuntu2204-base; v5litepod-16 and v2-alpha-tpuv5-lite
#   SPOT=yes        no: on demand
#   CREATE_FLAGS=   more for queued-resources create, such as --network or --internal-ips
#   SSH_FLAGS=      more for tpu-vm ssh, such as --internal-ip
# and those of keep.sh.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/keep.sh"
need NAME ZONE TYPE VERSION REPOSITORY REVISION SERVICE_ACCOUNT
describe_run "$@"
read -ra create_flags <<< "${CREATE_FLAGS:-}"
read -ra ssh_flags <<< "${SSH_FLAGS:-}"
[ "${SPOT:-yes}" = no ] || create_flags+=(--spot)
tpus=(gcloud compute tpus)
here=(--zone="$ZONE" --filter="name~/$NAME\$")

look() {
    local asked node codes
    if ! asked=$("${tpus[@]}" queued-resources list "${here[@]}" --format='value(state.state)') ||
        ! node=$("${tpus[@]}" tpu-vm list "${here[@]}" --format='value(state)'); then
        echo "waiting for gcloud, which does not answer"
        return
    fi
    case "$asked $node" in
    ' ') echo gone ;;
    ' '*) echo "waiting $node, which nothing in the queue made; delete it, or take another NAME" ;;
    FAILED* | SUSPENDED* | *PREEMPTED | *TERMINATED | *STOPPED) echo "lost ${node:-$asked}" ;;
    'ACTIVE READY')
        # A host that does not answer counts as one that goes on.
        if ! codes=$("${tpus[@]}" tpu-vm ssh "$NAME" --zone="$ZONE" --worker=all --quiet \
            "${ssh_flags[@]}" --command='cat /var/lib/clevit/code 2> /dev/null || echo -' \
            2> "$notes/ssh"); then
            say "How the run stands is not known, for ssh fails: $(tail -n 1 "$notes/ssh")"
            codes+=$'\n-'
        fi
        echo "running $(grep -xE '[0-9]+|running|-' <<< "$codes" | tr '\n' ' ')"
        ;;
    *) echo "waiting ${node:-$asked}" ;;
    esac
}

create() {
    "${tpus[@]}" queued-resources create "$NAME" --node-id="$NAME" --zone="$ZONE" \
        --accelerator-type="$TYPE" --runtime-version="$VERSION" \
        --service-account="$SERVICE_ACCOUNT" --scopes=cloud-platform \
        "${metadata[@]}" "${create_flags[@]}"
}

delete() {
    "${tpus[@]}" queued-resources delete "$NAME" --zone="$ZONE" --force --quiet
}

keep
