"""A chat template that prints today's date prints one day all through a result, whenever it is gone on with."""

import datetime

import pytest
from lm_cases import make_pool, tiny_model

from edjax.evaluation import evaluate
from edjax.keep.errors import DataError, UsageError
from edjax.keep.store import read_json
from edjax.lm import dates
from edjax.lm.encode import Encoder
from edjax.lm.load import load
from edjax.scoring import score

TEMPLATE = (
    "{%- if strftime_now is defined %}{% set day = strftime_now('%d %b %Y') %}{% else %}{% set day = '?' %}{% endif %}"
    "Today is {{ day }}, {{ strftime_now(\"%Y\") }}.\n{% for m in messages %}{{ m['content'] }}{% endfor %}"
)
HI = [{"role": "user", "content": "hi"}]


@pytest.fixture
def model(tmp_path):
    tiny_model(tmp_path / "m")
    (tmp_path / "m" / "chat_template.jinja").write_text(TEMPLATE)
    return load(str(tmp_path / "m"))


def test_the_day_that_is_asked_for(model):
    text = model.tokenizer.decode(Encoder(model.tokenizer, date="2026-02-03").prompt(HI))
    assert text == "Today is 03 Feb 2026, 2026.\nhi"
    today = model.tokenizer.decode(Encoder(model.tokenizer).prompt(HI))
    assert today == f"Today is {datetime.date.today():%d %b %Y}, {datetime.date.today():%Y}.\nhi"


@pytest.mark.parametrize("begin", ["", "\n", "\n\n  ", "  {% if true %}\n{% endif %}", "{#- c #}\n"])
def test_nothing_else_changes(model, begin):
    """White space at the template's beginning, which jinja strips by lines, is treated as before."""
    tokenizer = model.tokenizer
    tokenizer.chat_template = begin + TEMPLATE
    day = datetime.date.today().isoformat()
    before = tokenizer.apply_chat_template(HI, tokenize=False, add_generation_prompt=True)
    assert Encoder(tokenizer, date=day)._render(HI) == before


@pytest.mark.parametrize(("a", "b"), ["'\"", "\"'"])
def test_a_format_between_other_texts(model, a, b):
    model.tokenizer.chat_template = f"{{{{ {a}Today{b}s: {a} + strftime_now({b}%B %d, %Y{b}) + {a}.{a} }}}}"
    text = model.tokenizer.decode(Encoder(model.tokenizer, date="2026-02-03").prompt(HI))
    assert text == f"Today{b}s: February 03, 2026."


def test_a_format_that_is_made_up_on_the_way_is_refused(model):
    model.tokenizer.chat_template = "{{ strftime_now('%' ~ 'Y') }}"
    with pytest.raises(DataError, match="a date in the format %Y"):
        Encoder(model.tokenizer, date="2026-02-03").prompt(HI)


def test_a_result_is_of_one_day(model, tmp_path, monkeypatch):
    """Begun on Monday, gone on with on Tuesday: Monday's prompts. Begun again: Tuesday's."""
    monkeypatch.setattr(dates, "today", lambda: "2026-03-02")
    run = {"max_new_tokens": 0, "loaded": model, "show_progress": False, "batch_size": 1, "shard_rows": 1}
    pool, seen, out = make_pool([("a", None), ("bb", None)]), [], tmp_path / "s"
    real = Encoder._render
    monkeypatch.setattr(Encoder, "_render", lambda self, *a, **k: seen.append(real(self, *a, **k)) or seen[-1])
    score(pool, "m", out=out, **run)
    (out / "manifest.json").unlink()
    (out / "shard-00001.parquet").unlink()
    monkeypatch.setattr(dates, "today", lambda: "2026-03-03")
    score(pool, "m", out=out, **run)
    assert read_json(out / "manifest.json")["config"]["date"] == "2026-03-02"
    assert len(seen) >= 4 and all("02 Mar 2026" in text for text in seen)
    score(pool, "m", out=out, **run)
    score(pool, "m", out=out, overwrite=True, **run)
    assert read_json(out / "manifest.json")["config"]["date"] == "2026-03-03"
    with pytest.raises(UsageError, match="date"):
        score(pool, "m", out=out, date="2026-03-04", **run)


def test_only_where_a_template_asks(model, stories, tmp_path, monkeypatch):
    assert dates.day_of(stories.directory, "auto") == {}
    assert dates.day_of(model.directory, "plain") == {}
    monkeypatch.setattr(dates, "today", lambda: "2026-03-02")
    assert dates.day_of(model.directory, "auto") == {"date": "2026-03-02"}
    (tmp_path / "plan.json").write_text('{"config": {"date": "2025-01-01"}}')
    assert dates.day_of(model.directory, "auto", tmp_path / "none", tmp_path) == {"date": "2025-01-01"}
    for damaged in ('{"config": {"date": 3}}', '{"config": {}}', "[]", '{"config": {"date": "x"}}'):
        (tmp_path / "plan.json").write_text(damaged)
        assert dates.day_of(model.directory, "auto", tmp_path) == {"date": "2026-03-02"}


def test_an_adapter_is_evaluated_on_its_own_day(model, tmp_path, monkeypatch):
    from edjax.finetuning import FinetuneConfig, finetune

    pool, quiet = make_pool([("a", "b")]), {"loaded": model, "show_progress": False}
    monkeypatch.setattr(dates, "today", lambda: "2026-03-02")
    config = FinetuneConfig(max_steps=1, save_steps=0, lora_r=1)
    finetune(pool, "m", out=tmp_path / "a", config=config, validation=make_pool([("c", "d")]), **quiet)
    monkeypatch.setattr(dates, "today", lambda: "2026-03-03")
    for adapter in ("a", "a/last"):
        out = tmp_path / "e" / adapter
        evaluate(pool, "m", adapter=tmp_path / adapter, out=out, metrics=["response_loss"], **quiet)
        assert read_json(out / "plan.json")["config"]["date"] == "2026-03-02"
