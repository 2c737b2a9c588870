"""Measurements, run from a checkout: `python -m benchmarks.selectors.selection`; they leave results/*.json.

selectors/     time, growth and memory of the selectors, beside named peers
model/         the language model and the scoring pass beside transformers and PEFT
evidence/      does choosing save labels?
accelerator/   all of it in a quarter of an hour on a GPU
pages/         the tables and figures of README.md and docs/
harness/       what all of them share
"""
