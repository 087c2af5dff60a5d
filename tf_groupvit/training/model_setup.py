"""A recipe's tokenizer, model and optimizer before the first step, and what of the model learns.

A new model starts as published: dense kernels N(0, 0.02) or scaled by width and depth as CLIP's
are, biases 0, norms 1 and 0, position embeddings truncated N(0, 0.02), group tokens N(0, 0.02), or
0 where a projector makes them from those of the stage before. transformers leaves position
embeddings and group tokens at 0, where all groups are alike and stay so. Those choices are the
layers' own; ``spread_groups`` is what departs from them.
"""

import math
from collections.abc import Callable, Iterable
from pathlib import Path

import keras
import numpy as np

from tf_groupvit.config import GroupViTConfig
from tf_groupvit.errors import InputError
from tf_groupvit.hub import demo_checkpoint, resolve
from tf_groupvit.models.groupvit import TFGroupViTModel
from tf_groupvit.preprocessing.tokenizer import Tokenizer
from tf_groupvit.training.contrastive_model import TrainingModel
from tf_groupvit.training.recipe import DEMO, Recipe
from tf_groupvit.training.texts import train_vocabulary

# A part that can learn alone -> what of a path in the model makes a variable part of it. "all" is
# every one that learned from scratch, too.
PARTS: dict[str, tuple[str, ...]] = {
    "all": ("",),
    "group tokens": ("/group_token",),
    "projections": ("visual_projection.", "text_projection."),
    "vision": ("vision_model.", "visual_projection."),
}
LORA_LAYERS = ("q_proj", "v_proj")  # as in the paper of LoRA


def make_model(
    recipe: Recipe, folder: Path, seed: int, captions: Iterable[str], resume: bool = False
) -> tuple[Tokenizer, TrainingModel]:
    """Tokenizer and model, of which the parts learn that the recipe names.

    ``captions`` are read where there is no vocabulary: one is learned from them and written to
    ``folder``, where a run that is resumed finds it.

    Raises:
        CheckpointError, ConfigError, HubError: the checkpoint or the tokenizer cannot be read.
        InputError: the tokenizer is not the model's, or the model lacks what is to be trained.
    """
    checkpoint = checkpoint_of(recipe)
    tokenizer = make_tokenizer(recipe, folder, captions, resume)
    if checkpoint is None:
        model = TFGroupViTModel(model_config(recipe, tokenizer), dtype=recipe.precision)
        spread = recipe.initialization
        spread_groups(model, spread.group_token_std, spread.assign_gain, seed)
    else:
        model = TFGroupViTModel.from_pretrained(checkpoint, dtype=recipe.precision)
        # Ids beyond the model's embeddings would be read as zeros, on some devices.
        known = model.config.text_config.vocab_size
        if tokenizer.vocab_size > known:
            raise InputError(
                f"The tokenizer has {tokenizer.vocab_size:,} tokens, the model {known:,}: give the"
                " model's own tokenizer."
            )
    if recipe.trains == "lora":
        train_lora(model, recipe.lora_rank)
    elif recipe.trains != "all":
        train_only(model, recipe.trains)
    if recipe.drop_path:
        set_drop_path(model, recipe.drop_path)
    rematerialize(model, recipe.rematerialize)
    return tokenizer, TrainingModel(model, recipe.losses)


def checkpoint_of(recipe: Recipe) -> Path | None:
    """Where the checkpoint lies that training begins at; None where it begins at sizes."""
    name = recipe.start.checkpoint
    if not name:
        return None
    return demo_checkpoint() if name == DEMO else resolve(name)


def make_tokenizer(
    recipe: Recipe, folder: Path, captions: Iterable[str], resume: bool = False
) -> Tokenizer:
    """The recipe's, or its checkpoint's; or one that is learned, as ``make_model`` says."""
    checkpoint = checkpoint_of(recipe)
    if recipe.start.tokenizer:
        return Tokenizer.from_pretrained(recipe.start.tokenizer)
    if checkpoint is not None:
        return Tokenizer.from_pretrained(checkpoint if checkpoint.is_dir() else checkpoint.parent)
    if resume:
        return Tokenizer.from_pretrained(folder)
    wanted = recipe.vocabulary
    prompts = (f"a photo of a {word}." for word in recipe.words)
    return train_vocabulary(folder, [*captions, *prompts], wanted.merges, wanted.max_length)


def model_config(recipe: Recipe, tokenizer: Tokenizer) -> GroupViTConfig:
    """The config with the recipe's sizes and the tokenizer's tokens."""
    sections = {name: dict(values) for name, values in recipe.model.items()}
    text = {
        "vocab_size": tokenizer.vocab_size,
        "max_position_embeddings": tokenizer.max_length,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        **sections.pop("text", {}),
    }
    vision, joint = sections.pop("vision", {}), sections.pop("joint", {})
    return GroupViTConfig.from_dict({"text_config": text, "vision_config": vision, **joint})


def spread_groups(model: TFGroupViTModel, token_std: float, assign_gain: float, seed: int) -> None:
    """Draw group tokens from N(0, token_std), query and key kernels wider than published.

    The kernels of each assignment are drawn from N(0, assign_gain / sqrt(C)). As published,
    assignment logits start with a spread near 0.1, against Gumbel noise whose spread is 1.3:
    patches are dealt to groups at random, groups all see the same image, and in a small and short
    training nothing tells them apart. With 1.0 and 1.5 the logits start wider than the noise.
    Stages without group tokens of their own are left.
    """
    rng = np.random.default_rng(seed)

    def draw(variable: keras.Variable, std: float) -> None:
        variable.assign(rng.normal(0, std, variable.shape).astype("float32"))

    for stage in model.vision_model.stages:
        if not stage.num_group_tokens:
            continue
        if stage.group_projector is None:
            draw(stage.group_token, token_std)
        assign = stage.downsample.assign
        for layer in (assign.q_proj, assign.k_proj):
            draw(layer.kernel, assign_gain / np.sqrt(layer.kernel.shape[0]))


def set_drop_path(model: TFGroupViTModel, rate: float) -> None:
    """Drop path: leave residual branches of the vision blocks out, for random images of a batch.

    The rate grows in a line from 0 in the first block to ``rate`` in the last, as published (0.1);
    what stays is scaled, so that its mean does not change. Set it before the model is compiled.
    """
    if not 0 <= rate < 1:
        raise InputError(f"The rate of drop path is {rate!r}: expected 0 or more, and less than 1.")
    stages = model.vision_model.stages
    depth = sum(len(stage.blocks) for stage in stages)
    first = 0
    for stage in stages:
        places = range(first, first + len(stage.blocks))
        stage.drop_rates = tuple(rate * place / max(depth - 1, 1) for place in places)
        first += len(stage.blocks)


def rematerialize(model: TFGroupViTModel, on: bool = True) -> None:
    """Compute activations of the vision blocks again instead of keeping them.

    Less memory for a third more work; gradients are the same. Set it before the model is compiled.
    """
    for stage in model.vision_model.stages:
        stage.rematerialize = on


def train_only(model: TFGroupViTModel, part: str) -> list[str]:
    """Freeze all but one of ``PARTS``, and return the paths of the variables that learn now.

    Variables are frozen, not layers, so that a single one in a layer can learn. Batch normalization
    of a frozen part works in training as in inference. Call it before ``compile``.

    Raises:
        InputError: there is no such part, or the model does not have it.
    """
    if part not in PARTS:
        raise InputError(
            f"There is no part {part!r} to train: expected one of {', '.join(map(repr, PARTS))}."
        )
    _freeze(model, lambda path: any(mark in f"/{path}" for mark in PARTS[part]))
    learning = [variable.path for variable in model.trainable_variables]
    if not learning:
        raise InputError(f"This model has no {part}: there would be nothing to train.")
    return learning


def train_lora(
    model: TFGroupViTModel, rank: int = 8, layers: tuple[str, ...] = LORA_LAYERS
) -> list[str]:
    """Freeze all, and let low-rank factors of the named dense layers learn; returns their paths.

    ``save_pretrained`` writes the sum of a layer's weights and the product of its factors. Call it
    before ``compile``.

    Raises:
        InputError: a rank below 1, no layers of these names, or a model that has such factors
            already.
    """
    if rank < 1:
        raise InputError(f"The rank of LoRA should be 1 or more, got {rank}.")
    _freeze(model, lambda path: False)
    chosen = []
    for layer in _layers(model, keras.layers.Dense):
        name = layer.name.replace("-", ".").rpartition(".")[2]  # under PyTorch they have no dots
        if name in layers:
            chosen.append(layer)
    if not chosen:
        raise InputError(
            f"No layers of this model are named {', '.join(layers)}: try {', '.join(LORA_LAYERS)}."
        )
    for layer in chosen:
        if layer.lora_enabled:
            raise InputError(
                f"Layer {layer.name} has LoRA's factors already: save the model, and load it again."
            )
        layer.enable_lora(rank)
    return [variable.path for variable in model.trainable_variables]


def _freeze(model: TFGroupViTModel, learns: Callable[[str], bool]) -> None:
    """Let the variables learn whose paths ``learns`` is true for."""
    model.trainable = True  # the layers; what follows decides for each variable
    norms = _layers(model, keras.layers.BatchNormalization)
    statistics = {id(v) for norm in norms for v in (norm.moving_mean, norm.moving_variance)}
    for variable in model.weights:
        variable.trainable = id(variable) not in statistics and learns(variable.path)
    for norm in norms:
        norm.trainable = learns(norm.gamma.path)


def _layers(model: TFGroupViTModel, kind: type[keras.layers.Layer]) -> list[keras.layers.Layer]:
    return [layer for layer in model._flatten_layers(include_self=False) if isinstance(layer, kind)]


def compile_for(training: TrainingModel, recipe: Recipe) -> None:
    """Compile with the optimizer of a recipe whose steps are known, and build it.

    A state can then be restored before the first step.
    """
    chosen = recipe.optimizer
    warm_up = chosen.warm_up
    if recipe.epochs and chosen.warm_up_epochs:
        warm_up = recipe.steps * chosen.warm_up_epochs // recipe.epochs
    warm_up = min(warm_up, recipe.steps // 4)  # of a run cut short to look at
    rate = warm_up_then_cosine(chosen.rate, warm_up, recipe.steps, chosen.start, chosen.floor)
    training.compile(adamw(training, rate, chosen.weight_decay, chosen.clip, chosen.accumulation))
    training.optimizer.build(training.trainable_variables)


def warm_up_then_cosine(
    peak: float, warm_up: int, steps: int, start: float = 0.0, floor: float = 0.0
) -> keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate: a line from ``start`` to ``peak``, then half a cosine to ``floor``.

    Args:
        warm_up: steps of the line; 0 for none.
        steps: batches of the whole training, the warm-up included, also where gradients are
            accumulated over several; beyond them the rate is ``floor``.

    Raises:
        InputError: a warm-up longer than the training, or rates that are out of order.
    """
    if not 0 <= warm_up < steps:
        raise InputError(
            f"A warm-up of {warm_up} steps does not fit a training of {steps}: make it shorter."
        )
    if not (0 < peak < math.inf and 0 <= start <= peak and 0 <= floor <= peak):
        raise InputError(
            f"Learning rates should be 0 <= start, floor <= peak, got {start}, {floor} and {peak}."
        )
    line = dict(warmup_target=peak, warmup_steps=warm_up) if warm_up else {}
    first, alpha = (start if warm_up else peak), floor / peak
    return keras.optimizers.schedules.CosineDecay(first, steps - warm_up, alpha=alpha, **line)


def adamw(
    model: keras.Model,
    rate: float | keras.optimizers.schedules.LearningRateSchedule,
    weight_decay: float = 0.05,
    clip: float | None = 5.0,
    accumulation: int = 1,
    epsilon: float = 1e-8,
) -> keras.optimizers.AdamW:
    """AdamW for a model's trainable variables; biases, norms and scales do not decay.

    Args:
        clip: the largest norm of all gradients together; None for any.
        accumulation: batches whose gradients are averaged before a step.
    """
    if accumulation < 1:
        raise InputError(f"Accumulation should be over 1 batch or more, got {accumulation}.")
    optimizer = keras.optimizers.AdamW(
        rate,
        weight_decay=weight_decay,
        epsilon=epsilon,
        global_clipnorm=clip,
        gradient_accumulation_steps=accumulation if accumulation > 1 else None,
    )
    kept = [variable for variable in model.trainable_variables if not decays(variable)]
    optimizer.exclude_from_weight_decay(var_list=kept)
    return optimizer


def decays(variable: keras.Variable) -> bool:
    """Whether a variable is a matrix, or what stands for one."""
    return len(variable.shape) > 1
