#!/usr/bin/env bash
# wavenet_small, transformer_small and samplernn_small on speech, scored whole on the held-out files, beside the bigram.
#   bench/speech_models.sh DATA [OUT]     DATA holds speech_mono/; under 20 CPU-minutes a run, 1 thread
set -euo pipefail
cd "$(dirname "$0")/.."
data=$1/speech_mono
out=${2:-runs/speech_models}
export OMP_NUM_THREADS=1
.venv/bin/python bench/baselines.py "$data" --bits 8 --law mu_law --held-out 3
for spec in wavenet_small transformer_small samplernn_small; do
  .venv/bin/graphspec train $spec held_out=3 data="$data" --run "$out/$spec" --threads 1
  .venv/bin/graphspec eval "$out/$spec" --threads 1
done
