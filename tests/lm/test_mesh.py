"""The decoder on a mesh of devices: its names, the same training on any of them, and layers gathered one at a time."""

import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec
from lm_cases import tiny_model
from quick import of_devices

from edjax.keep.errors import UsageError
from edjax.lm.config import LMConfig
from edjax.lm.decoder import CausalLM
from edjax.lm.lora import LoraConfig, add_lora
from edjax.lm.mesh import check, check_rows, parse_mesh, row_shards, spec_of
from edjax.lm.rope import Rope
from edjax.lm.train import Trainer

HERE = Path(__file__).parent
LAYERS, DIM, WIDE, HEADS, VOCABULARY = 4, 64, 96, 8, 256


def tiny(**changes):
    """A decoder whose heads divide by 8; the options of phi3 and gemma2 lie below."""
    settings = {
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": DIM,
        "intermediate_size": WIDE,
        "num_layers": LAYERS,
        "num_heads": HEADS,
        "num_kv_heads": HEADS,
        "head_dim": 8,
        "rotary_dim": 8,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "max_position_embeddings": 128,
        "tie_word_embeddings": False,
        "attention_scale": 8**-0.5,
        "ropes": (Rope(1e4),) * LAYERS,
        "sliding_windows": (None,) * LAYERS,
    }
    return LMConfig(**settings | changes)


PHI3 = {"num_kv_heads": 2, "fused_projections": True}
GEMMA2 = {
    "tie_word_embeddings": True,
    "norm_placement": "both",
    "norm_offset": 1.0,
    "embed_scale": 8.0,
    "attn_logit_softcapping": 5.0,
    "final_logit_softcapping": 5.0,
    "sliding_windows": (8, None) * 2,
}


def adapted(**changes):
    """A random model with an adapter, the same at every call."""
    return add_lora(CausalLM(tiny(**changes), rngs=nnx.Rngs(0)), LoraConfig(4, 8.0))


def batches(n, size):
    """Rows of several lengths, so that the devices' shares of the loss differ."""
    from lm_cases import pair_batch

    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 9, (n, size, 2))
    return [pair_batch([[rng.integers(0, VOCABULARY, k).tolist() for k in row] for row in b], size) for b in lengths]


def trained(model, mesh, given):
    """(trainer, losses, the adapter's leaves by path)."""
    trainer = Trainer(model, mesh=mesh)
    losses = [trainer.step(batch, 5e-3)[0] for batch in given]
    state = nnx.state(trainer.model(), nnx.LoRAParam)
    return trainer, np.array(losses), {path: np.asarray(v[...]) for path, v in nnx.to_flat_state(state)}


# Names


def devices(n):
    return [SimpleNamespace(platform="cpu")] * n


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("fsdp=3", r"takes 3 devices, and there are 8 \(cpu\)"),
        ("data=16", "takes 16 devices, and there are 8"),
        ("data=3,fsdp=-1", "takes a multiple of 3 devices, and there are 8"),
        ("model=8", "axis 'model' is not one of data, fsdp, tensor"),
        ("data=2,data=4", "axis 'data' is named twice"),
        ("data=-1,fsdp=-1", "only one axis"),
        ("data", "'data' is not axis=size"),
        ("data=0", "'data=0' is not axis=size"),
        ("data=2,", "'' is not axis=size"),
    ],
)
def test_meshes_that_cannot_be(text, match):
    with pytest.raises(UsageError, match=match):
        parse_mesh(text, devices(8))


def test_mesh_of_one_device():
    """The same code on one device as on many, and none at all for ""."""
    assert parse_mesh("") is None
    mesh = parse_mesh("data=-1", jax.devices()[:1])
    assert dict(mesh.shape) == {"data": 1, "fsdp": 1, "tensor": 1}
    given = batches(2, 4)
    _, want, adapter = trained(adapted(), None, given)
    _, got, other = trained(adapted(), mesh, given)
    np.testing.assert_array_equal(got, want)
    assert all(np.array_equal(other[k], adapter[k]) for k in adapter)


class Shape:
    """As much of a mesh as the table asks for."""

    def __init__(self, **shape):
        self.shape = shape


def test_the_table():
    mesh, spec = Shape(data=2, fsdp=2, tensor=4), PartitionSpec
    want = {
        ("layers", "up_proj", "kernel"): ((2, 64, 96), spec(None, "fsdp", "tensor")),
        ("layers", "down_proj", "kernel"): ((2, 96, 64), spec(None, "tensor", "fsdp")),
        ("layers", "q_proj", "bias"): ((2, 64), spec(None, "tensor")),
        ("layers", "o_proj", "bias"): ((2, 64), spec()),
        ("mu", "layers", "o_proj", "lora_a", "value"): ((2, 64, 3), spec(None, "tensor", None)),
        ("layers", "o_proj", "lora_b"): ((2, 3, 64), spec(None, None, "fsdp")),
        ("layers", "q_norm", "weight"): ((2, 64), spec()),
        ("embed",): ((258, 64), spec(None, "fsdp")),  # 4 does not divide 258
        ("head",): ((256, 64), spec("tensor", "fsdp")),
    }
    for path, (shape, expected) in want.items():
        assert spec_of(path, shape, mesh) == expected, path
    paths = [p for p, _ in nnx.to_flat_state(nnx.state(adapted())) if p[-1] in ("kernel", "lora_a", "lora_b")]
    paths += [p for p, _ in nnx.to_flat_state(nnx.state(adapted(**PHI3))) if p[-1] == "kernel"]
    for path in paths:
        assert any(spec_of(path, (8, 8, 8), mesh)), f"{path} is not in the table"


def test_what_does_not_divide():
    with pytest.raises(UsageError, match="tensor=3 does not divide the 8 attention heads of this llama model"):
        check(tiny(), Shape(tensor=3))
    check(tiny(), Shape(tensor=4, data=3))
    mesh = Shape(data=2, fsdp=2, tensor=2)
    assert row_shards(mesh) == 4
    with pytest.raises(UsageError, match="a batch of 6 rows does not divide over the 4 devices of data and fsdp"):
        check_rows(6, mesh)


# Eight devices

CHILD = """
    import re
    import jax
    import numpy as np
    from test_mesh import DIM, GEMMA2, LAYERS, PHI3, WIDE, adapted, batches, trained
    from edjax.lm.mesh import feed, parse_mesh, using
"""
EQUAL = """
    given = batches(10, 8)
    for options, names in (({}, ("data=8", "fsdp=8", "tensor=8", "data=2,fsdp=2,tensor=2")),
                           (PHI3 | GEMMA2, ("fsdp=-1,tensor=4",))):
        model = adapted(**options)
        _, want, adapter = trained(model, None, given)
        assert want[-1] != want[0]
        for name in names:
            mesh = parse_mesh(name)
            trainer, got, other = trained(model, mesh, given)
            assert np.abs(got - want).max() < 1e-5, (name, got, want)
            worst = max(np.abs(other[k] - adapter[k]).max() for k in adapter)
            assert worst < 1e-4, (name, worst)
            kernel = trainer.frozen["layers"]["down_proj"]["kernel"][...]
            split = mesh.shape["fsdp"] * mesh.shape["tensor"]
            assert {s.data.size * split for s in kernel.addressable_shards} == {kernel.size}, name
            moment = trainer.state.opt_state[1].mu["layers"]["down_proj"]["lora_b"][...]
            assert moment.addressable_shards[0].data.size * mesh.shape["fsdp"] == moment.size, name
    _, want, _ = trained(adapted(), None, given)
    _, got, _ = trained(adapted(), parse_mesh("data=2,fsdp=2,tensor=2"), [b.split(2) for b in given])
    assert np.abs(got - want).max() < 1e-5, ("accumulated", got, want)
    print("equal")
"""
GATHERED = """
    mesh = parse_mesh("fsdp=8")
    trainer, _, _ = trained(adapted(), mesh, [])
    with using(mesh):
        program = trainer._step.lower(trainer.state, trainer.frozen, feed(batches(1, 8)[0], mesh), 1e-3, 0, 0).compile()
    inside, outside = set(), set()
    for line in program.as_text().splitlines():
        if found := re.search(r"= \\w+\\[([0-9,]+)\\]\\S* all-gather(-start)?[(].*op_name=\\"([^\\"]*)", line):
            shape = tuple(map(int, found[1].split(",")))
            (inside if "while/body" in found[3] else outside).add(shape)
    layer = {(DIM, DIM), (DIM, WIDE), (WIDE, DIM)}
    assert layer <= inside, inside
    assert all(len(s) < 3 or s[0] < LAYERS for s in inside | outside), inside | outside
    assert not layer & outside, outside
    print("a layer at a time")
"""


def child(script, *arguments, count=8, fast=True):
    """A process with `count` CPU devices that runs the script; its arguments follow. `fast` to compile, that is."""
    paths = f"import sys; sys.path[:0] = {[str(HERE), str(HERE.parent)]!r}; sys.modules['torch'] = None\n"
    flags = of_devices(count)
    flags |= {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"} if fast else {}
    command = [sys.executable, "-c", paths + textwrap.dedent(script), *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=os.environ | flags, **pipes)


def said(*processes):
    try:
        return [p.communicate(timeout=240)[0] for p in processes]
    finally:
        for p in processes:
            p.kill()


def test_training_is_the_same_on_every_mesh():
    """Ten steps: losses within 1e-5; the adapter, of entries up to 0.16, within 1e-4, since Adam divides by the root
    of a gradient's square and so magnifies rounding where a gradient is small."""
    (text,) = said(child(CHILD + EQUAL))
    assert "equal" in text, text


def test_fsdp_gathers_a_layer_at_a_time():
    """The compiled step: layers' weights are gathered in the scan's body, and no stack of layers anywhere."""
    (text,) = said(child(CHILD + GATHERED, fast=False))
    assert "a layer at a time" in text, text


WHOLE = """
    import json, os
    from pathlib import Path
    from lm_cases import make_pool, tiny_model
    from safetensors.numpy import load_file
    from edjax.keep.errors import UsageError
    from edjax.evaluation import evaluate
    from edjax.finetuning import FinetuneConfig, finetune
    from edjax.lm.load import load
    from edjax.scoring import score

    out, mesh = Path(sys.argv[1]), "fsdp=2,tensor=4"
    tiny_model(out / "m")
    pool = make_pool([(f"Tim saw {i}{j}.", f"{j}{i}") for i in "abcdefg" for j in "xy"])  # of one length: few programs
    one, split = load(str(out / "m")), load(str(out / "m"), mesh=parse_mesh(mesh))
    kernel = split.model.layers.up_proj.kernel[...]
    assert kernel.addressable_shards[3].data.shape == (2, 16, 12)
    assert np.array_equal(kernel, one.model.layers.up_proj.kernel[...])
    options = {"num_train_epochs": 2, "save_steps": 2, "lora_r": 2}
    for name, rows in ("", 4), (mesh, 2):
        config = FinetuneConfig(mesh=name, per_device_train_batch_size=rows, **options)
        finetune(pool, str(out / "m"), out=out / (name or "one"), config=config, show_progress=False)
    logs = [[json.loads(l)["loss"] for l in (out / n / "metrics.jsonl").open()] for n in ("one", mesh)]
    assert len(logs[0]) == 8 and np.abs(np.diff(logs, axis=0)).max() < 1e-5, logs
    adapters = [load_file(out / n / "adapter_model.safetensors") for n in ("one", mesh)]
    assert max(np.abs(v - adapters[1][k]).max() for k, v in adapters[0].items()) < 1e-4
    metrics = "response_loss", "exact_match"
    given = {"batch_size": 4, "max_new_tokens": 3, "show_progress": False}
    want, got = (evaluate(pool, loaded=one, adapter=out / "one", mesh=m, metrics=metrics, **given) for m in ("", mesh))
    assert [r["generated"] for r in got.rows] == [r["generated"] for r in want.rows]
    assert abs(got.scores["response_loss"] - want.scores["response_loss"]) < 1e-5
    want, got = (score(pool, loaded=loaded, mesh=m, **given) for loaded, m in ((one, ""), (split, mesh)))
    assert np.abs(got.embeddings - want.embeddings).max() < 1e-5
    got = score(pool, loaded=one, mesh="data=8", **given | {"batch_size": 8})
    assert np.abs(got.embeddings - want.embeddings).max() < 1e-5
    assert max(np.abs(got.scores[k] - want.scores[k]).max() for k in want.scores) < 1e-4
    assert got.facts["generated"].tolist() == want.facts["generated"].tolist()
    try:
        score(pool, loaded=one, mesh=mesh, batch_size=3)
    except UsageError as e:
        assert "a batch of 3 rows" in str(e)
        print("the whole road")
"""


def test_finetune_evaluate_and_score_on_a_mesh(tmp_path):
    (text,) = said(child(CHILD + WHOLE, tmp_path))
    assert "the whole road" in text, text


# Two processes

DISTRIBUTED = """
    rank, port, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=rank, initialization_timeout=60)
    from jax.sharding import NamedSharding, PartitionSpec
    from pathlib import Path
    from lm_cases import story_pool
    from edjax.finetuning import FinetuneConfig, finetune
    given, model = batches(4, 8), adapted()
    _, want, adapter = trained(model, None, given)
    for name in ("fsdp=2,tensor=2",):
        mesh = parse_mesh(name)
        rows = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))

        def own(x):
            return jax.make_array_from_process_local_data(rows, np.split(x, 2)[rank], x.shape)

        for fed in (given, [jax.tree.map(own, batch) for batch in given]):
            trainer, got, other = trained(model, mesh, fed)
            assert np.abs(got - want).max() < 1e-5, (name, got, want)
            assert max(np.abs(other[k] - adapter[k]).max() for k in adapter) < 1e-4, name
        assert not trainer.state.lora["layers"]["up_proj"]["lora_b"][...].is_fully_addressable
    print("same loss")
    pool, model = story_pool(8), str(Path(out) / "m")
    config = FinetuneConfig(mesh="data=-1", per_device_train_batch_size=2, num_train_epochs=1, save_steps=0)
    for where in (f"adapter-{rank}", "adapter-0"):  # the second time it is done already
        done = finetune(pool, model, out=Path(out) / where, config=config, show_progress=False)
        assert done.steps == 1
    print("same adapter", done.train_loss)
"""


def free_port():
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def test_two_processes(tmp_path):
    """Each feeds its own rows, out of the whole batch or given alone; `finetune` writes in one of them only."""
    port = free_port()
    tiny_model(tmp_path / "m")
    started = [child(CHILD + DISTRIBUTED, rank, port, tmp_path, count=2) for rank in range(2)]
    texts = said(*started)
    assert all("same loss" in text for text in texts), "\n\n".join(texts)
    assert "same adapter" in texts[0]
    assert texts[0].split()[-1] == texts[1].split()[-1]
    assert (tmp_path / "adapter-0" / "adapter_model.safetensors").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["adapter-0", "m"]
