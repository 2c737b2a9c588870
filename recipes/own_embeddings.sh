#!/usr/bin/env bash
# You have embeddings: choose, look, hand over. No language model is run.
#   bash recipes/own_embeddings.sh prompts.jsonl vectors.npy 100
# Reads: the pool; an (n, d) .npy or .safetensors whose row i belongs to row i of the pool.
# Time: seconds; facility_location compares all rows with all (minutes for 100,000 on 2 CPU cores; --dry-run counts), k_center does not.
# Figures: none to expect; gains.svg says where further labels stop adding anything.
set -euo pipefail
pool=${1:-prompts.jsonl} vectors=${2:-vectors.npy} budget=${3:-100}

edjax select --embeddings "$vectors" --ids "$pool" --pool "$pool" --budget "$budget" --dry-run
edjax select --embeddings "$vectors" --ids "$pool" --pool "$pool" --strategy facility_location,k_center,random --budget "$budget" --out out/own/choices
edjax select --embeddings "$vectors" --ids "$pool" --pool "$pool" --near-duplicates 0.95 --budget "$budget" --out out/own/chosen
head -5 out/own/chosen/selected.jsonl
edjax export out/own/chosen --to label-studio --out out/own/tasks.json
edjax export out/own/chosen --to csv --out out/own/to_label.csv
