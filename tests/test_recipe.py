"""Recipes: what a key may hold, what a slip of the pen says."""

import dataclasses
import importlib.util
import re
from pathlib import Path

import pytest
from lm_cases import make_pool

from edjax.data.features import SCORES
from edjax.evaluation.config import EvaluateConfig
from edjax.keep.errors import DataError, UsageError
from edjax.scoring.config import ScoreConfig
from edjax.selection.options import Options
from edjax.selection.strategies import runnable
from edjax.study.beforehand import check
from edjax.study.recipe import make_recipe, read_recipe
from edjax.study.sections import SECTIONS

ROOT = Path(__file__).parents[1]
LEAST = "pool: p.jsonl\nevaluation: e.jsonl\nout: o\n"


def recipe(tmp_path, text="", overrides=(), name="r.yaml"):
    path = tmp_path / name
    path.write_text(LEAST + text)
    return read_recipe(path, overrides)


def test_the_least_there_is(tmp_path):
    got = recipe(tmp_path)
    assert (got.pool, got.evaluation, got.out, got.model) == ("p.jsonl", "e.jsonl", "o", "smollm2")
    assert got.trained == got.strategies and got.seeds_of("random") == got.seeds == (0,)
    assert got.finetune_config(3).seed == 3


def test_defaults_are_those_of_the_verbs(tmp_path):
    """And every key has a row on the page of recipes, but for the grid's lists."""
    got = recipe(tmp_path)
    for settings, section in ((ScoreConfig(), "score"), (EvaluateConfig(), "evaluate"), (Options(), "select")):
        own = {f.name for f in dataclasses.fields(settings)} & set(SECTIONS[section])
        assert own and all(getattr(got, SECTIONS[section][k]) == getattr(settings, k) for k in own)
    spec = importlib.util.spec_from_file_location("keys", ROOT / "docs" / "hooks" / "keys.py")
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    shown = set(re.findall(r"^\| `([a-z_.]+)` \|", hook.table(), re.M))
    keys = {f"{section}.{key}" for section, keys in SECTIONS.items() for key in keys}
    lists = "select.strategies select.budgets select.variants finetune.strategies finetune.seeds finetune.random_seeds"
    assert keys - shown <= {*lists.split(), "evaluate.metrics"}
    assert hook.MARK in (ROOT / "docs" / "recipes.md").read_text()


def test_lists_may_be_single_values_and_repeats_go(tmp_path):
    got = recipe(tmp_path, "strategies: k_center\nbudgets: 7\nseeds: [2, 1, 2]\nmetrics: response_loss\n")
    assert (got.strategies, got.budgets, got.seeds, got.metrics) == (("k_center",), (7,), (2, 1), ("response_loss",))
    assert recipe(tmp_path, "strategies: all").strategies == runnable(SCORES), "what a run can score"


def test_finetuning_settings_reach_the_trainer(tmp_path):
    got = recipe(tmp_path, "learning_rate: 0.5\nlora_target_modules: [q_proj]\ntemplate: plain\nnum_train_epochs: 3\n")
    config = got.finetune_config(0)
    assert (config.learning_rate, config.lora_target_modules, config.template) == (0.5, ("q_proj",), "plain")
    assert config.num_train_epochs == 3


def test_random_may_have_seeds_of_its_own(tmp_path):
    got = recipe(tmp_path, "seeds: [0]\nrandom_seeds: [0, 1, 2]\n")
    assert got.seeds_of("random") == (0, 1, 2) and got.seeds_of("k_center") == (0,)


def test_inputs_are_relative_to_the_recipe_and_out_to_where_one_stands(tmp_path, monkeypatch):
    (tmp_path / "sub" / "model").mkdir(parents=True)
    (tmp_path / "sub" / "p.jsonl").write_text("{}")
    monkeypatch.chdir(tmp_path)
    got = recipe(tmp_path, "model: model\n", name="sub/r.yaml")
    assert Path(got.pool).samefile(tmp_path / "sub" / "p.jsonl") and Path(got.model).is_dir()
    assert got.out == "o" and got.evaluation == "e.jsonl", "what is not there is left as it was: a hub id, say"
    assert recipe(tmp_path, f"model: {tmp_path / 'sub' / 'model'}\n").model == str(tmp_path / "sub" / "model")


def test_overrides_are_yaml_on_top(tmp_path):
    got = recipe(
        tmp_path,
        "budgets: [1]\nlearning_rate: 0.1\n",
        ["budgets=[8, 16]", "pool_rows=60", "learning_rate=0.2", "finetune_strategies=null", "title=a=b"],
    )
    assert (got.budgets, got.pool_rows, got.title) == ((8, 16), 60, "a=b")
    assert got.finetune_config(0).learning_rate == 0.2


WRONG = {
    "learning_rat: 1": "unknown key 'learning_rat'; did you mean learning_rate?",
    "bugdets: [1]": "unknown key 'bugdets'; did you mean budgets?",
    "zzzzzz: 1": "unknown key 'zzzzzz'",
    "seed: 1": "unknown key 'seed'; did you mean seeds?",
    "1: 2": "unknown key 1",
    "strategies: [kcenter]": "unknown strategy 'kcenter'; did you mean k_center?; known: random,",
    "strategies: [zzz]": "unknown strategy 'zzz'; known: random,",
    "strategies: []": "each need at least one entry",
    "strategies: 5": "strategies holds 5, which is not text",
    "strategies: [[random]]": "strategies holds ['random'], which is not text",
    "strategies: {random: 1}": "strategies holds {'random': 1}, which is not text",
    "finetune_strategies: [d_optimal]": "are not among strategies",
    "budgets: 2.5": "budgets holds 2.5, which is not a whole number",
    "budgets: [1, x]": "budgets holds 'x', which is not a whole number",
    "budgets: [true]": "budgets holds True, which is not a whole number",
    "budgets: [0]": "budget 0 is not a whole number of rows above 0",
    "budgets: [-3]": "budget -3 is not",
    "budgets: []": "each need at least one entry",
    "seeds: [-1]": "seed -1 is negative",
    "seeds: [a]": "seeds holds 'a'",
    "random_seeds: [-1]": "seed -1 is negative",
    "pool_rows: 0": "pool_rows is 0; it must be 1 or more",
    "pool_rows: true": "pool_rows holds True",
    "evaluation_rows: many": "evaluation_rows holds 'many'",
    "max_new_tokens: '8'": "max_new_tokens holds '8', which is not a whole number",
    "max_new_tokens: -1": "max_new_tokens is -1; it must be 0 or more",
    "max_new_tokens: null": "max_new_tokens holds None",
    "max_response: 0": "max_response is 0; it must be 1 or more",
    "max_prompt: long": "max_prompt holds 'long', which is not a whole number",
    "score_batch_size: 0": "score_batch_size is 0; it must be 1 or more",
    "layer: last": "layer holds 'last'",
    "title: 5": "title holds 5, which is not text",
    "model: 5": "model holds 5, which is not text",
    "pooling: max": "pooling 'max' is not one of mean, last, weighted_mean",
    "normalise: L2": "normalise 'L2' is not one of l2, whiten, centre, none",
    "template: chatml": "template 'chatml' is not one of auto, chat, plain",
    "dtype: float16": "dtype 'float16' is not one of float32, bfloat16",
    "metric: accuracy": "metric 'accuracy' is not among metrics",
    "metrics: [response_loss, rouge]": "unknown metric 'rouge'; did you mean rouge_l?",
    "metrics: [rouge_l]": "metric 'response_loss' is not among metrics ['rouge_l']",
    "learning_rate: fast": "learning_rate holds 'fast', which is not a number",
    "learning_rate: 5e-4": "learning_rate holds '5e-4', which is not a number; YAML wants 5.0e-4 for it",
    "learning_rate: .nan": "learning_rate is nan; it must be finite",
    "learning_rate: -1": "learning_rate is -1; it must be above 0",
    "learning_rate: [1]": "learning_rate holds [1]",
    "per_device_train_batch_size: 2.5": "per_device_train_batch_size holds 2.5, which is not a whole number",
    "save_steps: -1": "save_steps is -1; it must be 0 or more",
    "warmup_ratio: 1": "warmup_ratio is 1; it must be at least 0 and below 1",
    "group_by_length: 1": "group_by_length holds 1, which is not true or false",
    "lora_target_modules: q_proj": "lora_target_modules holds 'q_proj', which is not a list",
    "lora_target_modules: [1]": "lora_target_modules holds 1, which is not text",
    "pool: null": "the key 'pool' is missing",
    "pool: [a]": "pool holds ['a'], which is not text",
}


@pytest.mark.parametrize("line", WRONG)
def test_a_slip_is_one_sentence(tmp_path, line):
    with pytest.raises(UsageError) as e:
        recipe(tmp_path, line + "\n")
    assert WRONG[line] in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize("key", ["pool", "evaluation", "out"])
def test_a_missing_key_is_named(tmp_path, key):
    (tmp_path / "r.yaml").write_text("".join(x + "\n" for x in LEAST.splitlines() if not x.startswith(key)))
    with pytest.raises(UsageError, match=rf"r\.yaml: the key '{key}' is missing"):
        read_recipe(tmp_path / "r.yaml")


def test_overrides_that_are_none(tmp_path):
    with pytest.raises(UsageError, match="'budgets' is not of the form key=value"):
        recipe(tmp_path, "", ["budgets"])
    with pytest.raises(UsageError, match=r"'budgets=\[8,': the value is not valid YAML"):
        recipe(tmp_path, "", ["budgets=[8,"])
    with pytest.raises(UsageError, match="did you mean budgets"):
        recipe(tmp_path, "", ["budget=8"])


DAMAGED = {
    "budgets: [1\nseeds: 2\n": r"r\.yaml:[456]: not valid YAML",
    "a: b: c\n": r"r\.yaml:4: not valid YAML \(mapping values",
    "\tbudgets: 1\n": r"r\.yaml:4: not valid YAML",
    "x: !!python/object/apply:os.system [true]\n": r"r\.yaml:4: not valid YAML",
}


@pytest.mark.parametrize("text", DAMAGED)
def test_malformed_yaml_names_the_line(tmp_path, text):
    with pytest.raises(DataError, match=DAMAGED[text]):
        recipe(tmp_path, text)


@pytest.mark.parametrize("data", [b"", b"- a\n- b\n", b"just text\n", b"\xff\xfe", b"a: \x00\n"])
def test_a_file_that_is_no_recipe(tmp_path, data):
    (tmp_path / "r.yaml").write_bytes(data)
    with pytest.raises(DataError, match=r"r\.yaml"):
        read_recipe(tmp_path / "r.yaml")


def test_a_recipe_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_recipe(tmp_path / "r.yaml")
    with pytest.raises(DataError, match="not valid YAML"):
        read_recipe(tmp_path)


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda p: p.name)
def test_the_recipes_that_come_along_parse(path):
    got = read_recipe(path)
    assert set(got.trained) <= set(got.strategies) and max(got.budgets) <= (got.pool_rows or max(got.budgets))
    if "shared" in got.pool and (ROOT.parent / "shared").is_dir():  # the others are for a pool of the reader's
        assert Path(got.pool).exists() and Path(got.evaluation).exists()


def test_an_empty_recipe_names_what_is_missing(tmp_path):
    with pytest.raises(UsageError, match="the key 'pool' is missing"):
        make_recipe({}, tmp_path)


def test_a_variant_is_a_strategy_with_options(tmp_path):
    text = (
        "strategies: [random, mine]\nnormalise: centre\nvariants:\n  mine: {strategy: d_optimal, weight_by: mean_nll}\n"
    )
    strategy, options = recipe(tmp_path, text).choice("mine")
    assert (strategy, options.weight_by, options.normalise, options.nested) == ("d_optimal", "mean_nll", "centre", True)
    assert recipe(tmp_path, text).choice("random", 3)[1].seed == 3


VARIANTS = {
    "a name that is taken": ("k_center: {strategy: k_center}", "has the name of a strategy"),
    "no strategy": ("mine: {weight_by: mean_nll}", "its strategy is none of random"),
    "an unknown option": ("mine: {strategy: k_center, wieght_by: mean_nll}", "did you mean weight_by"),
    "not a score": ("mine: {strategy: k_center, prefilter: entropy}", "'entropy' is not a score"),
    "a value that makes no sense": ("mine: {strategy: k_center, prefilter_ratio: 0.5}", "prefilter_ratio 0.5"),
    "not a mapping": ("mine: k_center", "variants is not of the form"),
}


@pytest.mark.parametrize("case", VARIANTS)
def test_what_is_wrong_with_a_variant_is_said(tmp_path, case):
    text, said = VARIANTS[case]
    with pytest.raises(UsageError, match=said):
        recipe(tmp_path, f"variants:\n  {text}\n")


def test_a_column_to_weigh_the_evaluation_by(tmp_path):
    assert recipe(tmp_path).evaluation_group_by is None
    assert recipe(tmp_path, "evaluation_group_by: task\n").evaluation_group_by == "task"
    with pytest.raises(UsageError, match="evaluation_group_by holds 3, which is not text"):
        recipe(tmp_path, "evaluation_group_by: 3\n")
    with pytest.raises(UsageError, match="did you mean evaluation_group_by"):
        recipe(tmp_path, "evaluation_groupby: task\n")


def test_the_demo_takes_overrides(tmp_path):
    from edjax.demo import recipe as demo

    got = demo(tmp_path, 3, ["budgets=[8]", "evaluation_rows=20"])
    assert (got.budgets, got.evaluation_rows, got.strategies[0]) == ((8,), 20, "random")
    with pytest.raises(UsageError, match="did you mean budgets"):
        demo(tmp_path, 3, ["budget=8"])


# Sections


def test_a_recipe_in_sections_is_the_flat_one(tmp_path):
    flat = (
        "layer: -2\nscore_batch_size: 4\nstrategies: [random, k_center]\nbudgets: [5]\nfinetune_strategies: [random]\n"
        "seeds: [1]\nlearning_rate: 0.1\nmetric: exact_match\nevaluation_batch_size: 3\nevaluation_group_by: task\n"
    )
    nested = (
        "score: {layer: -2, batch_size: 4}\nselect: {strategies: [random, k_center], budgets: [5]}\n"
        "finetune: {strategies: [random], seeds: [1], learning_rate: 0.1}\n"
        "evaluate: {metric: exact_match, batch_size: 3, group_by: task}\n"
    )
    assert recipe(tmp_path, nested) == recipe(tmp_path, flat)
    assert recipe(tmp_path, nested + "title: x\n", ["select.budgets=[9]", "learning_rate=0.2"]).budgets == (9,)
    assert recipe(tmp_path, "score:\nselect: {budgets: 3}\n").budgets == (3,), "an empty section says nothing"


def test_a_flat_recipe_is_told_how_it_reads_now(tmp_path):
    told = []
    path = tmp_path / "r.yaml"
    path.write_text(LEAST + "budgets: [3]\nevaluation_batch_size: 2\n")
    read_recipe(path, log=told.append)
    (said,) = told
    assert "budgets as select.budgets, evaluation_batch_size as evaluate.batch_size" in said and str(path) in said
    path.write_text(LEAST + "select: {budgets: [3]}\n")
    read_recipe(path, ["budgets=[4]"], log=told.append)
    assert told == [said]


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda p: p.name)
def test_the_recipes_here_are_in_sections(path):
    read_recipe(path, log=pytest.fail)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("select: {layer: 3}", "layer is no key of select; it is score.layer"),
        ("select: {budgts: [3]}", "unknown key 'budgts' in select; did you mean budgets?"),
        ("select: [random]", "select is a section, with `key: value` lines below it"),
        ("budgets: [3]\nselect: {budgets: [4]}", "select.budgets is given twice"),
        ("finetune: {seed: 3}", "unknown key 'seed' in finetune; did you mean seeds?"),
        ("evaluate: {evaluation_batch_size: 3}", "it is evaluate.batch_size"),
    ],
)
def test_what_stands_in_the_wrong_place_is_told_where_it_belongs(tmp_path, text, said):
    with pytest.raises(UsageError) as e:
        recipe(tmp_path, text + "\n")
    assert said in str(e.value)


def test_what_a_run_would_meet_half_way_is_refused_before_anything(tmp_path):
    """Names of sources by the whole pool, and adapters to keep by the smallest budget's updates."""
    rows = [(f"say {i}", "so", {"dataset": "aab"[i % 3], "some": None if i else "x"}) for i in range(40)]
    pool, grid = make_pool(rows), "budgets: [8, 16]\nper_device_train_batch_size: 4\nnum_train_epochs: 2\n"
    chosen = "batch_method: random\nsource_column: dataset\n"

    def checked(text):
        check(recipe(tmp_path, grid + text), pool, tmp_path / "o")

    checked(chosen + "batch_keep_sources: a,b\nkeep_checkpoints: 4\n")
    checked("keep_checkpoints: 5\nwarm_start: 4\n")
    checked("keep_checkpoints: 5\npacking: true\n")
    checked("keep_checkpoints: 5\nfinetune_strategies: []\n")
    for text, said in (
        (chosen + "batch_keep_sources: a,c\n", "batch_keep_sources c: not among the sources of test, which are a, b"),
        (chosen.replace("dataset", "some"), "row 'row-1' has no 'some'"),
        (chosen.replace("dataset", "none"), "none"),
        ("keep_checkpoints: 5\n", "budget 8: keep_checkpoints is 5, and the run has 4 updates"),
        ("keep_checkpoints: 4\nvalidation_split: 0.5\n", "budget 8: keep_checkpoints is 4, and the run has 2 updates"),
    ):
        with pytest.raises((UsageError, DataError), match=said):
            checked(text)
