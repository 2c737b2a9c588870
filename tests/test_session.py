"""One session serves several verbs: the same results as by name, and one loading of the weights."""

import numpy as np
import pytest
from lm_cases import make_pool

import edjax
from edjax.finetuning import FinetuneConfig
from edjax.keep.errors import UsageError
from edjax.keep.store import read_manifest
from edjax.lm import load as loading

ROWS = [("Tim had a", "red ball."), ("Lily went to the", "park"), ("The dog was", "happy"), ("Mom said:", "Go home.")]
SMALL = {
    "num_train_epochs": 1,
    "per_device_train_batch_size": 2,
    "save_steps": 0,
    "max_length": 64,
    "template": "plain",
}
EVALUATED = {"metrics": ["response_loss"], "show_progress": False}


@pytest.fixture
def pool():
    return make_pool([(prompt, response, {}) for prompt, response in ROWS])


@pytest.fixture
def loads(monkeypatch):
    """The names that weights were loaded by."""
    asked, real = [], loading.load

    def counted(name, *args, **more):
        asked.append(name)
        return real(name, *args, **more)

    monkeypatch.setattr(loading, "load", counted)
    return asked


def test_three_verbs_on_a_session_load_once_and_give_what_a_name_gives(stories, pool, tmp_path, loads):
    name = str(stories.directory)
    session = edjax.Session(name, template="plain", max_length=64)
    settings = {"template": "plain", "max_length": 64, "show_progress": False, "max_new_tokens": 2}
    mine = edjax.score(pool, session, out=tmp_path / "f", max_new_tokens=2, show_progress=False)
    trained = edjax.finetune(pool, session, out=tmp_path / "a", config=FinetuneConfig(**SMALL), show_progress=False)
    scored = edjax.evaluate(pool, session, adapter=tmp_path / "a", out=tmp_path / "e", **EVALUATED)
    assert loads == [name]
    theirs = edjax.score(pool, name, out=tmp_path / "f2", **settings)
    again = edjax.finetune(pool, name, out=tmp_path / "a2", config=FinetuneConfig(**SMALL), show_progress=False)
    plain = {"template": "plain", "max_length": 64, **EVALUATED}
    also = edjax.evaluate(pool, name, adapter=tmp_path / "a2", out=tmp_path / "e2", **plain)
    assert loads == [name] * 4
    np.testing.assert_array_equal(mine.embeddings, theirs.embeddings)
    assert trained.train_loss == again.train_loss and scored.scores == also.scores
    for one, other, kind in (("f", "f2", "features"), ("a", "a2", "adapter"), ("e", "e2", "evaluation")):
        a, b = (read_manifest(tmp_path / d, kind) for d in (one, other))
        assert (a["config"], a["inputs"]["model"]) == (b["config"], b["inputs"]["model"])


def test_nothing_is_loaded_where_all_is_there(stories, pool, tmp_path, loads):
    settings = {"out": tmp_path / "f", "max_new_tokens": 0, "show_progress": False}
    edjax.score(pool, edjax.Session(str(stories.directory)), **settings)
    edjax.score(pool, edjax.Session(str(stories.directory)), **settings)
    assert len(loads) == 1


def test_a_config_takes_over_what_the_session_says(stories, pool, tmp_path):
    session = edjax.Session(str(stories.directory), template="plain", max_length=64)
    config = FinetuneConfig(num_train_epochs=1, save_steps=0)
    edjax.finetune(pool, session, out=tmp_path / "a", config=config, show_progress=False)
    was = read_manifest(tmp_path / "a", "adapter")["config"]
    assert (was["template"], was["max_length"], was["num_train_epochs"]) == ("plain", 64, 1)


@pytest.mark.parametrize(
    ("verb", "asked", "said"),
    [
        ("score", {"dtype": "bfloat16"}, "dtype 'bfloat16' is given beside a session of dtype 'float32'"),
        ("score", {"max_length": 32}, "max_length 32 is given beside a session of max_length 64"),
        ("evaluate", {"quantize": "int8"}, "quantize 'int8' is given beside a session"),
        ("finetune", {"config": FinetuneConfig(max_length=32)}, "max_length 32 is given beside a session"),
    ],
)
def test_what_contradicts_the_session_is_refused(pool, tmp_path, loads, verb, asked, said):
    session = edjax.Session("nowhere", max_length=64)
    out = {"out": tmp_path / "o"} if verb == "finetune" else {}
    with pytest.raises(UsageError) as e:
        getattr(edjax, verb)(pool, session, **asked, **out)
    assert said in str(e.value) and not loads


def test_a_quantised_model_s_features_say_so(stories, pool, tmp_path):
    session = edjax.Session(str(stories.directory), quantize="int8")
    edjax.score(pool, session, out=tmp_path / "f", max_new_tokens=0, show_progress=False)
    assert read_manifest(tmp_path / "f", "features")["config"]["quantize"] == "int8"
