"""Adapters that are evaluated at once score what they score alone."""

import importlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from lm_cases import make_pool

from edjax.evaluation import METRICS, evaluate, evaluate_together, read_evaluation
from edjax.evaluation.programs import Programs, kind
from edjax.evaluation.room import MOST, adapters_at_once, bytes_of_one
from edjax.keep.errors import UsageError
from edjax.keep.store import read_json, read_manifest
from edjax.keep.verify import verify
from edjax.lm.bounds import Row
from edjax.lm.lora import LoraConfig, add_lora, targets
from edjax.lm.peft import export_adapter, import_adapter

PASSES = importlib.import_module("edjax.evaluation.passes")
ROWS = [
    ("Tim had a", "red ball.", {"choices": ["red ball.", "blue sky", "a"]}),
    ("Lily went to the", "park", {"choices": ["moon", "park"], "answer": "park"}),
    ("The dog was", "happy", {"refs": ["happy", "very happy"]}),
    ("Once upon a time, there was a little girl named", "Lily", {"choices": ["Bob the big dog", "Lily", "lily pad"]}),
    ("Mom said:", "Let us go home now, it is late and you must sleep.", {"choices": ["x"]}),
]
RANKS = (4, 4, 2, 4)


@pytest.fixture(scope="module")
def pool():
    return make_pool(ROWS)


@pytest.fixture(scope="module")
def adapters(stories, tmp_path_factory):
    """Random ones, all different; the third has another rank."""
    paths = []
    for i, rank in enumerate(RANKS):
        config, rng = LoraConfig(rank, 2.0 * rank), np.random.default_rng(i)
        model = add_lora(stories.model, config, seed=i)
        for linear in targets(model, config).values():
            linear.lora_b = nnx.LoRAParam(jnp.asarray(0.05 * rng.standard_normal(linear.lora_b.shape), jnp.float32))
        paths.append(tmp_path_factory.mktemp("adapters") / str(i))
        export_adapter(model, config, paths[-1], stories.base_model)
    return paths


@pytest.fixture(scope="module")
def settings(stories):
    return {"model": stories.name, "max_new_tokens": 8, "batch_size": 4, "show_progress": False, "loaded": stories}


@pytest.fixture(scope="module")
def alone(pool, adapters, settings):
    return [evaluate(pool, adapter=adapter, **settings) for adapter in adapters]


@pytest.fixture
def shapes(monkeypatch):
    """How many models each pass over the rows has."""
    seen, real = [], PASSES.measure

    def measure(asked, models, *args, **more):
        seen.append(len(models))
        return real(asked, models, *args, **more)

    monkeypatch.setattr(PASSES, "measure", measure)
    return seen


def same(got, want):
    assert got.counts == want.counts and got.scores.keys() == want.scores.keys() and got.noted == want.noted
    for name, value in want.scores.items():
        assert got.scores[name] == pytest.approx(value, abs=1e-5), name
    for a, b in zip(got.rows, want.rows, strict=True):
        assert list(a) == list(b)
        assert a["response_loss"] == pytest.approx(b["response_loss"], abs=1e-5)
        assert {**a, "response_loss": 0} == {**b, "response_loss": 0}


def test_all_metrics_are_those_of_each_alone(pool, adapters, alone, settings, shapes):
    assert len({json.dumps(e.rows) for e in alone}) == len(RANKS), "they are different"
    assert len({r["generated"] for e in alone for r in e.rows}) > len(ROWS)
    found = evaluate_together(pool, adapters, at_once=3, **settings)
    assert shapes == [3, 1], "the third by itself"
    for got, want in zip(found, alone, strict=True):
        same(got, want)
        assert set(got.scores) == set(METRICS)


def test_the_loss_alone_and_groups(stories, pool, adapters, settings, shapes):
    more = settings | {"metrics": ["response_loss"], "group_by": "task"}
    pool = make_pool([(*row[:2], row[2] | {"task": t}) for row, t in zip(ROWS, "aabbb", strict=True)])
    found = evaluate_together(pool, [None, *adapters[:2]], at_once=2, **more)
    assert shapes == [1, 2], "the base has nothing that could be stacked"
    for got, adapter in zip(found, [None, *adapters[:2]], strict=True):
        want = evaluate(pool, adapter=adapter, **more)
        same(got, want)
        assert got.macro["response_loss"] == pytest.approx(want.macro["response_loss"], abs=1e-5) and got.groups == 2


def test_one_ends_its_answers_later_than_the_other(stories, adapters, settings):
    """Decoding goes on until the last is done, and nothing is added to what was done."""
    models = [import_adapter(stories.model, path)[0] for path in adapters[:2]]
    tokens, lengths = np.asarray([[5, 6, 7, 8], [9, 10, 0, 0]], np.int32), np.asarray([4, 2], np.int32)

    def answers(models, stops):
        run = Programs(models)
        return run.generate(run.prefill(tokens), lengths, max_new_tokens=12, eos_ids=stops)

    first = answers(models, ())[0]
    stops = (int(first[0, 0, 1]), int(first[0, 1, 1]))
    assert not np.isin(first[1, :, :4], stops).any(), "only the first stops early"
    both = answers(models, stops)
    for i, model in enumerate(models):
        for got, want in zip(both, answers([model], stops), strict=True):
            np.testing.assert_array_equal(got[i], want[0])
    assert both[1][0].sum(1).max() == 2 < both[1][1].sum(1).min()


def test_decoding_copies_no_cache(stories, adapters):
    """The loop has one condition for all: its body chooses between no two states of a cache."""
    models = [import_adapter(stories.model, path)[0] for path in adapters[:2]]
    run, lengths = Programs(models), np.asarray([4, 2], np.int32)
    state = run.prefill(np.asarray([[5, 6, 7, 8], [9, 10, 0, 0]], np.int32))
    program = run._run.generate.lower(*run._given, state, lengths, max_new_tokens=12, eos_ids=(2,)).as_text()
    c = stories.model.config
    cache = f"2x{c.num_layers}x2x{4 + 12}x{c.num_kv_heads}x{c.head_dim}xf32"
    assert f"tensor<{cache}>" in program
    assert not [line for line in program.splitlines() if "select" in line and cache in line]


def test_written_read_and_gone_on_with(pool, adapters, settings, shapes, tmp_path):
    out = [tmp_path / str(i) for i in range(len(adapters))]
    first = evaluate(pool, adapter=adapters[1], out=out[1], **settings)
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in out[1].iterdir()}
    found = evaluate_together(pool, adapters, out=out, at_once=2, **settings)
    assert shapes == [1, 2, 1] and found[1] == first
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in out[1].iterdir()} == before
    assert not verify(out).faults
    del shapes[:]
    for i, (got, to) in enumerate(zip(found, out, strict=True)):
        alone = evaluate(pool, adapter=adapters[i], out=tmp_path / "alone" / str(i), **settings)
        same(got, alone)
        assert evaluate(pool, adapter=adapters[i], out=to, **settings) == got == read_evaluation(to)
        assert (to / "plan.json").read_bytes() == (tmp_path / "alone" / str(i) / "plan.json").read_bytes()
        ours, theirs = (read_manifest(p, "evaluation") for p in (to, tmp_path / "alone" / str(i)))
        assert list(ours) == list(theirs) and ours["files"].keys() == theirs["files"].keys()
        assert list(read_json(to / "scores.json")) == ["scores", "counts", "seconds"]
    assert shapes == [1] * len(adapters), "only those that were made anew, alone"


def test_a_pass_that_fails_leaves_those_before_it(pool, adapters, settings, shapes, tmp_path, monkeypatch):
    out = [tmp_path / str(i) for i in range(3)]
    measure = PASSES.measure

    def once(*args, **more):
        if shapes:
            raise KeyboardInterrupt
        return measure(*args, **more)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(PASSES, "measure", once)
        evaluate_together(pool, adapters[:3], out=out, at_once=2, **settings)
    assert [(to / "manifest.json").exists() for to in out] == [True, True, False]
    evaluate_together(pool, adapters[:3], out=out, at_once=2, **settings)
    assert shapes == [2, 1]


def test_what_is_refused(pool, adapters, settings, tmp_path):
    few, two = settings | {"metrics": ["response_loss"]}, [tmp_path / "a", tmp_path / "b"]
    evaluate(pool, adapter=adapters[0], out=two[1], **few)

    def refused(match, adapters=tuple(adapters[:2]), **more):
        with pytest.raises(UsageError, match=match):
            evaluate_together(pool, adapters, **few | more)

    refused("b was made with other settings .adapter: ", out=two)
    refused('made with other settings .*dtype: "float32" there', adapters[:1], out=two[1:], dtype="bfloat16")
    refused("into one directory", out=[tmp_path / "c"] * 2)
    refused("2 adapters have 1 directories", out=two[:1])
    refused("at_once is -1", at_once=-1)
    refused("take no mesh", at_once=2, mesh="data=1")
    assert evaluate_together(pool, [], **few) == []


def test_models_that_cannot_share_a_pass(stories, adapters):
    models = [import_adapter(stories.model, path)[0] for path in adapters]
    assert kind(models[0]) == kind(models[1]) != kind(models[2])
    with pytest.raises(ValueError, match="one kind of adapter"):
        Programs(models[1:3])


class Device:
    platform = "gpu"

    def __init__(self, limit):
        self.limit = limit

    def memory_stats(self):
        return {"bytes_limit": self.limit, "bytes_in_use": 0}


def test_how_many_fit(stories, pool, adapters, settings, shapes, monkeypatch):
    model, rows = stories.model.config, [Row([1] * 30, [2] * 5), Row([1] * 8, [2] * 20)]
    more = {"adapter": 10**5, "batch_size": 4, "max_new_tokens": 8, "dtype": "float32"}
    one = bytes_of_one(model, rows, **more)
    assert adapters_at_once(model, rows, **more) == 1, "a CPU"
    evaluate_together(pool, adapters[:2], **settings | {"metrics": ["response_loss"]})
    assert shapes == [1, 1]

    def on(limit):
        monkeypatch.setattr(jax, "local_devices", lambda: [Device(limit)])
        return adapters_at_once(model, rows, **more)

    assert (on(int(3.5 * one / 0.7)), on(10**15), on(0)) == (3, MOST, 1)
    for longer in ({"batch_size": 8}, {"max_new_tokens": 64}, {"adapter": 10**6}):
        assert bytes_of_one(model, rows, **more | longer) > one
    assert bytes_of_one(model, rows, **more | {"dtype": "bfloat16"}) < one
    on(10**15)
    evaluate_together(pool, adapters[:2], **settings | {"metrics": ["response_loss"]})
    assert shapes == [1, 1, 2]
