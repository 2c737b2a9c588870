"""One table that says how a decoder lies on a mesh of devices, and the few calls that put it to use.

The mesh has three axes: "data" and "fsdp" share out the rows of a batch, "fsdp" and "tensor" the parameters (data
parallel; Rajbhandari et al. 2020, ZeRO stage 3; Shoeybi et al. 2019, Megatron). Code below `using(mesh)` states where
activations lie; the compiler puts in the communication. Without a mesh every call here hands back what it got, so one
decoder serves a CPU, a GPU and a mesh of them.

Where the size of an axis does not divide a dimension of a parameter, the parameter is whole along that axis. Query
heads must divide, since attention would be gathered at every layer; key-value heads that do not are gathered.
`fused_projections` are cut across queries, keys and values, so under "tensor" they cost one more exchange of
activations a layer than the same matrices apart.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from edjax.keep.errors import UsageError
from edjax.lm.config import LMConfig

Array = jax.Array
DATA, FSDP, TENSOR = AXES = ("data", "fsdp", "tensor")
ROWS = (DATA, FSDP)
P = PartitionSpec

# A ROW projection takes its inputs split as the COLUMN ones before it left their outputs, so that heads and MLP units
# stay on their device and each pair costs one sum over "tensor" (Shoeybi et al. 2019, section 3). Of an adapter the
# same sides are split; the rank is too thin to be.
COLUMN = ("q_proj", "k_proj", "v_proj", "qkv_proj", "gate_proj", "up_proj", "gate_up_proj")
ROW = ("o_proj", "down_proj")
TABLE: dict[tuple[str, ...], PartitionSpec] = {
    ("embed",): P(TENSOR, FSDP),
    ("head",): P(TENSOR, FSDP),
    **{(m, "kernel"): P(None, FSDP, TENSOR) for m in COLUMN},
    **{(m, "bias"): P(None, TENSOR) for m in COLUMN},
    **{(m, "lora_a"): P(None, FSDP, None) for m in COLUMN},
    **{(m, "lora_b"): P(None, None, TENSOR) for m in COLUMN},
    **{(m, "kernel"): P(None, TENSOR, FSDP) for m in ROW},
    **{(m, "lora_a"): P(None, TENSOR, None) for m in ROW},
    **{(m, "lora_b"): P(None, None, FSDP) for m in ROW},
}
"""The end of a parameter's path -> the axes of its dimensions; what is not listed (norms) is whole on every device."""


def parse_mesh(text: str, devices: Sequence[Any] | None = None) -> Mesh | None:
    """The mesh that "fsdp=8", "data=2,tensor=4" or "data=-1" names; None for "".

    Args:
      text: axis=size pairs; one size may be -1, "the rest". Axes that are not named have size 1.
      devices: all of jax's, of every process.

    Raises:
      UsageError: an unknown axis, a size that is no number, or sizes that do not make up the number of devices.
    """
    if not text.strip():
        return None
    devices = jax.devices() if devices is None else devices
    sizes: dict[str, int] = {}
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\w+)\s*=\s*(-1|[1-9]\d*)\s*", part)
        if not found:
            raise UsageError(f"mesh {text!r}: {part.strip()!r} is not axis=size, as in fsdp=8 or data=2,tensor=4")
        name, size = found[1], int(found[2])
        if name not in AXES or name in sizes:
            what = "is named twice" if name in sizes else f"is not one of {', '.join(AXES)}"
            raise UsageError(f"mesh {text!r}: axis {name!r} {what}")
        sizes[name] = size
    n, rest = len(devices), [name for name, size in sizes.items() if size == -1]
    known = math.prod(size for size in sizes.values() if size > 0)
    if len(rest) > 1:
        raise UsageError(f"mesh {text!r}: only one axis can have the rest of the devices (-1)")
    if rest and n % known == 0:
        sizes[rest[0]] = n // known
    elif rest or known != n:
        raise UsageError(
            f"mesh {text!r} takes {'a multiple of ' if rest else ''}{known} devices, and there are {n} "
            f"({devices[0].platform}); one axis may be -1 for the rest"
        )
    shape = tuple(sizes.get(name, 1) for name in AXES)
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


def check(config: LMConfig, mesh: Mesh | None) -> None:
    """Refuse a mesh that would split a query head.

    Raises:
      UsageError: the "tensor" axis does not divide the number of heads.
    """
    parts = 1 if mesh is None else mesh.shape.get(TENSOR, 1)
    if config.num_heads % parts:
        raise UsageError(
            f"mesh axis tensor={parts} does not divide the {config.num_heads} attention heads of this "
            f"{config.model_type} model; its divisors do"
        )


def check_rows(n: int, mesh: Mesh | None) -> None:
    """Refuse a batch whose rows cannot be shared out.

    Raises:
      UsageError: the devices along "data" and "fsdp" do not divide n.
    """
    parts = 1 if mesh is None else row_shards(mesh)
    if n % parts:
        raise UsageError(
            f"a batch of {n} rows does not divide over the {parts} devices of data and fsdp; take a multiple of {parts}"
        )


def using(mesh: Mesh | None) -> contextlib.AbstractContextManager[Any]:
    """Programs traced inside lie on the mesh."""
    return contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh)


def row_shards(mesh: Mesh | AbstractMesh | None = None) -> int:
    """Among how many devices the rows of a batch are shared out; of the mesh in use where none is given."""
    shape = (mesh or jax.sharding.get_abstract_mesh()).shape
    return math.prod(shape.get(axis, 1) for axis in ROWS)


def spec_of(path: Sequence[Any], shape: Sequence[int], mesh: Mesh | AbstractMesh) -> PartitionSpec:
    """How the parameter at a path (names or jax's keys) of this shape lies on the mesh."""
    names = [re.sub(r"\W", "", str(getattr(k, "name", getattr(k, "key", k)))) for k in path]
    # Paths of an nnx.State end in the variable's value; those of an optimiser's state begin with its own fields.
    names = names[:-1] if names and names[-1] == "value" else names
    spec = TABLE.get(tuple(names[-1:]), TABLE.get(tuple(names[-2:]), P()))
    return _fitted(spec, shape, mesh)


def _fitted(spec: Any, shape: Sequence[int], mesh: Mesh | AbstractMesh) -> PartitionSpec:
    """The spec without axes that the mesh has not, or that do not divide their dimension."""
    fitted = []
    for size, axes in zip(shape, spec, strict=False):  # a spec may be shorter than the shape, or padded by `constrain`
        kept = tuple(a for a in ((axes,) if isinstance(axes, str) else axes or ()) if mesh.shape.get(a, 1) > 1)
        parts = math.prod(mesh.shape[a] for a in kept)
        fitted.append((kept[0] if len(kept) == 1 else kept) if kept and size % parts == 0 else None)
    return P(*fitted)


def place(tree: Any, mesh: Mesh | None) -> Any:
    """Parameters, adapters or optimiser states (leaves named as the parameters they belong to) onto the mesh."""
    if mesh is None:
        return tree

    def put(path, x):
        return jax.device_put(x, NamedSharding(mesh, spec_of(path, x.shape, mesh)))

    return jax.tree_util.tree_map_with_path(put, tree)


def feed(batch: Any, mesh: Mesh | None, axis: int = 0) -> Any:
    """A batch onto the mesh, its rows shared out.

    Args:
      batch: arrays whose dimension `axis` counts rows. NumPy ones are whole and the same in every process, and each
        process hands its devices their rows; jax ones (`jax.make_array_from_process_local_data`) stay as they are.

    Raises:
      UsageError: see `check_rows`.
    """
    if mesh is None:
        return batch
    rows = NamedSharding(mesh, P(*[None] * axis, ROWS))

    def put(x):
        check_rows(x.shape[axis], mesh)
        return x if isinstance(x, Array) else jax.make_array_from_callback(x.shape, rows, x.__getitem__)

    return jax.tree.map(put, batch)


def gather(tree: Any, mesh: Mesh | None) -> Any:
    """Arrays whole on every device, and so in the reach of every process."""
    return tree if mesh is None else jax.jit(lambda t: t, out_shardings=NamedSharding(mesh, P()))(tree)


def agreed(value: bool) -> bool:
    """What process 0 says, in every process."""
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    return bool(multihost_utils.broadcast_one_to_all(np.asarray(value)))


def _mesh_in_use() -> AbstractMesh | None:
    mesh = jax.sharding.get_abstract_mesh()
    return mesh if any(mesh.shape.get(axis, 1) > 1 for axis in AXES) else None


def constrain(x: Array, *axes: Any) -> Array:
    """x with its dimensions along the given axes (a name, several, or None) of the mesh in use."""
    mesh = _mesh_in_use()
    return x if mesh is None else jax.lax.with_sharding_constraint(x, _fitted((*axes, *[None] * x.ndim), x.shape, mesh))


def rows(x: Array) -> Array:
    """Activations (b, ...) with their rows shared out and the rest whole."""
    return constrain(x, ROWS)


def pin(tree: Any) -> Any:
    """Traced parameters, adapters or optimiser states where `place` puts them."""
    mesh = _mesh_in_use()
    if mesh is None:
        return tree

    def put(path, x):
        return jax.lax.with_sharding_constraint(x, spec_of(path, x.shape, mesh))

    return jax.tree_util.tree_map_with_path(put, tree)


def gather_layer(block: Any) -> Any:
    """One layer of a stack, inside the scan, whole along "fsdp": so that layers are gathered one at a time."""
    mesh = _mesh_in_use()
    if mesh is None:
        return block

    def put(path, x):
        stored = P(
            *spec_of(path, (0, *x.shape), mesh)[1:]
        )  # the table is of stacks: a layer's axis before, and off again
        return _without_fsdp(x, _fitted(stored, x.shape, mesh))

    return jax.tree_util.tree_map_with_path(put, block)


def gather_table(x: Array) -> Array:
    """The embedding or the output head (vocabulary, d), whole along "fsdp"."""
    mesh = _mesh_in_use()
    return x if mesh is None else _without_fsdp(x, _fitted(TABLE["embed",], x.shape, mesh))


def _without_fsdp(x: Array, stored: PartitionSpec) -> Array:
    """First as stored, so that the whole stack is not gathered before it is sliced, and its gradient is scattered."""
    x = jax.lax.with_sharding_constraint(x, stored)
    return jax.lax.with_sharding_constraint(x, P(*(None if axis == FSDP else axis for axis in stored)))
