"""What makes programs quick to compile, at the price of their speed. Nothing but the standard library."""

import os
from importlib.metadata import version

# No optimisations by LLVM, and of jaxlib 0.10 the older generator of code: up to five times as quick, and most of the
# time of the tests is compiling. Where XLA_FLAGS is set, be it to nothing, it stays: what is tested is then what users
# run.
XLA_FLAGS = "--xla_backend_optimization_level=0"
if version("jaxlib").startswith("0.10."):
    XLA_FLAGS += " --xla_cpu_use_fusion_emitters=false"


def of_devices(count: int) -> dict[str, str]:
    """The environment of a process with so many CPU devices. Programs with collectives are not kept: those of jaxlib
    0.10 that came from the cache have waited for each other for ever."""
    flags = f"{os.environ.get('XLA_FLAGS', XLA_FLAGS)} --xla_force_host_platform_device_count={count}"
    return {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "false"}
