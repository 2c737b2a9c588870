"""CoLM: slopes are exact, a batch's medoids are those of a float64 twin with every row's whole representation, and a
run that takes all rows is plain training."""

import dataclasses
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lm_cases import make_pool, pair_batch, story_pool, tiny_model

from edjax.finetuning import FinetuneConfig, Job, finetune, finetune_together
from edjax.finetuning.colm import Colm, Memory
from edjax.finetuning.loop import _equally_far
from edjax.finetuning.shares import RandomRows, shares
from edjax.finetuning.sources import Sources, refuse_unknown
from edjax.keep.errors import DataError, UsageError
from edjax.kernels.medoids import TIE
from edjax.lm.batch import Batch
from edjax.lm.load import load
from edjax.lm.lora import LoraConfig, add_lora
from edjax.lm.slopes import value_slopes, values_shape
from edjax.lm.train import Trainer

ROWS = [(list(range(10, 10 + n)), [*range(40, 40 + k), 2]) for n, k in ((9, 5), (4, 2), (1, 7), (12, 1))]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m"
    tiny_model(path)
    return load(str(path))


# Slopes


def adapted(model, dtype, **kw):
    """With an adapter of which neither half is zero, all numbers of `dtype`."""
    out = add_lora(model, LoraConfig(3, 6.0, **kw))
    rng = np.random.default_rng(1)

    def drawn(path, v):
        noise = 0.1 * rng.standard_normal(v.shape) if "lora_b" in str(path) else 0
        return jnp.asarray(np.asarray(v, np.float64) + noise, dtype)

    return jax.tree_util.tree_map_with_path(drawn, out)


@pytest.mark.parametrize("kind", ["llama", "phi3"])
def test_slopes_are_every_rows_gradient_along_the_directions(tiny, kind, tmp_path):
    """Against each row's own gradient, by the trainer's backward pass, and finite differences, in float64."""
    model = tiny.model
    if kind == "phi3":  # its values are columns of one projection
        from flax import nnx

        from edjax.lm.config import LMConfig
        from edjax.lm.decoder import CausalLM

        fused = dataclasses.replace(model.config, model_type="phi3", fused_projections=True)
        assert isinstance(fused, LMConfig)
        model = CausalLM(fused, rngs=nnx.Rngs(0))
    with jax.enable_x64():
        model = adapted(model, jnp.float64)
        batch = pair_batch(ROWS, 5)
        along = jnp.asarray(np.random.default_rng(2).standard_normal((3, *values_shape(model))))
        losses, slopes = jax.jit(value_slopes)(model, batch, along)
        assert slopes.shape == (5, 3) and slopes.dtype == jnp.float64
        trainer = Trainer(model)
        lora, frozen = trainer.state.lora, trainer.frozen
        name = "qkv_proj" if kind == "phi3" else "v_proj"
        for i in range(4):
            one = jax.tree.map(lambda v, i=i: v[i : i + 1], batch)
            tokens = one.weights.sum()
            loss, grads = trainer.gradients(lora, frozen, one)
            own = np.asarray(grads["layers"][name]["lora_b"][...])[-1][:, -along.shape[2] :]
            np.testing.assert_allclose(losses[i], loss * tokens, rtol=1e-12)
            np.testing.assert_allclose(slopes[i], np.tensordot(along, own * tokens, 2), rtol=1e-9, atol=1e-12)
        assert losses[4] == 0 and not slopes[4].any()

        def at(step):
            b = lora["layers"][name]["lora_b"]
            moved = b[...].at[-1, :, -along.shape[2] :].add(step * along[0])
            flat = jax.tree.map(lambda v: v, lora)
            flat["layers"][name]["lora_b"] = b.replace(moved)
            return np.asarray(jax.jit(value_slopes)(trainer.with_adapter(flat), batch, along)[0])

        differences = (at(1e-5) - at(-1e-5)) / 2e-5
        np.testing.assert_allclose(slopes[:, 0], differences, rtol=1e-6, atol=1e-8)


def test_slopes_in_float32(tiny):
    batch, along = pair_batch(ROWS, 4), None
    with jax.enable_x64():
        model = adapted(tiny.model, jnp.float64)
        along = np.random.default_rng(4).standard_normal((2, *values_shape(model)))
        exact = np.asarray(jax.jit(value_slopes)(model, batch, jnp.asarray(along))[1])
    _, slopes = jax.jit(value_slopes)(adapted(tiny.model, jnp.float32), batch, jnp.asarray(along, jnp.float32))
    np.testing.assert_allclose(slopes, exact, atol=1e-5 * np.abs(exact).max())


def test_a_model_without_an_adapter_on_its_values(tiny):
    model = add_lora(tiny.model, LoraConfig(lora_target_modules=("q_proj",)))
    with pytest.raises(UsageError, match="add v_proj to lora_target_modules"):
        values_shape(model)


# Which rows


def twin(slopes, along, sources, memory, *, ratio, coordinates, weighted, follow=None):
    """`Colm.choose` in float64 with every row's whole g and r: (weights, m, v, value by source).

    follow: the rows that were taken, in place of its own, whose value is then given.
    """
    c, z = np.asarray(slopes, np.float64), np.asarray(along, np.float64)
    m, v, t, keep = (np.asarray(x, np.float64) for x in (memory.m, memory.v, memory.updates + 1, memory.keep))
    g = c @ z / len(z)
    m_i, v_i = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
    r = m_i / (1 - 0.9**t) / (np.sqrt(v_i / (1 - 0.999**t)) + 1e-8)
    there = np.flatnonzero(np.asarray(sources) > 0)
    budget = max(round(len(there) * ratio), 1)
    kept = [i for i in there if keep[sources[i] - 1]]
    taken, compete = (kept, [i for i in there if i not in kept]) if len(kept) <= budget else ([], kept)
    left = budget - len(taken)
    names = sorted({int(sources[i]) for i in compete})
    of = {s: [i for i in compete if sources[i] == s] for s in names}
    quotas = {s: len(of[s]) * left // max(len(compete), 1) for s in names}
    for s in sorted(names, key=lambda s: quotas[s])[: left - sum(quotas.values())]:
        quotas[s] += 1
    weights, values, chosen = np.zeros(len(c)), {}, []
    weights[taken] = 1
    for s in names:
        top = np.argsort(-np.abs(r[of[s]].mean(axis=0)), kind="stable")[:coordinates]
        x = r[of[s]][:, top]
        near = np.abs(x[:, None] - x).sum(-1)
        near = near.max() - near
        picks = []
        for _ in range(quotas[s]):
            cover = near[:, picks].max(axis=1) if picks else np.zeros(len(x))
            gains = np.maximum(near - cover[:, None], 0).sum(axis=0)
            gains[picks] = -1
            picks.append(int((gains >= gains.max() - TIE * near.max()).argmax()))
        if follow is not None:
            picks = [at for at, i in enumerate(of[s]) if i in follow]
            assert len(picks) == quotas[s]
        values[s] = near[:, picks].max(axis=1).sum() if picks else 0.0
        for at, _i in enumerate(of[s]):
            stands = at if at in picks else picks[int(near[at, picks].argmax())] if picks else None
            if stands is not None:
                weights[of[s][stands]] += 1 if weighted else at == stands
        chosen += [of[s][at] for at in picks]
    if chosen:
        m, v = m_i[chosen].mean(axis=0), v_i[chosen].mean(axis=0)
    return weights, m, v, values


def problem(seed, *, rows, size, directions, sources, kept=(), missing=0):
    """Random slopes and sources, and a memory of some updates."""
    rng = np.random.default_rng(seed)
    memory = Memory(
        jnp.asarray(0.1 * rng.standard_normal(size), jnp.float32),
        jnp.asarray(rng.uniform(0.01, 0.5, size), jnp.float32),
        jnp.asarray(7, jnp.int32),
        jnp.zeros(2, jnp.uint32),
        jnp.asarray([s in kept for s in range(sources)]),
    )
    slopes = rng.standard_normal((rows, directions)) * rng.uniform(0.2, 3, (rows, 1))
    of_row = 1 + np.sort(rng.integers(0, sources, rows)) if sources > 1 else np.ones(rows, int)
    of_row[rows - missing :] = 0
    along = rng.standard_normal((directions, size))
    return jnp.asarray(slopes, jnp.float32), jnp.asarray(along, jnp.float32), jnp.asarray(of_row), memory


CASES = {
    "one source, all coordinates": {"rows": 24, "size": 50, "directions": 1, "sources": 1},
    "sources, some coordinates": {"rows": 40, "size": 150, "directions": 1, "sources": 4},
    "several directions": {"rows": 40, "size": 150, "directions": 3, "sources": 3},
    "kept, and rows that are missing": {
        "rows": 33,
        "size": 150,
        "directions": 2,
        "sources": 4,
        "kept": (1,),
        "missing": 5,
    },
    "more kept than are taken": {"rows": 30, "size": 150, "directions": 1, "sources": 4, "kept": (0, 1, 2)},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("weighted", [False, True])
def test_the_rows_of_an_update_are_those_of_the_twin(case, weighted):
    """Near ties aside: where a pick differs, the value of the source's picks must not."""
    colm = Colm(ratio=0.5, weighted=weighted, coordinates=60)
    choose = jax.jit(colm.choose)
    same = 0
    for seed in range(4):
        given = problem(seed, **CASES[case])
        after, weights = choose(*given)
        settings = {"ratio": 0.5, "coordinates": 60, "weighted": weighted}
        wanted, *_, best = twin(*given, **settings)
        rows = np.flatnonzero(weights)
        there = int((np.asarray(given[2]) > 0).sum())
        assert len(rows) == round(there / 2)
        follow, m, v, values = twin(*given, **settings, follow=rows.tolist())
        for s, value in best.items():
            assert values[s] >= value * (1 - 1e-5)
        np.testing.assert_allclose(after.v, v, rtol=2e-5, atol=1e-7)
        np.testing.assert_allclose(after.m, m, rtol=2e-5, atol=1e-6)
        assert int(after.updates) == 8 and after.keep.tolist() == given[3].keep.tolist()
        same += np.array_equal(weights, wanted)
        if weighted:
            assert np.abs(np.asarray(weights) - follow).sum() <= 2  # a row as near to two picks
    assert same >= 3


def test_one_direction_that_stays_compares_rows_by_one_number():
    """With a memory, distances rise with the difference of slopes; without one there are two points, by sign."""
    slopes, along, sources, memory = problem(0, rows=20, size=80, directions=1, sources=1)
    colm, competing = Colm(), jnp.ones(20, bool)
    apart = np.asarray(colm.distances(slopes, along, sources - 1, competing, memory))
    order = np.argsort(np.asarray(slopes)[:, 0])
    for row, at in enumerate(order):
        steps = np.diff(apart[at][order])
        assert (steps[:row] <= 1e-3).all() and (steps[row:] >= -1e-3).all()
    fresh = memory._replace(m=jnp.zeros(80), v=jnp.zeros(80), updates=jnp.zeros((), jnp.int32))
    apart = np.asarray(colm.distances(slopes, along, sources - 1, competing, fresh))
    signs = np.sign(np.asarray(slopes)[:, 0])
    np.testing.assert_allclose(apart, 160.0 * (signs[:, None] != signs), atol=0.01)


def test_no_row_of_a_source_that_is_kept_is_left_out_and_nothing_is_learned_of_it():
    """A batch whose rows are all kept leaves the memory as it was."""
    slopes, along, _, memory = problem(3, rows=8, size=30, directions=1, sources=2, kept=(0, 1))
    sources = jnp.asarray([1, 1, 2, 2, 0, 0, 0, 0])
    after, weights = Colm(ratio=1.0).choose(slopes, along, sources, memory)
    assert weights.tolist() == [1, 1, 1, 1, 0, 0, 0, 0]
    assert int(after.updates) == 7 and np.array_equal(after.m, memory.m)


def test_random_rows_are_as_many_of_each_source():
    """The control: the same quotas, other rows at every update, and of the batch nothing but rows left out."""
    _, _, sources, memory = problem(1, rows=40, size=30, directions=1, sources=4, kept=(2,), missing=3)
    sources = np.asarray(sources)
    share = shares(jnp.asarray(sources), memory.keep, 0.5)
    tokens = np.arange(40, dtype=np.int32)[:, None] * np.ones((1, 16), np.int32)
    one = np.ones((40, 16), np.float32) * (sources > 0)[:, None]
    whole = Batch(tokens, tokens, tokens, one, sources=sources.astype(np.int32))
    rule = RandomRows(0.5)
    drawing = rule.start(None, np.asarray(memory.keep), 0)
    drawn = set()
    for step in range(3):
        for parts in (1, 4):
            _, batch, loss = jax.jit(rule, static_argnums=0)(None, drawing, whole.split(parts), step)
            assert loss is None and batch.sources is None and batch.tokens.shape[-2] * parts == 20
            own = np.asarray(batch.weights).reshape(20, 16)[:, 0]
            rows = np.asarray(batch.tokens).reshape(20, 16)[own > 0, 0]
            assert len(set(rows)) == round(37 / 2) and set(np.flatnonzero(sources == 3)) <= set(rows)
            took = [int((sources[rows] == s).sum()) for s in (1, 2, 4)]
            assert took == share.quotas[jnp.asarray([0, 1, 3])].tolist()
            drawn.add(tuple(rows))
    assert len(drawn) == 3
    some = np.flatnonzero(sources)[:20]  # the same rows in a batch that is as high as they need, and in higher ones
    rows = []
    for height in (20, 23, 40):
        padded = jax.tree.map(lambda v, height=height: np.zeros((height, *v.shape[1:]), v.dtype), whole)
        for old, new in zip(jax.tree.leaves(whole), jax.tree.leaves(padded), strict=True):
            new[:20] = old[some]
        _, batch, _ = jax.jit(rule, static_argnums=0)(None, drawing, padded, 0)
        rows.append(np.asarray(batch.tokens)[np.asarray(batch.weights)[:, 0] > 0, 0].tolist())
    assert len(rows[0]) == 10 and rows[0] == rows[1] == rows[2]


# Whose the rows are


def sourced(n=24):
    """Rows of three sources: a and b have two fifths each, c has the rest."""
    plain = story_pool(n)
    return make_pool([(plain.prompt_text(i)[:40], plain.responses[i], {"dataset": "aabbc"[i % 5]}) for i in range(n)])


@pytest.mark.parametrize(
    ("keep", "want"),
    [("small", [False, False, True]), ("none", [False] * 3), ("a, c", [True, False, True])],
)
def test_sources(keep, want):
    found = Sources.of(sourced(), "dataset", keep)
    assert found.names == ("a", "b", "c") and found.keep.tolist() == want
    assert found.of_row[:5].tolist() == [1, 1, 2, 2, 3]
    assert found.facts()["c"] == {"rows": 4, "kept": want[2]}


def test_sources_that_are_not_there():
    assert Sources.of(sourced(), None, "small").keep.tolist() == [False]
    assert Sources.of(sourced(), "dataset", "a,d").keep.tolist() == [True, False, False], "a part of a pool"
    refuse_unknown(sourced(), "dataset", "a,c")
    with pytest.raises(UsageError, match=r"batch_keep_sources d: not among the sources of test, which are a, b, c"):
        refuse_unknown(sourced(), "dataset", "a,d")
    with pytest.raises(DataError, match="source"):
        Sources.of(sourced(), "source", "small")
    some = make_pool([("a", "b", {"dataset": "x"}), ("c", "d", {"dataset": None})])
    with pytest.raises(DataError, match=r"row 'row-1' has no 'dataset'"):
        Sources.of(some, "dataset", "small")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"batch_ratio": 1.5}, "batch_ratio is 1.5"),
        ({"packing": True}, "packing lays several into one"),
        ({"mesh": "data=-1"}, "leave mesh out"),
        ({"batch_method": "none", "source_column": "dataset"}, "batch_method colm and random"),
        ({"batch_method": "none", "batch_ratio": 0.25}, "batch_ratio is read by batch_method colm and random"),
        ({"batch_method": "none", "batch_weights": True}, "batch_weights is read by batch_method colm; give one"),
        ({"batch_method": "collm"}, "not one of none, colm, random"),
    ],
)
def test_settings_that_make_no_sense(settings, said):
    with pytest.raises(UsageError, match=said):
        FinetuneConfig(**({"batch_method": "colm"} | settings))


def test_settings_of_no_method_are_no_part_of_an_adapter():
    plain, other = FinetuneConfig().record(), FinetuneConfig(batch_method="colm").record()
    assert set(other) - set(plain) == {
        "batch_method",
        "batch_ratio",
        "source_column",
        "batch_keep_sources",
        "batch_directions",
        "batch_resample",
        "batch_weights",
    }


# Whole runs

CONFIG = FinetuneConfig(
    num_train_epochs=4, per_device_train_batch_size=8, max_length=40, learning_rate=1e-2, lora_r=2, save_steps=0
)
COLM = dataclasses.replace(CONFIG, batch_method="colm", source_column="dataset")


def run(tiny, out, config):
    done = finetune(sourced(), "t", out=out, config=config, loaded=tiny, show_progress=False)
    return done, [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_all_rows_are_plain_training(tiny, tmp_path):
    _, plain = run(tiny, tmp_path / "plain", CONFIG)
    _, whole = run(tiny, tmp_path / "whole", dataclasses.replace(COLM, batch_ratio=1.0))
    np.testing.assert_allclose([e["loss"] for e in whole], [e["loss"] for e in plain], rtol=1e-6)
    np.testing.assert_allclose([e["batch_loss"] for e in whole], [e["loss"] for e in plain], rtol=1e-6)


def test_half_of_every_batch(tiny, tmp_path):
    """The loss falls, the manifest says whose rows are kept, and micro-batches of half the size give the same rows."""
    done, log = run(tiny, tmp_path / "half", COLM)
    assert len(log) == 12
    assert np.mean([e["batch_loss"] for e in log[-3:]]) < log[0]["batch_loss"] - 0.5
    assert log[0]["loss"] != log[0]["batch_loss"]
    assert done.noted["sources"] == {
        "a": {"rows": 10, "kept": False},
        "b": {"rows": 10, "kept": False},
        "c": {"rows": 4, "kept": True},
    }
    assert json.loads((tmp_path / "half" / "manifest.json").read_text())["sources"] == done.noted["sources"]
    random, log = run(tiny, tmp_path / "random", dataclasses.replace(COLM, batch_method="random", max_steps=2))
    assert random.steps == 2 and "batch_loss" not in log[0]
    parts = {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4, "max_steps": 2}
    _, small = run(tiny, tmp_path / "parts", dataclasses.replace(COLM, **parts, warmup_ratio=0))
    _, big = run(tiny, tmp_path / "big", dataclasses.replace(COLM, max_steps=2, warmup_ratio=0))
    np.testing.assert_allclose([e["loss"] for e in small], [e["loss"] for e in big], rtol=1e-5)


def test_several_at_once_become_what_they_become_alone(tiny, tmp_path):
    config = dataclasses.replace(COLM, max_steps=3)
    pools = {"a": sourced(), "b": sourced().take(range(4, 24))}
    jobs = [Job(pool, tmp_path / name, config) for name, pool in pools.items()]
    done = finetune_together(jobs, "t", loaded=tiny, show_progress=False)
    for (name, pool), together in zip(pools.items(), done, strict=True):
        out = tmp_path / f"{name}1"
        alone = finetune(pool, "t", out=out, config=config, loaded=tiny, show_progress=False)
        np.testing.assert_allclose(together.train_loss, alone.train_loss, rtol=1e-4)


def test_what_is_refused_leaves_the_adapter_that_is_there_and_no_plan(tiny, tmp_path):
    def made(**settings):
        return finetune(
            sourced(),
            "t",
            out=tmp_path / "a",
            config=dataclasses.replace(COLM, max_steps=2, **settings),
            loaded=tiny,
            overwrite=overwrite,
            show_progress=False,
        )

    wrong = [
        ({"keep_checkpoints": 3}, "keep_checkpoints is 3, and the run has 2 updates"),
        ({"lora_target_modules": ("q_proj",)}, "add v_proj to lora_target_modules"),
        ({"lora_target_modules": ("qkv_proj",), "batch_method": "random"}, "are not in a llama model"),
        ({"batch_keep_sources": "d"}, "not among the sources"),
        ({"source_column": "source"}, "source"),
    ]
    for overwrite in (False, True):
        there = sorted((tmp_path / "a").rglob("*"))
        for settings, said in wrong:
            with pytest.raises((UsageError, DataError), match=said):
                made(**settings)
            assert sorted((tmp_path / "a").rglob("*")) == there
        overwrite = bool(there)
        done = made()
        assert done.steps == 2
    overwrite = False
    assert made().noted == done.noted and "sources" in done.noted, "read again"


def test_runs_with_other_numbers_of_sources_go_beside_each_other():
    def far(step, steps, sources):
        return SimpleNamespace(step=step, steps=steps, sources=sources)

    three, two = Sources(tuple("abc"), None, None), Sources(tuple("ab"), None, None)
    runs = [far(1, 5, three), far(1, 5, two), far(1, 5, three), far(1, 5, None), far(2, 5, two)]
    assert [len(group) for group in _equally_far(runs)] == [2, 1, 1, 1]


def test_from_the_command_line(edjax_, tiny, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(r) + "\n" for r in sourced().records))
    options = ["--num-train-epochs", 1, "--per-device-train-batch-size", 8, "--max-length", 40, "--lora-r", 2]
    colm = ["--batch-method", "colm", "--batch-ratio", 0.25, "--source-column", "dataset", "--batch-directions", 2]
    more = ["--batch-resample", "--batch-weights", "--batch-keep-sources", "none"]
    command = ["finetune", rows, "--model", tiny.directory, *options, *colm, *more, "--out", tmp_path / "a", "--json"]
    code, out, err = edjax_(*command)
    assert code == 0, err
    assert json.loads(out)["steps"] == 3
    assert "3 sources: none of them has all its rows taken" in err
    config = json.loads((tmp_path / "a" / "manifest.json").read_text())["config"]
    assert config["batch_method"] == "colm" and config["batch_directions"] == 2 and config["batch_resample"]
    code, _, err = edjax_(*command, "--lora-target-modules", "q_proj", "--overwrite")
    assert code == 2 and "add v_proj to lora_target_modules" in err
