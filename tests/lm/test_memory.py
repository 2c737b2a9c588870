"""Loading holds the model and one tensor: the peak of a process that loads 200 MB, as Linux counts it."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from edjax.lm.tensors import SCRATCH

LAYERS, DIM, WIDE = 12, 512, 2048  # a stack of one projection takes 48 MiB, a layer's tensor 4
MIB = 2**20
# The reader's scratch (1 MiB of float32), and what compiling a few more programs takes and what is freed but not handed
# back (9 to 29 MiB seen). One stack held on the host beside the model, 48 MiB, is found out: 9 + 48 is above it.
SLACK = SCRATCH * 4 / MIB + 40

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

    def loaded(directory, n, d, f):
        config = tiny(num_layers=n, hidden_size=d, intermediate_size=f, head_dim=d // 8, rotary_dim=d // 8,
                      ropes=tiny().ropes[:1] * n, sliding_windows=(None,) * n)
        return load_weights(Path(directory), config, jax.numpy.dtype(sys.argv[1]), mesh=parse_mesh(sys.argv[2]))

    jax.block_until_ready(jax.tree.leaves(loaded(sys.argv[3], 1, 64, 96)))  # the compiler's own pages come with it
    before = resident("VmRSS")
    model = loaded(sys.argv[4], *map(int, sys.argv[5:]))
    leaves = jax.block_until_ready(jax.tree.leaves(model))
    print(sum(x.nbytes for x in leaves) / 2**20, resident("VmHWM") - before)
    kernel = np.asarray(model.layers.up_proj.kernel[...], np.float32)
    assert kernel.min() == kernel.max() == 0.5
"""


def tensors_of(layers, d, f):
    """A checkpoint of which every value is 0.5."""
    full = {shape: np.full(shape, 0.5, np.float32) for shape in ((d, d), (f, d), (d, f), (256, d), (d,))}
    layer = {f"self_attn.{m}_proj": full[d, d] for m in "qkvo"}
    layer |= {"mlp.gate_proj": full[f, d], "mlp.up_proj": full[f, d], "mlp.down_proj": full[d, f]}
    layer |= {"input_layernorm": full[d,], "post_attention_layernorm": full[d,]}
    tensors = {f"model.layers.{i}.{k}.weight": v for i in range(layers) for k, v in layer.items()}
    outside = {"model.embed_tokens": full[256, d], "lm_head": full[256, d], "model.norm": full[d,]}
    return tensors | {f"{name}.weight": value for name, value in outside.items()}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A small checkpoint, and a large one in one file and in shards."""
    small, one, many = (tmp_path_factory.mktemp(name) for name in ("small", "one", "many"))
    save_file(tensors_of(1, 64, 96), small / "model.safetensors")
    tensors = tensors_of(LAYERS, DIM, WIDE)
    save_file(tensors, one / "model.safetensors")
    names = {key: f"model-{i % 4}.safetensors" for i, key in enumerate(tensors)}
    for name in set(names.values()):
        save_file({k: tensors[k] for k in tensors if names[k] == name}, many / name)
    (many / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    return {"small": small, "one": one, "many": many}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's count of resident memory")
@pytest.mark.parametrize(
    ("files", "dtype", "mesh"), [("one", "float32", ""), ("many", "float32", "data=-1"), ("many", "bfloat16", "")]
)
def test_peak_of_loading(written, files, dtype, mesh):
    """The model and one tensor of it; in bfloat16 half of both, so no float32 copy of a stack is held either."""
    script = textwrap.dedent(SCRIPT).replace("PATHS", repr([str(p) for p in Path(__file__).parents[:2]]))
    arguments = [dtype, mesh, written["small"], written[files], LAYERS, DIM, WIDE]
    done = subprocess.run([sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    size, peak = map(float, done.stdout.split())
    width = 4 if dtype == "float32" else 2
    assert size > 190 * width / 4
    tensor = DIM * WIDE * width / MIB
    assert peak < size + tensor + SLACK, f"{peak:.0f} MiB at the peak of loading {size:.0f}, slack {SLACK:.0f}"
