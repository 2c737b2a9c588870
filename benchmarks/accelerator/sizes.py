"""How large every stage is: on an accelerator, and on a dry walk that a CPU makes in minutes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from benchmarks.evidence.trials_settings import ON_A_GPU, variants

STAGES = ("check", "selectors", "model", "score", "select", "cells", "trials")

LLAMA_7B = {
    "hidden_size": 4096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "head_dim": 128,
    "vocab_size": 32_000,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}


@dataclass(frozen=True)
class Sizes:
    """The defaults are those of an accelerator.

    seconds: a stage's own time. products, copied: sides of the square products and bytes of the copy that measure the
    card. agreed: rows, features and picks of the problem that a CPU solves too. pool: rows and features made on the
    device; budgets: picks; looped: picks of the loops beside them, and of facility location's, which takes all gains at
    every pick. hidden, decoded, trained: rows, tokens and new or trained tokens by model. prompts: the files of the
    pool and of what is evaluated on. rows: of the scored pool, the shortest prompts; None for all. dimensions: of the
    features that come back. overrides: of the recipe of cells. trials: the settings of the stage of that name in order,
    each with what is changed in its recipe.
    """

    seconds: dict[str, float] = field(
        default_factory=lambda: dict(zip(STAGES, (90, 120, 150, 180, 90, 900, 900), strict=True))
    )
    products: tuple[int, ...] = (8192, 16_384)
    copied: int = 1 << 32
    agreed: tuple[int, int, int] = (20_000, 384, 500)
    pool: tuple[int, int] = (100_000, 4096)
    budgets: tuple[int, ...] = (10_000, 50_000)
    looped: tuple[int, int] = (1000, 50)
    models: tuple[str, ...] = ("smollm2", "1b", "7b")
    hidden: dict[str, tuple[int, int]] = field(
        default_factory=lambda: {"smollm2": (64, 512), "1b": (32, 512), "7b": (16, 512)}
    )
    decoded: dict[str, tuple[int, int, int]] = field(
        default_factory=lambda: {"smollm2": (128, 128, 64), "1b": (64, 128, 64), "7b": (32, 128, 32)}
    )
    trained: dict[str, tuple[int, int, int]] = field(
        default_factory=lambda: {"smollm2": (32, 512, 128), "1b": (16, 512, 128), "7b": (8, 512, 128)}
    )
    repeats: int = 5
    scored: str = "smollm2"
    prompts: tuple[str, str] = ("pool.parquet", "pool_val.parquet")
    rows: int | None = None
    dimensions: int = 200
    recipe: str = "label_efficiency.yaml"
    overrides: dict[str, Any] = field(
        default_factory=lambda: {  # few shapes to compile: on such a card that takes longer than what they save
            "metrics": ["response_loss"],
            "group_by_length": False,
        }
    )
    trials: dict[str, dict[str, Any]] = field(default_factory=lambda: {s.name: {} for s in ON_A_GPU})


_FEW = {  # of a recipe that a dry walk makes
    "budgets": [4, 8],
    "seeds": [0],
    "random_seeds": [0, 1],
    "num_train_epochs": 1,
    "per_device_train_batch_size": 4,
    "evaluation_batch_size": 12,
    "dtype": "float32",
    "max_length": 128,
    "cells_at_once": 2,
}
_PAIR = _FEW | {"random_seeds": [0]}  # two cells at once and never one: a shape less to compile


DRY = Sizes(
    seconds=dict.fromkeys(STAGES, 600.0),
    products=(256,),
    copied=1 << 20,
    agreed=(300, 16, 20),
    pool=(400, 16),
    budgets=(20,),
    looped=(10, 5),
    models=("tiny",),
    hidden={"tiny": (2, 16)},
    decoded={"tiny": (2, 16, 4)},
    trained={"tiny": (2, 16, 8)},
    repeats=2,
    scored="stories260k",
    prompts=("ci_pool.jsonl.gz", "ci_eval.jsonl.gz"),
    rows=96,
    dimensions=16,
    overrides=_FEW
    | {
        "strategies": ["random", "k_center", "mean_entropy"],
        "variants": {},
        "metrics": ["response_loss", "exact_match"],
        "evaluation_rows": 12,
        "evaluation_max_new_tokens": 4,
        "layer": -1,
        "pooling": "mean",
        "max_new_tokens": 4,
        "score_batch_size": 16,
    },
    trials={
        "dose_s10": _PAIR | {"strategies": ["random", "cluster_quotas"], "variants": variants(3)},
        "flan_whole": _PAIR | {"strategies": ["random", "min_margin_in_tasks"], "budgets": [4], "warm_start": 4},
    },
)
