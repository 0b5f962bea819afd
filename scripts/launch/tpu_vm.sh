#!/usr/bin/env bash
# Trains on all hosts of a TPU slice made of TPU VMs. Run it where gcloud is set up; see
# docs/launch.md. The same command resumes where the run stopped.
#
#   NAME=my-tpu ZONE=us-west4-a scripts/launch/tpu_vm.sh \
#       --config=configs/llama.py:llama3-8b --workdir=/mnt/runs/llama3
set -euo pipefail

: "${NAME:?the name of the TPU}" "${ZONE:?its zone}"
# A folder with this repository and a virtual environment in .venv, the same on every host.
FOLDER=${FOLDER:-transformer}

quoted=$(printf ' %q' "$@")
# The command on each host: the machine knows its number and the addresses of all.
read -r -d '' command <<'ON_EACH_HOST' || true
ask() {
    curl --silent --fail --header 'Metadata-Flavor: Google' \
        "http://metadata.google.internal/computeMetadata/v1/instance/attributes/$1"
}
# A comma-separated list of addresses; in older images each is name:number:address.
addresses=$(ask worker-network-endpoints | tr ',' '\n' | awk -F: '{print $NF}')
export PYTHONUNBUFFERED=1
exec .venv/bin/python scripts/train.py \
    --coordinator="$(head -n 1 <<<"$addresses"):8476" \
    --num_processes="$(wc -l <<<"$addresses")" \
    --process_id="$(ask agent-worker-number)"
ON_EACH_HOST

exec gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker=all \
    --command="cd $(printf %q "$FOLDER") && bash -c $(printf %q "$command$quoted")"
