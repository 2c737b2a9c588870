"""The estimate against what the compiler allots."""

import sys

import jax
import jax.numpy as jnp
import pytest

from edjax.kernels import plan


def allotted(method, n, d, budget, **options):
    jitted = getattr(sys.modules[f"edjax.kernels.{method}"], f"_{method}")
    x, none = jax.ShapeDtypeStruct((n, d), jnp.float32), jnp.zeros(0, jnp.int32)
    args = (x, None, none, None, None, jnp.float32(0.2)) if "form" in options else (x, None, none, None)
    memory = jitted.lower(*args, budget=budget, precision="highest", shards=1, **options).compile().memory_analysis()
    return memory.argument_size_in_bytes + memory.temp_size_in_bytes + memory.output_size_in_bytes


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("k_center", {"block": 512}),
        ("d_optimal", {"block": 256, "centre": False}),
        ("facility_location", {"block": 256, "form": "resident", "similarity": "rbf"}),
        ("facility_location", {"block": 128, "form": "tiled", "similarity": "rbf"}),
    ],
)
def test_memory_is_within_15_percent(method, options):
    given = {"form": options["form"]} if "form" in options else {}
    estimate = plan(method, 20_000, 384, 1000, **given).bytes
    assert estimate == pytest.approx(allotted(method, 20_000, 384, 1000, **options), rel=0.15)


def test_facility_location_of_100k_rows_stays_under_3_gb():
    assert plan("facility_location", 100_000, 768, 1000).form == "tiled"
    options = {"block": 128, "form": "tiled", "similarity": "rbf"}
    assert allotted("facility_location", 100_000, 768, 1000, **options) < 3e9


def test_bad_arguments_are_named():
    for args, says in [
        (("medoids", 10, 2, 1), "medoids"),
        (("k_center", 10, 2, 11), "11"),
        (("k_center", -1, 2, 0), "-1"),
    ]:
        with pytest.raises(ValueError, match=says):
            plan(*args)
