#!/usr/bin/env bash
# Trains on a GKE cluster that XPK has made, with storage that XPK has attached; see docs/launch.md.
#
#   CLUSTER=my-cluster PROJECT=my-project ZONE=us-west4-a STORAGE=runs NAME=llama3 \
#       scripts/launch/gke_xpk.sh --config=configs/llama.py:llama3-8b --workdir=/mnt/runs/llama3
set -euo pipefail

: "${CLUSTER:?the name of the cluster}" "${PROJECT:?its project}" "${ZONE:?its zone}"
: "${STORAGE:?what xpk storage attach was told}" "${NAME:?a name for the job}"
TPU_TYPE=${TPU_TYPE:-v5litepod-256}
# The content of this folder is added to the image.
BASE_IMAGE=${BASE_IMAGE:-python:3.12}

exec xpk workload create \
    --cluster="$CLUSTER" --project="$PROJECT" --zone="$ZONE" \
    --workload="$NAME" --tpu-type="$TPU_TYPE" --num-slices=1 \
    --base-docker-image="$BASE_IMAGE" --script-dir=. --storage="$STORAGE" \
    --max-restarts=50 \
    --command="pip install --quiet 'jax[tpu]' . && exec python scripts/train.py$(printf ' %q' "$@")"
