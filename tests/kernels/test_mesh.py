"""The methods beside the paper's on a pool split over eight devices: the same picks, and the pool is not gathered.

But by gist, which looks a row up for every threshold at once.
"""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from quick import of_devices

from edjax.kernels import METHODS

# Where the rows are few, and all that a program holds is small beside what is looked for, a gathered pool is the rows
# themselves: n d numbers.
SPLIT = """
    import re, sys
    import jax, jax.numpy as jnp, numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec
    from kernel_cases import ground_for
    from edjax.kernels import METHODS, select

    def largest(line):
        shapes = re.findall(r"[a-z]+[0-9]*\\[([0-9,]*)\\]", line)
        return max(int(np.prod([int(v) for v in shape.split(",") if v])) for shape in shapes)

    def split(column):
        rest = [None] * (np.ndim(column) - 1)
        return jax.device_put(jnp.asarray(column), NamedSharding(mesh, PartitionSpec("rows", *rest)))

    n = 1024
    assert len(jax.devices()) == 8
    mesh = Mesh(np.array(jax.devices()), ("rows",))
    for name in sys.argv[1:]:
        method, key = METHODS[name], jax.random.key(0)
        there = ground_for(method, n=n)
        there = there._replace(columns={k: np.asarray(v) for k, v in there.columns.items()})
        one = select(method, there, 20, key=key).indices.tolist()
        over = there._replace(columns={k: split(v) for k, v in there.columns.items()})
        call = jax.jit(lambda there: select(method, there, 20, key=key)).lower(over).compile()
        assert call(over).indices.tolist() == one, name
        pool = sum(np.asarray(v).size for v in there.columns.values() if v.ndim > 1)
        for line in call.as_text().splitlines():
            moved = re.search(r"= .*(all-gather|all-to-all|all-reduce|collective-permute)[(]", line)
            if moved and pool and name != "gist":
                assert largest(line) < pool, (name, line)
        print(name, "the same")
"""

# In turn a process each, so that a test stays short.
SPLITS = (
    ("flqmi", "flmi"),
    ("cobra", "flcg"),
    ("graph_cut", "go"),
    ("rds_plus", "rocket"),
    ("fisher", "feature_based"),
    ("gist", "nearest"),
    ("mean_entropy", "energy", "aloe"),
)

# The rest, and why none of these is there.
ELSEWHERE = {
    "k_center": "test_tracing.py",
    "d_optimal": "test_tracing.py",
    "facility_location": "test_tracing.py",
    "random": "draws by row number, and scores are a sort: mean_entropy",
    "max_entropy": "the class of mean_entropy",
    "least_confidence": "the class of mean_entropy",
    "mean_nll": "the class of mean_entropy",
    "mean_margin": "the class of mean_entropy",
    "min_margin": "the class of mean_entropy",
    "grad_norm": "the class of energy",
    "sal": "the picks of go, of at most 200 rows",
    "densest": "the clusters of nearest, and a sum over tiles of neighbours",
    "grape": "a sort on the host's groups, and segment sums",
    "delift": "facility location on a matrix that is given",
    "s2l": "the clusters of nearest, on trajectories",
}


def test_every_method_is_here_or_says_why_not():
    assert {name for names in SPLITS for name in names} | set(ELSEWHERE) == set(METHODS)


@pytest.mark.once
@pytest.mark.parametrize("names", SPLITS, ids=lambda names: names[0])
def test_methods_on_a_pool_split_over_eight_devices(names):
    here = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    script = f"import sys; sys.path[:0] = {here!r}\n" + textwrap.dedent(SPLIT)
    done = subprocess.run(
        [sys.executable, "-c", script, *names], env=os.environ | of_devices(8), capture_output=True, text=True
    )
    assert all(f"{name} the same" in done.stdout for name in names), done.stdout + done.stderr
