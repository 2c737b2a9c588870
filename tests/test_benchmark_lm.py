"""The language-model benchmark gives both sides the same work, and says so before it says how long they took."""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent.parent))  # benchmarks/ is run from a checkout, not installed
from benchmarks.model import lm, lm_cases
from edjax.lm.config import LMConfig

ROW = {
    "job",
    "dtype",
    "threads",
    "commit",
    "date",
    "load",
    "ratio",
    "ratios",
    "cpu_ratios",
    "agree",
    "timed",
    "skipped",
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The results of a quick run, without torch where there is none."""
    out = tmp_path_factory.mktemp("lm") / "lm.json"
    done = CliRunner().invoke(lm.main, ["--quick", "--out", str(out)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(out.read_text())


def test_a_quick_run(written):
    assert {"command", "commit", "machine", "versions", "rows"} <= set(written)
    rows = {row["job"]: row for row in written["rows"]}
    assert set(rows) == set(lm.QUICK)
    for row in rows.values():
        assert set(row) >= ROW
        for t in row["timed"].values():
            assert len(t["runs_s"]) == 2 and t["median_s"] > 0 and t["cpu_s"] > 0 and t["tokens_per_s"] > 0


def test_both_sides_do_the_same_work(written, peft):
    rows = {row["job"].removesuffix("-quick"): row for row in written["rows"]}
    assert all(row["ratio"] > 0 and not row["skipped"] for row in rows.values())
    for name in ("forward", "logits"):
        assert rows[name]["agree"]["worst_difference"] < 1e-4
    for name in ("decode", "scores"):
        agree = rows[name]["agree"]
        assert agree["only_near_ties"] and agree["places"] == 8
        assert agree["same_rows"] == 2 or agree["gaps_where_rows_part"]
    assert rows["scores"]["agree"]["worst_nll_difference"] < 1e-4
    agree = rows["lora"]["agree"]
    assert len(agree["loss"]) == 4  # edjax and torch, with and without gradient checkpointing
    assert np.ptp(list(agree["loss"].values())) < 1e-4 and np.ptp(list(agree["grad_norm"].values())) < 1e-3
    assert agree["steps"] == 3 and agree["worst_loss_difference"] < 1e-4


def test_the_adapter_both_start_from_does_something(tmp_path):
    model = lm.Ours(lm_cases.write_model(tmp_path / "m", lm_cases.TINY, "float32"), "float32").model
    adapted, _ = lm.import_adapter(model, lm_cases.write_adapter(model, tmp_path / "a"))
    tokens = jnp.asarray(lm.ids_for(lm.QUICK["lora-quick"], 258))
    assert np.abs(adapted.hidden(tokens) - model.hidden(tokens)).max() > 1e-3


def test_useful_flops_are_those_of_a_tiny_model_by_hand():
    from transformers import LlamaConfig

    c = LMConfig.from_hf(LlamaConfig(**{k: v for k, v in lm_cases.TINY.items() if k != "model_type"}))
    weights = 2 * (32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 48)  # q, k and v, o, the MLP; two layers
    scores = 2 * 2 * 10 * 32 * 2 / 2  # q k^T and p v over half of 10 places, two layers
    assert lm.useful_flops(c, lm.Case("hidden", 3, 10)) == 30 * (2 * weights + scores)
    assert lm.useful_flops(c, lm.Case("logits", 3, 10)) == 30 * (2 * weights + scores + 2 * 258 * 32)
    assert lm.useful_flops(c, lm.Case("lora", 3, 10, 4)) == 30 * (4 * weights + 3 * scores) + 12 * 4 * 258 * 32
    assert lm.useful_flops(c, lm.Case("ids", 3, 10, 4)) is None


def test_where_rows_part_the_gap_is_given(tmp_path):
    model = lm.Ours(lm_cases.write_model(tmp_path, lm_cases.TINY, "float32"), "float32").model
    case = lm.Case("ids", 2, 16, 4, "tiny")
    mine = np.asarray(lm._greedy(model, jnp.asarray(lm.ids_for(case, 258)), new=4, scores=False).tokens)
    theirs = mine.copy()
    theirs[1, 2:] = (mine[1, 2:] + 7) % 258
    ids = np.concatenate([lm.ids_for(case, 258)[1], mine[1, :2]])[None]
    logits = np.asarray(model.logits(jax.jit(lambda m, t: m.hidden(t))(model, jnp.asarray(ids))))[0, -1]
    want = logits[mine[1, 2]] - logits[theirs[1, 2]]
    assert lm._gap(model, case, mine, theirs, 1) == pytest.approx(want, rel=1e-4) and want > lm.NEAR_TIE["float32"]
