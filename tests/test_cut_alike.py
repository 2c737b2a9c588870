"""Long rows: the same tokens in scoring, training and evaluating, never beyond the window, never in silence."""

import importlib
import json

import numpy as np
import pytest
from lm_cases import make_pool, tiny_model

from edjax.evaluation import evaluate, read_evaluation
from edjax.finetuning import FinetuneConfig, finetune
from edjax.finetuning.examples import encode_rows
from edjax.keep.errors import UsageError
from edjax.keep.store import read_json, read_manifest
from edjax.lm.bounds import Bounds
from edjax.lm.encode import Encoder
from edjax.lm.generate import generate
from edjax.lm.load import load
from edjax.scoring import score

WINDOW = 48
LENGTHS = [(p, r) for p in (1, 20, 35, 36, 37, 47, 48, 49, 200) for r in (1, 11, 12, 13, 46, 200)]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A model of 48 positions whose tokenizer has a token a byte."""
    path = tmp_path_factory.mktemp("small") / "m"
    tiny_model(path, max_position_embeddings=WINDOW)
    return load(str(path))


@pytest.fixture(scope="module")
def pool():
    """Rows of p and r tokens, the newline after a prompt and the end after a response included."""
    letters = "abcdefghijklmnopqrs uvwxyz"
    text = [letters[i % 26] for i in range(400)]
    return make_pool([("".join(text[:p]).replace(" ", "_"), "".join(text[7 : 7 + r])) for p, r in LENGTHS])


def test_the_rule():
    """A prompt keeps its end whatever its response, a response its beginning, and a quarter is the response's."""
    for length in range(2, 70):
        bounds = Bounds.of(length)
        assert bounds.prompt == length - max(length // 4, 1) >= 1
        assert bounds.response([0] * bounds.prompt) >= 1
    assert Bounds.of(1024, 512) == Bounds.of(512) == Bounds.of(512, 8192)
    with pytest.raises(UsageError, match="max_length is 1"):
        Bounds.of(1)


def test_the_rule_of_bounds_of_their_own():
    """A response's bound is what prompts leave; a prompt's is its own; both together are the two."""
    assert (Bounds.of(100, max_prompt=90).prompt, Bounds.of(100, max_response=40).prompt) == (90, 60)
    both = Bounds.of(100, 200, max_prompt=30, max_response=50)
    assert (both.prompt, both.response([0] * 10), both.response([0] * 30)) == (30, 50, 50)
    assert Bounds.of(100, max_prompt=30).response([0] * 10) == 90
    assert Bounds.of(100, max_response=40).response([0] * 60) == Bounds.of(100, max_response=40).response([0]) == 40


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            {"max_length": 40, "max_prompt": 30, "max_response": 11},
            "max_prompt 30 and max_response 11 are 41 tokens, and max_length is 40: lower one of them, or raise max_"
            "length to 41",
        ),
        (
            {"max_length": 1024, "max_prompt": 40, "max_response": 9},
            "max_prompt 40 and max_response 9 are 49 tokens, and the model's window is 48: lower one of them, or take "
            "a model with a longer one",
        ),
        ({"max_length": 40, "max_prompt": 40}, "max_prompt 40 and a token for the response are 41 tokens"),
        ({"max_length": 40, "max_response": 40}, "max_response 40 and a token for the prompt are 41 tokens"),
        ({"max_length": 40, "max_prompt": 0}, "max_prompt is 0; it must be 1 or more"),
        ({"max_length": 40, "max_response": -1}, "max_response is -1; it must be 1 or more"),
    ],
)
def test_bounds_that_contradict_each_other_are_refused(small, pool, tmp_path, asked, said):
    """By every verb, and by a recipe before anything is loaded."""
    quiet = {"loaded": small, "show_progress": False}
    calls = [lambda: score(pool, "m", max_new_tokens=0, **asked, **quiet)]
    calls += [lambda: evaluate(pool, "m", metrics=["response_loss"], **asked, **quiet)]
    calls += [lambda: finetune(pool, "m", out=tmp_path / "a", config=FinetuneConfig(**asked), **quiet)]
    for call in calls:
        with pytest.raises(UsageError) as e:
            call()
        assert str(e.value).startswith(said)
    assert not (tmp_path / "a" / "manifest.json").exists()


def test_bounds_are_settings_where_they_are_given(small, pool, tmp_path):
    """Not in a manifest of before, and another run's where they are."""
    some, quiet = pool.take([0, 1]), {"loaded": small, "show_progress": False}
    config = {"max_steps": 1, "save_steps": 0, "lora_r": 1, "per_device_train_batch_size": 2}

    def made(name, **own):
        score(some, "m", out=tmp_path / name / "f", max_new_tokens=0, max_length=40, **own, **quiet)
        finetune(some, "m", out=tmp_path / name / "a", config=FinetuneConfig(**config, max_length=40, **own), **quiet)
        evaluate(some, "m", out=tmp_path / name / "e", metrics=["response_loss"], max_length=40, **own, **quiet)
        kinds = {"f": "features", "a": "adapter", "e": "evaluation"}
        return [read_manifest(tmp_path / name / part, kind)["config"] for part, kind in kinds.items()]

    without, given = made("without"), made("given", max_prompt=20, max_response=10)
    for old, new in zip(without, given, strict=True):
        assert not {"max_prompt", "max_response"} & set(old)
        assert new == old | {"max_prompt": 20, "max_response": 10}
    with pytest.raises(UsageError, match="max_prompt"):
        score(some, "m", out=tmp_path / "without" / "f", max_new_tokens=0, max_length=40, max_prompt=9, **quiet)


def test_a_note_names_the_bound_of_responses(small, pool):
    said = []
    asked = {"max_length": 40, "max_prompt": 20, "max_response": 5, "loaded": small, "show_progress": False}
    evaluate(pool.take([0, 1, 2]), "m", metrics=["response_loss"], log=said.append, **asked)
    assert said == [
        "2 rows are cut to 40 tokens (max_length, or the model's window), prompts to their last 20, responses to the "
        "first 5: row-1, row-2"
    ]


BOUNDS = [
    {"max_length": 40},
    {"max_length": 1024},
    {"max_length": 40, "max_prompt": 20},
    {"max_length": 40, "max_response": 5},
    {"max_length": 1024, "max_prompt": 36, "max_response": 12},
]


@pytest.mark.parametrize("bounds", BOUNDS, ids=str)
def test_trained_and_evaluated_are_the_same_tokens(small, pool, bounds, monkeypatch):
    """Of every row, by either way of evaluating; and the prompts are those that scoring embeds."""
    encoder, quiet = Encoder.of(small, "auto", **bounds), {"loaded": small, "show_progress": False}
    rows, examples = encode_rows(pool, encoder)
    assert max(len(e.tokens) for e in examples) == min(bounds["max_length"], WINDOW)
    assert max(e.trained[0] for e in examples) <= bounds.get("max_prompt", WINDOW)
    assert max(len(e.trained) for e in examples) <= bounds.get("max_response", WINDOW)
    trained = [(e.tokens[: e.trained[0]], [e.tokens[i] for i in e.trained]) for e in examples]

    def of(metrics):
        seen = {}
        walk = importlib.import_module("edjax.evaluation.walk")
        laying = importlib.import_module("edjax.lm.batch")
        real, whole, wanted = laying.make_batch, walk._evaluate_batch, walk._continuations
        monkeypatch.setattr(
            laying, "make_batch", lambda *a, **k: seen.setdefault("batches", []).append(a[0]) or real(*a, **k)
        )

        def continuations(run, state, lengths, asked):
            seen.setdefault("asked", []).extend((place, ids) for place, _, ids in asked)
            return wanted(run, state, lengths, asked)

        def one(run, rows, padded, settings, found):
            before = len(seen.setdefault("asked", []))
            whole(run, rows, padded, settings, found)
            batch, tokens, lengths = padded
            for place, ids in seen["asked"][before:]:
                seen.setdefault("pairs", {})[int(batch[place])] = (tokens[place, : lengths[place]].tolist(), ids)

        monkeypatch.setattr(walk, "_continuations", continuations)
        monkeypatch.setattr(walk, "_evaluate_batch", one)
        done = evaluate(pool, "m", metrics=metrics, **bounds, max_new_tokens=2, batch_size=64, **quiet)
        monkeypatch.undo()
        return done, seen

    alone, seen = of(["response_loss"])
    laid = {tuple(e.tokens) for part in seen["batches"] for (e,) in part}
    assert laid == {tuple(p + r) for p, r in trained}
    together, seen = of(["response_loss", "exact_match"])
    assert [seen["pairs"][i] for i in range(len(pool))] == trained
    for a, b in zip(alone.rows, together.rows, strict=True):
        assert abs(a["response_loss"] - b["response_loss"]) < 1e-4
    scored = score(pool, "m", max_new_tokens=0, **bounds, batch_size=64, **quiet)
    assert scored.facts["n_prompt_tokens"].tolist() == [len(p) for p, _ in trained]
    cut = [i for i, (p, r) in enumerate(LENGTHS) if (len(trained[i][0]), len(trained[i][1])) != (p + 1, r + 1)]
    assert [i for i, row in enumerate(rows) if row.cut] == cut != []
    assert alone.noted["cut"] == {"rows": len(cut), "first": [f"row-{i}" for i in cut[:5]]}


def test_answers_end_at_the_window(small, pool):
    """Neither scoring, nor evaluating, nor generating goes on where the model knows no positions."""
    prompts = [pool.prompt_text(i) for i in range(len(pool))]
    loaded = small
    got = generate(loaded, prompts, max_new_tokens=40, batch_size=64)
    alone = generate(loaded, prompts[-1:], max_new_tokens=40, batch_size=64)
    assert got.tokens[-1] == alone.tokens[0]
    lengths = [min(p + 1, 36) for p, _ in LENGTHS]
    ended = [t[-1] in loaded.eos_ids for t in got.tokens]
    assert [len(t) for t, end in zip(got.tokens, ended, strict=True) if not end] == [
        min(40, WINDOW - n) for n, end in zip(lengths, ended, strict=True) if not end
    ]
    assert not all(ended)
    scored = score(pool, "m", max_new_tokens=40, batch_size=64, loaded=loaded, show_progress=False)
    assert (scored.facts["n_new_tokens"] + lengths).max() == WINDOW


def test_a_window_wider_than_every_layer_sees(tmp_path):
    """Sliding windows hide what is far back; the positions that there are go further."""
    tiny_model(tmp_path, model_type="mistral", architectures=["MistralForCausalLM"], sliding_window=8)
    loaded = load(str(tmp_path))
    assert loaded.model.config.sliding_windows == (8, 8)
    assert Encoder.of(loaded, "auto", 1024).bounds == Bounds(128)


def test_notes_once_a_verb_and_in_the_manifest(small, edjax_, tmp_path):
    rows = tmp_path / "rows.jsonl"
    long = [{"id": f"l{i}", "prompt": "x" * (100 + i), "response": "y"} for i in range(7)]
    rows.write_text("".join(json.dumps(r) + "\n" for r in [{"id": "s", "prompt": "hi", "response": "yo"}, *long]))
    model = small.directory
    note = "7 rows are cut to 48 tokens (max_length, or the model's window), prompts to their last 36"
    fact = {"rows": 7, "first": ["l0", "l1", "l2", "l3", "l4"]}
    verbs = {
        "score": ["--max-new-tokens", "0", "--batch-size", "2"],
        "evaluate": ["--metrics", "response_loss", "--batch-size", "2"],
        "finetune": ["--max-steps", "1", "--save-steps", "0", "--validation", rows],
    }
    for verb, more in verbs.items():
        code, _, err = edjax_(verb, rows, "--model", model, "--out", tmp_path / verb, *more)
        assert code == 0, err
        said = [line for line in err.splitlines() if note in line]
        assert len(said) == (2 if verb == "finetune" else 1) and said[0].endswith(": l0, l1, l2, l3, l4, ...")
        manifest = read_json(tmp_path / verb / "manifest.json")
        assert manifest["cut"] == fact and manifest["spelt"] == {"rows": 0, "first": []}
    assert read_evaluation(tmp_path / "evaluate").noted["cut"] == fact
    code, _, err = edjax_(
        "score", rows, "--model", model, "--out", tmp_path / "dry", "--dry-run", "--max-new-tokens", "0"
    )
    assert code == 0 and note in err


def test_no_batch_is_larger_than_its_rows_need(small, monkeypatch):
    """Two rows, batches of 32; and two long rows after 32 short ones."""
    from edjax.scoring.forward import Forward

    heights = []
    real = Forward._begin
    monkeypatch.setattr(Forward, "_begin", lambda self, t, n: heights.append(t.shape) or real(self, t, n))
    two = [("b" * 40, None), ("c" * 41, None)]
    run = {"max_new_tokens": 0, "loaded": small, "show_progress": False, "batch_size": 32}
    score(make_pool(two), "m", **run)
    assert heights == [(2, 40)]
    heights.clear()
    score(make_pool([*((chr(97 + i // 26) + chr(97 + i % 26), None) for i in range(32)), *two]), "m", **run)
    assert heights[-1] == (2, 40) and heights[0][0] == 32


def test_a_small_run_trains_small_batches(small, tmp_path, monkeypatch):
    shapes = []
    real = importlib.import_module("edjax.lm.batch").make_batch

    def make_batch(*args, **options):
        made = real(*args, **options)
        shapes.append(made.tokens.shape[0])
        return made

    for user in ("edjax.finetuning.loop", "edjax.lm.batch"):
        monkeypatch.setattr(f"{user}.make_batch", make_batch)
    rows = make_pool([(f"a{i}", "b") for i in range(3)])
    config = FinetuneConfig(max_steps=1, save_steps=0, per_device_train_batch_size=16, gradient_accumulation_steps=2)
    finetune(rows, "m", out=tmp_path / "a", config=config, loaded=small, show_progress=False, validation=rows.take([0]))
    assert sorted(shapes) == [1, 4]
    assert read_manifest(tmp_path / "a", "adapter")["steps"] == 1


def test_padding_rows_change_no_update(small, tmp_path):
    """The adapter of three rows is that of three rows whatever the batch they might have filled."""
    import safetensors.numpy

    rows = make_pool([(f"a{i}", "bcd") for i in range(3)])
    made = []
    for size in (4, 16):
        config = FinetuneConfig(max_steps=2, save_steps=0, per_device_train_batch_size=size, lora_r=2)
        finetune(rows, "m", out=tmp_path / str(size), config=config, loaded=small, show_progress=False)
        made.append(safetensors.numpy.load_file(tmp_path / str(size) / "adapter_model.safetensors"))
    assert all(np.array_equal(made[0][k], made[1][k]) for k in made[0])


def test_flags_and_a_recipe_say_the_bounds(small, edjax_, tmp_path):
    """A run scores, trains and evaluates with those of its section finetune, as the verbs with their flags."""
    from edjax.study.recipe import make_recipe
    from edjax.study.run import run

    rows = [{"id": f"p{i}", "prompt": "xy"[i % 2] * (30 + 4 * i), "response": "y" * 12} for i in range(3)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    own = {"max_prompt": 25, "max_response": 9}
    flags = ["--max-prompt", "25", "--max-response", "9", "--model", small.directory]
    for verb, more in {
        "score": ["--max-new-tokens", "0"],
        "finetune": ["--max-steps", "1", "--save-steps", "0", "--lora-r", "1"],
        "evaluate": ["--metrics", "response_loss"],
    }.items():
        code, _, err = edjax_(verb, tmp_path / "rows.jsonl", *flags, "--out", tmp_path / verb, *more)
        assert code == 0, err
        assert own.items() <= read_json(tmp_path / verb / "manifest.json")["config"].items()
    train = {"max_steps": 1, "save_steps": 0, "lora_r": 1, "per_device_train_batch_size": 2, **own}
    recipe = {"pool": "rows.jsonl", "evaluation": "rows.jsonl", "out": str(tmp_path / "run"), "finetune": train}
    recipe |= {"select": {"strategies": ["random"], "budgets": [1]}, "score": {"max_new_tokens": 0}}
    recipe |= {"model": str(small.directory), "evaluate": {"metrics": ["response_loss"]}}
    results = run(make_recipe(recipe, tmp_path), show_progress=False)
    for part in ("features", "cells/random-b1-s0/adapter", "cells/random-b1-s0/evaluation", ""):
        assert own.items() <= read_json(tmp_path / "run" / part / "manifest.json")["config"].items(), part
    assert results["cells"][0]["response_tokens"] == 9
    with pytest.raises(UsageError, match="max_prompt 1020 and max_response 9 are 1029 tokens"):
        make_recipe(recipe | {"finetune": train | {"max_prompt": 1020}}, tmp_path)


def test_a_run_says_it_once_and_keeps_it(small, tmp_path, capsys):
    """Of the pool with its responses and of the held-out rows, not once a cell; and in the page's data."""
    from edjax.study.recipe import make_recipe
    from edjax.study.run import run

    rows = [{"id": f"p{i}", "prompt": "xy"[i % 2] * (30 + 4 * i), "response": "y" * 12} for i in range(3)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    settings = {"strategies": ["random"], "budgets": [1, 2], "metrics": ["response_loss"], "max_new_tokens": 0}
    train = {"max_steps": 1, "save_steps": 0, "lora_r": 1, "per_device_train_batch_size": 2}
    files = {"pool": "rows.jsonl", "evaluation": "rows.jsonl", "out": str(tmp_path / "run")}
    results = run(make_recipe({**files, **settings, **train, "model": str(small.directory)}, tmp_path))
    said = [line for line in capsys.readouterr().err.splitlines() if "1 row is cut to 48" in line]
    fact = {"rows": 1, "first": ["p2"]}  # 35 + 13 tokens fit, 39 + 13 do not
    assert len(said) == 2 and all(line.startswith("edjax: note: ") for line in said)
    assert results["pool"]["cut"] == results["evaluation"]["cut"] == fact
