"""What a column beside the embeddings is: a score, an array of numbers in each row, or a fact; and Arrow's lists of it.

A score is a number a row, an array a list of numbers of the same shape in every row (nested lists: more dimensions),
pairs are arrays of certain names with a number for each row of the pool, and whatever else there is a fact. Lists that
do not fit together are a fact too, since nobody may ask for them: `unfit` says what is wrong with them where somebody
does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edjax.keep.errors import DataError

if TYPE_CHECKING:
    from edjax.data.features import Features


PAIRS = ("icl_utility",)  # columns that hold, in each row, a number for every row of the pool in the pool's order


class Columns(NamedTuple):
    """By name: `scores` (n,) float32, `facts` (n,) of any dtype, `arrays` (n, ...) and `pairs` (n, n) float32."""

    scores: dict[str, np.ndarray]
    facts: dict[str, np.ndarray]
    arrays: dict[str, np.ndarray]
    pairs: dict[str, np.ndarray]

    def take(self, rows: np.ndarray, *, across: bool = True) -> Columns:
        """These rows alone, in this order; of pairs also these columns, unless they are in it already (`across`)."""
        scores, facts, arrays = ({name: v[rows] for name, v in part.items()} for part in self[:3])
        pairs = {name: of_rows(v, rows) if across else v[rows] for name, v in self.pairs.items()}
        return Columns(scores, facts, arrays, pairs)

    def held(self, name: str, values: np.ndarray) -> dict[str, np.ndarray]:
        """Where numbers in more than one dimension belong: arrays, or pairs by their name and shape."""
        return self.pairs if name in PAIRS and values.shape == (len(values),) * 2 else self.arrays


def of_rows(pairs: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The pairs (r, r) of these rows among themselves."""
    return pairs[np.ix_(rows, rows)]


def of_table(table: Any, *, whole: bool = False) -> Columns:
    """The columns of an Arrow table. whole: integers are scores too (CSV has no other 3)."""
    import pyarrow.types as t

    made = Columns({}, {}, {}, {})
    for name in table.column_names:
        column = table[name].cast("float64") if t.is_decimal(table[name].type) else table[name]
        if _is_list(column.type) and (array := array_of(column)) is not None:
            made.held(name, array)[name] = array
        elif is_fraction(table[name].type) or (whole and t.is_integer(column.type)):
            made.scores[name] = column.to_numpy().astype(np.float32)
        else:
            made.facts[name] = column.to_numpy()
    return made


def of_arrays(arrays: Mapping[str, np.ndarray]) -> Columns:
    """NumPy arrays of n rows: numbers in more than one dimension are arrays, fractions in one are scores."""
    made = Columns({}, {}, {}, {})
    for name, values in arrays.items():
        fraction, number = values.dtype.kind == "f", values.dtype.kind in "fiu"
        if values.ndim == 1 and not fraction:
            made.facts[name] = values
        elif number:
            with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, and is refused as such
                part = made.scores if values.ndim == 1 else made.held(name, values)
                part[name] = values.astype(np.float32)
    return made


def is_fraction(kind: Any) -> bool:
    """Whether an Arrow type is of floating-point or decimal numbers."""
    import pyarrow.types as t

    return bool(t.is_floating(kind) or t.is_decimal(kind))


# Lists


def as_lists(values: np.ndarray) -> Any:
    """(n, ...) numbers as an Arrow array of n rows: fixed-size lists, nested where there are three dimensions or more.

    >>> str(as_lists(np.zeros((2, 3, 4), np.float32)).type)
    'fixed_size_list<item: fixed_size_list<item: float>[4]>[3]'
    """
    import pyarrow as pa

    made = pa.array(np.ascontiguousarray(values).reshape(-1))
    for size in values.shape[:0:-1]:
        made = pa.FixedSizeListArray.from_arrays(made, size)
    return made


def array_of(column: Any) -> np.ndarray | None:
    """(n, ...) float32 of an Arrow column of lists; None where they do not hold numbers, or differ in shape.

    A number that is missing inside a list is NaN.
    """
    parts: list[np.ndarray] = []
    for chunk in column.chunks:
        if not len(chunk):
            continue
        part = _block(chunk)
        if part is None or part.shape[1:] != (parts or [part])[0].shape[1:]:
            return None
        parts.append(part)
    return np.concatenate(parts) if parts else None


def _block(array: Any) -> np.ndarray | None:
    import pyarrow.compute as pc
    import pyarrow.types as t

    shape = [len(array)]
    while _is_list(array.type):
        if array.null_count:
            return None
        sizes = pc.unique(pc.list_value_length(array)).to_pylist()
        if len(sizes) != 1 or not sizes[0]:
            return None
        shape.append(sizes[0])
        array = array.flatten()
    if not (t.is_floating(array.type) or t.is_integer(array.type)):
        return None
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array.to_numpy(zero_copy_only=False), np.float32).reshape(shape)


def _is_list(kind: Any) -> bool:
    import pyarrow.types as t

    return bool(t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind))


def width_of(kind: Any) -> int:
    """Numbers a row of an Arrow type of fixed-size lists; 0 of another, lists of any length among them."""
    import pyarrow.types as t

    if not t.is_fixed_size_list(kind):
        return 0
    inside = kind.value_type
    return int(kind.list_size) * (1 if t.is_floating(inside) or t.is_integer(inside) else width_of(inside))


# What does not fit


def unfit(features: Features, name: str, dims: int | None = 1) -> DataError | None:
    """What is wrong with a column that is to have so many dimensions, rows included: 1 for a score, None for any.

    None where it is right, and where there is no such column.
    """
    if name in PAIRS and (values := features.arrays.get(name)) is not None:
        return DataError(
            f"the column {name!r} has shape {values.shape}, and needs a number for each of the {len(values)} rows in "
            "every row, in the order of the rows; score these rows anew, or take all rows that were scored"
        )
    if (values := features.columns.get(name)) is not None:
        if dims in (None, values.ndim):
            return None
        held = "one number" if values.ndim == 1 else f"{' x '.join(map(str, values.shape[1:]))} numbers"
        wanted = {1: "one number", 2: "a list of numbers"}.get(dims or 1, f"an array of {(dims or 1) - 1} dimensions")
        return DataError(f"the column {name!r} holds {held} a row, shape {values.shape}; {wanted} a row is needed here")
    if name not in features.facts:
        return None
    facts = features.facts[name]
    if facts.dtype == object and any(isinstance(v, list | np.ndarray) for v in facts):
        return DataError(f"the column {name!r} {_uneven(facts, features.ids)}")
    return _no_number(facts, name, features.ids)


def _uneven(rows: np.ndarray, ids: Iterable[str]) -> str:
    """What keeps lists from being an array, and the first row in which it shows."""
    remedy = "lists of numbers, of one shape in all rows, are read as an array"
    first: tuple[int, ...] | None = None
    for row, name in zip(rows, ids, strict=True):
        shape = None if row is None else _shape(row)
        if row is None:
            return f"is null in row {name!r}; {remedy}"
        if shape is None:
            return f"holds lists of unequal length, or a null, in row {name!r}; {remedy}"
        if 0 in shape:
            return f"holds an empty list in row {name!r}; {remedy}"
        first = first or shape
        if shape != first:
            return f"has shape {first} in the first row and {shape} in row {name!r}; {remedy}"
    return f"holds lists, and not of numbers; {remedy}"


def _shape(value: Any) -> tuple[int, ...] | None:
    """The shape of nested lists; None where they differ."""
    if not isinstance(value, list | np.ndarray):
        return ()
    if isinstance(value, np.ndarray) and value.dtype != object:
        return value.shape
    inside = {None if v is None else _shape(v) for v in value}
    if len(inside) > 1 or None in inside:
        return None
    return (len(value), *(next(iter(inside)) if inside else ()))  # type: ignore[misc]


def _no_number(facts: np.ndarray, name: str, ids: tuple[str, ...]) -> DataError:
    """A column that is no list and no score: of whole numbers, of text, of true and false."""
    values = facts.tolist()
    odd = next((i for i, v in enumerate(values) if isinstance(v, bool) or not isinstance(v, int | float)), None)
    if odd is None:
        return DataError(
            f"the column {name!r} holds {facts.dtype.name}; of features, columns of floats are scores: write it as "
            "such, or join it with --scores FILE"
        )
    comma = isinstance(values[odd], str) and re.fullmatch(r"\s*-?\d+,\d+\s*", values[odd])
    remedy = "with a point in place of the comma" if comma else "in every row, or leave the cell empty"
    kind = "text" if isinstance(values[odd], str) else type(values[odd]).__name__
    found = f"{kind} ({values[odd]!r} in row {ids[odd]!r})"
    return DataError(f"the column {name!r} holds {found} and is no score; write numbers {remedy}")
