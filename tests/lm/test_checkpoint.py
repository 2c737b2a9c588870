"""Damaged and hostile model directories: refused in one line, fast, and nothing in them is ever run."""

import contextlib
import json
import math
import os
import pickle
import signal
import struct
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from lm_cases import forward, tiny_model
from safetensors.numpy import save_file

from edjax.keep.errors import DataError, EdjaxError, EnvError, UsageError
from edjax.lm import untrusted
from edjax.lm.load import load

KEY = "model.layers.1.mlp.up_proj.weight"


@pytest.fixture
def model(tmp_path):
    """(directory, tensors) of a random model that loads."""
    return tmp_path / "m", tiny_model(tmp_path / "m")


@pytest.fixture(scope="module", autouse=True)
def imported(tmp_path_factory):
    """What a first load imports and compiles, so that it counts for no case."""
    directory = tmp_path_factory.mktemp("first")
    tiny_model(directory)
    load(str(directory))


def peak():
    """The most memory of this process since the last call, in bytes; 0 where the system does not tell."""
    try:
        status = Path("/proc/self/status").read_text()
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return 0
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


@contextlib.contextmanager
def cheaply():
    """Less than a second of the processor, and no more than 100 MB of memory."""
    peak()
    before, start = peak(), time.process_time()
    yield
    assert time.process_time() - start < 1
    assert peak() - before < 100e6


def refused(directory, match, kind=DataError):
    with cheaply(), pytest.raises(kind, match=match) as e:
        load(str(directory))
    assert "\n" not in str(e.value)
    assert str(directory) in str(e.value) or kind is not DataError
    return str(e.value)


def rewrite(directory, tensors):
    save_file(tensors, directory / "model.safetensors")


def shards(directory, weight_map):
    (directory / "model.safetensors").unlink()
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_the_case_itself_loads(model):
    directory, tensors = model
    loaded = load(str(directory))
    np.testing.assert_array_equal(np.asarray(loaded.model.layers.up_proj.kernel[1]), tensors[KEY].T)
    np.testing.assert_array_equal(np.asarray(loaded.model.head[...]), tensors["lm_head.weight"])


def test_sixteen_bit_weights(model):
    """bfloat16 and float16 files are read without torch, value by value."""
    directory, tensors = model
    halves = {k: v.astype(ml_dtypes.bfloat16 if i % 2 else np.float16) for i, (k, v) in enumerate(tensors.items())}
    rewrite(directory, halves)
    loaded = load(str(directory))
    np.testing.assert_array_equal(np.asarray(loaded.model.layers.up_proj.kernel[1]), halves[KEY].astype(np.float32).T)


def test_bfloat16_model(model):
    directory, _ = model
    ids = np.arange(30)
    full, half = (forward(load(str(directory), kind).model, ids)[0] for kind in ("float32", "bfloat16"))
    assert half.dtype == np.float32
    assert 0 < np.abs(full - half).max() < 0.1 * np.abs(full).max()
    with pytest.raises(UsageError, match="int8"):
        load(str(directory), "int8")


def test_end_of_turn_of_a_chat_model(model):
    """Ids that generation_config.json names end an answer too."""
    directory, _ = model
    assert load(str(directory)).eos_ids == (256,)
    (directory / "generation_config.json").write_text('{"eos_token_id": [256, 7]}')
    assert load(str(directory)).eos_ids == (7, 256)


def test_missing_tensor(model):
    directory, tensors = model
    rewrite(directory, {k: v for k, v in tensors.items() if k != KEY})
    assert KEY in refused(directory, "no tensor")


def test_wrong_shape(model):
    directory, tensors = model
    rewrite(directory, tensors | {KEY: tensors[KEY].T.copy()})
    assert KEY in refused(directory, r"has shape \(32, 48\), the config asks for \(48, 32\)")


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.bool_])
def test_integer_dtype(model, dtype):
    directory, tensors = model
    rewrite(directory, tensors | {KEY: np.ones(tensors[KEY].shape, dtype)})
    assert KEY in refused(directory, "has dtype")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("key", [KEY, "model.embed_tokens.weight", "model.norm.weight"])
def test_values_that_are_not_finite(model, value, key):
    directory, tensors = model
    bad = tensors[key].copy()
    bad.flat[5] = value
    rewrite(directory, tensors | {key: bad})
    assert f"model.safetensors: tensor {key!r}" in refused(directory, "NaN or infinite")


@pytest.mark.parametrize("share", [0.0, 1e-4, 0.01, 0.5, 0.999])
def test_truncated_weights(model, share):
    directory, _ = model
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    refused(directory, "cannot be read")


def test_huge_header(model):
    directory, _ = model
    (directory / "model.safetensors").write_bytes(struct.pack("<Q", 2**31) + b"{}")
    refused(directory, "cannot be read")


@pytest.mark.parametrize("head", [b"not JSON", b"[]", b"\xff\xfe{}", b"[" * 100_000, b"{}" * 9, b""])
def test_headers_that_are_not_json(model, head):
    directory, _ = model
    (directory / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head)
    refused(directory, "cannot be read|no tensor")


def sparse(path, name, shape):
    """A file of one float32 tensor that takes no room on disk, however large it says it is."""
    size = 4 * int(np.prod(shape))
    head = json.dumps({name: {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}}).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(head)) + head)
        f.truncate(8 + len(head) + size)


def test_a_tensor_of_another_size_is_not_read(model):
    """100 GB where 33 kB are due."""
    directory, tensors = model
    save_file({k: v for k, v in tensors.items() if k != KEY}, directory / "a.safetensors")
    sparse(directory / "b.safetensors", KEY, [5_000_000, 5_000])
    shards(directory, {k: "b.safetensors" if k == KEY else "a.safetensors" for k in tensors})
    assert KEY in refused(directory, r"b\.safetensors: tensor .* has shape \(5000000, 5000\)")


def test_overlapping_offsets(model):
    directory, _ = model
    entry = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    head = json.dumps({"a": entry, "b": {**entry, "data_offsets": [8, 24]}}).encode()
    (directory / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + bytes(24))
    refused(directory, "cannot be read")


class Bomb:
    def __reduce__(self):
        return os.putenv, ("EDJAX_PICKLE_WAS_LOADED", "1")


def test_pickled_weights(model):
    directory, _ = model
    (directory / "model.safetensors").unlink()
    for name in ("pytorch_model.bin", "consolidated.00.pth"):
        (directory / name).write_bytes(pickle.dumps(Bomb()))
    refused(directory, "pickled weights only")


def test_no_weights(model):
    directory, _ = model
    (directory / "model.safetensors").unlink()
    refused(directory, r"no model\.safetensors")


@pytest.mark.parametrize("name", ["../x.safetensors", "/tmp/x.safetensors", "sub/x.safetensors", "..", "."])
def test_index_stays_inside(model, name):
    directory, tensors = model
    save_file(tensors, directory.parent / "x.safetensors")
    shards(directory, dict.fromkeys(tensors, name))
    refused(directory, "refused")


def test_index_names_a_missing_shard(model):
    directory, tensors = model
    shards(directory, dict.fromkeys(tensors, "model-00001-of-00001.safetensors"))
    refused(directory, "is missing")


def test_truncated_shard(model):
    directory, tensors = model
    whole = (directory / "model.safetensors").read_bytes()
    (directory / "a.safetensors").write_bytes(whole)
    (directory / "b.safetensors").write_bytes(whole[:-100])
    shards(directory, {k: "b.safetensors" if k == KEY else "a.safetensors" for k in tensors})
    refused(directory, "cannot be read")


def test_shard_without_its_tensor(model):
    directory, tensors = model
    save_file({k: v for k, v in tensors.items() if k != KEY}, directory / "a.safetensors")
    shards(directory, dict.fromkeys(tensors, "a.safetensors"))
    assert KEY in refused(directory, "cannot be read")


@pytest.mark.parametrize(
    "text", ["", "[]", '{"weight_map": []}', '{"weight_map": {"a": 5}}', "{}", '{"weight_map": null}']
)
def test_damaged_index(model, text):
    directory, _ = model
    (directory / "model.safetensors").unlink()
    (directory / "model.safetensors.index.json").write_text(text)
    refused(directory, "cannot be read")


@pytest.mark.parametrize("file", ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("text", ["", "{", "[]", "\0"])
def test_damaged_json(model, file, text):
    directory, _ = model
    (directory / file).write_text(text)
    refused(directory, "cannot be read")


def configured(directory, **changes):
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"model_type": "gpt2"}, "'gpt2' is not supported"),
        ({"hidden_act": "gelu"}, "'gelu' is not supported"),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}, "rope type 'dynamic'"),
        ({"model_type": "no_such_model"}, "cannot be read"),
        ({"hidden_size": 64}, "the config asks for"),
        ({"num_hidden_layers": 3}, "no tensor"),
    ],
)
def test_other_configs(model, changes, match):
    directory, _ = model
    configured(directory, **changes)
    refused(directory, match)


@pytest.mark.parametrize(
    "name", ["num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "head_dim", "vocab_size"]
)
@pytest.mark.parametrize("value", [-1, 1.5, 10**9, 10**12, "x", []])
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_sizes_that_make_no_sense(model, name, value, kind):
    """Nothing is allocated on the word of a config."""
    directory, _ = model
    configured(directory, **{name: value, "model_type": kind})
    refused(directory, "config|tensor")


@pytest.mark.parametrize(("name", "value"), [("rms_norm_eps", math.nan), ("rms_norm_eps", -1.0), ("rope_theta", -1.0)])
def test_constants_that_make_no_sense(model, name, value):
    directory, _ = model
    configured(directory, **{name: value})
    assert name in refused(directory, "above 0 and finite")


@pytest.mark.parametrize("where", ["config.json", "tokenizer_config.json"])
def test_code_in_a_model_directory_never_runs(model, where, tmp_path):
    directory, _ = model
    ran = tmp_path / "ran"
    code = f"open({str(ran)!r}, 'w')\nfrom transformers import LlamaConfig as C, PreTrainedTokenizerFast as T\n"
    for name in ("modeling_own.py", "tokenization_own.py", "configuration_own.py", "__init__.py", "conftest.py"):
        (directory / name).write_text(code)
    path = directory / where
    auto = {
        "AutoConfig": "configuration_own.C",
        "AutoModelForCausalLM": "modeling_own.C",
        "AutoTokenizer": ["tokenization_own.T", "tokenization_own.T"],
    }
    path.write_text(json.dumps({**json.loads(path.read_text()), "auto_map": auto}))
    with contextlib.suppress(EdjaxError):  # refusing is as good as ignoring
        load(str(directory))
    assert not ran.exists()


def test_hostile_chat_template(model, tmp_path):
    from edjax.lm.encode import Encoder

    directory, _ = model
    ran = tmp_path / "ran"
    hostile = "{{ cycler.__init__.__globals__.os.system('touch " + str(ran) + "') }}"
    (directory / "chat_template.jinja").write_text(hostile)
    loaded = load(str(directory))
    assert loaded.tokenizer.chat_template == hostile
    with pytest.raises(DataError, match="chat template"):
        Encoder(loaded.tokenizer).prompt([{"role": "user", "content": "hi"}])
    assert not ran.exists()


HOSTILE = {
    "classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "attr filter": "{{ ''|attr('__class__')|attr('__mro__') }}",
    "format": "{{ '{0.__class__.__mro__}'.format(messages) }}",
    "change the messages": "{{ messages.append(messages[0]) }}",
    "import": "{% import 'os' as os %}",
    "include": "{% include '/etc/passwd' %}",
    "long range": "{% for i in range(10**12) %}{% endfor %}",
    "its own error": "{{ raise_exception('roles must alternate') }}",
    "not defined": "{{ nothing.at.all }}",
    "not a template": "{% for %}",
    "not closed": "{{ messages",
    "no tokens": "{{ '' }}",
    "divides by zero": "{{ 1 // 0 }}",
    "calls itself": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
}
FOREVER = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"


def prompt_of(directory, template):
    from edjax.lm.encode import Encoder

    (directory / "chat_template.jinja").write_text(template)
    return Encoder(load(str(directory)).tokenizer).prompt([{"role": "user", "content": "hi"}])


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_templates(model, case):
    directory, _ = model
    with pytest.raises(DataError, match=r"chat template|no tokens") as e:
        prompt_of(directory, HOSTILE[case])
    assert "<class" not in str(e.value)


def test_a_template_without_end(model, monkeypatch):
    directory, _ = model
    monkeypatch.setattr("edjax.lm.encode.bounded", partial(untrusted.bounded, 0.3))
    start = time.process_time()
    with pytest.raises(DataError, match=r"takes more than 0\.3 s"):
        prompt_of(directory, FOREVER)
    assert time.process_time() - start < 3
    assert prompt_of(directory, "{{ messages[0].content }}") == [ord("h") - 33, ord("i") - 33]  # and no timer is left


def test_the_bound_of_a_body():
    handler = signal.getsignal(signal.SIGVTALRM)
    with pytest.raises(untrusted.TooLong), untrusted.bounded(0.05):
        while True:
            pass
    assert signal.getsignal(signal.SIGVTALRM) is handler
    with untrusted.bounded(0.05):
        pass
    end = time.process_time() + 0.2
    while time.process_time() < end:  # the timer is off
        pass


ONLINE = """
import socket, sys
tried = []
def refuse(self, address, *more):
    tried.append(address)
    raise OSError("no network")
def resolve(host, *more, **named):
    tried.append(host)
    raise OSError("no network")
socket.socket.connect = socket.socket.connect_ex = refuse
socket.getaddrinfo = resolve
from edjax.keep.errors import EnvError
from edjax.lm.encode import Encoder
from edjax.lm.load import load
Encoder(load(sys.argv[1]).tokenizer).prompt([{"role": "user", "content": "hi"}])
print("directory", len(tried))
try:
    load("no-such-org/no-such-model")
except EnvError:
    print("hub id", len(tried) > 0)
"""


def test_only_a_hub_id_reaches_for_the_network(model):
    """In a process that is not told to stay offline."""
    env = {k: v for k, v in os.environ.items() if k not in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")}
    done = subprocess.run(
        [sys.executable, "-c", ONLINE, str(model[0])], capture_output=True, text=True, env=env, timeout=120
    )
    assert done.stdout.split("\n")[:2] == ["directory 0", "hub id True"], done.stdout + done.stderr


def test_hub_id_offline():
    message = refused("no-such-org/no-such-model", "could not be fetched from the hub", EnvError)
    assert "HF_HUB_OFFLINE" in message


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "nothing", "x.gguf"])
def test_names_that_are_nothing(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    refused(name, "not found|does not exist")


def test_directory_without_a_config(tmp_path):
    refused(tmp_path, r"no config\.json")
