"""Decoder layers: where they are found, and which of them get a mixer."""

from __future__ import annotations

import pytest
import tiny
from host_families import FAMILIES, tiny_host
from torch import nn
from transformers import LlamaForCausalLM

from moai.errors import HostError
from moai.model.host.layers import attention_of, decoder_layers, mixer_layers


@pytest.mark.parametrize("family", ["llama", "gpt2", "mpt", "gpt_neox", "opt", "ctrl"])
def test_each_layout_is_found(family):
    layers = decoder_layers(tiny_host(family))
    assert family in FAMILIES and len(layers) == 4
    assert all(isinstance(attention_of(layer), nn.Module) for layer in layers)


def test_another_layout_is_refused_by_the_models_name():
    with pytest.raises(HostError, match="Linear has no list of decoder layers named layers, h, blocks, block; use a"):
        decoder_layers(nn.Linear(2, 2))
    assert attention_of(nn.Linear(2, 2)) is None


def test_layers_are_those_of_the_decoder_and_not_of_a_list_inside_one():
    host = LlamaForCausalLM(tiny.host_config())
    host.model.layers[0].experts = nn.ModuleList([nn.Linear(2, 2)])
    assert decoder_layers(host) is host.model.layers


@pytest.mark.parametrize(
    ("count", "layers", "every", "expected"),
    [(30, None, None, [7, 15, 23]), (8, None, None, [7]), (6, None, 2, [1, 3, 5]), (6, [4, 0, 4], 2, [0, 4])],
)
def test_mixers_stand_where_the_recipe_says_or_in_every_eighth_layer(count, layers, every, expected):
    assert mixer_layers(count, layers, every) == expected


def test_a_host_with_too_few_layers_for_any_mixer_is_refused():
    with pytest.raises(HostError, match="mixer.every is 16 and the host has 8 layers, 0 to 7.*lower mixer.every"):
        mixer_layers(8, None, 16)
