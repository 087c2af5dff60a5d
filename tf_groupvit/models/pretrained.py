"""Loading and saving checkpoints: what the three model classes share."""

import logging
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import keras

from tf_groupvit.config import (
    NO_CONFIG,
    GroupViTConfig,
    GroupViTTextConfig,
    GroupViTVisionConfig,
    config_file_of,
)
from tf_groupvit.errors import CheckpointError, ConfigError, InputError
from tf_groupvit.memory import nothing_old_to_collect, nothing_to_collect
from tf_groupvit.models.base_model import BaseModel
from tf_groupvit.models.weights import starting_from

AnyConfig = GroupViTConfig | GroupViTTextConfig | GroupViTVisionConfig

logger = logging.getLogger(__name__)


class PretrainedModel(BaseModel):
    """A keras.Model with a ``.config``, that comes from a checkpoint and goes back to one."""

    config_class: ClassVar[Any]
    # Beginnings of names that a joint checkpoint has besides this tower's.
    may_ignore: ClassVar[tuple[str, ...]] = ()
    config: Any  # of config_class

    def __init__(self, config: AnyConfig, **keywords: Any) -> None:
        if not isinstance(config, self.config_class):
            came, hint = type(config).__name__, ""
            if isinstance(config, GroupViTConfig):
                hint = f": give its {self.config_class.section}"
            raise ConfigError(
                f"{type(self).__name__} takes a {self.config_class.__name__}, but got a"
                f" {came}{hint}."
            )
        super().__init__(**keywords)
        self.config = config

    @classmethod
    def from_pretrained(
        cls,
        folder_or_hub_id: str | os.PathLike[str],
        revision: str | None = None,
        token: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        dtype: str | None = None,
        config: AnyConfig | None = None,
        from_pt: bool | None = None,
        from_tf: bool | None = None,
    ) -> Self:
        """Build the model that a checkpoint describes and load its weights.

        What was left out on purpose (the original's ``multi_label_logit_scale``) is told through
        ``logging``.

        Args:
            folder_or_hub_id: a folder with config.json and weights, ``"organization/name"`` on the
                hub, or a file of weights such as the original ``.pth``, which takes its ``config``
                from the argument.
            revision, token, cache_dir, local_files_only: as huggingface_hub takes them.
            dtype: a Keras dtype policy for the model, e.g. ``"float16"`` or ``"mixed_bfloat16"``.
                Without it the variables are what Keras' global policy says, float32, whatever the
                file holds.
            config: replaces the folder's config.json; a tower takes its section of a joint config.
            from_pt, from_tf: accepted for code written for transformers; the file's own format
                decides.

        Raises:
            CheckpointError: no weights, a damaged file, or weights that do not fit the config, all
                named at once.
            ConfigError: no config.json, or an impossible one.
            HubError: the hub id cannot be resolved.
        """
        from tf_groupvit.checkpoints.matching import match
        from tf_groupvit.checkpoints.reading import read_checkpoint
        from tf_groupvit.hub import resolve
        from tf_groupvit.models.weights import expected_shapes, first_values

        path = resolve(
            folder_or_hub_id,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
        )
        if config is None:
            config = cls._config_of(path)
        elif isinstance(config, GroupViTConfig) and cls.config_class.section:
            config = getattr(config, cls.config_class.section)
        checkpoint = read_checkpoint(path)
        first = first_values(checkpoint.tensors, checkpoint.source)
        with nothing_to_collect(), starting_from(first):
            model = cls(config, dtype=dtype)
        match(checkpoint.tensors, expected_shapes(model), cls.may_ignore, checkpoint.source)
        for note in checkpoint.notes:
            logger.warning("%s: %s", checkpoint.source, note)
        return model

    @classmethod
    def _config_of(cls, path: Path) -> AnyConfig:
        if path.is_dir():
            return cls.config_class.from_pretrained(path)
        if path.suffix == ".pth" and not path.with_name("config.json").exists():
            warnings.warn(NO_CONFIG.format(path.name), stacklevel=3)
            return cls.config_class()
        return cls.config_class.from_pretrained(config_file_of(path))

    def flags(self, attentions: bool | None, hidden_states: bool | None) -> dict[str, bool]:
        """What a tower is asked for besides its result: the config's choice where there is none."""
        config = self.config
        return {
            "output_attentions": config.output_attentions if attentions is None else attentions,
            "output_hidden_states": (
                config.output_hidden_states if hidden_states is None else hidden_states
            ),
        }

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write ``config.json`` and ``model.safetensors``, as transformers' PyTorch class loads
        them.

        Each file is written beside and renamed, the config last: a failure leaves an older
        checkpoint whole. LoRA weights are merged into the layers that they belong to.

        Raises:
            CheckpointError: the folder cannot be written, or the model is quantized.
        """
        from tf_groupvit.checkpoints.safetensors_file import write_checkpoint
        from tf_groupvit.models.weights import as_tensors

        tensors = as_tensors(self)
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise CheckpointError(
                f"The folder {folder} cannot be made: {error.strerror or error}."
            ) from error
        write_checkpoint(folder, tensors)
        self.config.save_pretrained(folder)

    def get_config(self) -> dict[str, Any]:
        """What Keras saves beside the weights: the config, and which layers are quantized."""
        config = {
            "config": self.config.to_dict(),
            "name": self.name,
            "dtype": keras.saving.serialize_keras_object(self.dtype_policy),
        }
        quantized = {layer.name: _quantization_of(layer) for layer in _quantized_layers(self)}
        return config | ({"quantized": quantized} if quantized else {})

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Mapping[str, type] | None = None
    ) -> Self:
        """A model as ``get_config`` described it, whose weights are loaded later."""
        config = dict(config)
        policy = keras.saving.deserialize_keras_object(config["dtype"])
        model = cls(cls.config_class.from_dict(config["config"]), name=config["name"], dtype=policy)
        layers = {layer.name: layer for layer in model._flatten_layers(include_self=False)}
        with nothing_old_to_collect():
            for name, how in config.get(
                "quantized", {}
            ).items():  # variables of that kind, whose values are loaded later
                settings = {
                    part: keras.saving.deserialize_keras_object(how[part])
                    for part in how.keys() - {"mode"}
                }
                layers[name].quantize(how["mode"], **settings)
        return model


def _quantized_layers(model: keras.Model) -> list[keras.layers.Layer]:
    return [
        one
        for one in model._flatten_layers(include_self=False)
        if getattr(one, "quantization_mode", None)
    ]


def _quantization_of(layer: keras.layers.Layer) -> dict[str, Any]:
    """What quantizes another layer as this one is. Raises ``InputError`` where that takes data."""
    mode = layer.quantization_mode
    if mode not in ("int8", "int4", "float8"):
        raise InputError(
            f"Layer '{layer.name}' is quantized by {mode}, which needs data to be repeated: save"
            " the model before quantize(), or quantize it to int8, int4 or float8."
        )
    config = getattr(
        layer, "quantization_config", None
    )  # older versions of Keras know the mode alone
    return {"mode": mode} | (
        {"config": keras.saving.serialize_keras_object(config)} if config is not None else {}
    )
