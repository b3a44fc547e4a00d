#!/bin/bash
# Runs a command until it is done: bash tools/pods/run.sh COMMAND [ARGUMENT...]
#
# It is started again after 75 (stopped and saved), 76 (another process was lost), 77 (storage does
# not answer), 134 (ended by JAX), and after what else ends a process from outside: 135, 137, 139
# and 143. Any other code is the last one: 0 done, 1 a bug, 2 a mistake to mend. A signal that asks
# for an end goes on to the command, whose code is then the last one, too.
#
# From the environment, times in seconds:
#   RERUN_PAUSE=10     before the next start; doubles with each start that ends early, up to
#   RERUN_LONGEST=300
#   RERUN_EARLY=1200   a start that ends sooner ends early
#   RERUN_LIMIT=10     early ends in a row before this gives up, with the last code
#   RERUN_REPORT=      a program that is called with the last code
set -um # -m: the command has a process group, so a signal to ours reaches it once, from here

say() {
    echo "run.sh: $*" >&2
}

first=${RERUN_PAUSE:-10} longest=${RERUN_LONGEST:-300}
early=${RERUN_EARLY:-1200} limit=${RERUN_LIMIT:-10}
for number in "$first" "$longest" "$early" "$limit"; do
    case $number in
    '' | *[!0-9]*)
        say "'$number' is no whole number; RERUN_PAUSE, _LONGEST, _EARLY and _LIMIT must be one."
        exit 2
        ;;
    esac
done
if [ $# = 0 ]; then
    say "There is no command to run; type: bash tools/pods/run.sh COMMAND [ARGUMENT...]"
    exit 2
fi

child='' stopped='' signalled=''
pass_on() {
    stopped=$1 signalled=yes
    [ -z "$child" ] || kill -"$1" "$child" 2> /dev/null
}
for name in TERM INT HUP QUIT USR1 USR2 XCPU; do
    # shellcheck disable=SC2064 # the name of now is meant
    trap "pass_on $name" "$name"
done

# Runs a command to its end, whatever signals come meanwhile; its code is then in `code`.
run() {
    local found
    "$@" &
    child=$!
    [ -z "$stopped" ] || kill -"$stopped" "$child" 2> /dev/null # it came just before
    code=127
    while :; do
        signalled=''
        wait "$child"
        found=$?
        # After a signal that came just behind the end there is nothing left to wait for.
        [ "$found" = 127 ] && [ "$code" != 127 ] || code=$found
        [ -n "$signalled" ] || break
    done
    child=''
}

finish() {
    [ -z "${RERUN_REPORT:-}" ] || "$RERUN_REPORT" "$1"
    exit "$1"
}

row=0 pause=$first
while :; do
    began=$SECONDS
    run "$@"
    case $code in
    75 | 76 | 77 | 134 | 135 | 137 | 139 | 143) ;;
    *) finish "$code" ;;
    esac
    if [ -n "$stopped" ]; then
        say "Stopped by SIG$stopped; the command ended with $code."
        finish "$code"
    fi
    if [ $((SECONDS - began)) -lt "$early" ]; then
        row=$((row + 1))
    else
        row=0 pause=$first
    fi
    if [ "$row" -ge "$limit" ]; then
        say "Ended with $code, the last of $row starts in a row that took less than $early s;" \
            "look at what they say, mend it, and start this again."
        finish "$code"
    fi
    say "Ended with $code after $((SECONDS - began)) s; starts again in $pause s."
    last=$code
    run sleep "$pause"
    [ -z "$stopped" ] || finish "$last"
    pause=$((pause * 2 > longest ? longest : pause * 2))
done
