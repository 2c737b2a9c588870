"""The demo's recipe: the embedded model on the generated pool, sized for minutes on two CPU cores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edjax.demo.generate import write
from edjax.study.recipe import Recipe, make_recipe, read_overrides

POOL_ROWS = 2400
EVALUATION_ROWS = 150


def recipe(out: Path, seed: int = 0, overrides: Sequence[str] = ()) -> Recipe:
    """Write the generated pool under `out`/data and return the recipe that runs over it, `key=value` pairs on top."""
    data = out / "data"
    write(data, POOL_ROWS, EVALUATION_ROWS, seed)
    return make_recipe(
        {
            "title": f"edjax demo: {POOL_ROWS} generated prompts, SmolLM2-135M",
            "pool": "pool.jsonl",
            "evaluation": "eval.jsonl",
            "out": str(out / "run"),
            "model": "smollm2",
            "template": "plain",
            "strategies": ["random", "facility_location"],
            "budgets": [80, 160],
            "seeds": [0, 1, 2],  # an interval takes 3 of each,
            "random_seeds": [0, 1, 2, 3, 4],  # random against itself 4
            "metrics": ["response_loss"],  # decoding would take as long as training
            "max_new_tokens": 1,
            "score_batch_size": 64,
            "evaluation_batch_size": 50,
            "num_train_epochs": 1,
            "per_device_train_batch_size": 8,
            "learning_rate": 1e-3,
            "max_length": 128,
            "save_steps": 0,
            "gradient_checkpointing": False,
        }
        | read_overrides(overrides),
        data.resolve(),
        "demo",
    )
