"""What the verbs wrote one by one, put together for the page."""

import json

import numpy as np
import pytest

from edjax.data.features import read_features
from edjax.data.pool import read_pool
from edjax.evaluation.grouping import macro_scores
from edjax.keep.errors import DataError
from edjax.keep.store import atomic_write, sha256_file, sha256_json, write_json, writing
from edjax.selection.choose import select
from edjax.selection.selection import write_selection
from edjax.study.gather import gather
from edjax.study.report import render

N, K, ROWS = 40, 8, 30


def evaluation(path, losses, adapter=None, pool="e", groups=None):
    inputs = {"pool": pool, "model": "m", "adapter": adapter and sha256_file(adapter / "adapter_model.safetensors")}
    config = {"group_by": "task"} if groups else {}
    with writing(path, kind="evaluation", config=config, inputs=inputs) as artifact:
        rows = [{"id": f"e{i}", "response_loss": float(v)} for i, v in enumerate(losses)]
        rows = [row | {"group": g} for row, g in zip(rows, groups, strict=True)] if groups else rows
        (path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        means = {"response_loss": float(np.mean(losses))}
        head = {"scores": means, "counts": {"response_loss": len(losses)}, "seconds": 2.0}
        macro = {"macro": macro_scores(rows, groups, ["response_loss"]), "groups": 3} if groups else {}
        write_json(path / "scores.json", head | macro)
        artifact.finish(pool="eval.jsonl", rows=len(losses))


def adapter(path, ids):
    with writing(path, kind="adapter", config={"model": "m"}, inputs={}) as artifact:
        with atomic_write(path / "adapter_model.safetensors") as f:
            f.write(path.name.encode())
        artifact.finish(seconds=10.0, rows=len(ids), response_tokens=99, ids=sha256_json(sorted(ids)))


@pytest.fixture
def road(tmp_path):
    """A pool scored, two selections, an adapter for each, and the scores of both and of the model before."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.Generator(np.random.PCG64(0))
    rows = [{"id": f"r{i}", "prompt": f"Question {i}?", "task": f"t{i % 5}"} for i in range(N)]
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    with writing(tmp_path / "features", kind="features", config={"model": "m"}, inputs={}) as artifact:
        x = rng.normal(size=(N, 4)).tolist()
        pq.write_table(pa.table({"id": [r["id"] for r in rows], "embedding": x}), artifact.path / "shard-00000.parquet")
        artifact.finish(pool=str(tmp_path / "pool.jsonl"), rows=N, seconds=3.0)
    before = rng.normal(3, 0.3, ROWS)
    evaluation(tmp_path / "before", before)
    pool, features = read_pool(tmp_path / "pool.jsonl"), read_features(tmp_path / "features")
    for strategy, drop in (("k_center", 1.0), ("random", 0.5)):
        chosen = select(features, strategy, K)
        write_selection(chosen, features, pool, tmp_path / f"chosen-{strategy}", config={"strategy": strategy})
        adapter(tmp_path / f"tuned-{strategy}", chosen.ids)
        after = before - drop + rng.normal(0, 0.05, ROWS)
        evaluation(tmp_path / f"scores-{strategy}", after, tmp_path / f"tuned-{strategy}")
    return tmp_path


def test_the_whole_road(road):
    results, notes = gather([road])
    assert notes == []
    assert results["title"].endswith(f"{K} of {N} prompts chosen")
    assert [(c["strategy"], c["budget"]) for c in results["cells"]] == [("k_center", K), ("random", K)]
    assert {d["strategy"] for d in results["differences"]} == {"k_center"}
    difference = results["differences"][0]
    assert -0.6 < difference["mean"] < -0.4 and difference["high"] is None
    assert results["verdict"].startswith("With 8 labels k_center is -0.") and not results["savings"]
    assert "from random (1 seed against 1: too few for an interval, a lead at most)." in results["verdict"]
    assert "Finetuning on 8 labels (k_center) took response loss from" in results["verdict"]
    assert f"over {ROWS} rows." in results["verdict"]
    assert {s["strategy"] for s in results["selections"]} == {"k_center", "random"} and results["map"]["total"] == N
    assert [s["name"] for s in results["stages"]] == ["score", "select", "finetune", "evaluate"]
    select = sum(json.loads(p.read_text())["seconds"] for p in road.glob("chosen-*/manifest.json"))
    assert results["overhead"]["score_and_select_share"] == pytest.approx((3 + select) / 20, abs=1e-9)
    page = render(results)
    assert "k_center" in page and "t1" in page and "eval.jsonl" in page


def test_three_adapters_each_have_an_interval(road):
    rng = np.random.Generator(np.random.PCG64(2))
    for strategy, loss in (("k_center", 2.0), ("random", 2.5)):
        for seed in (1, 2):
            again = road / f"tuned-{strategy}-{seed}"
            adapter(again, [f"{strategy}{seed}"])
            manifest = json.loads((road / f"tuned-{strategy}" / "manifest.json").read_text())
            ours = json.loads((again / "manifest.json").read_text()) | {"ids": manifest["ids"], "rows": K}
            (again / "manifest.json").write_text(json.dumps(ours))
            evaluation(road / f"scores-{strategy}-{seed}", rng.normal(loss, 0.05, ROWS), again)
    results, _ = gather([road])
    assert results["verdict"].startswith("With 8 labels k_center is better than random (-0.")
    assert "3 seeds against 3" in results["verdict"]


def test_evaluations_that_were_grouped_are_compared_by_group(road, tmp_path):
    groups = ["a"] * (ROWS - 2) + ["b", "c"]
    high = [9.0, 9.0]
    evaluation(tmp_path / "m" / "before", [3.0] * (ROWS - 2) + high, pool="g", groups=groups)
    after = [2.0] * (ROWS - 2) + high
    evaluation(tmp_path / "m" / "after", after, road / "tuned-k_center", pool="g", groups=groups)
    results, _ = gather([tmp_path / "m", road / "tuned-k_center"])
    assert results["metric"]["group_by"] == "task" and results["metric"]["groups"] == 3
    assert results["curves"]["tuned-k_center"][0]["mean"] == pytest.approx((2 + 9 + 9) / 3)
    assert "from 7.000 to 6.667: -0.333" in results["verdict"] and "over 3 values of task" in results["verdict"]
    assert "response loss, mean over task" in render(results)


def test_without_random_nothing_is_claimed_about_choosing(road):
    parts = [road / d for d in ("features", "chosen-k_center", "tuned-k_center", "scores-k_center", "before")]
    results, _ = gather(parts)
    assert results["verdict"].endswith("what choosing them was worth is not measured.") and results["savings"] == []


def test_no_change_is_said_to_be_possible(road):
    rng = np.random.Generator(np.random.PCG64(1))
    evaluation(road / "again", rng.normal(3, 0.3, ROWS), road / "tuned-k_center", pool="f")
    evaluation(road / "base", rng.normal(3, 0.3, ROWS), pool="f")
    results, _ = gather([road / "again", road / "base", road / "tuned-k_center"])
    assert "no change possible" in results["verdict"]


def test_a_road_half_walked(road):
    assert "is not known yet" in gather([road / "features", road / "chosen-k_center"])[0]["verdict"]
    assert "Only the model before" in gather([road / "before"])[0]["verdict"]
    results, notes = gather([road / "scores-k_center"])
    assert "was not evaluated before" in results["verdict"] and any("adapter that is not here" in n for n in notes)
    render(results)


def test_evaluations_of_other_rows_are_left_out_and_counted(road):
    evaluation(road / "elsewhere", np.ones(3), pool="other")
    results, notes = gather([road])
    assert notes == ["1 evaluations on other rows left out"] and results["evaluation"]["rows"] == ROWS


def test_a_strategy_that_chose_twice_goes_by_its_directories(road):
    pool, features = read_pool(road / "pool.jsonl"), read_features(road / "features")
    write_selection(select(features, "k_center", 3), features, pool, road / "few", config={"strategy": "k_center"})
    names = {s["strategy"] for s in gather([road])[0]["selections"]}
    assert names == {"k_center (few)", "k_center (chosen-k_center)", "random"}


@pytest.mark.parametrize("where", ["nowhere", "empty"])
def test_nothing_to_show(tmp_path, where):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"not a directory|no finished features"):
        gather([tmp_path / where])


def test_a_selection_of_other_features_is_refused(road):
    import pyarrow as pa
    import pyarrow.parquet as pq

    other = road / "other"
    ids = [f"r{i}" for i in reversed(range(N))]
    with writing(other, kind="features", config={"model": "m"}, inputs={}) as artifact:
        pq.write_table(pa.table({"id": ids, "embedding": np.eye(N).tolist()}), other / "shard-00000.parquet")
        artifact.finish(pool=str(road / "pool.jsonl"), rows=N, seconds=3.0)
    with pytest.raises(DataError, match="other features"):
        gather([other, road / "chosen-k_center"])
