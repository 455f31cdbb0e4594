#!/usr/bin/env bash
# sashimi_small on real recordings: four runs, scored whole on the held-out files, beside the models it must beat.
#   bench/real_audio.sh DATA [OUT]     DATA holds piano_mono/ and speech_mono/; about 20 CPU-minutes a run, 1 thread
set -euo pipefail
cd "$(dirname "$0")/.."
data=$1
out=${2:-runs/real_audio}
export OMP_NUM_THREADS=1
for corpus in piano_mono:1 speech_mono:3; do
  name=${corpus%:*}
  held=${corpus#*:}
  for law in linear mu_law; do
    .venv/bin/graphspec train sashimi_small law=$law held_out=$held data="$data/$name" --run "$out/${name}_$law" --threads 1
    .venv/bin/graphspec eval "$out/${name}_$law" --threads 1
    .venv/bin/python bench/baselines.py "$data/$name" --bits 8 --law $law --held-out $held
  done
done
