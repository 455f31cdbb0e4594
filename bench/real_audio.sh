#!/usr/bin/env bash
# Shipped specs on real recordings, each scored whole on the held-out files, beside the models it must beat.
#   bench/real_audio.sh DATA [OUT [SPEC ...]]     DATA holds piano_mono/ and speech_mono/; SPEC: sashimi_small if none
# About 20 CPU-minutes a run, 1 thread; LAWS="linear mu_law" says under which laws. A run that is there goes on.
set -euo pipefail
data=$(realpath "$1")
out=$(realpath -m "${2:-runs/real_audio}")
specs=("${@:3}")
[ ${#specs[@]} -gt 0 ] || specs=(sashimi_small)
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1
for spec in "${specs[@]}"; do
  for corpus in piano_mono:1 speech_mono:3; do
    name=${corpus%:*}
    held=${corpus#*:}
    for law in ${LAWS:-linear mu_law}; do
      run=$out/${spec}_${name}_$law
      given=("$spec" "law=$law" "held_out=$held" "data=$data/$name" --run "$run" --threads 1)
      [ ! -e "$run/config.json" ] || given+=(--resume)
      .venv/bin/graphspec train "${given[@]}"
      .venv/bin/graphspec eval "$run" --threads 1
      .venv/bin/python bench/baselines.py "$data/$name" --bits 8 --law "$law" --held-out "$held"
    done
  done
done
