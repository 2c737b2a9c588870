"""What is known of every prompt before anyone labels it: an embedding, and columns by name."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edjax.data import columns
from edjax.data.arrays import is_array as is_array
from edjax.data.arrays import open_array, others, read_others
from edjax.data.ids import as_known, check_ids, id_of
from edjax.data.stream import Stream, matrix, width
from edjax.keep import notebook
from edjax.keep.errors import DataError, UsageError
from edjax.keep.store import read_manifest, sha256_file, sha256_json

UNCERTAINTIES = ("mean_entropy", "max_entropy", "least_confidence", "mean_nll", "mean_margin", "min_margin")
SCORES = (*UNCERTAINTIES, "energy", "grad_norm")  # what a pass that decodes scores; features of before lack the last


@dataclass(frozen=True, eq=False)  # its arrays are not compared
class Features:
    """Features of n prompts, row i belonging to `ids[i]`.

    `embeddings` is (n, d) float32, as the model gave them, in memory or a `Stream`; `scores` maps a name to (n,)
    float32, larger meaning more uncertain; `facts` holds further columns (`n_prompt_tokens`, `n_new_tokens`,
    `generated`), (n,) of any dtype; `arrays` those with more than a number in each row, (n, ...) float32 of any shape;
    `pairs` those with a number for each pair of rows, (n, n) float32, NaN where there is none.
    """

    ids: tuple[str, ...]
    embeddings: np.ndarray | Stream
    scores: dict[str, np.ndarray]
    facts: dict[str, np.ndarray]
    digest: str
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    pairs: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def to_pandas(self, *, embeddings: bool = False) -> Any:
        """A pandas DataFrame, a row a prompt: id, scores, facts, and arrays as cells.

        embeddings: also a column with the embedding of each row; of a stream, all of it is read into memory. A column
        of the features that has one of these two names is called `id_`, or `embedding_`.

        Raises:
          EnvError: pandas is not installed.
        """
        found: dict[str, Any] = {**self.scores, **self.facts, **{k: list(v) for k, v in self.arrays.items()}}
        own: dict[str, Any] = {"id": list(self.ids)}
        if embeddings:
            x = self.embeddings
            own["embedding"] = list(x.read() if isinstance(x, Stream) else x)
        for name in own:
            if name in found:
                free = name + "_"
                while free in found:
                    free += "_"
                found = {free if k == name else k: v for k, v in found.items()}
        return notebook.pandas().DataFrame({"id": own.pop("id"), **found, **own})

    def _repr_html_(self) -> str:
        n, d = self.embeddings.shape
        flat = self.scores | self.facts
        said = f"Features of {n:,} rows: embeddings of length {d:,}; scores: {', '.join(self.scores) or 'none'}"
        said += "".join(f"; {name} {values.shape[1:]}" for name, values in self.arrays.items())
        rows = [(self.ids[i], *(v[i] for v in flat.values())) for i in range(min(n, notebook.ROWS))]
        return notebook.table(said, ("id", *flat), rows, n)

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """The numbers that a method can read by name beside the embeddings: scores, arrays and pairs."""
        return self.scores | self.arrays | self.pairs


def read_features(
    path: str | Path,
    *,
    memory: int | None = None,
    scratch: str | Path | None = None,
    ids: Sequence[str] | None = None,
    id_column: str = "id",
    embedding_column: str = "embedding",
) -> Features:
    """Read a directory that `edjax score` wrote, or embeddings of one's own.

    These are a Parquet file with ids and embeddings, or an (n, d) array in a .npy, .npz or .safetensors file (see
    `edjax.data.arrays`) with `ids` beside it. Every further column of floating-point numbers of a Parquet or .npz file
    becomes a score, to select by its name: the largest first. Every column of lists of numbers of one shape, nested or
    not, and every array of a .npz file with a row an id becomes one of `arrays`, for methods that read it; one
    named icl_utility with a number for every row, in their order, is one of `pairs`.

    Args:
      memory: bytes that the embeddings may take; where they would take more they stay on disk, as a `Stream`.
      scratch: directory for a copy of them that a selection may then need, default the system's for temporary files.
      ids: of an array's rows, in order.
      id_column: of a Parquet file of one's own; "id" where it has no column of that name.
      embedding_column: likewise.

    Raises:
      UsageError: an array without ids, or ids beside features that have their own.
      DataError: incomplete or damaged, a missing column, embeddings of unequal length, duplicate ids, as many ids as
        the array does not have rows.
    """
    path, place_for = Path(path), Path(scratch or tempfile.gettempdir())
    if is_array(path):
        return _array_features(path, ids, memory, place_for)
    if ids is not None:
        raise UsageError(f"{path} names its rows itself; ids are for .npy, .npz and .safetensors files")
    files, shards = _files(path)
    digest = sha256_json(shards) if shards is not None else sha256_file(path)
    id_column = id_column_of(path, id_column)
    table = _other_columns(files, path, id_column, embedding_column)
    ids = _ids(table, str(path), id_column)
    place, order = np.arange(len(ids)), None
    if "row" in table.column_names:
        order = np.argsort(table["row"].to_numpy(), kind="stable")
        place[order] = np.arange(len(ids))
        ids = tuple(ids[i] for i in order)
    shape = (len(ids), width(files, embedding_column))
    embeddings = Stream(tuple(files), shape, place, place_for, embedding_column)
    rest = columns.of_table(table.drop_columns([n for n in (id_column, "row") if n in table.column_names]))
    if order is not None:
        rest = rest.take(order, across=False)  # a shard has some of the rows, and of pairs all columns
    return Features(ids, _within(embeddings, memory), rest.scores, rest.facts, digest, rest.arrays, rest.pairs)


def _array_features(path: Path, ids: Sequence[str] | None, memory: int | None, scratch: Path) -> Features:
    file = open_array(path)
    if ids is None:
        raise UsageError(
            f"{path} does not name its rows: give their ids with --ids FILE (a .txt with a line each, a .npy, or a "
            ".jsonl, .csv or .parquet with an id column), or the pool they are of with --pool"
        )
    if len(ids) != file.shape[0]:
        raise DataError(f"{path} has {file.shape[0]} rows and there are {len(ids)} ids; they must be the same rows")
    check_ids(ids, "ids")
    embeddings = Stream((file,), file.shape, np.arange(len(ids)), scratch)
    digest = sha256_json({"array": sha256_file(path), "ids": sha256_json(list(ids))})
    rest = columns.of_arrays(read_others(file))
    return Features(tuple(ids), _within(embeddings, memory), rest.scores, rest.facts, digest, rest.arrays, rest.pairs)


def _within(embeddings: Stream, memory: int | None) -> np.ndarray | Stream:
    return embeddings if memory is not None and embeddings.nbytes > memory else embeddings.read()


def id_column_of(path: Path, wanted: str) -> str:
    """The column with the ids: `wanted` in a Parquet file of one's own that has it, else id."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if wanted == "id" or not path.is_file():
        return "id"
    try:
        return wanted if wanted in pq.read_schema(path).names else "id"
    except (pa.ArrowException, OSError) as e:
        raise DataError(f"{path} cannot be read as Parquet ({e})") from e


def join_columns(features: Features, path: str | Path, id_column: str = "id") -> Features:
    """The features with the further columns of a .parquet or .csv(.gz) file, joined by id: numbers become scores,
    lists of numbers arrays.

    Raises:
      DataError: a row of the features that the file does not have, an id that stands twice, a column that the features
        have already, no column at all.
    """

    path = Path(path)
    table = _table(path, id_column)
    ids = _ids(table, str(path), id_column)
    known = set(features.ids)
    place = {as_known(name, known) or name: i for i, name in enumerate(ids)}
    missing = [i for i in features.ids if i not in place]
    if missing:
        raise DataError(f"{path} has no row with id {missing[0]!r} ({len(missing)} such); every row needs its scores")
    table = table.drop_columns(id_column)
    if twice := [n for n in table.column_names if n in features.columns or n in features.facts]:
        raise DataError(f"{path}: the features have a column {twice[0]!r} already; rename it")
    if not table.column_names:
        raise DataError(f"{path} holds ids and no further column")
    rest = columns.of_table(table, whole=True).take(np.asarray([place[i] for i in features.ids]))
    return replace(
        features,
        scores=features.scores | rest.scores,
        facts=features.facts | rest.facts,
        arrays=features.arrays | rest.arrays,
        pairs=features.pairs | rest.pairs,
        digest=sha256_json([features.digest, sha256_file(path)]),
    )


def _table(path: Path, id_column: str) -> Any:
    """A .parquet or .csv(.gz) file as an Arrow table that has the column with the ids."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise DataError(f"scores {path} do not exist; name a .parquet or .csv file with an id column")
    kind = next((k for k in (".parquet", ".csv", ".csv.gz") if path.name.lower().endswith(k)), None)
    if kind is None:
        raise DataError(f"{path}: scores are read from .parquet, .csv and .csv.gz")
    try:
        table = pq.read_table(path) if kind == ".parquet" else _csv(path, kind == ".csv.gz", id_column)
    except (pa.ArrowException, OSError) as e:
        why = " ".join(str(e).split())[:200]
        raise DataError(f"{path} cannot be read as {kind.lstrip('.')} ({why})") from e
    names = table.column_names
    if id_column not in names:
        raise DataError(f"{path} has no column {id_column!r} with ids; the columns are {', '.join(names)}")
    if twice := next((n for n in names if names.count(n) > 1), None):
        raise DataError(f"{path}: the column {twice!r} occurs twice; rename one of them")
    return table


def _csv(path: Path, packed: bool, id_column: str) -> Any:
    import pyarrow as pa
    import pyarrow.csv as pc

    with pa.input_stream(str(path), compression="gzip" if packed else None) as f:
        data = f.read()
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{path}: this is UTF-16; save it as `CSV UTF-8`")
    head = data.split(b"\n", 1)[0].split(b"\r", 1)[0]
    other = next((sign for sign in (b";", b"\t") if head.count(sign) > head.count(b",")), None)
    if other:
        raise DataError(
            f"{path}: the cells are separated by {other.decode()!r}; save it with commas, and numbers with points"
        )
    text = pc.ConvertOptions(column_types={id_column: pa.string()}, strings_can_be_null=False)
    table = pc.read_csv(pa.BufferReader(data), convert_options=text)
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_binary(column.type):  # what Arrow makes of text that is not UTF-8
            raise DataError(f"{path}: the column {name!r} is not UTF-8; save the file as `CSV UTF-8`")
    return table


def joined_columns(path: str | Path, id_column: str = "id") -> tuple[str, ...]:
    """The columns that `join_columns` would join.

    Raises:
      DataError: as `join_columns`, as far as that shows in the file alone.
    """
    return tuple(n for n in _table(Path(path), id_column).column_names if n != id_column)


class Survey(NamedTuple):
    """What features on disk hold: n rows, embeddings of length d, and columns that are scores."""

    n: int
    d: int
    scores: tuple[str, ...]


def survey(path: str | Path, *, id_column: str = "id", embedding_column: str = "embedding") -> Survey:
    """Look at features without reading them: the files' metadata, and one row for its length.

    Raises:
      DataError: as `read_features`, as far as that shows.
    """
    import pyarrow.parquet as pq

    path = Path(path)
    if is_array(path):
        file = open_array(path)
        scores = (name for name, head in others(file).items() if len(head.shape) == 1 and head.kind.kind == "f")
        return Survey(*file.shape, tuple(scores))
    files, _ = _files(path)
    id_column = id_column_of(path, id_column)
    names = _column_names(files, id_column, embedding_column)
    n, d = sum(pq.read_metadata(f).num_rows for f in files), width(files, embedding_column)
    schema = pq.read_schema(files[0])
    if not n * d:
        raise DataError(f"{path} holds no embeddings; score a pool first")
    return Survey(n, d, tuple(c for c in names if c != id_column and columns.is_fraction(schema.field(c).type)))


def widths(path: str | Path, *, id_column: str = "id", embedding_column: str = "embedding") -> dict[str, int]:
    """How many numbers a row has in each of the arrays that features on disk hold, as far as their metadata say.

    Raises:
      DataError: as `survey`.
    """
    import pyarrow.parquet as pq

    path = Path(path)
    if is_array(path):
        return {n: math.prod(head.shape[1:]) for n, head in others(open_array(path)).items() if len(head.shape) > 1}
    files, _ = _files(path)
    names = _column_names(files, id_column_of(path, id_column), embedding_column)
    schema = pq.read_schema(files[0])
    return {n: w for n in names if n != embedding_column and (w := columns.width_of(schema.field(n).type))}


def _files(path: Path) -> tuple[list[Path], dict[str, str] | None]:
    """The Parquet files of features; and, for a directory, the sha256 of each by its name."""
    if path.is_dir():
        manifest = read_manifest(path, "features")
        shards = {n: f["sha256"] for n, f in sorted(manifest["files"].items()) if n.endswith(".parquet")}
        return [path / n for n in shards], shards
    if path.exists():
        return [path], None
    raise DataError(f"features {path} do not exist; `edjax score POOL --out {path}` makes them")


def _column_names(files: list[Path], id_column: str, embedding_column: str) -> list[str]:
    """The columns, once it is known that every file can be opened and has those that are needed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names: list[str] = []
    for file in files:
        try:
            names = pq.read_schema(file).names
        except (pa.ArrowException, OSError) as e:
            raise DataError(f"{file} cannot be read as Parquet ({e})") from e
        if missing := {id_column, embedding_column} - set(names):
            hint = "; name them with FILE.parquet:COLUMN and --id-column" if len(files) == 1 else ""
            raise DataError(f"{file} has no column {sorted(missing)}; found {names}{hint}")
    return names


def _other_columns(files: list[Path], path: Path, id_column: str, embedding_column: str) -> Any:
    """One table of all columns but the embeddings."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [n for n in _column_names(files, id_column, embedding_column) if n != embedding_column]
    try:
        return pa.concat_tables([pq.read_table(f, columns=names) for f in files])
    except (pa.ArrowException, OSError) as e:
        raise DataError(f"{path} cannot be read as Parquet ({e})") from e


def from_table(table: Any, digest: str, where: str) -> Features:
    """Columns of an Arrow table to `Features`."""
    ids = _ids(table, where)
    embeddings = matrix(table["embedding"].combine_chunks(), where)
    rest = [n for n in table.column_names if n not in ("id", "row", "embedding")]
    made = columns.of_table(table.select(rest))
    return Features(ids, embeddings, made.scores, made.facts, digest, made.arrays, made.pairs)


def _ids(table: Any, where: str, column: str = "id") -> tuple[str, ...]:
    if not len(table):
        raise DataError(f"{where} holds no rows; score a pool first")
    if table[column].null_count:
        raise DataError(f"{where}: {table[column].null_count} rows have no id; every row needs one")
    values = table[column].to_pylist()
    ids = [id_of(v) for v in values]
    if None in ids:
        at = ids.index(None)
        raise DataError(f"{where}: row {at + 1} has the id {values[at]!r}; text or an integer is needed")
    check_ids(ids, where)  # type: ignore[arg-type]
    return tuple(ids)  # type: ignore[arg-type]
