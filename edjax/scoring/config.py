"""The settings of a scoring pass beside those of the model's `edjax.lm.session.Session`."""

from __future__ import annotations

from dataclasses import dataclass

from edjax.keep.errors import UsageError
from edjax.scoring.icl_prompts import read_wording
from edjax.scoring.probes import further
from edjax.settings import check, setting

MEASURED, BATCH = "What is measured", "Batches"
POOLINGS = ("mean", "last", "weighted_mean")


@dataclass(frozen=True)
class ScoreConfig:
    """The settings of `edjax.scoring.score`, which says what each is; checked when made.

    Raises:
      UsageError: naming the value that makes no sense.
    """

    layer: int = setting(-1, "Hidden states to embed with; -1 last, 0 embeddings.", section=MEASURED, recipe="layer")
    pooling: str = setting(
        "mean",
        "mean, last or weighted_mean over prompt tokens.",
        section=MEASURED,
        choices=POOLINGS,
        recipe="pooling",
    )
    max_new_tokens: int = setting(
        16, "Tokens decoded for uncertainty; 0 for none.", section=MEASURED, least=0, recipe="max_new_tokens"
    )
    probes: tuple[str, ...] = setting(
        (),
        "Measure more: response, how unlikely a row's response is; trajectory, that along a training; tokens, their "
        "states; icl_utility, how much rows help as examples.",
        section=MEASURED,
        flag="--probe",
    )
    checkpoints: str | None = setting(
        None, "OUT of `finetune --keep-checkpoints`, for the probe trajectory.", section=MEASURED, kind=str
    )
    icl_prompts: str = setting(
        "", "YAML file with other words around examples and queries, of icl_utility.", section=MEASURED
    )
    batch_size: int = setting(32, "Prompts a batch.", section=BATCH, least=1, recipe="score_batch_size")
    shard_rows: int = setting(512, "Prompts a file, and at most lost when stopped.", section=BATCH, least=1)
    yes: bool = setting(False, "Go on where a probe passes all pairs of very many rows.", section=BATCH)

    def __post_init__(self) -> None:
        check(self)
        object.__setattr__(self, "probes", further(self.probes))
        if "trajectory" in self.probes and self.checkpoints is None:
            raise UsageError("the probe trajectory needs --checkpoints DIR, of `edjax finetune --keep-checkpoints`")
        if "trajectory" not in self.probes and self.checkpoints is not None:
            raise UsageError("checkpoints are for the probe trajectory; ask for it with --probe trajectory")
        if self.icl_prompts and "icl_utility" not in self.probes:
            raise UsageError("icl_prompts is read by the probe icl_utility alone; give --probe icl_utility with it")

    def record(self) -> dict[str, object]:
        """What decides the features, by name, for their manifest; probes only where some are asked for.

        Checkpoints are an input, known by what they hold and not by where they lie.

        Raises:
          UsageError: icl_prompts that make no sense.
        """
        left_out = ("probes", "checkpoints", "icl_prompts", "yes")
        found: dict[str, object] = {k: v for k, v in vars(self).items() if k not in left_out}
        if self.probes:
            found["probes"] = list(self.probes)
        if "icl_utility" in self.probes:
            found["icl_prompts"] = read_wording(self.icl_prompts)._asdict()
        return found
