"""What the stages cost from shapes alone: FLOPs, and seconds on a machine whose ceilings are known.

A stage lasts its FLOPs over (peak x efficiency), where the efficiency is the share of the peak it was seen to reach.
Decoding reads every weight once a step and batch, so it lasts at least these bytes over the machine's bandwidth.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from edjax import kernels


class Model(NamedTuple):
    """A decoder. body: weights of the layers' projections; head: of the output."""

    layers: int
    hidden: int
    attention: int  # query heads times their size
    body: int
    head: int

    @classmethod
    def of(cls, c: Any) -> Model:
        """From an `edjax.lm.config.LMConfig` or anything with its names."""
        q, kv = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
        body = c.num_layers * c.hidden_size * (2 * q + 2 * kv + 3 * c.intermediate_size)
        return cls(c.num_layers, c.hidden_size, q, body, c.vocab_size * c.hidden_size)

    def forward(self, rows: float, tokens: float) -> float:
        """FLOPs of the layers on `rows` sequences of so many tokens: two a weight and token, and attention's two
        products of tokens x tokens."""
        return rows * tokens * (2 * self.body + 4 * self.layers * self.attention * tokens)


LLAMA_2_7B = Model(32, 4096, 4096, 32 * 4096 * (4 * 4096 + 3 * 11008), 32000 * 4096)


class Job(NamedTuple):
    """A pool of `prompts`, `budget` of them labelled; tokens are means a row."""

    prompts: int
    prompt_tokens: float
    new_tokens: float  # decoded a prompt
    budget: int
    response_tokens: float
    epochs: float
    evaluation_rows: int
    score_batch: int = 32


class Machine(NamedTuple):
    """Ceilings: FLOP/s of the model's matrix products and of the selectors', bytes/s of memory, bytes a weight."""

    model_flops_s: float
    select_flops_s: float
    bytes_s: float
    weight_bytes: int = 4


# NVIDIA's data sheet of the H100 SXM, dense: bfloat16 tensor cores, float32, HBM3.
H100 = Machine(989e12, 67e12, 3.35e12, 2)
ASSUMED = {"prefill": 0.4, "decode": 0.6, "select": 0.3, "finetune": 0.4, "evaluate": 0.4}


def flops(model: Model, job: Job, strategy: str) -> dict[str, float]:
    """Of every stage. A LoRA step is a forward pass and, as base weights get no gradient, one product a weight
    backward, with attention's counted three times in all; the head works on response tokens only."""
    whole = job.prompt_tokens + job.response_tokens
    answers = 2 * model.head * job.response_tokens
    square = 4 * model.layers * model.attention * whole * whole
    trained = job.epochs * job.budget
    return {
        "prefill": model.forward(job.prompts, job.prompt_tokens) + 2 * model.head * job.prompts,
        "decode": 2 * (model.body + model.head) * job.prompts * max(job.new_tokens - 1, 0),
        "select": select_flops(strategy, job.prompts, model.hidden, job.budget),
        "finetune": trained * (4 * model.body * whole + 3 * square + 2 * answers),
        "evaluate": job.evaluation_rows * (2 * model.body * whole + square + answers),
    }


def select_flops(strategy: str, prompts: int, hidden: int, budget: int) -> float:
    """Of the kernel's products; a score that ranks the pool has none."""
    if strategy not in ("k_center", "d_optimal", "facility_location"):
        return 0.0
    return float(kernels.plan(strategy, prompts, hidden, budget).flops)


def seconds(model: Model, job: Job, strategy: str, machine: Machine, efficiency: dict[str, float]) -> dict[str, float]:
    """Of score, select, finetune and evaluate."""
    work = flops(model, job, strategy)
    peak = {"select": machine.select_flops_s}
    took = {stage: w / (peak.get(stage, machine.model_flops_s) * efficiency[stage]) for stage, w in work.items()}
    steps = max(job.new_tokens - 1, 0) * -(-job.prompts // job.score_batch)
    reading = steps * (model.body + model.head) * machine.weight_bytes / (machine.bytes_s * efficiency["decode"])
    return {
        "score": took["prefill"] + max(took["decode"], reading),
        **{stage: took[stage] for stage in ("select", "finetune", "evaluate")},
    }


def shares(took: dict[str, float]) -> dict[str, float]:
    """What choosing costs beside training."""
    return {
        "select_share_of_finetune": took["select"] / took["finetune"],
        "score_and_select_share": (took["score"] + took["select"]) / took["finetune"],
    }
