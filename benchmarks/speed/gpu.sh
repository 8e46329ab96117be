#!/usr/bin/env bash
# What CG-ALR costs on an NVIDIA GPU: the kernels and the steps of training, each beside its floor, in one call.
#
#     benchmarks/speed/gpu.sh FOLDER [--quick]
#
# writes tables (.txt) and records (.json) into FOLDER. It makes an environment there, with JAX for CUDA 13; with
# PYTHON=python3 it takes that one and what is installed beside it. JAX_PLATFORMS=cpu tries the script without a GPU.
set -euo pipefail

if [ $# -lt 1 ] || [ $# -gt 2 ] || [ "${2:---quick}" != --quick ] || [ "${1#-}" != "$1" ]; then
  echo "usage: benchmarks/speed/gpu.sh FOLDER [--quick]" >&2
  exit 2
fi
mkdir -p "$1"
folder=$(cd "$1" && pwd)
quick=("${@:2}") # none or one
cd "$(dirname "$0")/../.."

if [ -z "${PYTHON:-}" ]; then
  python3 -m venv "$folder/venv"
  PYTHON="$folder/venv/bin/python"
  "$PYTHON" -m pip install --quiet -e ".[test]" "jax[cuda13]"
fi

# Left to itself, JAX falls back to the CPU with no more than a warning.
export JAX_PLATFORMS="${JAX_PLATFORMS:-cuda}"
if ! "$PYTHON" -c 'import jax; print(jax.__version__, jax.devices())' 2>"$folder/errors.txt" | tee "$folder/device.txt"; then
  echo "JAX finds no GPU, see $folder/errors.txt. JAX_PLATFORMS=cpu tries the script without one." >&2
  exit 1
fi
if [ "$JAX_PLATFORMS" != cpu ]; then
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv | tee -a "$folder/device.txt"
fi

status=0
for name in kernels step; do # one may fail without the other
  "$PYTHON" -m "benchmarks.speed.$name" "${quick[@]}" --json "$folder/$name.json" | tee "$folder/$name.txt" || status=1
done
exit "$status"
