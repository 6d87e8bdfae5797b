#!/bin/bash
# A run on Slurm: Ray on every machine of the allocation, the command on the first. `sbatch slurm.sh run society ...`;
# the folder that it is submitted from, with its .venv, has to be on a file system that all machines share.
#SBATCH --job-name=palaestra
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --exclusive
#SBATCH --time=08:00:00
set -euo pipefail

if [ $# -eq 0 ]; then
  echo "slurm.sh: expected what palaestra is to do, found nothing; sbatch slurm.sh run society --env arithmetic" >&2
  exit 2
fi
cd "$SLURM_SUBMIT_DIR"
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 10000)) # of this job's own
export RAY_USAGE_STATS_ENABLED=0
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" \
  .venv/bin/ray symmetric-run --address "$head:$port" --min-nodes "$SLURM_JOB_NUM_NODES" \
  --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" \
  -- .venv/bin/palaestra "$@" --address "$head:$port"
