"""A tiny checkpoint under the published names, and what the published code computes with it, written out.

Knows: FP32 arithmetic of one sample at a time, in plain torch; nothing of moai. Source of names and arithmetic:
github.com/ByungKwanLee/MoAI at a7728a8 (decoder: InternLM2 with PLoRA; encoder: CLIP).
"""

from __future__ import annotations

import json
import math

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

WIDTH, LAYERS, HEADS, GROUPS, INNER, WORDS = 64, 16, 4, 2, 96, 420
RANK, PLORA = 8, 4
WIDE, PATCH, SIDE, DEPTH = 64, 4, 3, 2  # the encoder's width, patch, patches per side and layers
HEAD = WIDTH // HEADS
VIT = "vit.vision_tower.vision_model."
MODULES = ("CA_img_aux", "CA_img_lang", "SA_img", "CA_lang_aux", "CA_lang_img", "SA_lang")
CONFIG = {
    "model_type": "internlm", "vocab_size": WORDS, "hidden_size": WIDTH, "intermediate_size": INNER,
    "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": GROUPS, "bias": False,
    "rms_norm_eps": 1e-5, "rope_theta": 1000000, "max_position_embeddings": 256, "pad_token_id": 2,
}  # fmt: skip


def shapes(bias: bool = False) -> dict[str, tuple[int, ...]]:
    """Published name -> shape."""
    s = {
        "model.tok_embeddings.weight": (WORDS + 1, WIDTH),
        "model.norm.weight": (WIDTH,),
        "output.weight": (WORDS, WIDTH),
    }
    linears = {
        "attention.wqkv": ((HEADS + 2 * GROUPS) * HEAD, WIDTH), "attention.wo": (WIDTH, WIDTH),
        "feed_forward.w1": (INNER, WIDTH), "feed_forward.w3": (INNER, WIDTH), "feed_forward.w2": (WIDTH, INNER),
    }  # fmt: skip
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        s[f"{at}attention_norm.weight"] = s[f"{at}ffn_norm.weight"] = (WIDTH,)
        for name, (out, width) in linears.items():
            s[f"{at}{name}.Plora_main.weight"] = (out, width)
            s[f"{at}{name}.Plora_A.weight"], s[f"{at}{name}.Plora_B.weight"] = (PLORA, width), (out, PLORA)
            if bias and name.startswith("attention"):
                s[f"{at}{name}.Plora_main.bias"] = (out,)
        if (layer + 1) % 8 == 0:
            s.update(_mixer_shapes(f"{at}attention.moai_"))
    return {**s, **_resampler_shapes(), **_vision_shapes()}


def _mixer_shapes(at: str) -> dict[str, tuple[int, ...]]:
    s = {}
    for gate in ("GA_img", "GA_lang"):
        s[f"{at}{gate}.weight"], s[f"{at}{gate}.bias"] = (3, WIDTH), (3,)
    for name in MODULES:
        for part in "qkvo":
            s[f"{at}{name}.linear_{part}.0.weight"] = (RANK, WIDTH)
            s[f"{at}{name}.linear_{part}.1.weight"] = (WIDTH, RANK)
    return s


def _resampler_shapes() -> dict[str, tuple[int, ...]]:
    s = {"moai_compressor.latents": (64, WIDTH)}
    norms = ["moai_compressor.norm"]
    for level in range(4):
        at = f"moai_compressor.layers.{level}."
        norms += [f"{at}0.norm_media", f"{at}0.norm_latents", f"{at}1.0"]
        s[f"{at}0.to_q.weight"], s[f"{at}0.to_kv.weight"] = (256, WIDTH), (512, WIDTH)
        s[f"{at}0.to_out.weight"] = (WIDTH, 256)
        s[f"{at}1.1.weight"] = s[f"{at}1.3.weight"] = (WIDTH, WIDTH)
    return {**s, **{f"{norm}.{kind}": (WIDTH,) for norm in norms for kind in ("weight", "bias")}}


def _vision_shapes() -> dict[str, tuple[int, ...]]:
    s = {
        f"{VIT}embeddings.class_embedding": (WIDE,),
        f"{VIT}embeddings.patch_embedding.weight": (WIDE, 3, PATCH, PATCH),
        f"{VIT}embeddings.position_embedding.weight": (SIDE * SIDE + 1, WIDE),
        "vision_proj.0.weight": (WIDTH, WIDE), "vision_proj.0.bias": (WIDTH,),
        "vision_proj.2.weight": (WIDTH, WIDTH), "vision_proj.2.bias": (WIDTH,),
    }  # fmt: skip
    norms = [f"{VIT}pre_layrnorm", f"{VIT}post_layernorm"]
    for layer in range(DEPTH):
        at = f"{VIT}encoder.layers.{layer}."
        norms += [f"{at}layer_norm1", f"{at}layer_norm2"]
        for part in "qkv":
            s[f"{at}self_attn.{part}_proj.weight"], s[f"{at}self_attn.{part}_proj.bias"] = (WIDE, WIDE), (WIDE,)
        s[f"{at}self_attn.out_proj.weight"], s[f"{at}self_attn.out_proj.bias"] = (WIDE, WIDE), (WIDE,)
        s[f"{at}mlp.fc1.weight"], s[f"{at}mlp.fc1.bias"] = (2 * WIDE, WIDE), (2 * WIDE,)
        s[f"{at}mlp.fc2.weight"], s[f"{at}mlp.fc2.bias"] = (WIDE, 2 * WIDE), (WIDE,)
    return {**s, **{f"{norm}.{kind}": (WIDE,) for norm in norms for kind in ("weight", "bias")}}


def state(bias: bool = False) -> dict[str, torch.Tensor]:
    """Random weights, large enough that every module moves the logits."""
    generator = torch.Generator().manual_seed(0)
    made = {}
    for name, shape in shapes(bias).items():
        spread = 0.9 * shape[-1] ** -0.5 if len(shape) > 1 else 0.3
        made[name] = torch.randn(shape, generator=generator) * spread
        if len(shape) == 1 and "norm" in name and name.endswith("weight"):
            made[name] = 1 + made[name] / 3
    return made


def write(folder, weights: dict[str, torch.Tensor], **changes) -> None:
    """The checkpoint's folder: two shards, an index, and config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    names, where = sorted(weights), {}
    for number, part in enumerate((names[::2], names[1::2])):
        save_file({name: weights[name] for name in part}, folder / f"model-{number}.safetensors")
        where.update(dict.fromkeys(part, f"model-{number}.safetensors"))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    (folder / "config.json").write_text(json.dumps({**CONFIG, **changes}))


class Published:
    """The published forward, one sample at a time."""

    def __init__(self, weights: dict[str, torch.Tensor]) -> None:
        self.w = weights

    def logits(self, ids: list[int], image_id: int, pixels, aux_ids: list[int], map_pixels) -> torch.Tensor:
        """``(S, words)``; ``ids`` holds one placeholder per patch."""
        is_image = torch.tensor(ids) == image_id
        x = self.w["model.tok_embeddings.weight"][torch.tensor(ids).masked_fill(is_image, 0)].clone()
        x[is_image] = self.project(self.encode(pixels))
        words = self.w["model.tok_embeddings.weight"][torch.tensor(aux_ids)]
        aux = self.compress(torch.cat([words, self.project(self.encode(map_pixels))]))
        for layer in range(LAYERS):
            at = f"model.layers.{layer}."
            x = x + self.attend(at, self.norm(x, f"{at}attention_norm"), is_image, aux, mixed=(layer + 1) % 8 == 0)
            y = self.norm(x, f"{at}ffn_norm")
            gate, up = (self.plora(f"{at}feed_forward.{part}", y, is_image) for part in ("w1", "w3"))
            x = x + self.plora(f"{at}feed_forward.w2", F.silu(gate) * up, is_image)
        return self.norm(x, "model.norm") @ self.w["output.weight"].T

    def norm(self, x, name):
        return self.w[f"{name}.weight"] * x * (x.pow(2).mean(-1, keepdim=True) + CONFIG["rms_norm_eps"]).rsqrt()

    def plora(self, name, x, is_image):
        out = x @ self.w[f"{name}.Plora_main.weight"].T + self.w.get(f"{name}.Plora_main.bias", 0)
        out[is_image] += x[is_image] @ self.w[f"{name}.Plora_A.weight"].T @ self.w[f"{name}.Plora_B.weight"].T
        return out

    def attend(self, at, x, is_image, aux, mixed):
        if mixed:
            x = self.mix(f"{at}attention.moai_", x, is_image, aux)
        fused = self.plora(f"{at}attention.wqkv", x, is_image).view(len(x), GROUPS, HEADS // GROUPS + 2, HEAD)
        q, k, v = fused[:, :, :-2].flatten(1, 2), fused[:, :, -2], fused[:, :, -1]  # (S, heads or groups, HEAD)
        rates = CONFIG["rope_theta"] ** (-torch.arange(0, HEAD, 2).float() / HEAD)
        angles = (torch.arange(len(x))[:, None] * rates).repeat(1, 2)[:, None]
        causal = torch.ones(len(x), len(x), dtype=torch.bool).tril()
        heads = []
        for head in range(HEADS):
            group = head // (HEADS // GROUPS)
            a, b = (t * angles[:, 0].cos() + half(t) * angles[:, 0].sin() for t in (q[:, head], k[:, group]))
            scores = (a @ b.T / math.sqrt(HEAD)).masked_fill(~causal, float("-inf"))
            heads.append(scores.softmax(-1) @ v[:, group])
        return self.plora(f"{at}attention.wo", torch.cat(heads, dim=-1), is_image)

    def mix(self, at, x, is_image, aux):
        """Both streams read what was there before: neither reads the other's update."""
        image, language = x[is_image], x[~is_image]
        streams = {"aux": aux, "img": image, "lang": language}
        x = x.clone()
        for own, name, others in ((image, "img", ("aux", "lang")), (language, "lang", ("aux", "img"))):
            gate = own @ self.w[f"{at}GA_{name}.weight"].T + self.w[f"{at}GA_{name}.bias"]
            weights = gate.softmax(-1)  # the published code rounds these to half precision
            blended = [self.module(f"{at}CA_{name}_{other}", own, streams[other]) for other in others]
            blended.append(self.module(f"{at}SA_{name}", own, own))
            x[is_image if name == "img" else ~is_image] = sum(weights[:, i : i + 1] * b for i, b in enumerate(blended))
        return x

    def module(self, at, x, context):
        def project(part, t):
            return F.gelu(t @ self.w[f"{at}.linear_{part}.0.weight"].T @ self.w[f"{at}.linear_{part}.1.weight"].T)

        q, k, v = project("q", x), project("k", context), project("v", context)
        wide, heads = WIDTH // 4, []
        for head in range(4):
            own = slice(head * wide, head * wide + wide)
            heads.append((q[:, own] @ k[:, own].T / math.sqrt(wide)).softmax(-1) @ v[:, own])
        return x + project("o", torch.cat(heads, dim=-1))

    def compress(self, x):
        w = {name.removeprefix("moai_compressor."): t for name, t in self.w.items() if name.startswith("moai_comp")}

        def layer_norm(t, name):
            return F.layer_norm(t, (WIDTH,), w[f"{name}.weight"], w[f"{name}.bias"])

        latents = w["latents"]
        for level in range(4):
            at = f"layers.{level}."
            own = layer_norm(latents, f"{at}0.norm_latents")
            context = torch.cat([layer_norm(x, f"{at}0.norm_media"), own])
            q = own @ w[f"{at}0.to_q.weight"].T / 8
            k, v = (context @ w[f"{at}0.to_kv.weight"].T).chunk(2, dim=-1)
            heads = [(a @ b.T).softmax(-1) @ c for a, b, c in zip(*(t.split(64, dim=-1) for t in (q, k, v)))]
            latents = latents + torch.cat(heads, dim=-1) @ w[f"{at}0.to_out.weight"].T
            inner = F.gelu(layer_norm(latents, f"{at}1.0") @ w[f"{at}1.1.weight"].T)
            latents = latents + inner @ w[f"{at}1.3.weight"].T
        return layer_norm(latents, "norm")

    def project(self, x):
        x = F.gelu(x @ self.w["vision_proj.0.weight"].T + self.w["vision_proj.0.bias"])
        return x @ self.w["vision_proj.2.weight"].T + self.w["vision_proj.2.bias"]

    def encode(self, pixels):
        """CLIP's last hidden state without the class token, before any closing norm; ``(patches, WIDE)``."""
        w = {name.removeprefix(VIT): t for name, t in self.w.items() if name.startswith(VIT)}

        def layer_norm(t, name):
            return F.layer_norm(t, (WIDE,), w[f"{name}.weight"], w[f"{name}.bias"], 1e-5)

        def linear(t, name):
            return t @ w[f"{name}.weight"].T + w[f"{name}.bias"]

        patches = F.conv2d(pixels[None], w["embeddings.patch_embedding.weight"], stride=PATCH)[0].flatten(1).T
        x = torch.cat([w["embeddings.class_embedding"][None], patches]) + w["embeddings.position_embedding.weight"]
        x = layer_norm(x, "pre_layrnorm")
        for layer in range(DEPTH):
            at = f"encoder.layers.{layer}."
            y = layer_norm(x, f"{at}layer_norm1")
            q, k, v = (linear(y, f"{at}self_attn.{part}_proj") for part in "qkv")
            x = x + linear((q @ k.T / math.sqrt(WIDE)).softmax(-1) @ v, f"{at}self_attn.out_proj")
            y = linear(layer_norm(x, f"{at}layer_norm2"), f"{at}mlp.fc1")
            x = x + linear(y * torch.sigmoid(1.702 * y), f"{at}mlp.fc2")
        return x[1:]


def half(x):
    """Rotary's quarter turn: the second half, negated, before the first."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([-second, first], dim=-1)
