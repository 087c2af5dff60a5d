"""TFRecord files in, records out; and pairs in, a TFRecord file out.

Only the lengths of a file's records are walked; an example is read and parsed when its record is
loaded. Check sums are not looked at: a damaged example or image shows when it is parsed or decoded.
"""

import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from tf_groupvit.errors import DatasetError, one_line
from tf_groupvit.files import replacing
from tf_groupvit.training.records import Record, broken, read_bytes

# Features by the names that are in use: the first is ours, "jpg" and "txt" are img2dataset's.
IMAGES = ("image", "jpg", "jpeg", "png", "webp", "image/encoded", "image_bytes")
CAPTIONS = ("caption", "txt", "text", "image/caption")
HEADER, FOOTER = 12, 4  # length and its check sum before an example, a check sum behind it


class TFRecordShards:
    """Files of ``tf.train.Example``, uncompressed, each with an encoded image and a caption; of
    several, the first.
    """

    def __init__(self, shards: Sequence[Path]) -> None:
        self.shards = shards

    def read(self, shard: Path) -> Iterator[Record]:
        """What of a file that is cut short is whole is used; a record in the end says that it was."""
        at = 0
        try:
            size = os.path.getsize(shard)
            with open(shard, "rb") as file:
                while at < size:
                    file.seek(at)
                    header = file.read(HEADER)
                    length = struct.unpack("<Q", header[:8])[0] if len(header) == HEADER else size
                    if at + HEADER + length + FOOTER > size:
                        yield broken(
                            str(shard), f"the file is cut short or damaged from byte {at:,} on"
                        )
                        return
                    yield Record(f"{shard}:{at}", partial(_load, shard, at + HEADER, length))
                    at += HEADER + length + FOOTER
        except OSError as error:
            yield broken(str(shard), f"the file cannot be read: {error.strerror or error}")


def _load(shard: Path, start: int, length: int) -> tuple[bytes, str]:
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    try:
        features = tf.train.Example.FromString(read_bytes(shard, start, length)).features.feature
    except DecodeError as error:
        raise DatasetError("it is no tf.train.Example") from error
    image, caption = (_first(features, names) for names in (IMAGES, CAPTIONS))
    return image, caption.decode("utf-8", "replace")


def _first(features: dict, names: tuple[str, ...]) -> bytes:
    for name in names:
        if name in features and features[name].bytes_list.value:
            return features[name].bytes_list.value[0]
    raise DatasetError(
        f"it has none of the features {', '.join(names)}, but {', '.join(sorted(features))}"
    )


def write_tfrecord(path: str | os.PathLike[str], pairs: Iterable[tuple[bytes, str]]) -> int:
    """Write pairs of an encoded image and its caption as a TFRecord file, and return how many there
    were.

    The file is written beside and renamed. Raises DatasetError where it cannot be written.
    """
    import tensorflow as tf

    path, count = Path(path), 0
    try:
        with replacing(path) as unfinished, tf.io.TFRecordWriter(os.fspath(unfinished)) as writer:
            for image, caption in pairs:
                texts = {"image": image, "caption": caption.encode()}
                feature = {
                    k: tf.train.Feature(bytes_list=tf.train.BytesList(value=[v]))
                    for k, v in texts.items()
                }
                writer.write(
                    tf.train.Example(
                        features=tf.train.Features(feature=feature)
                    ).SerializeToString()
                )
                count += 1
    except (OSError, tf.errors.OpError) as error:
        raise DatasetError(f"{path} cannot be written: {one_line(error)}.") from error
    return count
