"""The language model and the scoring pass beside transformers and PEFT on torch."""
