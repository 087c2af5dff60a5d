"""Training pairs in Parquet files: a column of images, and one of captions."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from tf_groupvit.errors import DatasetError, GroupViTError
from tf_groupvit.storage import holds_pictures, picture_of, place_of, reason_of
from tf_groupvit.training.caption_shards import Record, StorageError, broken, numbered_name
from tf_groupvit.training.caption_tables import CAPTIONS
from tf_groupvit.training.captions_file import texts_in

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

# Columns by the names that are in use; img2dataset calls that of images by their format.
IMAGE_COLUMNS = (
    "image",
    "jpg",
    "jpeg",
    "png",
    "webp",
    "bytes",
    "image_bytes",
    "image_path",
    "path",
)
REASON = "error_message"  # img2dataset's: why there is no image
MOST_BYTES = 2**31  # of a row group, which is read as a whole


class ParquetShards:
    """Parquet files with a row for each image: encoded, ``{"bytes", "path"}``, or a path.

    A row group is read when the first of its rows is loaded, and kept until the last one has been:
    with a shuffle of ten thousand, that many encoded images are in memory.

    Raises:
        DatasetError: pyarrow is missing, or the first file cannot be read or has no such columns.
    """

    def __init__(self, shards: Sequence[str]) -> None:
        self.shards = shards
        with _opened(shards[0]) as file:
            _columns(file.schema_arrow, shards[0])

    def read(self, shard: str) -> Iterator[Record]:
        """The rows in their order, or a record that says why a file cannot be read."""
        try:
            with _opened(shard) as file:
                yield from _records(file, shard)
        except DatasetError as error:
            yield broken(shard, str(error).rstrip("."), type(error))


def holds_pairs(file: str) -> bool:
    """Whether a Parquet file has a column of images; that of img2dataset's other layouts has none.

    Raises:
        DatasetError: pyarrow is missing, or it cannot be read.
    """
    with _opened(file) as table:
        return _image_column(table.schema_arrow) is not None


@contextmanager
def _opened(location: str, once: Sequence[str] = ()) -> "Iterator[pyarrow.parquet.ParquetFile]":
    """A file; equal values of the columns ``once`` are in memory once, as they are in the file."""
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise DatasetError(
            f"{location}: Parquet files need pyarrow: pip install 'tf-groupvit[annotate]'."
        ) from error
    kind: type[DatasetError] = StorageError
    try:
        system, path = place_of(location)
        with system.open(path, "rb") as file:
            table = pyarrow.parquet.ParquetFile(file, read_dictionary=once)
            kind = DatasetError  # of a damaged row group
            yield table
    except GroupViTError:
        raise
    except Exception as error:  # each storage has errors of its own, and pyarrow has
        raise kind(f"{location} cannot be read: {reason_of(error)}.") from error


def _columns(schema: "pyarrow.Schema", location: str) -> tuple[str, str]:
    """The names of the columns of images and of captions."""
    image = _image_column(schema)
    caption = next(_named(schema, CAPTIONS), None)
    if image is None or caption is None:
        what, known = ("images", IMAGE_COLUMNS) if image is None else ("captions", CAPTIONS)
        raise DatasetError(
            f"{location} has no column of {what}, but {', '.join(schema.names)}: call it one of"
            f" {', '.join(known)}."
        )
    return image, caption


def _image_column(schema: "pyarrow.Schema") -> str | None:
    names = _named(schema, IMAGE_COLUMNS)
    return next((name for name in names if holds_pictures(schema.field(name).type)), None)


def _named(schema: "pyarrow.Schema", known: Sequence[str]) -> Iterator[str]:
    """The columns of known names, in the order of those, in upper or lower case."""
    there = {name.lower(): name for name in schema.names}
    return (there[name] for name in known if name in there)


def _records(file: "pyarrow.parquet.ParquetFile", shard: str) -> Iterator[Record]:
    image, caption = _columns(file.schema_arrow, shard)
    columns = [image, caption, *({REASON} & {*file.schema_arrow.names})]
    leaves = (about for about in file.schema if about.physical_type == "BYTE_ARRAY")
    once = [leaf.path for leaf in leaves if leaf.path.split(".")[0] in (image, caption)]
    several = file.schema_arrow.field(caption).type.num_fields > 0  # a list of captions
    row = 0
    for number in range(file.metadata.num_row_groups):
        about = file.metadata.row_group(number)
        if about.total_byte_size > MOST_BYTES:
            yield broken(
                f"{shard}:{row}",
                f"its row group of {about.num_rows:,} rows has {about.total_byte_size:,} bytes:"
                " write the file anew with smaller ones, of a hundred rows",
            )
            row += about.num_rows
            continue
        counts = [1] * about.num_rows
        if several:
            texts = file.read_row_group(number, [caption])[0].to_pylist()
            counts = [len(one or "") or 1 for one in texts]
        group = _RowGroup(shard, number, columns, once)
        for at, count in enumerate(counts):
            for which in range(count):
                name = numbered_name(f"{shard}:{row + at}", which + 1)
                yield Record(name, partial(group.load, at, which))
        row += about.num_rows


class _RowGroup:
    """Rows that are read together, once, whichever is asked for first; forgotten with the last."""

    def __init__(self, shard: str, number: int, columns: list[str], once: list[str]) -> None:
        self.shard, self.number, self.columns, self.once = shard, number, columns, once
        self._reads = threading.Lock()
        self._table: pyarrow.Table | None = None

    def load(self, row: int, which: int) -> tuple[bytes, str]:
        """The image of a row, and one of its captions."""
        with self._reads:
            if self._table is None:
                with _opened(self.shard, self.once) as file:
                    self._table = file.read_row_group(self.number, self.columns)
            table = self._table
        try:
            image, caption, *reason = (table[name][row].as_py() for name in self.columns)
        except UnicodeDecodeError as error:  # not every writer checks
            raise DatasetError("its caption is no text in UTF-8") from error
        if image is None:
            raise DatasetError(
                f"its row has no image{''.join(f': {one}' for one in reason if one)}"
            )
        text = texts_in(caption)[which]
        try:
            return picture_of(image, *place_of(self.shard)), text
        except Exception as error:  # of an image that lies elsewhere
            kind = DatasetError if isinstance(error, GroupViTError) else StorageError
            raise kind(f"its image cannot be read: {reason_of(error)}") from error
