"""Train as a recipe says, into a folder; a run that was stopped resumes where it was."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from tf_groupvit.errors import DatasetError, InputError, TrainingError
from tf_groupvit.files import atomic_write, make_folder
from tf_groupvit.models.groupvit import TFGroupViTModel
from tf_groupvit.preprocessing.image import ImageProcessor
from tf_groupvit.preprocessing.image_arrays import statistics
from tf_groupvit.preprocessing.tokenizer import Tokenizer
from tf_groupvit.scenes.scene import scenes
from tf_groupvit.training.augment import PLAIN, PUBLISHED
from tf_groupvit.training.callbacks import (
    History,
    KeepBest,
    Progress,
    SaveState,
    StopAt,
    TensorBoard,
    log,
)
from tf_groupvit.training.caption_batches import WHOLE, Position, Share, TrainingData
from tf_groupvit.training.caption_sources import (
    Source,
    count_records,
    first_captions,
    first_images,
    open_pairs,
    outline,
    records_of,
    split,
)
from tf_groupvit.training.card import write_card
from tf_groupvit.training.contrastive_model import TrainingModel
from tf_groupvit.training.devices import ALONE, Team, check_precision, versions
from tf_groupvit.training.model_setup import checkpoint_of, compile_for, make_model
from tf_groupvit.training.recipe import SCENES, TAGGER, Recipe
from tf_groupvit.training.replicas import rows_per_replica, synchronize
from tf_groupvit.training.run_folder import BEST, HISTORY, STATE, NoFolder, RunFolder, open_folder
from tf_groupvit.training.scene_batches import DRAWN_AT, PixelValues, SceneBatches
from tf_groupvit.training.state import position_of, restore_state, variables_of
from tf_groupvit.training.texts import Prompts, listed_words, read_words, tagged_words
from tf_groupvit.training.together import Together
from tf_groupvit.training.validation import SEED, CaptionScores, GroupPictures, SceneScores

CLASS_NAMES = "classes.txt"  # of a checkpoint
COMPARED = 100  # captions that processes compare
PICTURES = 8  # images that TensorBoard shows


@dataclass(frozen=True)
class Run:
    """Everything of a run before its first step, built from its recipe and seed."""

    recipe: Recipe
    seed: int
    place: RunFolder
    team: Team
    tokenizer: Tokenizer
    processor: ImageProcessor
    training: TrainingModel
    data: SceneBatches | TrainingData
    pairs: tuple[str, str]  # see ``outline``; empty for scenes

    @property
    def folder(self) -> Path:
        """Where the run is on this disk."""
        return self.place.local

    @property
    def about(self) -> dict[str, Any]:
        """What a state must agree with, so that the run can resume from it."""
        return {"seed": self.seed, "pairs": self.pairs[1], **self.recipe.to_dict()}

    @property
    def class_names(self) -> tuple[str, ...]:
        """The recipe's, or those of the checkpoint that training began at; or none."""
        if self.recipe.words:
            return self.recipe.words
        before = checkpoint_of(self.recipe)
        listed = before / CLASS_NAMES if before else None
        if listed is None or not listed.is_file():
            return ()
        return tuple(filter(None, map(str.strip, listed.read_text(encoding="utf-8").split("\n"))))

    def make_validation(self) -> Callable[[], dict[str, float]]:
        """What measures the model on the way.

        mIoU on held-out scenes, the loss of held-out captions, or nothing.
        """
        recipe, model = self.recipe, self.training.model
        if isinstance(self.data, SceneBatches):
            count = recipe.validation_scenes
            return SceneScores(model, self.tokenizer, self.data.to_pixels, count).measure
        if not recipe.data.held_out:
            return dict
        source = open_sources(recipe)[1]
        count = sum(1 for _ in islice(records_of(source), recipe.data.validation_pairs))
        if not count:
            raise DatasetError(
                "No pairs are held out: raise [data] validation_share, or give [data] validation."
            )
        data = make_data(
            replace(recipe, batch_size=min(recipe.batch_size, count)),
            source,
            self.data.tokenizer,
            self.data.size,
            self.seed,
            held_out=True,
        )
        return CaptionScores(self.training, data, count).measure

    def make_pictures(self) -> GroupPictures:
        """What is drawn on the way: of held-out images where there are some, else of the first."""
        data, recipe = self.data, self.recipe
        if isinstance(data, SceneBatches):
            images = [one.image for one in scenes(SEED, PICTURES, DRAWN_AT)]
            to_pixels = data.to_pixels
        else:
            images = first_images(open_sources(recipe)[recipe.data.held_out], PICTURES)
            to_pixels = PixelValues(data.size, (data.mean, data.std))
        return GroupPictures(
            self.training.model, self.tokenizer, to_pixels, images, self.class_names
        )


def open_sources(recipe: Recipe) -> tuple[Source, Source]:
    """The pairs to train on, and the held-out ones; the same where the recipe holds none out."""
    chosen = recipe.data
    source = open_pairs(chosen.source)
    if chosen.validation_share:
        return split(source, chosen.validation_share)
    return source, open_pairs(chosen.validation) if chosen.validation else source


def make_data(
    recipe: Recipe,
    source: Source,
    tokenizer: Tokenizer,
    size: int,
    seed: int,
    held_out: bool = False,
    share: Share = WHOLE,
) -> TrainingData:
    """Batches of pairs with all that the recipe's losses read; held-out ones as they are.

    Args:
        tokenizer: cuts captions to its length.
        size: the side of the model's images.
        held_out: in the order of the files, without augmentation.
        share: which pairs of each batch are this worker's.
    """
    chosen, prompts = recipe.data, None
    if chosen.words:
        tagger = chosen.words == TAGGER
        words = tagged_words() if tagger else listed_words(read_words(Path(chosen.words)))
        prompts = Prompts(words, chosen.word_count)
    plain = held_out or chosen.augmentation != "published"
    return TrainingData(
        source,
        tokenizer,
        size,
        recipe.batch_size // share.workers,
        prompts=prompts,
        words=recipe.vocabulary_words,
        augmentation=PLAIN if plain else PUBLISHED,
        normalize=chosen.normalize,
        shuffle=1 if held_out else chosen.shuffle,
        seed=seed,
        share=share,
    )


def build(recipe: Recipe, folder: str | Path | RunFolder, seed: int = 0, team: Team = ALONE) -> Run:
    """Tokenizer, model, optimizer and data of a run, the same for the same recipe and seed.

    A batch that is larger than the data is lowered to them, with a line on standard error.

    Args:
        team: the devices and processes that train; all of the processes call this.
    """
    place = folder if isinstance(folder, RunFolder) else open_folder(folder)
    with team.scope():
        keras.utils.set_random_seed(seed)
        source = None if recipe.data.source == SCENES else open_sources(recipe)[0]
        if source:
            recipe = fit_batch(recipe, source)
        rows_per_replica(recipe.batch_size, team.replicas)
        # What may be a pass through all data comes before what the other processes wait for.
        if source and recipe.epochs:
            records = count_records(source)
            recipe = replace(recipe, steps=max(1, recipe.epochs * records // recipe.batch_size))
        pairs = outline(source) if source else ("", "")
        with team.waiting("The start"):
            _agree(recipe, source, pairs, seed, team)
            return _build(recipe, source, pairs, place, seed, team)


def _build(
    recipe: Recipe,
    source: Source | None,
    pairs: tuple[str, str],
    place: RunFolder,
    seed: int,
    team: Team,
) -> Run:
    count = recipe.vocabulary.captions
    captions: Iterator[str]
    if source is None:
        captions = (one.caption for one in scenes(seed, count, DRAWN_AT, "training"))
    else:
        captions = first_captions(source, count)
    folder = place.local
    resume = (folder / STATE).exists()
    tokenizer, training = make_model(recipe, folder, seed, captions, resume)
    config = training.model.config
    size = config.vision_config.image_height_width[0]
    mean, std = statistics(recipe.data.normalize)
    square = {"height": size, "width": size}
    processor = ImageProcessor(size=square, crop_size=square, image_mean=mean, image_std=std)
    length, longest = recipe.vocabulary.text_length, config.text_config.max_position_embeddings
    share = Share(team.cluster.worker, team.cluster.workers)
    data: SceneBatches | TrainingData
    if source is None:
        B, words = recipe.batch_size, recipe.words
        data = SceneBatches(tokenizer, words, size, B, (mean, std), seed, length, share)
    else:
        cut = tokenizer.limited_to(min(length, longest))
        data = make_data(recipe, source, cut, size, seed, share=share)
    if team.strategy:
        synchronize(training, team.cluster.workers)
    compile_for(training, recipe)
    make_folder((folder / STATE).parent)
    return Run(recipe, seed, place, team, tokenizer, processor, training, data, pairs)


def _agree(
    recipe: Recipe, source: Source | None, pairs: tuple[str, str], seed: int, team: Team
) -> None:
    """Have all processes compare their versions, settings, names of pairs and first captions.

    Raises:
        TrainingError: one of them was started otherwise.
        InputError: what several replicas cannot do.
    """
    check_precision(recipe, team.replicas)
    captions = list(first_captions(source, COMPARED)) if source and team.cluster.workers > 1 else []
    facts = {**versions(), "seed": seed, **recipe.to_dict(), "pairs": " ".join(pairs)}
    team.agree({**facts, "captions": captions})


def fit_batch(recipe: Recipe, source: Source) -> Recipe:
    """The recipe with a batch that the data can fill, and that replicas can share evenly.

    Raises:
        DatasetError: there are fewer pairs than two, or than replicas.
    """
    wanted, replicas = recipe.batch_size, tf.distribute.get_strategy().num_replicas_in_sync
    found = sum(1 for _ in islice(records_of(source), wanted))
    if found == wanted:
        return recipe
    lowered, least = found - found % replicas, max(2, replicas)
    if lowered < least:
        raise DatasetError(
            f"{recipe.data.source}: pairs to train on should be {least} or more, got {found}."
        )
    log(
        f"{recipe.data.source} holds {found} pairs to train on: the batch of {wanted} is lowered to"
        f" {lowered}."
    )
    return replace(recipe, batch_size=lowered)


def train(
    recipe: Recipe,
    folder: str | Path,
    seed: int = 0,
    bar: bool = False,
    tensorboard: Path | None = None,
    team: Team = ALONE,
) -> list[dict[str, Any]]:
    """Train as the recipe says and write the checkpoint; returns the history, a dict a round.

    A folder with a state of the same recipe and seed is resumed, with the same losses as if it had
    never stopped. What is trained on, how long the rest will take, and which records were left out
    is reported on standard error.

    Args:
        folder: where the checkpoint goes; a URL for another storage that fsspec reaches.
        bar: whether progress is a bar instead of lines.
        tensorboard: a folder for the numbers of each round and pictures of groups and masks; they
            change nothing else.
        team: the devices and processes that train, each of which calls this; the first one writes,
            and has the history.

    Raises:
        TrainingError: the loss is not a number any more, TensorBoard's folder cannot be written,
            or another process is lost or was started otherwise.
        CheckpointError: the folder's state is of another recipe, or it cannot be written.
        DatasetError: the pairs cannot be read, or are fewer than a batch.
        InputError: another storage cannot be read or written, or replicas cannot share a batch.
    """
    place = open_folder(folder) if team.first else NoFolder(folder)
    place.fetch()
    team.watch.kept = place.kept
    run = build(recipe, place, seed, team)
    try:
        return _train(run, bar, tensorboard)
    except InputError as error:
        raise InputError(_with_state(error, place)) from error


def _with_state(error: BaseException, place: RunFolder) -> str:
    """What went wrong, and the last good state."""
    words = place.kept()
    return f"{error} {words[0].upper()}{words[1:]}."


def _train(run: Run, bar: bool, tensorboard: Path | None) -> list[dict[str, Any]]:
    recipe, team, folder = run.recipe, run.team, run.folder
    state, workers = folder / STATE, team.cluster.workers
    start, positions = 0, [Position()] * workers
    if state.exists():
        start = restore_state(state, run.training, run.about)
        positions = [position_of(state, worker, workers) for worker in range(workers)]
    steps, B = recipe.steps, recipe.batch_size
    callbacks, lines, enough = [], [], False
    if team.first:
        _announce(run, start)
        measure = run.make_validation()
        history = History(folder / HISTORY, B, measure, recipe.validate_every, start, last=steps)
        lines, keep = history.lines, recipe.keep == "best"
        best = KeepBest(folder / BEST, run.training.model, keep, recipe.patience, lines)
        enough = best.enough
        callbacks = [history, Progress(steps, B, start, bar), best]
    # What the first process has read, all know.
    numbers = [number for place in positions for number in place.to_dict().values()]
    told = team.exchange("The start", [start, enough, *numbers])[0]
    start, enough, own = told[0], bool(told[1]), 2 + 3 * team.cluster.worker
    if start:
        team.share_values([*variables_of(run.training).values()])
    if not enough and start < steps:
        _fit(run, start, Position(*told[own : own + 3]), callbacks, tensorboard)
    if team.first:
        _save(run)
        write_card(folder, recipe, run.seed, lines)
        run.place.finish()
    team.exchange("The end", [0])  # none leaves while others may still wait for it
    return lines


def _announce(run: Run, start: int) -> None:
    """Say what is about to happen, before the first step, which takes longer than the others."""
    recipe, what = run.recipe, "scenes"
    if isinstance(run.data, TrainingData):
        what = f"{recipe.data.source} ({run.pairs[0]})"
    team = run.team
    on = f" on {team.replicas} devices" if team.replicas > 1 else ""
    if team.cluster.workers > 1:
        on += f" of {team.cluster.workers} workers"
    log(
        f"Training on {what}: {recipe.steps:,} steps of {recipe.batch_size} pictures{on}, into"
        f" {run.place.location}."
    )
    if start >= recipe.steps:
        log(f"{run.place.location} is at step {start} of {recipe.steps}: nothing is left to train.")
    elif start:
        log(f"Resuming at step {start} of {recipe.steps} from {run.place.location}.")


def _fit(
    run: Run,
    start: int,
    position: Position,
    reporting: list[keras.callbacks.Callback],
    tensorboard: Path | None,
) -> None:
    """Train in rounds of ``save_every`` steps; ``StopAt`` cuts the last one short.

    Args:
        reporting: the callbacks of the first process, none for others.
    """
    recipe, team, data, place = run.recipe, run.team, run.data, run.place
    together = Together(team, run.training, start, getattr(data, "position", None))
    # What reads the history goes after it, and a state has its round's line.
    callbacks: list[keras.callbacks.Callback] = [StopAt(recipe.steps, place, start), *reporting]
    if team.first:
        callbacks.append(SaveState(place, run.about, start, together.positions))
        if tensorboard is not None:
            history = next(one for one in reporting if isinstance(one, History))
            callbacks.append(TensorBoard(tensorboard, history, run.make_pictures().draw))
    batches = data.batches(start) if isinstance(data, SceneBatches) else data.batches(position)
    every, left = recipe.save_every, recipe.steps - start
    rounds = -(-left // every)
    try:
        together.fit(batches, rounds, every, callbacks)
    except (tf.errors.OpError, TrainingError):
        failure = getattr(data, "failure", None)
        if isinstance(failure, DatasetError):
            raise DatasetError(_with_state(failure, place)) from failure
        if failure:
            raise failure from None  # TensorFlow's error holds it as a traceback in a string
        raise
    finally:
        for one in reporting:
            if isinstance(one, Progress):
                one.close()
    if skipped := getattr(data, "skipped", None):
        log(skipped.summary())


def _save(run: Run) -> None:
    """Write the checkpoint: the best one where the recipe keeps it, else the last."""
    best = run.folder / BEST
    kept = best.exists() and run.recipe.keep == "best"
    model = TFGroupViTModel.from_pretrained(best) if kept else run.training.model
    model.save_pretrained(run.folder)
    run.processor.save_pretrained(run.folder)
    run.tokenizer.save_pretrained(run.folder)
    if names := run.class_names:
        atomic_write(run.folder / CLASS_NAMES, "".join(f"{name}\n" for name in names))
