#!/bin/bash
#SBATCH --job-name=clevit --nodes=4 --ntasks-per-node=1 --gpus-per-node=8
#SBATCH --signal=TERM@300 --requeue --open-mode=append
#
# A run under Slurm, until it is done: sbatch tools/pods/slurm.sh, from the folder of the clone
#
# Slurm warns 300 s before the end of the time; the run then saves and ends with 75. Put into the
# queue anew after 75, 76, 77, 134 and what else ends a process from outside. Ended by 0, 1 and 2,
# and by five ends in a row that come early: srun gives the highest code of all tasks, and so hides
# the 1 of one behind the 76 of the others, which lost it.
srun --kill-on-bad-exit=1 .venv/bin/python -m clevit_jax.main --config cotton80 \
    --config.data.root="$HOME/cotton80" --workdir "$HOME/runs/cotton80" \
    --config.batch_size=256 --config.eval.batch_size=256
code=$?
early=early-$SLURM_JOB_ID # a line for each
if [ $SECONDS -lt "${RERUN_EARLY:-1200}" ]; then echo "$code" >> "$early"; else rm -f "$early"; fi
case $code in
75 | 76 | 77 | 134 | 135 | 137 | 139 | 143)
    if [ ! -e "$early" ] || [ "$(wc -l < "$early")" -lt 5 ]; then
        scontrol requeue "$SLURM_JOB_ID" && exit
    fi
    echo "Five ends in a row came early; look at what they say, mend it, and type sbatch again." >&2
    ;;
esac
rm -f "$early"
exit $code
