"""Scoring a pool: embeddings and scores against float64 NumPy, batching, resuming."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from lm_cases import STORIES, forward, greedy, log_softmax, make_pool, story_pool

from edjax.data.features import SCORES, read_features
from edjax.keep.errors import DataError, UsageError
from edjax.kernels import reference
from edjax.lm.encode import Encoder
from edjax.scoring import score

TOL = {"atol": 1e-4, "rtol": 0}
NEW = 8


@pytest.fixture(scope="module")
def scored(stories):
    """(pool, scorer with the settings of these tests)."""

    def run(pool, out=None, **settings):
        settings = {"max_new_tokens": NEW, "batch_size": 4, "shard_rows": 6, "show_progress": False} | settings
        return score(pool, stories.name, out=out, loaded=stories, **settings)

    return run


@pytest.fixture(scope="module")
def pool():
    return make_pool([(text, None) for text in STORIES])


@pytest.fixture(scope="module")
def oracle(stories, pool):
    """Per row: prompt ids, its hidden states, the greedy tokens and their float64 log-probabilities."""
    encoder = Encoder(stories.tokenizer)
    rows = []
    for messages in pool.messages:
        ids = encoder.prompt(messages)
        tokens, logits = greedy(stories.model, ids, NEW, stories.eos_ids)
        rows.append((ids, forward(stories.model, ids)[1].astype(np.float64), tokens, log_softmax(logits)))
    return rows


def test_energy_and_grad_norm_are_those_at_the_end_of_the_prompt(stories, scored, pool, oracle):
    got = scored(pool, max_new_tokens=1)
    for i, (ids, hidden, _, _) in enumerate(oracle):
        logits = np.asarray(forward(stories.model, ids)[0], np.float64)[None, -1]
        energy, grad_norm = reference.prompt_scores(logits, hidden[None, -1])
        np.testing.assert_allclose(got.scores["energy"][i], energy[0], rtol=2e-5)
        np.testing.assert_allclose(got.scores["grad_norm"][i], grad_norm[0], rtol=2e-5)


def test_they_change_no_bit_of_the_others_and_cost_no_product(stories):
    """Beside a program without them."""
    import jax
    import jax.numpy as jnp

    from edjax.kernels import sequence_scores
    from edjax.lm.decode import decode
    from edjax.scoring.forward import _decode

    @jax.jit
    def without(model, hidden, cache, lengths):
        out = decode(model, hidden, cache, lengths, max_new_tokens=NEW, eos_ids=stories.eos_ids)
        return {"tokens": out.tokens} | sequence_scores(out.entropy, out.margin, out.nll, out.mask)._asdict()

    tokens = np.random.default_rng(0).integers(3, 400, (4, 12)).astype(np.int32)
    hidden, _, cache = jax.jit(lambda m, t: m.prefill(t, layer=-1))(stories.model, tokens)
    given = (stories.model, hidden, cache, jnp.array([12, 7, 9, 0], jnp.int32))
    settings = {"max_new_tokens": NEW, "eos_ids": stories.eos_ids}
    more, plain = _decode().lower(*given, **settings).compile(), without.lower(*given).compile()
    got, want = more(*given), plain(*given)
    for name in want:
        np.testing.assert_array_equal(got[name], want[name], err_msg=name)
    spent = [program.cost_analysis()["flops"] for program in (more, plain)]
    product = 2 * 4 * hidden.shape[-1] * stories.model.config.vocab_size
    assert spent[0] - spent[1] < 0.5 * product, "the logits of the first token are computed once"


def six(tokens, logp):
    """METHODS section 1."""
    p = np.exp(logp)
    entropy = -(p * logp).sum(-1)
    top = np.sort(p, axis=-1)
    margin = top[:, -1] - top[:, -2]
    nll = -logp[np.arange(len(tokens)), tokens]
    return {
        "mean_entropy": entropy.mean(),
        "max_entropy": entropy.max(),
        "least_confidence": nll.sum(),
        "mean_nll": nll.mean(),
        "mean_margin": -margin.mean(),
        "min_margin": -margin.min(),
    }


def test_scores_against_float64(stories, scored, pool, oracle):
    got = scored(pool)
    assert got.ids == pool.ids
    assert set(got.scores) == set(SCORES)
    for i, (ids, hidden, tokens, logp) in enumerate(oracle):
        np.testing.assert_allclose(got.embeddings[i], hidden.mean(0), **TOL)
        for name, want in six(tokens, logp).items():
            np.testing.assert_allclose(got.scores[name][i], want, err_msg=name, **TOL)
        assert got.facts["n_prompt_tokens"][i] == len(ids)
        assert got.facts["n_new_tokens"][i] == len(tokens)
        assert got.facts["generated"][i] == stories.tokenizer.decode(tokens, skip_special_tokens=True)


@pytest.mark.parametrize("pooling", ["mean", "last", "weighted_mean"])
@pytest.mark.parametrize("layer", [-1, 0, 2, -3])
def test_pooling_and_layer(stories, scored, pool, oracle, pooling, layer):
    got = scored(pool, pooling=pooling, layer=layer, max_new_tokens=0, batch_size=8)
    assert not got.scores
    for i, (ids, _, _, _) in enumerate(oracle):
        hidden = forward(stories.model, ids, layer)[1].astype(np.float64)
        place = np.arange(1, len(ids) + 1)
        want = {"mean": hidden.mean(0), "last": hidden[-1], "weighted_mean": place @ hidden / place.sum()}[pooling]
        np.testing.assert_allclose(got.embeddings[i], want, **TOL)


def test_responses_are_not_looked_at(scored):
    prompts = [(t, None) for t in STORIES[:3]]
    bare, labelled = scored(make_pool(prompts)), scored(make_pool([(t, "an answer") for t, _ in prompts]))
    np.testing.assert_array_equal(bare.embeddings, labelled.embeddings)


def test_long_prompts_keep_their_end(stories, scored, oracle, pool):
    """The last three quarters of max_length; the rest is the response's."""
    got = scored(pool, max_length=8, max_new_tokens=0)
    for i, (ids, *_) in enumerate(oracle):
        np.testing.assert_allclose(got.embeddings[i], forward(stories.model, ids[-6:])[1].mean(0), **TOL)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"layer": 6}, r"layer 6 is outside the model's -6\.\.5"),
        ({"layer": -7}, "layer -7"),
        ({"pooling": "max"}, "'max' is not one of"),
        ({"max_new_tokens": -1}, "max_new_tokens"),
        ({"batch_size": 0}, "batch_size"),
        ({"shard_rows": 0}, "shard_rows"),
        ({"max_length": 1}, "max_length is 1"),
        ({"template": "chat"}, "no chat template"),
        ({"template": "xml"}, "'xml' is not one of"),
    ],
)
def test_settings_that_make_no_sense(scored, pool, settings, match):
    with pytest.raises(UsageError, match=match):
        scored(pool, **settings)


# On disk


@pytest.fixture(scope="module")
def straight(scored, tmp_path_factory):
    out = tmp_path_factory.mktemp("straight") / "s"
    scored(story_pool(40), out)
    return out


def shards(out):
    return {p.name: p.read_bytes() for p in sorted(out.glob("shard-*.parquet"))}


def test_directory_holds_what_memory_holds(scored, straight):
    there, here = read_features(straight), scored(story_pool(40))
    assert len(shards(straight)) == 7
    assert there.ids == here.ids == story_pool(40).ids
    np.testing.assert_array_equal(there.embeddings, here.embeddings)
    for name in SCORES:
        np.testing.assert_array_equal(there.scores[name], here.scores[name])
    assert there.facts["generated"].tolist() == here.facts["generated"].tolist()
    seen = pq.read_table(straight / "shard-00000.parquet")["n_prompt_tokens"].to_pylist()
    assert seen == sorted(seen)


def test_resume_makes_what_is_missing(scored, straight, tmp_path):
    out = tmp_path / "s"
    scored(story_pool(40), out)
    assert shards(out) == shards(straight)
    kept = {p: p.stat().st_mtime_ns for p in out.glob("shard-*.parquet") if p.name[10] not in "236"}
    for name in ("manifest.json", "shard-00003.parquet", "shard-00006.parquet"):
        (out / name).unlink()
    (out / "shard-00006.parquet.tmp-1").write_bytes(b"half")
    older = pq.read_table(out / "shard-00002.parquet").drop_columns(["energy", "grad_norm"])
    pq.write_table(older, out / "shard-00002.parquet", compression="zstd")  # begun by an earlier version
    with pytest.raises(DataError, match="not complete"):
        read_features(out)
    scored(story_pool(40), out)
    assert shards(out) == shards(straight)
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    assert not list(out.glob("*.tmp-*"))


def test_done_is_done(scored, straight):
    before = {p.name: p.stat().st_mtime_ns for p in straight.iterdir()}
    scored(story_pool(40), straight)
    assert {p.name: p.stat().st_mtime_ns for p in straight.iterdir()} == before


@pytest.mark.parametrize("change", [{"layer": 2}, {"pooling": "last"}, {"max_new_tokens": 4}, {"batch_size": 8}])
def test_other_settings_are_refused(scored, straight, change):
    before = shards(straight)
    with pytest.raises(UsageError, match=next(iter(change))):
        scored(story_pool(40), straight, **change)
    with pytest.raises(UsageError, match="pool"):
        scored(story_pool(41), straight)
    assert shards(straight) == before


def test_overwrite_starts_again(scored, tmp_path):
    scored(story_pool(9), tmp_path / "s")
    scored(story_pool(5), tmp_path / "s", overwrite=True)
    assert len(read_features(tmp_path / "s")) == 5
