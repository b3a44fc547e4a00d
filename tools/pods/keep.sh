#!/bin/bash
# Keeps a slice until the run on it has ended. To be sourced by tpu_vm.sh and instance_group.sh,
# which say what a slice is called (NAME) and how it is looked at (look), created and deleted.
#
# look prints one line:
#   gone              there is none
#   waiting STATE     it is being made, or is repaired
#   lost STATE        it was taken away, and comes back by being deleted and made anew
#   running CODE...   for each host the code that its run ended with, - while it goes on
#
# From the environment, times in seconds:
#   SLICE_PAUSE=60     between two looks
#   SLICE_EARLY=1800   a slice that is lost sooner is lost early
#   SLICE_LIMIT=20     slices lost early in a row before this gives up
set -uo pipefail
pods=$(dirname "${BASH_SOURCE[0]}")
notes=$(mktemp -d)
trap 'rm -rf "$notes"' EXIT

say() {
    printf '%s %s\n' "$(date '+%F %T')" "$*" >&2
}

fail() {
    echo "error: $*" >&2
    exit 2
}

# Ends unless each of these variables says something.
need() {
    local variable
    for variable; do
        [ -n "${!variable:-}" ] ||
            fail "$variable is not set; see the first lines of $0 for what it means."
    done
}

# The flags of metadata by which startup.sh knows what to run, in the array `metadata`.
describe_run() {
    [ $# -gt 0 ] || fail "There is no command to run; see the first lines of $0."
    printf '%q ' "$@" > "$notes/command"
    local keys=enable-guest-attributes=TRUE
    keys+=,clevit-repository=$REPOSITORY,clevit-revision=$REVISION
    # shellcheck disable=SC2034 # who sources this takes it
    metadata=(
        --metadata="$keys"
        --metadata-from-file="startup-script=$pods/startup.sh,clevit-command=$notes/command"
    )
}

# What the codes of all hosts say: a code to end with, goes-on, or "ended CODE" of one that gave up.
verdict() {
    local code all=0 other=''
    for code; do
        case $code in
        1) echo 1 && return ;; # the others then end with what follows from it
        - | running) all='' ;;
        0) ;;
        2) other=2 ;;
        *) other=${other:-$code} ;;
        esac
    done
    case $other in
    2) echo 2 ;;
    '') echo "${all:-goes-on}" ;;
    *) echo "ended $other" ;;
    esac
}

# Deletes a slice that was lost; ends when too many were lost early.
lose() {
    say "$1; it is deleted and made anew."
    if [ -n "$born" ] && [ $((SECONDS - born)) -ge "${SLICE_EARLY:-1800}" ]; then
        row=0
    else
        row=$((row + 1))
    fi
    delete || say "It could not be deleted; that is tried again."
    born='' before=''
    if [ "$row" -ge "${SLICE_LIMIT:-20}" ]; then
        say "$row slices in a row were lost early, so this gives up. The same command goes on."
        exit 75
    fi
}

keep() {
    local state more ending said='' created=''
    row=0 born='' before=''
    trap 'say "The slice goes on alone; the same command watches it again."; exit 130' INT TERM
    while :; do
        read -r state more <<< "$(look)"
        [ "$state $more" = "$said" ] || say "The slice: $state $more"
        said="$state $more" ending=''
        case $state in
        gone)
            if create; then
                created=yes
            elif [ -z "$created" ]; then
                fail "The slice cannot be made; the lines above say why."
            else
                lose "The slice could not be made"
            fi
            ;;
        lost) lose "The slice is ${more:-lost}" ;;
        running)
            born=${born:-$SECONDS}
            # shellcheck disable=SC2086 # one word for each host
            ending=$(verdict $more)
            case $ending in
            goes-on) ;;
            ended*)
                # A host that is being shut down says so before it is gone: the second time counts.
                [ "$ending" != "$before" ] || lose "The run $ending"
                ;;
            *)
                say "The run ended with $ending; the slice is deleted."
                delete || say "It could not be deleted: look after it, for it costs money."
                exit "$ending"
                ;;
            esac
            ;;
        esac
        before=$ending
        sleep "${SLICE_PAUSE:-60}"
    done
}
