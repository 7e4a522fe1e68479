#!/usr/bin/env bash
# The training benchmark on a CUDA machine: benchmarks/gpu.py for the 1 B, 7 B and 34 B shapes.
#
# Needs: one NVIDIA card with bf16 (compute capability 8.0 or newer) and a driver that fits the
# torch build; 24 GB of its memory for the 1 B and 7 B shapes, 48 GB for the 34 B one in int8
# (80 GB without bitsandbytes); Python 3.11 or newer with tuneoff installed. Nothing is
# downloaded: the weights are random. ViGGO is read from TUNEOFF_DATA, else from ../shared/data;
# without it, the generated sample is used. It takes 20 to 40 minutes, mostly the 34 B shape.
#
#   benchmarks/gpu.sh                    all shapes, to runs/gpu.json
#   OUT=7b.json benchmarks/gpu.sh --shape 7b
#   benchmarks/gpu.sh seed               the seed experiment's own work (benchmarks/gpu_seed.py): 1,083
#                                        ViGGO prompts answered by a 7 B shape, 20 of its 400 steps with
#                                        a 34 B one; to runs/gpu-seed.json. `pip install "tuneoff[vllm]"`
#                                        adds vLLM's speed (14 GB of disk for a copy of the weights)
#
# PYTHON names another interpreter than .venv/bin/python.
set -euo pipefail
cd "$(dirname "$0")/.."

python="${PYTHON:-.venv/bin/python}"
script=gpu out="${OUT:-runs/gpu.json}"
if [ "${1:-}" = seed ]; then
  shift
  script=gpu_seed out="${OUT:-runs/gpu-seed.json}"
fi

command -v "$python" >/dev/null || {
  echo "gpu.sh: there is no $python; install tuneoff into .venv or set PYTHON." >&2
  exit 2
}
"$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || {
  echo "gpu.sh: torch sees no CUDA device here; it needs an NVIDIA card and a CUDA build of torch." >&2
  exit 2
}
"$python" -c 'import bitsandbytes' 2>/dev/null ||
  echo "gpu.sh: no bitsandbytes, so the 34 B shape runs in bf16 and needs 80 GB; for int8: pip install bitsandbytes" >&2

mkdir -p "$(dirname "$out")"
"$python" "benchmarks/$script.py" --device cuda "$@" >"$out.part"
mv "$out.part" "$out"
echo "written: $out" >&2
