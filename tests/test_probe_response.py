"""The probe response: how unlikely the model finds what stands in the rows, as an evaluation measures it."""

import numpy as np
import pytest
from lm_cases import make_pool

import edjax
from edjax.keep.errors import DataError, UsageError
from edjax.scoring.probes import PROBES

ROWS = [
    ("Tim had a", "red ball."),
    ("Lily went to the", "park"),
    ("Tim had a", "blue boat and he was very happy with it."),
    ("The dog was", None),
    ("Mom said:", "Go home."),
]
SETTINGS = {"template": "plain", "max_length": 64, "max_new_tokens": 0, "show_progress": False, "batch_size": 2}


@pytest.fixture
def pool():
    return make_pool([(prompt, response, {}) for prompt, response in ROWS])


@pytest.fixture
def session(stories):
    return edjax.Session(str(stories.directory), template="plain", max_length=64)


def test_it_is_the_loss_of_an_evaluation(pool, session):
    found = edjax.score(pool, session, probes=["response"], max_new_tokens=0, show_progress=False, batch_size=2)
    there = [i for i, (_, response) in enumerate(ROWS) if response is not None]
    scored = edjax.evaluate(pool.take(there), session, metrics=["response_loss", "exact_match"], show_progress=False)
    mean = found.scores["mean_response_nll"]
    np.testing.assert_allclose(mean[there], [row["response_loss"] for row in scored.rows], rtol=2e-5)
    assert np.isnan(mean[3]) and found.facts["n_response_tokens"][3] == 0
    np.testing.assert_allclose(
        found.scores["response_nll"][there], mean[there] * found.facts["n_response_tokens"][there], rtol=1e-6
    )
    assert mean[0] != mean[2], "copies of a prompt have responses of their own"


def test_shards_that_are_there_stay_and_the_rest_is_the_same(pool, session, tmp_path):
    settings = {"probes": ["response"], "max_new_tokens": 0, "show_progress": False, "batch_size": 2, "shard_rows": 2}
    whole = edjax.score(pool, session, out=tmp_path / "f", **settings)
    shards = sorted((tmp_path / "f").glob("shard-*.parquet"))
    before = shards[0].stat().st_mtime_ns
    shards[-1].unlink()
    (tmp_path / "f" / "manifest.json").unlink()
    again = edjax.score(pool, session, out=tmp_path / "f", **settings)
    assert shards[0].stat().st_mtime_ns == before
    np.testing.assert_array_equal(again.scores["response_nll"], whole.scores["response_nll"])


def test_without_it_features_are_what_they_were(pool, session, tmp_path):
    plain = edjax.score(pool, session, out=tmp_path / "f", max_new_tokens=0, show_progress=False)
    assert "response_nll" not in plain.scores
    named = edjax.score(pool, session, out=tmp_path / "f", probes=["embedding"], max_new_tokens=0, show_progress=False)
    assert named.digest == plain.digest, "a probe that the pass has anyway changes nothing"


def test_rows_are_chosen_by_it(pool, session):
    answered = pool.take([0, 1, 2, 4])
    found = edjax.score(answered, session, probes=["response"], max_new_tokens=0, show_progress=False)
    got = edjax.select(found, "mean_response_nll", 2)
    assert set(got.ids) == {answered.ids[i] for i in np.argsort(-found.scores["mean_response_nll"])[:2]}


def test_what_cannot_be_measured_is_told(session):
    pool = make_pool([("a", None, {}), ("b", None, {})])
    with pytest.raises(DataError, match="no row has a response"):
        edjax.score(pool, session, probes=["response"], show_progress=False)
    with pytest.raises(UsageError, match=f"unknown probe 'gradient'; there are {', '.join(PROBES)}"):
        edjax.score(pool, session, probes=["gradient"])
