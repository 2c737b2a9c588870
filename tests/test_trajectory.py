"""Loss trajectories: the adapters that finetuning leaves on its way, what each finds of the rows, and S2L of that."""

import hashlib
import json
import shutil

import numpy as np
import pytest
from lm_cases import make_pool, tiny_model

import edjax
from edjax.finetuning import FinetuneConfig, finetune
from edjax.keep.checkpoints import Checkpoints
from edjax.keep.errors import DataError, UsageError
from edjax.keep.store import read_json, read_manifest
from edjax.lm.trajectory import adapters_along, kept_steps, place_of
from edjax.study.recipe import make_recipe

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
ROWS = [
    {"id": f"r{i}", "prompt": f"{'Add' if i % 2 else 'Say'} {i}, please", "response": f"{i * i} or {'so' * (i % 4)}"}
    for i in range(12)
]
UNANSWERED = {"id": "open", "prompt": "Nobody knows"}
# At a constant rate, what a run is after four updates does not depend on how many are to come.
SHORT = {
    "num_train_epochs": 2,
    "per_device_train_batch_size": 4,
    "learning_rate": 0.01,
    "lr_scheduler_type": "constant",
    "warmup_ratio": 0.0,
    "lora_r": 2,
    "max_length": 64,
}
STEPS = (2, 4, 6)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A random model, rows with responses, and a run of six updates that leaves three adapters."""
    home = tmp_path_factory.mktemp("trained")
    tiny_model(home / "model")
    (home / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in ROWS))
    (home / "pool.jsonl").write_text("".join(json.dumps(r) + "\n" for r in [*ROWS, UNANSWERED]))
    config = FinetuneConfig(**SHORT, keep_checkpoints=3, save_steps=0)
    finetune(
        edjax.read_pool(home / "rows.jsonl"), str(home / "model"), out=home / "a", config=config, show_progress=False
    )
    return home


def hashes(out):
    return {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(out.rglob("adapter_*"))}


def score(home, **more):
    pool = edjax.read_pool(home / "pool.jsonl")
    asked = {"probes": ["trajectory"], "checkpoints": home / "a", "max_new_tokens": 0, "batch_size": 4} | more
    return edjax.score(pool, edjax.Session(str(home / "model"), max_length=64), show_progress=False, **asked)


@pytest.mark.parametrize(
    ("steps", "count", "kept"), [(6, 3, STEPS), (10, 3, (3, 7, 10)), (5, 5, (1, 2, 3, 4, 5)), (7, 1, (7,)), (7, 0, ())]
)
def test_which_updates_leave_an_adapter(steps, count, kept):
    assert kept_steps(steps, count) == kept


def test_names_sort_as_updates_do(tmp_path):
    for steps in (12, 2_000_000):
        places = [str(place_of(tmp_path, s, steps)) for s in (9, 10, steps)]
        assert places == sorted(places)


def test_what_a_run_leaves_on_its_way(trained, tmp_path):
    out = trained / "a"
    along = adapters_along(out)
    assert [p.name for p in along] == [f"step-{s:06d}" for s in STEPS]
    assert adapters_along(out / "trajectory") == along
    kept = hashes(out)
    assert kept[f"trajectory/step-000006/{WEIGHTS}"] == kept[WEIGHTS], "the last is what is handed out"
    assert len(set(kept.values())) == 3 + 1, "three adapters, and one config"
    assert {f"trajectory/step-{s:06d}/{n}" for s in STEPS for n in (WEIGHTS, CONFIG)} <= set(
        read_manifest(out, "adapter")["files"]
    )
    rows, shorter = edjax.read_pool(trained / "rows.jsonl"), FinetuneConfig(**SHORT, max_steps=4, save_steps=0)
    finetune(rows, str(trained / "model"), out=tmp_path / "b", config=shorter, show_progress=False)
    assert hashes(tmp_path / "b")[WEIGHTS] == kept[f"trajectory/step-000004/{WEIGHTS}"], "a run that ends there"


def test_a_run_that_was_stopped_leaves_the_same(trained, tmp_path, monkeypatch):
    real = Checkpoints.save

    def stop(self, step, *rest):
        real(self, step, *rest)
        raise KeyboardInterrupt

    config = FinetuneConfig(**SHORT, keep_checkpoints=3, save_steps=3)
    pool, settings = edjax.read_pool(trained / "rows.jsonl"), {"config": config, "show_progress": False}
    monkeypatch.setattr(Checkpoints, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        finetune(pool, str(trained / "model"), out=tmp_path / "a", **settings)
    assert [p.name for p in (tmp_path / "a" / "trajectory").iterdir()] == ["step-000002"]
    with pytest.raises(DataError, match="a is not complete"):
        adapters_along(tmp_path / "a")
    monkeypatch.undo()
    finetune(pool, str(trained / "model"), out=tmp_path / "a", **settings)
    assert hashes(tmp_path / "a") == hashes(trained / "a")


def test_runs_together_leave_what_each_leaves_alone(trained, tmp_path):
    pool = edjax.read_pool(trained / "rows.jsonl")
    config = FinetuneConfig(**SHORT, keep_checkpoints=3, save_steps=0)
    jobs = [
        edjax.finetuning.Job(some, tmp_path / name, config) for name, some in (("a", pool), ("b", pool.take([3, 1])))
    ]
    edjax.finetuning.finetune_together(
        [jobs[0], jobs[0]._replace(out=tmp_path / "c")], str(trained / "model"), show_progress=False
    )
    from safetensors.numpy import load_file

    for step in STEPS:
        name = f"trajectory/step-{step:06d}/{WEIGHTS}"
        ours, alone = load_file(tmp_path / "c" / name), load_file(trained / "a" / name)
        for key, value in alone.items():
            np.testing.assert_allclose(ours[key], value, rtol=2e-3, atol=2e-5)
    with pytest.raises(UsageError, match="keep_checkpoints is 3, and the run has 2 updates; keep no more than these"):
        finetune(jobs[1].pool, str(trained / "model"), out=tmp_path / "b", config=config, show_progress=False)


def test_what_makes_no_sense_is_refused(tmp_path):
    with pytest.raises(UsageError, match="keep_checkpoints is -1; it must be 0 or more"):
        FinetuneConfig(keep_checkpoints=-1)
    with pytest.raises(UsageError, match="early_stopping_patience leaves open how many"):
        FinetuneConfig(keep_checkpoints=2, early_stopping_patience=1)
    assert "keep_checkpoints" not in FinetuneConfig().record(), "directories of before stay valid"
    assert FinetuneConfig(keep_checkpoints=2).record()["keep_checkpoints"] == 2
    recipe = make_recipe({"pool": "p", "evaluation": "e", "out": "o", "finetune": {"keep_checkpoints": 2}}, tmp_path)
    assert recipe.finetune_config(0).keep_checkpoints == 2


def test_each_column_is_the_loss_of_an_evaluation(trained):
    found = score(trained)
    losses = found.arrays["trajectory"]
    assert losses.shape == (13, 3) and losses.dtype == np.float32
    assert np.isnan(losses[12]).all() and np.isfinite(losses[:12]).all(), "a row without a response has none"
    session = edjax.Session(str(trained / "model"), max_length=64)
    rows = edjax.read_pool(trained / "rows.jsonl")
    for t, adapter in enumerate(adapters_along(trained / "a")):
        by = edjax.evaluate(rows, session, adapter=adapter, metrics=["response_loss"], show_progress=False)
        np.testing.assert_allclose(losses[:12, t], [row["response_loss"] for row in by.rows], atol=1e-5)
    assert np.abs(np.diff(losses[:12], axis=1)).min(axis=0).max() > 1e-4, "training changes what is measured"
    assert losses[:12, 0].mean() > losses[:12, 2].mean(), "the rows are those that were trained"


def test_template_and_bounds_are_those_of_training(trained, tmp_path):
    """A chat template that says much more; the adapters say that they were trained without it."""
    shutil.copytree(trained / "model", tmp_path / "model")
    file = tmp_path / "model" / "tokenizer_config.json"
    chat = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}<|endoftext|>{% endfor %}"
    chat += "{% if add_generation_prompt %}[assistant] {% endif %}"
    file.write_text(json.dumps(read_json(file) | {"chat_template": chat}))
    pool = edjax.read_pool(trained / "rows.jsonl")
    config = FinetuneConfig(**SHORT | {"max_steps": 2}, template="plain", keep_checkpoints=2, save_steps=0)
    model = str(tmp_path / "model")
    finetune(pool, model, out=tmp_path / "a", config=config, show_progress=False)
    asked = {"probes": ["trajectory"], "checkpoints": tmp_path / "a", "max_new_tokens": 0, "show_progress": False}
    notes = []
    found = edjax.score(pool, model, **asked, log=notes.append)
    last = adapters_along(tmp_path / "a")[-1]
    own = edjax.evaluate(pool, model, adapter=last, metrics=["response_loss"], show_progress=False)
    np.testing.assert_allclose(found.arrays["trajectory"][:, 1], [r["response_loss"] for r in own.rows], atol=1e-5)
    assert not notes
    other = edjax.score(pool, model, **asked, template="chat", log=notes.append)
    assert np.abs(other.arrays["trajectory"] - found.arrays["trajectory"]).max() > 1e-3
    assert len(notes) == 1 and "was trained with --template plain, and is used with chat" in notes[0]


def test_all_checkpoints_are_needed(trained, tmp_path):
    def damaged(name):
        shutil.copytree(trained / "a", tmp_path / name)
        return tmp_path / name, tmp_path / name / "trajectory" / "step-000004"

    out, gone = damaged("gone")
    shutil.rmtree(gone)
    with pytest.raises(DataError, match=rf"{gone}/{CONFIG} is missing or damaged"):
        score(trained, checkpoints=out)
    out, short = damaged("short")
    (short / WEIGHTS).write_bytes((short / WEIGHTS).read_bytes()[:-8])
    with pytest.raises(DataError, match=rf"{short / WEIGHTS} is missing or damaged"):
        score(trained, checkpoints=out)
    out, other = damaged("other")
    raw = bytearray((other / WEIGHTS).read_bytes())
    raw[-4:] = np.float32(np.nan).tobytes()
    (other / WEIGHTS).write_bytes(raw)
    with pytest.raises(DataError, match=rf"{other / WEIGHTS}: lora_\w of \w+ holds NaN"):
        score(trained, checkpoints=out)
    plain = edjax.read_pool(trained / "rows.jsonl")
    finetune(plain, str(trained / "model"), out=tmp_path / "p", config=FinetuneConfig(max_steps=1), show_progress=False)
    with pytest.raises(DataError, match="holds an adapter and none of its way; train it with --keep-checkpoints N"):
        score(trained, checkpoints=tmp_path / "p")


def test_checkpoints_of_another_trainer(trained, tmp_path):
    """Directories as Hugging Face's trainer leaves them, whose names do not sort as the steps do."""
    along = adapters_along(trained / "a")
    for step, adapter in zip((500, 1000, 1500), along, strict=True):
        shutil.copytree(adapter, tmp_path / "c" / f"checkpoint-{step}")
    (tmp_path / "c" / "runs").mkdir()
    (tmp_path / "c" / "notes.txt").write_text("")
    assert [p.name for p in adapters_along(tmp_path / "c")] == ["checkpoint-500", "checkpoint-1000", "checkpoint-1500"]
    np.testing.assert_array_equal(
        score(trained, checkpoints=tmp_path / "c").arrays["trajectory"], score(trained).arrays["trajectory"]
    )
    (tmp_path / "c" / "checkpoint-1000" / WEIGHTS).unlink()
    with pytest.raises(DataError, match=rf"checkpoint-1000 is a checkpoint without {WEIGHTS}; all of them are needed"):
        adapters_along(tmp_path / "c")
    shutil.rmtree(tmp_path / "c" / "checkpoint-1000")
    shutil.copytree(along[1], tmp_path / "c" / "best")
    with pytest.raises(DataError, match="best holds an adapter, and its name no number"):
        adapters_along(tmp_path / "c")
    (tmp_path / "c" / "best").rename(tmp_path / "c" / "again-500")
    with pytest.raises(DataError, match=r"again-500 and .*checkpoint-500 have one number"):
        adapters_along(tmp_path / "c")
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="none holds no adapters of a run's way"):
        adapters_along(tmp_path / "none")
    with pytest.raises(DataError, match="nowhere are not a directory"):
        adapters_along(tmp_path / "nowhere")


def test_a_probe_without_its_checkpoints_is_refused(trained):
    with pytest.raises(UsageError, match="the probe trajectory needs --checkpoints DIR"):
        score(trained, checkpoints=None)
    with pytest.raises(UsageError, match="checkpoints are for the probe trajectory"):
        score(trained, probes=[])
    pool = make_pool([("a", None)])
    with pytest.raises(DataError, match="no row has a response, and the probe trajectory measures these"):
        edjax.score(pool, str(trained / "model"), probes=["trajectory"], checkpoints=trained / "a", show_progress=False)


def test_other_checkpoints_are_another_input(trained, tmp_path):
    """Shards that are there stay; adapters of another training are refused, wherever they lie."""
    whole = score(trained, out=tmp_path / "f", shard_rows=4)
    (tmp_path / "f" / "manifest.json").unlink()
    (tmp_path / "f" / "shard-00001.parquet").unlink()
    shutil.copytree(trained / "a", tmp_path / "moved")
    again = score(trained, out=tmp_path / "f", shard_rows=4, checkpoints=tmp_path / "moved")
    np.testing.assert_array_equal(again.arrays["trajectory"], whole.arrays["trajectory"])
    shutil.copytree(trained / "a" / "trajectory", tmp_path / "alone")
    (tmp_path / "f" / "manifest.json").unlink()
    score(trained, out=tmp_path / "f", shard_rows=4, checkpoints=tmp_path / "alone")  # without the run's manifest
    said = read_manifest(tmp_path / "f", "features")["checkpoints"]
    assert list(said) == [f"step-{s:06d}" for s in STEPS] and len(set(said.values())) == 3
    shutil.copytree(trained / "a" / "trajectory", tmp_path / "fewer")
    shutil.rmtree(tmp_path / "fewer" / "step-000002")
    with pytest.raises(UsageError, match=r"was made with other settings .*checkpoints"):
        score(trained, out=tmp_path / "f", shard_rows=4, checkpoints=tmp_path / "fewer")


def test_from_training_to_a_selection(trained, tmp_path, edjax_):
    model = ["--model", trained / "model", "--max-length", 64]
    train = [x for k, v in SHORT.items() if k != "max_length" for x in (f"--{k.replace('_', '-')}", v)]
    keep = [*train, "--keep-checkpoints", 3, "--out", tmp_path / "a"]
    code, said, err = edjax_("finetune", trained / "rows.jsonl", *model, *keep)
    assert code == 0 and f"3 adapters of its way in {tmp_path / 'a' / 'trajectory'}" in said, err
    assert hashes(tmp_path / "a") == hashes(trained / "a")
    probe = ["--max-new-tokens", 0, "--probe", "trajectory", "--checkpoints", tmp_path / "a", "--out", tmp_path / "f"]
    code, _, err = edjax_("score", trained / "pool.jsonl", *model, *probe)
    assert code == 0, err
    select = ["select", tmp_path / "f", "--strategy", "s2l:clusters=2", "--budget", 5, "--out", tmp_path / "s"]
    code, _, err = edjax_(*select)
    assert code == 3 and "1 row has NaN or infinite features (open)" in err
    code, said, err = edjax_(*select, "--allow", "invalid", "--json")
    assert code == 0 and json.loads(said)["rows"] == 5, err
    ids = [json.loads(line)["id"] for line in (tmp_path / "s" / "selected.jsonl").read_text().splitlines()]
    assert len(set(ids)) == 5 and "open" not in ids
    assert "trajectory (--probe trajectory)" in next(x for x in edjax_("strategies")[1].splitlines() if x[:4] == "s2l ")
