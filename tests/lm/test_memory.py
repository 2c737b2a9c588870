"""Loading holds the model and one tensor: the peak of a process that loads 200 MB, as Linux counts it."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from edjax.lm.checkpoint import SCRATCH

LAYERS, DIM, WIDE = 12, 512, 2048  # a stack of one projection takes 48 MiB, a layer's tensor 4
MIB = 2**20
# The scratch of the reader (16 MiB of float32), and what XLA takes to compile a dozen small programs (8 to 20 MiB
# seen). Below 48 MiB, so that one stack held on the host beside the model is found out.
SLACK = SCRATCH * 4 / MIB + 24

SCRIPT = """
    import sys
    from pathlib import Path
    import jax, numpy as np
    sys.path[:0] = PATHS
    from test_mesh import tiny
    from edjax.lm.checkpoint import load_weights
    from edjax.lm.mesh import parse_mesh

    def resident(field):
        return int(next(line for line in open("/proc/self/status") if line.startswith(field)).split()[1]) / 1024

    n, d, f = map(int, sys.argv[3:6])
    config = tiny(num_layers=n, hidden_size=d, intermediate_size=f, head_dim=d // 8, rotary_dim=d // 8,
                  ropes=tiny().ropes[:1] * n, sliding_windows=(None,) * n)
    jax.block_until_ready(jax.jit(lambda x: x + 1)(np.ones(3)))
    before = resident("VmRSS")
    model = load_weights(Path(sys.argv[1]), config, jax.numpy.dtype(sys.argv[2]), parse_mesh(sys.argv[6]))
    jax.block_until_ready(jax.tree.leaves(model))
    size = sum(x.nbytes for x in jax.tree.leaves(model)) / 2**20
    assert float(abs(model.layers.up_proj.kernel[...]).max()) == 0.5
    print(size, resident("VmHWM") - before)
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The same weights in one file and in shards."""
    q, up, down = (np.full(s, 0.5, np.float32) for s in ((DIM, DIM), (WIDE, DIM), (DIM, WIDE)))
    attention = {f"self_attn.{m}_proj": q for m in "qkvo"}
    layer = {**attention, "mlp.gate_proj": up, "mlp.up_proj": up, "mlp.down_proj": down}
    norms = {"input_layernorm": q[0], "post_attention_layernorm": q[0]}
    tensors = {f"model.layers.{i}.{k}.weight": v for i in range(LAYERS) for k, v in (layer | norms).items()}
    table = np.full((256, DIM), 0.5, np.float32)
    tensors |= {"model.embed_tokens.weight": table, "lm_head.weight": table, "model.norm.weight": q[0]}
    one, many = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("many")
    save_file(tensors, one / "model.safetensors")
    names = {key: f"model-{i % 4}.safetensors" for i, key in enumerate(tensors)}
    for name in set(names.values()):
        save_file({k: tensors[k] for k in tensors if names[k] == name}, many / name)
    (many / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    return {"one": one, "many": many, "largest": up}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's count of resident memory")
@pytest.mark.parametrize(
    ("files", "dtype", "mesh"), [("one", "float32", ""), ("many", "float32", "data=-1"), ("many", "bfloat16", "")]
)
def test_peak_of_loading(written, files, dtype, mesh):
    """The model and one tensor of it; in bfloat16 half of both, so no float32 copy of a stack is held either."""
    script = textwrap.dedent(SCRIPT).replace("PATHS", repr([str(p) for p in Path(__file__).parents[:2]]))
    arguments = [written[files], dtype, LAYERS, DIM, WIDE, mesh]
    done = subprocess.run([sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    size, peak = map(float, done.stdout.split())
    kind = np.dtype(dtype) if dtype == "float32" else np.dtype(ml_dtypes.bfloat16)
    assert size > 190 * kind.itemsize / 4
    tensor = written["largest"].size * kind.itemsize / MIB
    assert peak < size + tensor + SLACK, f"{peak:.0f} MiB at the peak of loading {size:.0f}, slack {SLACK:.0f}"
