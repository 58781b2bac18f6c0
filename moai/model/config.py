"""The model's configuration, as Hugging Face stores it in ``config.json``.

Knows: which parts there are and where the frozen ones come from; never their weights. Plain dictionaries hold keyword
arguments of the builders, so that no module below sees a configuration object.
"""

from __future__ import annotations

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from moai.model.run_format import FORMAT
from moai.plugins import registry


@strict
class MoaiConfig(PreTrainedConfig):
    """A frozen host, a frozen vision encoder, and what is grafted on them.

    Attributes:
        text_config: the host's own configuration.
        host: ``reference``, ``revision``, ``dtype`` and ``sha256`` (file name -> hash) of the frozen host; or, of one
            that started from random weights, ``scratch: true`` in place of the hashes.
        vision: ``kind: encoder``, arguments of ``build_vision``, and ``sha256`` of the weights file, if there is one;
            or only ``kind: host``, where the host is a vision-language model with its own vision, or ``kind: none``,
            where images are perceived and have no tokens.
        connector: ``kind`` and ``options``; and ``left_out``, names of its optional parts without which it runs.
        compressor: arguments of ``Compressor``.
        mixer: ``layers`` (numbers), and arguments of ``Mixer``.
        arithmetic: ``"moai"`` or ``"published"``, of mixers, compressor and auxiliary words; see
            ``moai.model.arithmetic``. Ours brings embeddings of auxiliary words to zero mean and unit variance.
        context_layer: add to each auxiliary word the state with which it enters this layer of the host, which has read
            the words before it; None leaves word embeddings alone, as published.
        fact_ends: tokens that stand between two facts; each auxiliary word then also carries the mean of its fact's
            words. None leaves words alone, as published.
        word_order: what facts and questions say as a whole also says in which order their words stand.
        trained: frozen parts that a stage trains, by name: ``host`` with ``lora`` (a rank, or None for its own
            weights) and ``targets``, ``vision`` with ``last`` (a number of blocks, or None for all).
        format: of the run folder; see ``moai.model.run_format``.
        image_token_id: the placeholder's id; ``image_tokens``: placeholders per image.
    """

    model_type = "moai"
    sub_configs_defaults = {"text_config": SubConfigSpec(config_class=AutoConfig, model_type="llama")}

    text_config: dict[str, Any] | PreTrainedConfig | None = None
    host: dict[str, Any] | None = None
    vision: dict[str, Any] | None = None
    connector: dict[str, Any] | None = None
    compressor: dict[str, Any] | None = None
    mixer: dict[str, Any] | None = None
    arithmetic: str = "moai"
    context_layer: int | None = None
    fact_ends: list[int] | None = None
    word_order: bool = False
    trained: dict[str, dict[str, Any]] | None = None
    format: int = FORMAT
    image_token_id: int = 0
    image_tokens: int = 9

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> MoaiConfig:
        """Read a configuration, as in transformers; a host whose classes come with a plugin is made known first."""
        text = config_dict.get("text_config")
        if isinstance(text, dict):
            import_host(text.get("model_type"))
        return super().from_dict(config_dict, **kwargs)

    def get_text_config(self, *args: Any, **kwargs: Any) -> PreTrainedConfig:
        """The configuration of the layers that decode; a vision-language host keeps its own one level deeper."""
        inner = super().get_text_config(*args, **kwargs)
        return inner if inner is self else inner.get_text_config(*args, **kwargs)


def import_host(model_type: str | None) -> None:
    """Make transformers know a host's model type that comes with a plugin.

    Raises:
        HostError: its module cannot be imported, or the plugin of ours that brings it is not installed.
    """
    # Most types are known to transformers, and need no plugin to be looked for.
    if model_type is not None and model_type not in CONFIG_MAPPING:
        registry().import_host(model_type)


AutoConfig.register(MoaiConfig.model_type, MoaiConfig, exist_ok=True)
