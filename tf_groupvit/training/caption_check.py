"""Look through training pairs before the first step: how many, what is broken, how long, a sheet.

What is left out here is what training would leave out.
"""

import random
import re
import tempfile
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image, ImageOps
from tqdm import tqdm

from tf_groupvit.errors import ConfigError, DatasetError, GroupViTError, one_line
from tf_groupvit.preprocessing.image_graph import decode
from tf_groupvit.preprocessing.image_reading import read_image
from tf_groupvit.preprocessing.tokenizer import Tokenizer
from tf_groupvit.segmentation.contact_sheet import TILE, sheet_of
from tf_groupvit.storage import Output
from tf_groupvit.training.caption_batches import Skipped
from tf_groupvit.training.caption_loading import (
    LONGEST,
    MIN_SIDE,
    decode_error,
    load_pair,
    load_pairs,
    threads_for,
)
from tf_groupvit.training.caption_shards import Record
from tf_groupvit.training.caption_sources import Source, first_captions, open_pairs, records_of
from tf_groupvit.training.model_setup import make_tokenizer
from tf_groupvit.training.recipe import SCENES, Recipe

SHEET = "contact_sheet.jpg"
SHOWN = 20  # pairs on the sheet
REASONS = 10  # that are told
LINES = 3  # of a caption on the sheet
AT_ONCE = 1000  # captions that are counted together


@dataclass
class Check:
    """What was found; ``pairs`` and all that follows ``broken`` are what training would take.

    Attributes:
        broken: name and reason of each of the others.
        lengths: how many captions have so many tokens.
        sides: how many images have a shorter side of so many pixels.
        shown: some of the pairs, with their numbers, drawn from all.
    """

    pairs: int = 0
    broken: Skipped = field(default_factory=Skipped)
    lengths: Counter[int] = field(default_factory=Counter)
    sides: Counter[int] = field(default_factory=Counter)
    shown: list[tuple[int, Record]] = field(default_factory=list)

    def summary(self, longest: int) -> str:
        """Lines to read; captions of more than ``longest`` tokens will be cut."""
        broken = (
            f"{len(self.broken):,} more are broken, and left out" if self.broken else "none broken"
        )
        lines = [f"{self.pairs:,} pairs; {broken}"]
        lines += [f"  {line}" for line in self._reasons()]
        if self.pairs:
            lengths = np.array(sorted(self.lengths))
            counts = np.cumsum([self.lengths[length] for length in lengths])
            middle, most = lengths[np.searchsorted(counts, np.array([0.5, 0.95]) * self.pairs)]
            cut = sum(count for length, count in self.lengths.items() if length > longest)
            lines += [
                f"captions have {lengths[0]:,} to {lengths[-1]:,} tokens, half of them at most"
                f" {middle:,}, 95 of 100 at most {most:,}; {cut:,} with more than {longest:,} are"
                " cut",
                f"the shorter sides of images have {min(self.sides):,} to {max(self.sides):,}"
                " pixels",
            ]
        return "\n".join(lines)

    def _reasons(self) -> Iterator[str]:
        """How many are broken for each reason, the most frequent first, with an example."""
        examples: dict[str, str] = {}
        counts: Counter[str] = Counter()
        for name, reason in self.broken.items():
            kind = re.sub(r"\d+", "0", re.sub(r"^.* (cannot be read|ends within)", r"\1", reason))
            examples.setdefault(kind, f"{reason} ({one_line(name, LONGEST)})")
            counts[kind] += 1
        yield from (f"{count:,}: {examples[kind]}" for kind, count in counts.most_common(REASONS))
        if len(counts) > REASONS:
            yield f"and {len(counts) - REASONS} other reasons"

    def sheet(self) -> bytes:
        """The pairs that are shown, the captions below their images: a JPEG.

        Raises:
            DatasetError: there are none.
        """
        tiles = []
        for _, record in sorted(self.shown, key=itemgetter(0)):
            image, caption = load_pair(record)
            pixels = Image.fromarray(read_image(image, name=record.name))
            tiles.append((caption, ImageOps.contain(pixels, (TILE, TILE))))
        if not tiles:
            raise DatasetError(f"There is nothing to train on: {self.broken.in_one_line()}")
        return sheet_of(tiles, LINES)


def check_pairs(source: Source, tokenizer: Tokenizer) -> Check:
    """Load and decode every pair of a source, as training would."""
    check, rng, captions = Check(), random.Random(0), list[str]()
    waiting: deque[tuple[int, Record, str]] = deque()  # on their way through the graph
    failure: list[Exception] = []

    def load() -> Iterator[tuple[int, bytes]]:
        try:
            records = enumerate(tqdm(records_of(source), unit=" pairs", disable=None))
            for number, record, pair in load_pairs(records, threads_for(source.shards)):
                if isinstance(pair, GroupViTError):
                    check.broken.add(record.name, str(pair))
                    continue
                image, caption = pair
                waiting.append((number, record, caption))
                yield number, image
        except Exception as error:  # it would be passed over with those of images
            failure.append(error)

    def size(number: tf.Tensor, image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return number, tf.reduce_min(tf.shape(decode(image))[:2])

    spec = tf.TensorSpec([], tf.int64), tf.TensorSpec([], tf.string)
    images = tf.data.Dataset.from_generator(load, output_signature=spec)
    sizes = images.map(size, tf.data.AUTOTUNE, deterministic=True).ignore_errors()
    for number, side in sizes.as_numpy_iterator():
        first, record, caption = waiting.popleft()
        while first != number:
            check.broken.add(record.name, decode_error(record))
            first, record, caption = waiting.popleft()
        if side < MIN_SIDE:
            check.broken.add(record.name, decode_error(record))
            continue
        if len(check.shown) < SHOWN:
            check.shown.append((check.pairs, record))
        elif (place := rng.randrange(check.pairs + 1)) < SHOWN:
            check.shown[place] = check.pairs, record
        check.pairs += 1
        check.sides[int(side)] += 1
        captions.append(caption)
        if len(captions) == AT_ONCE:
            check.lengths.update(tokenizer.lengths(captions).tolist())
            captions.clear()
    for _, record, _ in waiting:
        check.broken.add(record.name, decode_error(record))
    check.lengths.update(tokenizer.lengths(captions).tolist())
    if failure:
        raise failure[0]
    return check


def check_data(recipe: Recipe, folder: str) -> str:
    """Check what a recipe trains on, and writes a contact sheet to a folder or URL.

    Returns:
        The lines that tell what was found.

    Raises:
        ConfigError: the recipe trains on drawn scenes.
        DatasetError: the pairs cannot be read, or none is whole.
    """
    if recipe.data.source == SCENES:
        raise ConfigError("Drawn scenes need no check: name captions of your own, with --data.")
    source = open_pairs(recipe.data.source)
    with tempfile.TemporaryDirectory() as learned:
        captions = first_captions(source, recipe.vocabulary.captions)
        tokenizer = make_tokenizer(recipe, Path(learned), captions)
    check = check_pairs(source, tokenizer)
    lines = check.summary(min(tokenizer.max_length, recipe.vocabulary.text_length))
    Output(folder).write(SHEET, check.sheet())
    return (
        f"{recipe.data.source}: {lines}\n{len(check.shown)} of them: {folder.rstrip('/')}/{SHEET}"
    )
