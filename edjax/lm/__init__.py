"""The Flax causal LM: configuration, decoder, checkpoints in, LoRA, PEFT adapters out, generation."""
