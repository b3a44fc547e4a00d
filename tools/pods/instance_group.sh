#!/bin/bash
# A run on a v5p, v6e or TPU7x slice, by a managed instance group, until it is done:
#
#   NAME=clevit PROJECT=PROJECT ZONE=us-east5-a MACHINE=ct6e-standard-4t TOPOLOGY=4x4 \
#   REPOSITORY=ADDRESS REVISION=TAG SERVICE_ACCOUNT=runs@PROJECT.iam.gserviceaccount.com \
#     bash tools/pods/instance_group.sh .venv/bin/python -m clevit_jax.main ...
#
# Makes a workload policy (the topology), an instance template and a group of as many hosts as the
# topology has, has startup.sh run the command on each, and watches. A slice that was taken away is
# deleted and made anew. Ends with 0, 1 or 2 when the run does, and deletes all it made. Started
# again, it watches the group that is there.
#
#   MACHINE          ct5p-hightpu-4t, ct6e-standard-4t, tpu7x-standard-4t; its end: chips of a host
#   TOPOLOGY         of chips: 4x4, 2x2x4
#   MODEL=SPOT       provisioning model; STANDARD is on demand, and Google repairs its hosts itself
#   TEMPLATE_FLAGS=  more for instance-templates create, such as --network-interface
# and those of keep.sh.
# shellcheck source-path=SCRIPTDIR
source "$(dirname "$0")/keep.sh"
need NAME PROJECT ZONE MACHINE TOPOLOGY REPOSITORY REVISION SERVICE_ACCOUNT
describe_run "$@"
read -ra template_flags <<< "${TEMPLATE_FLAGS:-}"
region=${ZONE%-*}
chips=${MACHINE##*-}
chips=${chips%t}
case "$chips $TOPOLOGY" in
*[!0-9x\ ]* | ' '* | *' ')
    fail "MACHINE is $MACHINE, TOPOLOGY $TOPOLOGY; they must be like ct6e-standard-4t and 4x4."
    ;;
esac
hosts=$((${TOPOLOGY//x/*} / chips))
[ "$hosts" -gt 0 ] ||
    fail "TOPOLOGY $TOPOLOGY has fewer chips than a host of $MACHINE; take a smaller MACHINE."
case $MACHINE in
tpu7x-*) family=ubuntu-accel-2404-amd64-tpu-tpu7x ;;
*) family=ubuntu-accel-2204-amd64-tpu-v5e-v5p-v6e ;;
esac
compute=(gcloud --project="$PROJECT" compute)
groups=("${compute[@]}" instance-groups managed)
policy=projects/$PROJECT/regions/$region/resourcePolicies/$NAME
model=${MODEL:-SPOT}
[ "$model" != SPOT ] || template_flags+=(--instance-termination-action=STOP)

look() {
    local found listed host status codes=()
    if ! found=$("${groups[@]}" list --zones="$ZONE" --filter="name=$NAME" \
        --format='value(name)'); then
        echo "waiting for gcloud, which does not answer"
        return
    fi
    if [ -z "$found" ]; then
        echo gone
        return
    fi
    if ! listed=$("${groups[@]}" list-instances "$NAME" --zone="$ZONE" \
        --format='value(instance.basename(),instanceStatus)'); then
        echo "waiting for gcloud, which does not answer"
        return
    fi
    while read -r host status; do
        case $model-$status in
        SPOT-STOP* | SPOT-PENDING_STOP | SPOT-TERMINATED | SPOT-SUSPEND*)
            echo "lost $status"
            return
            ;;
        *-RUNNING) ;;
        *) continue ;;
        esac
        codes+=("$("${compute[@]}" instances get-guest-attributes "$host" --zone="$ZONE" \
            --query-path=clevit/code --format='value(value)' 2> /dev/null || echo -)")
    done <<< "$listed"
    if [ ${#codes[@]} -lt "$hosts" ]; then
        # Where all had been there once, a host that is missing was deleted.
        if [ -f "$notes/whole" ] && [ "$(grep -c . <<< "$listed")" -lt "$hosts" ]; then
            echo "lost short of a host"
        else
            echo "waiting ${#codes[@]} of $hosts hosts"
        fi
    else
        touch "$notes/whole"
        echo "running ${codes[*]}"
    fi
}

create() {
    local policies=()
    delete 2> /dev/null # what an earlier start left, such as a template with another command
    if [ "$hosts" -gt 1 ]; then
        "${compute[@]}" resource-policies create workload-policy "$NAME" --region="$region" \
            --type=HIGH_THROUGHPUT --accelerator-topology="$TOPOLOGY" || return
        # All hosts or none: a group with a topology takes no other mode.
        policies=(--workload-policy="$policy" --target-size-policy-mode=bulk)
    fi
    "${compute[@]}" instance-templates create "$NAME" --machine-type="$MACHINE" \
        --image-project=ubuntu-os-accelerator-images --image-family="$family" \
        --provisioning-model="$model" --maintenance-policy=TERMINATE --boot-disk-size=200GB \
        --service-account="$SERVICE_ACCOUNT" --scopes=cloud-platform \
        "${metadata[@]}" "${template_flags[@]}" || return
    "${groups[@]}" create "$NAME" --zone="$ZONE" --template="$NAME" --size="$hosts" \
        --default-action-on-vm-failure=do-nothing "${policies[@]}"
}

delete() {
    local code=0
    rm -f "$notes/whole"
    "${groups[@]}" delete "$NAME" --zone="$ZONE" --quiet || code=$?
    "${compute[@]}" instance-templates delete "$NAME" --quiet
    [ "$hosts" = 1 ] ||
        "${compute[@]}" resource-policies delete "$NAME" --region="$region" --quiet
    return $code
}

keep
