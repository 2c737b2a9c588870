"""A pool that needs no download: instruction prompts with exact answers, generated from a seed."""

from edjax.demo.generate import generate, write
from edjax.demo.recipe import recipe

__all__ = ["generate", "recipe", "write"]
