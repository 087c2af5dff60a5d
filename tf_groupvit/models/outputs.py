"""Results of the models: dicts of tensors that are also read by attribute and by position.

Only what was asked for is in the dict; any other field of the kind reads as None by attribute.
"""

from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import keras
import optree

from tf_groupvit.types import Tensor

Output = TypeVar("Output", bound="ModelOutput")


class ModelOutput(dict[str, Any]):
    """A dict of tensors whose keys are a subset of ``fields``, in that order."""

    fields: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        _register(cls)

    if not TYPE_CHECKING:  # type checkers know the fields of each kind, and no others

        def __getattr__(self, name: str) -> Any:
            if name in type(self).fields:
                return self.get(name)
            raise AttributeError(
                f"{type(self).__name__} has no field {name!r}: it has"
                f" {', '.join(type(self).fields)}"
            )

    def __getitem__(self, key: str | int | slice) -> Any:
        return self.to_tuple()[key] if isinstance(key, int | slice) else super().__getitem__(key)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)

    def to_tuple(self) -> tuple[Any, ...]:
        """The entries that are there, in order."""
        return tuple(self.values())

    @classmethod
    def of(cls, **entries: Any) -> Self:
        """Keep the entries that are not None, in the order of ``fields``."""
        return cls((name, entries[name]) for name in cls.fields if entries.get(name) is not None)


def without(output: Output, *names: str) -> Output:
    """A result of the same kind that lacks some entries."""
    return type(output)((name, value) for name, value in output.items() if name not in names)


def plain(output: Any) -> Any:
    """A result, and what is nested in it, as plain dicts."""
    return (
        {name: plain(value) for name, value in output.items()}
        if isinstance(output, dict)
        else output
    )


def _flatten(output: Any) -> tuple[tuple[Any, ...], tuple[str, ...], tuple[str, ...]]:
    names = tuple(output)
    return tuple(output.values()), names, names


def _register(cls: type[ModelOutput]) -> None:
    """Tell the tree libraries that ``cls`` is a branch, not a leaf; ``predict`` and jit need it."""

    def rebuild(names: Any, leaves: Any) -> Any:
        return cls(zip(names, leaves, strict=True))

    optree.register_pytree_node(cls, _flatten, rebuild, namespace="keras")
    if keras.backend.backend() == "jax":
        import jax

        jax.tree_util.register_pytree_node(cls, lambda output: _flatten(output)[:2], rebuild)
    if keras.backend.backend() == "torch":
        from torch.utils import (
            _pytree as torch_tree,
        )  # what Keras takes on PyTorch in the place of optree

        torch_tree.register_pytree_node(
            cls,
            lambda output: (list(output.values()), tuple(output)),
            lambda leaves, names: rebuild(names, leaves),
            flatten_with_keys_fn=lambda output: (
                [(torch_tree.MappingKey(name), value) for name, value in output.items()],
                tuple(output),
            ),
        )


class TowerOutput(ModelOutput):
    """What a tower returns.

    last_hidden_state: text (N, T, C), after the final norm; vision (B, G, C).
    pooler_output: text (N, C), the state of the end token; vision (B, C), the mean over groups.
    hidden_states: tuple, text: the embeddings and the output of each layer (N, T, C); vision: the
        embeddings and the output of each stage (B, P, C), where P shrinks from patches to groups.
    attentions: tuple, text: one (N, heads, T, T) a layer; vision: one soft assignment (B, G, P) a
        grouping stage.
    """

    fields = ("last_hidden_state", "pooler_output", "hidden_states", "attentions")

    if TYPE_CHECKING:  # tensors of Keras' backend
        last_hidden_state: Tensor
        pooler_output: Tensor
        hidden_states: tuple[Tensor, ...] | None
        attentions: tuple[Tensor, ...] | None


class GroupViTOutput(ModelOutput):
    """What the joint model returns.

    loss: scalar, the symmetric contrastive loss, with ``return_loss``.
    logits_per_image (B, N), logits_per_text (N, B): cosine similarities times the logit scale.
    segmentation_logits (B, N, H, W), with ``output_segmentation``.
    text_embeds (N, D), image_embeds (B, D): of length one.
    text_model_output, vision_model_output: the towers' own ``TowerOutput``.
    """

    fields = (
        "loss",
        "logits_per_image",
        "logits_per_text",
        "segmentation_logits",
        "text_embeds",
        "image_embeds",
        "text_model_output",
        "vision_model_output",
    )

    if TYPE_CHECKING:  # tensors of Keras' backend
        loss: Tensor
        logits_per_image: Tensor
        logits_per_text: Tensor
        segmentation_logits: Tensor
        text_embeds: Tensor
        image_embeds: Tensor
        text_model_output: TowerOutput
        vision_model_output: TowerOutput
