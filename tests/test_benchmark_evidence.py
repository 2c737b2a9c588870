"""The evidence: its grid on a tiny model, twice the same; what is said of a choice; what a cost model counts."""

import json
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent.parent))  # benchmarks/ is run from a checkout, not installed
from benchmarks.evidence import ablation, label_efficiency, reanalyse
from benchmarks.evidence.chosen import describe, distances
from benchmarks.harness import cost, count
from benchmarks.harness.runner import RESULTS
from benchmarks.pages import evidence, render
from benchmarks.selectors import overhead
from edjax.data.features import Features
from edjax.data.pool import read_pool

SMALL = [
    "pool_rows=24",
    "max_prompt_characters=330",
    "evaluation_rows=6",
    "strategies=[random, k_center, entropy_x_d_optimal, facility_location_of_uncertain]",
    "budgets=[4, 8]",
    "seeds=[0]",
    "random_seeds=[0, 1]",
    "max_new_tokens=2",
    "score_batch_size=8",
    "evaluation_batch_size=8",
    "max_length=24",
]


@pytest.fixture(scope="module")
def walk(shared, tmp_path_factory):
    """The command of the reduced grid with everything small; `walk(name)` gives what it wrote."""
    where = tmp_path_factory.mktemp("grid")
    small = [h._replace(rows=3, budgets=(8,), max_new_tokens=2) for h in label_efficiency.GRIDS["cpu"].held]

    cut = label_efficiency.GRIDS["cpu"]._replace(held=tuple(small), reduction="cut")

    def walk(name):
        model = f"model={shared / 'models' / 'stories260k'}"
        arguments = [*SMALL, model, f"out={where / name}", "--out", str(where / f"{name}.json")]
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(label_efficiency.GRIDS, "cpu", cut)
            done = CliRunner().invoke(label_efficiency.main, arguments, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return json.loads((where / f"{name}.json").read_text())

    return walk


@pytest.fixture(scope="module")
def grid(walk):
    return walk("a")


def plain(found):
    """What is the same whenever and wherever it is computed."""
    cells = [{k: c[k] for k in ("job", "scores", "response_tokens", "train_loss")} for c in found["rows"]]
    return cells, found["sets"], found["chosen"]


def test_every_cell_is_in_the_file_and_another_run_gives_the_same_bits(walk, grid):
    assert len(grid["rows"]) == 2 * (2 + 3), "two budgets, two seeds of random, one of the three others"
    assert plain(walk("b")) == plain(grid)
    again = walk("a")
    assert plain(again) == plain(grid)
    assert [c["seconds"] for c in again["rows"]] == [c["seconds"] for c in grid["rows"]], "no cell was done again"


def test_the_file_names_no_path_of_this_machine(grid, shared):
    kept = {k: v for k, v in grid.items() if k != "command"}  # which model, and where to, was said in it
    kept["recipe"] = {k: v for k, v in grid["recipe"].items() if k not in ("model", "out")}
    text = json.dumps(kept)
    assert str(shared) not in text and str(shared.resolve()) not in text and str(Path.cwd()) not in text


def test_all_sets_and_metrics_are_there(grid):
    sets = grid["sets"]
    assert set(sets["pool_val"]) == {"response_loss", "exact_match", "rouge_l"}
    assert set(sets["niv1_test"]) == {"rouge_l"} and set(sets["mmlu_dev"]) == {"choice_accuracy"}
    savings = sets["pool_val"]["response_loss"]["token_savings"]
    assert {s["strategy"] for s in savings} == {"k_center", "entropy_x_d_optimal", "facility_location_of_uncertain"}
    assert "savings" not in sets["bbh"]["choice_accuracy"], "one budget is no curve"


def test_the_tables_name_every_strategy(grid):
    results = {"label_efficiency-cpu": grid}
    for make in (evidence.label_efficiency, evidence.held_out, evidence.chosen):
        text = make(results)
        assert all(f"`{s}`" in text for s in grid["recipe"]["strategies"]), text
    assert "labels for random's loss at 8" in evidence.savings(results)
    assert [name for name, *_ in render.drawings(results)] == ["label_efficiency-cpu", "against_random-cpu"]


def test_worked_out_anew_from_its_cells_a_grid_is_the_same(grid):
    assert all(("held" in c) == (c["budget"] == 8 and c["seed"] == 0) for c in grid["rows"])
    assert reanalyse.reanalysed("label_efficiency-cpu", grid) == grid


@pytest.mark.parametrize("path", sorted(p for k in reanalyse.KINDS for p in RESULTS.glob(f"{k}-*.json")), ids=str)
def test_the_committed_tables_are_what_the_committed_cells_give(path):
    result = json.loads(path.read_text())
    new = reanalyse.reanalysed(path.stem, result)
    if "sets" in result:
        rounded = [json.loads(json.dumps(r["sets"]), parse_float=lambda v: round(float(v), 9)) for r in (new, result)]
        assert rounded[0] == rounded[1] and new["statistic"] == result["statistic"]
    else:
        assert new == result


def test_beside_every_saving_stands_the_null(grid):
    results = {"label_efficiency-cpu": grid}
    assert "| `random` against itself |  | not known | not known | 2 |" in evidence.savings(results)
    assert evidence.saved({"share_saved": 0.2, "low": 0.1, "high": None}) == "**20 % (10 % or more)**"
    assert evidence.saved({"share_saved": 0.2, "low": None, "high": 0.3}) == "20 % (up to 30 %)"
    assert evidence.saved({"share_saved": 0.2, "low": None, "high": None}) == "20 % (no interval)"
    assert evidence.difference({"mean": 0.1, "low": None, "high": None}) == " (+0.100)"


def test_the_figures_are_drawn(grid, tmp_path):
    from benchmarks.pages import figures

    drawn = figures.draw({"label_efficiency-cpu": grid}, tmp_path)
    assert [p.name for p in drawn] == ["label_efficiency-cpu.svg", "against_random-cpu.svg"]


# What is said of a choice


def test_a_choice_is_described(tmp_path):
    rows = [("a", "g1", "d"), ("a", "g1", "d"), ("b", "g2", "d"), ("c", "g3", "e")]
    lines = [
        json.dumps({"id": str(i), "prompt": f"p{i}", "response": "x" * i, "task": t, "group": g, "dataset": d})
        for i, (t, g, d) in enumerate(rows)
    ]
    (tmp_path / "p.jsonl").write_text("\n".join(lines))
    pool = read_pool(str(tmp_path / "p.jsonl"))
    x = np.float32([[0, 0], [3, 0], [0, 4], [0, 5]])
    features = Features(pool.ids, x, {}, {"n_prompt_tokens": np.asarray([1, 2, 3, 4])}, "")
    got = describe(np.asarray([0, 1]), pool, features, x)
    assert (got["tasks"], got["effective_tasks"], got["datasets"]) == (1, 1.0, 1)
    assert got["redundancy"] == 0.5, "the second is of the first one's example"
    assert (got["radius"], got["mean_distance"]) == (5.0, (0 + 0 + 4 + 5) / 4)
    assert (got["prompt_tokens"], got["response_characters"]) == (1.5, 0.5)
    assert got["top_tasks"] == [["a", 1.0]]
    assert describe(np.asarray([0, 2]), pool, features, x)["effective_tasks"] == 2.0


def test_distances_are_to_the_nearest_pick():
    x = np.random.Generator(np.random.PCG64(0)).normal(size=(50, 7)).astype(np.float32) + 100
    rows = np.asarray([3, 40, 11])
    brute = np.linalg.norm(x[:, None].astype(np.float64) - x[rows][None], axis=2).min(1)
    assert np.abs(distances(x, rows) - brute).max() < 1e-5
    assert (distances(x, rows)[rows] == 0).all()


# The ablation


def test_scalings_do_what_their_names_say():
    rng = np.random.Generator(np.random.PCG64(0))
    x = (rng.normal(size=(400, 6)) @ rng.normal(size=(6, 6)) * [1, 2, 3, 4, 5, 60] + 9).astype(np.float32)
    for name in ("l2", "standardised", "whitened"):
        assert np.allclose(np.linalg.norm(ablation.SCALINGS[name](x), axis=1), 1, atol=1e-5), name
    spread = np.linalg.eigvalsh(np.cov(ablation.whitened(x).T))
    assert spread.max() / spread.min() < 1.5 < 100 < np.linalg.cond(np.cov(x.T)), "every direction counts alike"


def test_a_way_is_named_by_what_it_changes():
    assert ablation.Knobs("k_center").name == "k_center"
    assert ablation.Knobs("k_center", layer=-2, scaling="none").name == "k_center layer=-2 scaling=none"
    names = [how.name for how in ablation.covering(-16)]
    assert len(names) == 3 * 3 * 2 * 5 + len(ablation.BANDWIDTHS) + len(ablation.RIDGES)
    assert {how.name for how in ablation.trained(-16)} <= set(names)


def test_the_ablation_runs(walk, grid, shared, tmp_path, monkeypatch):
    few = [ablation.Knobs("k_center"), ablation.Knobs("d_optimal", ridge=10.0), ablation.Knobs("k_center", layer=-2)]
    for name in ("covering", "trained"):
        monkeypatch.setattr(ablation, name, lambda middle: iter(few))
    arguments = [*SMALL, f"model={shared / 'models' / 'stories260k'}", f"out={tmp_path / 'o'}"]
    more = ["--budget", "4", "--seeds", "1", "--rows", "5", "--out", str(tmp_path / "a.json")]
    done = CliRunner().invoke(ablation.main, [*arguments, *more], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    results = {"ablation-cpu": json.loads((tmp_path / "a.json").read_text())}
    assert "`k_center layer=-2`" in evidence.ablation_coverage(results)
    assert "`d_optimal ridge=10.0`" in evidence.ablation_loss(results) and "5 rows" in evidence.ablation_loss(results)


def test_no_row_is_both_tuned_and_reported_on(shared):
    from edjax.study.recipe import read_recipe
    from edjax.study.slices import slice_of

    recipe = read_recipe(label_efficiency.RECIPES / "label_efficiency_cpu.yaml")
    reported = slice_of(read_pool(recipe.evaluation), recipe.evaluation_rows, recipe)
    tuned = ablation.other_rows(recipe, 100)
    assert len(tuned) == 100 and not set(tuned.ids) & set(reported.ids)
    assert max(len(tuned.prompt_text(i)) for i in range(100)) <= recipe.max_prompt_characters


# The cost model


def test_forward_flops_are_those_of_the_program(stories):
    """Of our own decoder's products, counted as they run; rotary embeddings and norms have none."""
    rows, tokens = 2, 16
    work = count.work(lambda t: stories.model.hidden(t), jnp.zeros((rows, tokens), jnp.int32))
    assert cost.Model.of(stories.model.config).forward(rows, tokens) == pytest.approx(work.flops, rel=1e-6)


def test_a_7b_model_has_7b_weights():
    m = cost.LLAMA_2_7B
    assert 6.7e9 < m.body + 2 * m.head < 6.8e9


def test_costs_grow_as_they_should():
    m, job = cost.LLAMA_2_7B, cost.Job(1000, 100, 17, 100, 20, 2, 50)
    one = cost.flops(m, job, "k_center")
    twice = cost.flops(m, job._replace(prompts=2000, epochs=4), "k_center")
    for stage, factor in {"prefill": 2, "decode": 2, "finetune": 2, "evaluate": 1}.items():
        assert twice[stage] == pytest.approx(factor * one[stage]), stage
    assert one["select"] > 0 == cost.flops(m, job, "mean_entropy")["select"]
    slow = cost.Machine(1e15, 1e15, 1e9)
    took = cost.seconds(m, job, "k_center", slow, dict.fromkeys(cost.ASSUMED, 1.0))
    reads = 16 * 32 * (m.body + m.head) * 4 / 1e9  # steps x batches x bytes / bandwidth
    assert took["score"] == pytest.approx(reads, rel=0.01), "decoding waits for memory"


def test_a_row_foretells_itself_where_all_machines_are_the_same():
    """Three jobs whose times follow the model: each is foretold exactly by the others."""
    from edjax.lm.load import load

    name = "stories260k"
    model = cost.Model.of(load(overhead.MODELS[name]).model.config)
    rows = []
    for n in (100, 1000, 10000):
        facts = {"prompt_tokens": 50.0, "new_tokens": 9.0, "response_tokens": 5.0, "train_batch": 8}
        job = cost.Job(n, 50.0, 9.0, n // 10, 5.0, overhead.EPOCHS, overhead.HELD, overhead.BATCH)
        select = {}
        for s in overhead.STRATEGIES:
            took = cost.seconds(model, job, s, cost.Machine(2e10, 2e10, 1e9), dict.fromkeys(cost.ASSUMED, 0.5))
            select[s] = {"first_s": took["select"], "again_s": took.pop("select")}
        rows.append(overhead.row(name, n, n // 10, facts, took, select))
    found = overhead.predictions(rows, {name: 2e10}, 1e9)
    assert len(found) == 9
    for p in found:
        assert list(p["foretold_over_measured"].values()) == pytest.approx([1.0] * 4), p
        assert p["select_share"]["foretold"] == pytest.approx(p["select_share"]["measured"])


def test_a_small_overhead_job_and_its_tables(shared, monkeypatch):
    monkeypatch.setattr(overhead, "HELD", 4)
    monkeypatch.setattr(overhead, "NEW", 2)
    monkeypatch.setattr(overhead, "STEPS", 2)
    got = overhead.measure("stories260k", 400)
    assert got["budget"] == 40 and got["scaled"] == {"finetune": "2 of 4 updates timed"}
    assert got["seconds"]["score"] > 0 and set(got["select"]) == set(overhead.STRATEGIES)
    share = got["shares"]["k_center"]
    assert share["score_and_select_share"] > share["with_compiling"] > 0
    larger = overhead.generated(800, got, 16)
    assert larger["seconds"]["score"] == pytest.approx(2 * got["seconds"]["score"])
    machine = {"backend": "cpu", "cpu": "c", "cores": 2}
    head = {"machine": machine, "commit": "c", "date": "d", "versions": {}}
    results = {"overhead-cpu": head | {"rows": [got, larger], "paper": overhead.paper()}}
    text = evidence.overhead(results)
    assert "stories260k 400" in text and "generated embeddings" in text and "2 of 4 updates timed" in text
    assert "45,000" in evidence.overhead_paper(results)
