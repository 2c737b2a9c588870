"""Tables and figures out of benchmarks/results/*.json, as README.md and docs/ show them."""
