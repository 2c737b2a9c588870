"""The probe tokens: states of a prompt's tokens against a loop in float64, and FisherSFT of them."""

import json

import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lm_cases import forward, tiny_model

import edjax
from edjax.data.columns import as_lists
from edjax.data.features import widths
from edjax.keep.errors import DataError
from edjax.keep.store import read_manifest
from edjax.kernels import METHODS, Ground, plan
from edjax.kernels import select as kernel_select
from edjax.lm.encode import Encoder
from edjax.lm.load import load
from edjax.scoring.tokens import DIMS, SEED, SEGMENTS, projection

# Of 1, 5, 16, 17, 40 and 150 letters, which are tokens; the last is cut to the model's window. And a copy.
TEXTS = ["a", "hello", "sixteen letters.", "seventeen letters", "x1y2" * 10, "What is 17 x 3? " * 10, "hello"]
WIDE = {"hidden_size": 160, "max_position_embeddings": 128}


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A random model of more dimensions than are kept, and a pool."""
    home = tmp_path_factory.mktemp("wide")
    tiny_model(home / "model", **WIDE)
    rows = [{"id": f"r{i}", "prompt": text} for i, text in enumerate(TEXTS)]
    (home / "pool.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return home


def by_hand(states, matrix):
    """Segment by segment, in float64: the mean of its states, projected."""
    t, made = len(states), np.zeros((SEGMENTS, matrix.shape[1]))
    if t <= SEGMENTS:
        for i, state in enumerate(states):
            made[i] = state @ matrix
        return made
    for s in range(SEGMENTS):
        own = [state for i, state in enumerate(states) if (SEGMENTS * i) // t == s]
        assert own
        made[s] = sum(own) / len(own) @ matrix
    return made


def score(home, model="model", **more):
    asked = {"probes": ["tokens"], "max_new_tokens": 0, "batch_size": 4, "show_progress": False} | more
    return edjax.score(edjax.read_pool(home / "pool.jsonl"), str(home / model), **asked)


def test_states_are_those_of_a_loop(wide):
    found = score(wide).arrays["tokens"]
    assert found.shape == (len(TEXTS), SEGMENTS, DIMS) and found.dtype == np.float32
    loaded = load(str(wide / "model"))
    encoder, matrix = Encoder.of(loaded, "auto", 1024), np.float64(projection(160))
    lengths = []
    for text, got in zip(TEXTS, found, strict=True):
        prompt = encoder.prompt([{"role": "user", "content": text}])
        lengths.append(len(prompt))
        states = np.float64(forward(loaded.model, prompt)[1])
        np.testing.assert_allclose(got, by_hand(states, matrix), atol=2e-5)
        assert (np.any(got != 0, axis=1).sum()) == min(len(prompt), SEGMENTS), "the others count nothing"
    assert min(lengths) < SEGMENTS < max(lengths) and SEGMENTS + 1 in lengths
    np.testing.assert_array_equal(found[1], found[6])


def test_the_batch_changes_nothing_beyond_rounding(wide):
    np.testing.assert_allclose(
        score(wide).arrays["tokens"], score(wide, batch_size=1, shard_rows=2).arrays["tokens"], atol=1e-5
    )


def test_few_dimensions_stay_whole(wide):
    tiny_model(wide / "narrow")
    found = score(wide, "narrow").arrays["tokens"]
    loaded = load(str(wide / "narrow"))
    prompt = Encoder.of(loaded, "auto", 1024).prompt([{"role": "user", "content": TEXTS[1]}])
    np.testing.assert_allclose(found[1, : len(prompt)], forward(loaded.model, prompt)[1], atol=1e-5)


def test_the_projection_keeps_norms_on_average():
    """|x P|^2 / |x|^2 is chi^2 of 128 degrees of freedom over 128: mean 1, standard deviation 1/8."""
    p = np.float64(projection(960))
    assert p.shape == (960, DIMS) and np.array_equal(p, projection(960))
    assert p.std() == pytest.approx(1 / 128**0.5, rel=0.01)
    x = np.random.default_rng(0).normal(size=(500, 960))
    ratio = np.square(x @ p).sum(1) / np.square(x).sum(1)
    assert abs(ratio.mean() - 1) < 0.03 and 0.09 < ratio.std() < 0.16
    small = projection(128)
    assert np.array_equal(small, np.eye(128)) and projection(129).shape == (129, DIMS)


def test_from_the_command_line_to_a_selection(wide, tmp_path, edjax_):
    model = ["--model", wide / "model", "--max-new-tokens", 0, "--batch-size", 4]
    code, _, err = edjax_("score", wide / "pool.jsonl", *model, "--probe", "tokens", "--out", tmp_path / "f")
    assert code == 0, err
    assert read_manifest(tmp_path / "f", "features")["tokens"] == {"segments": SEGMENTS, "dims": DIMS, "seed": SEED}
    code, _, err = edjax_("select", tmp_path / "f", "--strategy", "fisher", "--budget", 3, "--out", tmp_path / "s")
    assert code == 0, err
    ids = [json.loads(line)["id"] for line in (tmp_path / "s" / "selected.jsonl").read_text().splitlines()]
    states = edjax.read_features(tmp_path / "f").arrays["tokens"]
    picks = kernel_select(METHODS["fisher"], Ground({"tokens": jnp.asarray(states)}), 3).indices
    assert ids == [f"r{i}" for i in picks.tolist()]
    ridge, h = 0.1 * np.mean(np.sum(np.float64(states) ** 2, axis=(1, 2))), np.float64(states)
    gains = [np.linalg.slogdet(np.eye(SEGMENTS) + x @ x.T / ridge)[1] for x in h]
    assert ids[0] == f"r{int(np.argmax(gains))}", "the first by definition"
    assert "tokens (--probe tokens)" in next(x for x in edjax_("strategies")[1].splitlines() if x.startswith("fisher "))


def test_what_it_takes_is_said(wide, tmp_path, edjax_):
    model = ["--model", wide / "model", "--max-new-tokens", 0]
    argv = ["score", wide / "pool.jsonl", *model, "--probe", "tokens", "--out", tmp_path / "f", "--dry-run"]
    code, _, err = edjax_(*argv)
    assert code == 0 and not (tmp_path / "f").exists()
    assert "the pass of tokens is not in what follows; what it leaves takes up to 0.1 MB of memory and disk" in err
    with pytest.raises(DataError, match=r"no column 'tokens' .*score with --probe tokens"):
        edjax.select(score(wide, probes=[]), "fisher", 2)


@pytest.mark.parametrize("kind", ["parquet", "npz"])
def test_a_selection_foretells_the_arrays_it_reads(kind, tmp_path, edjax_):
    """0.8 MB of states in 100 rows, which the device holds beside what the gains of a block take."""
    ids, rng = [f"r{i}" for i in range(100)], np.random.default_rng(0)
    x, states = rng.normal(size=(100, 4)).astype(np.float32), rng.random((100, 16, 128), np.float32)
    if kind == "npz":
        np.savez(tmp_path / "f.npz", embeddings=x, tokens=states)
        (tmp_path / "ids.txt").write_text("\n".join(ids))
        more = ["--ids", tmp_path / "ids.txt"]
    else:
        table = {"id": ids, "embedding": as_lists(x), "tokens": as_lists(states)}
        pq.write_table(pa.table(table), tmp_path / "f.parquet")
        more = []
    path = tmp_path / f"f.{kind}"
    assert widths(path) == {"tokens": 2048}
    argv = ["select", "--embeddings", path, *more, "--budget", 5, "--dry-run", "--json", "--strategy", "fisher,random"]
    code, said, err = edjax_(*argv)
    assert code == 0, err
    told = json.loads(said)
    assert told["forecast"][0].startswith(
        "fisher of 5 rows from 100: reads tokens, 2,048 numbers a row: 3 MB of memory"
    )
    assert told["bytes"][0] - told["bytes"][1] == plan("fisher", 100, 2048, 5).bytes
