#!/usr/bin/env bash
# Trains on several nodes of a SLURM cluster, one process for each node; see docs/launch.md.
#
#   sbatch scripts/launch/slurm.sh --config=configs/gpt2.py --workdir=/shared/runs/gpt2
#
#SBATCH --job-name=transformer
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --time=24:00:00
# Two minutes before the time is up every process gets SIGTERM, saves and ends with 143.
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -uo pipefail

cd "$SLURM_SUBMIT_DIR" || exit 2
# shellcheck disable=SC1091
source .venv/bin/activate

# If one process fails, end all: the others cannot continue without it.
srun --kill-on-bad-exit=1 python scripts/train.py "$@"
code=$?
# Stopped before it finished: queue the same job again, which resumes where it stopped.
if [[ $code -eq 143 ]]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
