#!/usr/bin/env bash
# The step on one GPU against the published structure on the same GPU, and against what its convolutions take alone.
#
#     benchmarks/gpu.sh [DATA]          # DATA: the directory with cifar-10-batches-py; without it the embedded images
#
# First the tests of the device path on the GPU itself. Then one line of JSON a case, as benchmarks/step.py prints it.
set -euo pipefail
cd "$(dirname "$0")/.."
data=(${1:+--data-dir "$1"})
python -m pytest -q --device cuda tests/device
for precision in bf16 fp32; do
    for cut in 1 2 3; do
        for how in "" --compile; do
            python benchmarks/step.py --device cuda --block 100 --cut "$cut" --precision "$precision" --repeats 10 $how "${data[@]}"
        done
    done
done
python benchmarks/step.py --device cuda --cut 1 --precision bf16 --ranks 3 --repeats 5 "${data[@]}"
