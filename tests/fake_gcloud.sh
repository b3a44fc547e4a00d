#!/bin/bash
# A gcloud that plays a slice for tools/pods/: it runs in place of the real one, in a folder.
#
# lives/N is the slice as it is made for the Nth time, from 0 on: a line is a moment, of which each
# look takes one, and the last stays. A moment is STATE... | CODE...: two states (of the request in
# the queue and of its slice) or one for each host, . for none, and what each host says of its run;
# of a host that is mute nothing is heard. `calls` gets the commands that change something.
step() {
    read -r life at < now
    [ "$((at + 1))" -ge "$(wc -l < "lives/$life")" ] || at=$((at + 1))
    echo "$life $at" > now
}
moment() { # states or codes, a word each, in `words`
    read -r life at < now
    mapfile -t all < "lives/$life"
    [ "$1" = states ] && line=${all[at < 0 ? 0 : at]%|*} || line=${all[at < 0 ? 0 : at]#*|}
    read -ra words <<< "$line"
    words=("${words[@]/#./}")
}
fail() { echo "ERROR: $*" >&2 && exit 1; }

case "$(cat fails) $*" in
create*' create '* | list*' list '*) fail "no answer" ;;
esac
case $* in
*' list '* | *list-instances* | *tpu-vm\ ssh* | *get-guest-attributes*) ;;
*) printf '%q ' "$@" >> calls && echo >> calls ;;
esac
for word; do
    case $word in --metadata-from-file=*clevit-command=*) cat "${word##*=}" > 'command' ;; esac
done
case $* in
*'queued-resources list'*) [ ! -e there ] || { step && moment states && echo "${words[0]}"; } ;;
*'tpu-vm list'*) [ ! -e there ] || { moment states && echo "${words[1]}"; } ;;
*'tpu-vm ssh'*)
    moment codes
    for code in "${words[@]}"; do [ "$code" = mute ] || echo "$code"; done
    [[ ${words[*]} != *mute* ]] || fail "ssh: Connection refused"
    ;;
*'managed list-instances'*)
    step && moment states
    for index in "${!words[@]}"; do printf 'host-%s\t%s\n' "$index" "${words[index]}"; done
    ;;
*'managed list '*) [ ! -e there ] || echo slice ;;
*'queued-resources create'* | *'managed create'*)
    read -r life at < now
    echo "$((life + 1)) -1" > now
    touch there
    ;;
*'queued-resources delete'* | *'managed delete'*) rm there || fail "not found" ;;
*get-guest-attributes*)
    moment codes
    line=$*
    index=${line#*host-}
    code=${words[${index%% *}]}
    [ "$code" != mute ] || fail "not found"
    echo "$code"
    ;;
esac
