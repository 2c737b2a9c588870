"""A pool split over the devices of two processes: every process gets the picks of one process on the whole pool."""

import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from kernel_cases import SELECTORS
from quick import of_devices

PROCESSES, DEVICES = 2, 2

SCRIPT = """
    import re, sys
    import jax
    rank, port, name = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=rank, initialization_timeout=60)
    import numpy as np
    from jax.sharding import Mesh, NamedSharding, PartitionSpec
    from kernel_cases import SELECTORS, mixture

    def split(whole):
        own = np.array_split(whole, 2)[rank]
        return jax.make_array_from_process_local_data(NamedSharding(mesh, PartitionSpec("rows")), own, whole.shape)

    def largest(line):
        shapes = re.findall(r"[a-z]+[0-9]*\\[([0-9,]*)\\]", line)
        return max(int(np.prod([int(v) for v in shape.split(",") if v])) for shape in shapes)

    n, d, rows = 1024, 24, np.array([5, 700])
    assert (jax.process_count(), len(jax.devices()), len(jax.local_devices())) == (2, 4, 2)
    mesh, x = Mesh(np.array(jax.devices()), ("rows",)), mixture(0, n, d)
    weights = np.random.default_rng(1).uniform(0.5, 2, n).astype(np.float32)
    pool, scale = split(x), split(weights)
    assert not pool.is_fully_addressable
    select, _ = SELECTORS[name]
    options = {"block": 32} | ({"form": "tiled"} if name == "facility_location" else {})
    one = select(x, 40, **options).indices.tolist()
    replicated = NamedSharding(mesh, PartitionSpec())
    for shards in (None, 4):
        call = jax.jit(lambda x: select(x, 40, shards=shards, **options), out_shardings=replicated)
        call = call.lower(pool).compile()
        assert call(pool).indices.tolist() == one, shards
        for line in call.as_text().splitlines():
            if re.search(r"= .*(all-gather|all-to-all|all-reduce|collective-permute)[(]", line):
                assert largest(line) < n * d / 4, (shards, line)
    assert np.asarray(select(pool, 40, **options).indices).tolist() == one, "eager"
    given = {"labelled": rows, **options}
    expected = select(x, 40, weights=weights, **given).indices.tolist()
    assert np.asarray(select(pool, 40, weights=scale, **given).indices).tolist() == expected, "weights"
    try:
        select(pool, 40, weights=split(np.where(np.arange(n) == 700, -1, weights)), **options)
    except ValueError as e:
        assert "got -1.0 at row 700" in str(e), e
        print("same picks")
"""


def free_port():
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return str(s.getsockname()[1])


@pytest.mark.parametrize("name", SELECTORS)
def test_a_pool_split_over_two_processes(name):
    script = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n" + textwrap.dedent(SCRIPT)
    env, port = os.environ | of_devices(DEVICES), free_port()
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    started = [
        subprocess.Popen([sys.executable, "-c", script, str(rank), port, name], env=env, **pipes)
        for rank in range(PROCESSES)
    ]
    try:
        said = [p.communicate(timeout=240)[0] for p in started]
    finally:
        for p in started:
            p.kill()
    assert all("same picks" in text for text in said), "\n\n".join(said)
