"""The probe icl_utility: every pair of rows, held to whole sequences without a cache; and a selection by it."""

import json
import re
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest
from lm_cases import forward, log_softmax, make_pool, tiny_model
from safetensors.numpy import save_file

import edjax
from edjax.data.features import join_columns, read_features
from edjax.keep.errors import DataError, UsageError
from edjax.lm.encode import Encoder
from edjax.scoring.icl_prompts import Wording, read_wording
from edjax.scoring.icl_utility import Contexts, _beginning

ROWS = [
    ("two and two", "four"),
    ("the sky is", "blue, mostly"),
    ("say it", "it"),
    ("what is the name of the town where nobody lives", "none"),
    ("a", "b c d e f g h"),
    ("two and two", "five"),
    ("no answer", None),
]
ANSWERED = [i for i, (_, response) in enumerate(ROWS) if response is not None]
SETTINGS = {"probes": ["icl_utility"], "max_new_tokens": 0, "show_progress": False}
SHORT = Wording("Answer:\n{query}", "Like {example_prompt}{example_response}:\n{query}")


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "tiny"
    tensors = tiny_model(path, max_position_embeddings=512)
    # Logits of random weights are all about 0, and no example would change much.
    tensors["lm_head.weight"] *= 4
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    return path


@pytest.fixture(scope="module")
def session(directory):
    made = edjax.Session(str(directory), max_length=400)
    assert made.loaded
    return made


@pytest.fixture(scope="module")
def pool():
    return make_pool(ROWS)


@pytest.fixture(scope="module")
def features(pool, session):
    return edjax.score(pool, session, batch_size=4, **SETTINGS)


def distance(model, before, response):
    """||1 - p||_2 / sqrt(T) in float64 of one full forward over all tokens."""
    log_p = log_softmax(forward(model, [*before, *response])[0])
    p = np.exp([log_p[len(before) - 1 + t, token] for t, token in enumerate(response)])
    return np.linalg.norm(1 - p) / np.sqrt(len(response))


def oracle(loaded, rows, wording):
    encoder = Encoder.of(loaded, "auto", 400)

    def text(words):
        return encoder.response(words)[:-1]

    encoded = [encoder.row([{"role": "user", "content": p}], r) for p, r in rows]
    bos = loaded.tokenizer.bos_token_id
    begin = [] if bos is None else [bos]  # once, at the very beginning
    encoded = [row._replace(prompt=row.prompt[len(begin) :]) for row in encoded]
    lead = begin + text(wording.alone.split("{query}")[0])
    head, rest = wording.shown.split("{example_prompt}")
    tail = rest.split("{example_response}")[1].split("{query}")[0]
    u = np.empty((len(rows), len(rows)))
    for i, query in enumerate(encoded):
        alone = distance(loaded.model, [*lead, *query.prompt], query.response)
        for j, shown in enumerate(encoded):
            before = [*begin, *text(head), *shown.prompt, *shown.response, *text(tail), *query.prompt]
            u[i, j] = alone - distance(loaded.model, before, query.response)
    return u


def words(encoder, text):
    """How many tokens stand around the places of a wording."""
    return sum(len(encoder.response(part)) - 1 for part in re.split(r"\{[a-z_]+\}", text))


def test_the_worked_example():
    p0, p1 = np.array([0.2, 0.5]), np.array([0.6, 0.9])
    d0, d1 = (np.linalg.norm(1 - p) / np.sqrt(2) for p in (p0, p1))
    assert (round(d0, 4), round(d1, 4), round(d0 - d1, 4)) == (0.6671, 0.2915, 0.3755)


def test_utilities_of_known_probabilities(monkeypatch, pool, session):
    """The worked example through the probe: a model whose tokens have these probabilities."""
    from edjax.scoring import icl_utility

    def squares(model, cache, length, tokens, first, targets, counts):
        p = jnp.array([0.2, 0.5]) if int(length) < 100 else jnp.array([0.6, 0.9])
        return jnp.full(tokens.shape[0], jnp.sum((1 - p) ** 2) * counts[0] / 2)

    monkeypatch.setattr(icl_utility, "_programs", lambda: (lambda model, tokens: None, squares))
    rows = make_pool([("a", "b"), ("c", "d")])
    u = edjax.score(rows, session, **SETTINGS).pairs["icl_utility"]
    np.testing.assert_allclose(u, 0.3755, atol=5e-5)


def test_pairs_are_those_of_whole_sequences(features, session):
    u = features.pairs["icl_utility"]
    assert u.shape == (7, 7) and u.dtype == np.float32
    assert np.isnan(u[6]).all() and np.isnan(u[:, 6]).all(), "a row without a response"
    rows = [ROWS[i] for i in ANSWERED]
    want = oracle(session.loaded, rows, Wording())
    np.testing.assert_allclose(u[np.ix_(ANSWERED, ANSWERED)], want, atol=2e-6)
    assert np.abs(want).max() > 5e-3, "the oracle has something to say"
    assert not np.array_equal(u[0], u[5]), "copies of a prompt have responses of their own"


def test_a_model_of_stories_is_helped_by_some(stories):
    rows = [("Tim had a", "red ball."), ("Lily went to the", "park with her mom."), ("Mia had a", "red ball.")]
    got = edjax.score(make_pool(rows), edjax.Session(str(stories.directory), max_length=400), **SETTINGS)
    u, want = got.pairs["icl_utility"], oracle(stories, rows, Wording())
    np.testing.assert_allclose(u, want, atol=1e-5)
    assert u[0, 2] > u[0, 1] + 0.01 and u[2, 0] > u[2, 1] + 0.01, "the same response before it"


@pytest.mark.parametrize("how", [{"batch_size": 1}, {"batch_size": 32}, {"batch_size": 3, "shard_rows": 2}])
def test_padding_batches_and_shards_change_nothing(pool, session, features, how):
    got = edjax.score(pool, session, **SETTINGS, **how)
    np.testing.assert_allclose(got.pairs["icl_utility"], features.pairs["icl_utility"], atol=2e-6)


def test_words_of_one_s_own(tmp_path, session):
    (tmp_path / "words.yaml").write_text(json.dumps(SHORT._asdict()))
    rows = ROWS[:3]
    got = edjax.score(make_pool(rows), session, icl_prompts=tmp_path / "words.yaml", **SETTINGS)
    np.testing.assert_allclose(got.pairs["icl_utility"], oracle(session.loaded, rows, SHORT), atol=1e-5)
    alone = Wording("{query}", "{example_prompt}{end}{example_response}{query}")
    (tmp_path / "words.yaml").write_text(json.dumps(alone._asdict()))
    bare = edjax.score(make_pool(rows), session, icl_prompts=tmp_path / "words.yaml", **SETTINGS)
    assert np.isfinite(bare.pairs["icl_utility"]).all(), "nothing stands before a query"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("alone: '{query} now'", "alone must end in {query}"),
        ("alone: 'Now'", "alone must have {query} once, and has it 0 times"),
        ("alone: '{example_prompt}{query}'", "alone has the place {example_prompt}; there are {query}, {end}"),
        ("shown: '{example_prompt}{query}'", "shown must have {example_response} once, and has it 0 times"),
        ("shown: 3", "shown holds 3, which is not text"),
        ("other: a", "must hold the keys alone and shown, or one of them"),
        ("[", "cannot be read as YAML"),
    ],
)
def test_words_that_make_no_sense_are_told(tmp_path, text, said):
    (tmp_path / "w.yaml").write_text(text)
    with pytest.raises(UsageError, match=re.escape(said)) as e:
        read_wording(tmp_path / "w.yaml")
    assert str(tmp_path / "w.yaml") in str(e.value)
    with pytest.raises(UsageError, match="cannot be read"):
        read_wording(tmp_path / "nowhere.yaml")
    assert read_wording("") == Wording()


def test_a_pair_that_does_not_fit_is_none_and_never_the_most_useful(pool, session, features, directory):
    """Nothing is cut: the bound holds every query alone, and not behind every example."""
    notes, whole = [], features.pairs["icl_utility"]
    encoder = Encoder.of(session.loaded, "auto", 400)
    rows = [encoder.row([{"role": "user", "content": p}], r) for p, r in ROWS]
    length = np.array([len(r.prompt) + len(r.response) for r in rows])
    own, most = words(encoder, Wording().shown), words(encoder, Wording().shown) + 45
    u = edjax.score(pool, edjax.Session(str(directory), max_length=most), log=notes.append, **SETTINGS)
    u = u.pairs["icl_utility"]
    fits = own + length[:, None] + length[None, :] <= most
    fits[6] = fits[:, 6] = False
    assert 4 < fits.sum() < 30
    np.testing.assert_array_equal(np.isfinite(u), fits)
    np.testing.assert_allclose(u[fits], whole[fits], atol=2e-6)
    assert any(f"{49 - fits.sum()} of 49 pairs are not measured" in note for note in notes)


def test_rows_that_are_cut_are_no_examples_and_no_queries(directory):
    rows = make_pool([("a", "b"), ("c" * 60, "d"), ("e", "f" * 60), ("g", "h")])
    short = edjax.Session(str(directory), max_length=400, max_prompt=40, max_response=40)
    u = edjax.score(rows, short, **SETTINGS).pairs["icl_utility"]
    assert np.isfinite(u).tolist() == [[i in (0, 3) and j in (0, 3) for j in range(4)] for i in range(4)]


def test_a_token_that_begins_every_prompt_begins_the_context_once():
    assert _beginning(7, [[7, 1], [7, 2, 3]]) == [7]
    assert _beginning(7, [[7, 1], [7, 2, 7]]) == _beginning(7, [[7], [1, 2]]) == _beginning(None, [[1]]) == []
    encoder = SimpleNamespace(
        bounds=SimpleNamespace(length=99),
        end=9,
        tokenizer=SimpleNamespace(bos_token_id=7),
        response=lambda text: [*map(ord, text), 9],
    )
    rows = [SimpleNamespace(prompt=[7, 1], response=[2, 9], cut=False)] * 2
    made = Contexts(encoder, rows, ["x", "x"], Wording("A{query}", "B{example_prompt}{example_response}C{query}"))
    assert made.alone() == [7, 65] and made.shown(0) == [7, 66, 1, 2, 9, 67] and made.query(1) == ([1], [2, 9])


def test_many_rows_are_refused_with_what_they_take(tmp_path, directory, monkeypatch):
    from edjax.scoring import icl_utility

    pool = make_pool([*[(f"q{i}", "r") for i in range(4)], ("no answer", None)])
    session = edjax.Session(str(directory), max_length=400)
    monkeypatch.setattr(icl_utility, "MOST", 3)
    with pytest.raises(UsageError) as e:
        edjax.score(pool, session, out=tmp_path / "f", **SETTINGS)
    # A query is 5 tokens ("qN\n", "r", end), an example those and its words, once a shard.
    encoder = Encoder.of(session.loaded, "auto", 400)
    tokens = 4 * (words(encoder, Wording().shown) + 5) + words(encoder, Wording().alone) + 5 * 4 * 5
    found = re.search(
        r"every pair of 4 rows with responses through the model, (\S+) tokens and (\S+) FLOP; .* --yes", str(e.value)
    )
    assert float(found[1]) == pytest.approx(tokens, rel=0.05)
    assert float(found[2]) == pytest.approx(2 * tokens * 44_000, rel=0.5)
    assert not (tmp_path / "f").exists()
    said = []
    edjax.scoring.estimate(pool, session, probes=["icl_utility"], max_new_tokens=0, log=said.append)
    assert [line for line in said if found[0] in line]
    got = edjax.score(pool, session, out=tmp_path / "f", yes=True, **SETTINGS)
    assert np.isfinite(got.pairs["icl_utility"][:4, :4]).all(), "and the same directory goes on"
    before = {p.name: p.read_bytes() for p in (tmp_path / "f").iterdir()}
    for wrong in ({}, {"yes": True, "layer": 99}):
        with pytest.raises(UsageError, match=r"every pair|layer 99"):
            edjax.score(pool, session, out=tmp_path / "f", overwrite=True, **SETTINGS, **wrong)
        assert {p.name: p.read_bytes() for p in (tmp_path / "f").iterdir()} == before, "what is there stays"
    monkeypatch.setattr(icl_utility, "MOST", 4)
    edjax.score(pool, session, out=tmp_path / "f", overwrite=True, **SETTINGS)
    assert json.loads((tmp_path / "f" / "plan.json").read_text())["config"]["icl_prompts"] == Wording()._asdict()


def test_what_cannot_be_measured_is_told(session, tmp_path):
    pool = make_pool([("a", None), ("b", None)])
    with pytest.raises(DataError, match="no row has a response, and the probe icl_utility"):
        edjax.score(pool, session, **SETTINGS)
    with pytest.raises(UsageError, match="icl_prompts is read by the probe icl_utility alone"):
        edjax.score(pool, session, icl_prompts="w.yaml", max_new_tokens=0)
    long = make_pool([("a", "b" * 300), ("b", None)])
    with pytest.raises(DataError, match="no pair of rows: 1 row has no response or is cut, and example and query must"):
        edjax.score(long, session, icl_prompts=None, **SETTINGS)


# Rows of features


def test_shards_go_on_and_stay_in_the_pool_s_order(pool, session, features, tmp_path):
    settings = {**SETTINGS, "shard_rows": 2, "batch_size": 4}
    whole = edjax.score(pool, session, out=tmp_path / "f", **settings)
    assert whole.ids == features.ids
    np.testing.assert_allclose(whole.pairs["icl_utility"], features.pairs["icl_utility"], atol=2e-6)
    shards = sorted((tmp_path / "f").glob("shard-*.parquet"))
    assert len(shards) == 3 and pq.read_table(shards[0])["row"].to_pylist() != [0, 1, 2]
    before = shards[0].stat().st_mtime_ns
    shards[-1].unlink()
    (tmp_path / "f" / "manifest.json").unlink()
    again = edjax.score(pool, session, out=tmp_path / "f", **settings)
    assert shards[0].stat().st_mtime_ns == before and again.digest == whole.digest
    other = {**settings, "probes": []}
    with pytest.raises(UsageError, match="other settings"):
        edjax.score(pool, session, out=tmp_path / "f", **other)


def test_pairs_of_joined_rows_follow_their_rows(pool, session, features, tmp_path):
    """Columns are rows: features in another order get the columns in it too."""
    u = features.pairs["icl_utility"]
    table = {"id": list(features.ids), "icl_utility": u.tolist()}
    import pyarrow as pa

    pq.write_table(pa.table(table), tmp_path / "pairs.parquet")
    rows = [5, 0, 3, 4]
    some = edjax.score(pool.take(rows), session, max_new_tokens=0, show_progress=False)
    joined = join_columns(some, tmp_path / "pairs.parquet")
    np.testing.assert_array_equal(joined.pairs["icl_utility"], u[np.ix_(rows, rows)])
    # A file of one's own, of a part of the rows: its columns can no longer be told.
    part = pa.table({**table, "embedding": features.embeddings.tolist()}).slice(0, 4)
    pq.write_table(part, tmp_path / "part.parquet")
    found = read_features(tmp_path / "part.parquet")
    with pytest.raises(DataError, match=r"'icl_utility' has shape \(4, 7\), and needs a number for each of the 4 rows"):
        edjax.select(found, "delift", 2)
    assert len(edjax.select(found, "k_center", 2)) == 2


def greedy(u, rows, budget, labelled=()):
    """Facility location on u among these rows, in float64; ties to the lowest."""
    s = np.float64(u[np.ix_(rows, rows)])
    known = s[np.isfinite(s)]
    s = np.where(np.isfinite(s), (s - known.min()) / (known.max() - known.min()), 0)
    own = [rows.index(i) for i in labelled]
    held, picks = s[:, own].max(axis=1, initial=0), []
    for _ in range(budget):
        gains = np.maximum(s - held[:, None], 0).sum(axis=0)
        gains[[*picks, *own]] = -1
        picks.append(int(np.argmax(gains)))
        held = np.maximum(held, s[:, picks[-1]])
    return [rows[i] for i in picks]


def test_rows_are_chosen_by_it_whatever_is_left_out(features):
    u, every = features.pairs["icl_utility"], list(range(7))
    got = edjax.select(features, "delift", 3)
    assert got.indices.tolist() == greedy(u, every, 3)
    labelled = edjax.select(features, "delift", 3, labelled=["row-4", "row-1"])
    assert labelled.indices.tolist() == greedy(u, every, 3, labelled=[1, 4])
    first = edjax.select(features, "delift", 2)
    second = edjax.select(features, "delift", 2, labelled=first.ids)
    assert (*first.ids, *second.ids) == edjax.select(features, "delift", 4).ids, "rounds are nested"
    broken = features.embeddings.copy()
    broken[0] = np.nan
    from dataclasses import replace

    rest = replace(features, embeddings=broken)
    dropped = edjax.select(rest, "delift", 3, drop_invalid=True, labelled=["row-4"])
    assert dropped.indices.tolist() == greedy(u, every[1:], 3, labelled=[4])
    apart = edjax.select(features, "delift", 3, near_duplicates=0.99)
    kept = [i for i in every if features.ids[i] not in {r.id for r in apart.removed}]
    assert len(kept) < 7 and apart.indices.tolist() == greedy(u, kept, 3)


def test_groups_have_their_own_pairs(features):
    from dataclasses import replace

    group = np.array(["a", "b", "a", "b", "a", "b", "a"], object)
    found = replace(features, facts=features.facts | {"task": group})
    got = edjax.select(found, "delift", 4, group_by="task", quotas="balanced")
    u = features.pairs["icl_utility"]
    assert sorted(got.indices) == sorted(greedy(u, [0, 2, 4, 6], 2) + greedy(u, [1, 3, 5], 2))


def test_from_the_command_line(edjax_, directory, tmp_path):
    rows = [{"id": f"r{i}", "prompt": p, **({"response": r} if r else {})} for i, (p, r) in enumerate(ROWS)]
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    model = ["--model", directory, "--max-length", 400, "--max-new-tokens", 0]
    code, _, err = edjax_("score", tmp_path / "pool.jsonl", *model, "--probe", "icl_utility", "--out", tmp_path / "f")
    assert code == 0 and "13 of 49 pairs are not measured" in err
    u = read_features(tmp_path / "f").pairs["icl_utility"]
    out = ["--strategy", "delift", "--budget", 3, "--out"]
    code, _, err = edjax_("select", tmp_path / "f", *out, tmp_path / "s")
    assert code == 0, err
    chosen = [json.loads(line)["id"] for line in (tmp_path / "s" / "selected.jsonl").read_text().splitlines()]
    assert chosen == [f"r{i}" for i in greedy(u, list(range(7)), 3)]
    (tmp_path / "have.txt").write_text("r4\n")
    code, _, err = edjax_("select", tmp_path / "f", *out, tmp_path / "t", "--labelled", tmp_path / "have.txt")
    assert code == 0, err
    chosen = [json.loads(line)["id"] for line in (tmp_path / "t" / "selected.jsonl").read_text().splitlines()]
    assert chosen == [f"r{i}" for i in greedy(u, list(range(7)), 3, labelled=[4])]
    code, _, err = edjax_("select", tmp_path / "f", *out, tmp_path / "v", "--strategy", "delift:exponential=true")
    assert code == 0, err
    dry = ["--probe", "icl_utility", "--dry-run", "--out", tmp_path / "d"]
    code, _, err = edjax_("score", tmp_path / "pool.jsonl", *model, *dry)
    assert code == 0 and "what it leaves takes up to 0.0 MB" in err and not (tmp_path / "d").exists()
    plain = edjax_("score", tmp_path / "pool.jsonl", *model, "--out", tmp_path / "g")
    assert plain[0] == 0
    code, _, err = edjax_("select", tmp_path / "g", *out, tmp_path / "w")
    assert code == 3 and "hold no column 'icl_utility'" in err and "score with --probe icl_utility" in err
