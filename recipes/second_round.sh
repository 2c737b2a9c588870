#!/usr/bin/env bash
# The first labels are there: what next? Chooses given what is labelled, waits for answers, finetunes on all of them.
#   bash recipes/second_round.sh features answered.jsonl 100          # choose and export
#   bash recipes/second_round.sh features answered.jsonl 100 answers.csv   # with the answers: import and finetune
# Reads: a directory of `edjax score`; the answered rows of the first round.
# Time: choosing takes seconds; finetuning SmolLM2-135M on 120 short rows 47 s on 2 CPU cores.
# Figures: not measured.
set -euo pipefail
features=${1:-features} first=${2:-answered.jsonl} budget=${3:-100} answers=${4:-}

edjax select "$features" --budget "$budget" --labelled "$first" --out out/round2/chosen
edjax export out/round2/chosen --to csv --out out/round2/to_label.csv
if [ -z "$answers" ]; then
  echo "fill in the column response of out/round2/to_label.csv, save it, and run this again with its name"
  exit
fi
edjax import-labels out/round2/chosen "$answers" --out out/round2/answered.jsonl
cat "$first" out/round2/answered.jsonl > out/round2/all.jsonl
edjax finetune out/round2/all.jsonl --validation-split 0.1 --out out/round2/adapter
edjax verify out/round2/chosen out/round2/adapter
