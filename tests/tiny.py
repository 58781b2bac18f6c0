"""A whole augmented model in a few megabytes, built offline: what the tests of model, training and answers stand on.

Knows: how a host folder, an encoder's weights, a data set and an expert look to the library. Every part is random but
seeded, in fp32, and small: four decoder layers of width 64, a byte-level vocabulary, 64-pixel images of 2 x 2 tokens.
"""

from __future__ import annotations

import atexit
import functools
import io
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from moai.expert import Expert
from moai.model import modeling
from moai.model.mixer.forward_context import ForwardContext
from moai.model.mixer.graft import graft, ungraft
from moai.plugins import registry
from moai.recipe.schema import Recipe
from moai.training.build import build
from moai.types import Conversation, Mask, Perception, Relation, Sample, Segment, Source, TextLine

torch.set_num_threads(1)

WIDTH, LAYERS, CONTEXT, IMAGE_TOKENS = 64, 4, 192, 4
COLORS = ("red", "green", "blue", "black")
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>")
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE that knows a few words, so that any text has ids and none is unknown."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words = "The image includes bounding box coordinates and their objects relationships between text descriptions:"
    questions = "What color is the shape? Is there a red circle? Answer: yes no red green blue black user assistant"
    inner.train_from_iterator([words, questions] * 8, trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<|im_end|>", pad_token="<|endoftext|>", bos_token="<|im_start|>"
    )
    made.chat_template = CHATML
    return made


def host_config(**changes) -> LlamaConfig:
    """Grouped-query attention and tied embeddings, as in SmolLM2; larger weights, so that logits differ visibly."""
    settings = {
        "vocab_size": 400, "hidden_size": WIDTH, "intermediate_size": 96, "num_hidden_layers": LAYERS,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": CONTEXT,
        "initializer_range": 0.15, "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    }  # fmt: skip
    return LlamaConfig(**{**settings, **changes})


@functools.cache
def assets() -> Path:
    """A folder with ``host/`` and ``vision.safetensors``, made once per process and removed at its end."""
    folder = Path(tempfile.mkdtemp(prefix="moai-tiny-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write_assets(folder)
    return folder


def write_assets(folder: Path) -> None:
    """Save a host and an encoder; every call writes the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        words = tokenizer()
        host = LlamaForCausalLM(host_config(vocab_size=len(words)))
        vision = timm.create_model("test_efficientnet", pretrained=False, num_classes=0, global_pool="")
    with torch.no_grad():
        for parameter in vision.parameters():
            # Fresh weights make all pictures nearly equal: features of 0.002, where trained ones have about 1.
            parameter.mul_(1.5 if parameter.ndim == 4 else 1.0)
    host.save_pretrained(folder / "host")
    words.save_pretrained(folder / "host")
    save_file(vision.state_dict(), folder / "vision.safetensors")


def recipe(folder: Path | None = None, **changes) -> Recipe:
    """A recipe of tiny parts; ``changes`` merge into it section by section (``mixer={"layers": [0]}``)."""
    folder = folder or assets()
    sections = {
        "version": 1,
        "name": "tiny",
        "host": {"reference": str(folder / "host"), "dtype": "float32", "chat_template": "question_answer"},
        "vision": {
            "kind": "encoder",
            "architecture": "test_efficientnet",
            "reference": str(folder / "vision.safetensors"),
            "image_size": 64,
        },
        "perception": {"experts": ["tiny-panoptic"]},
        "compressor": {"latents": 8, "depth": 2, "heads": 2, "head_width": 16},
        "mixer": {"layers": [0, 2], "rank": 8, "heads": 2},
        "data": data("tiny"),
        "training": {
            "batch_size": 4, "schedule": {"warmup": 1}, "checkpoint_every": 2, "monitor_every": 3, "threads": 1,
        },
        "stages": [
            {"name": "modules", "steps": 3, "routing": "random_module"},
            {"name": "gates", "steps": 3, "continues": True},
        ],
    }  # fmt: skip
    for key, value in changes.items():
        old = sections.get(key)
        joined = (
            isinstance(value, dict) and isinstance(old, dict) and value.get("kind", old.get("kind")) == old.get("kind")
        )
        sections[key] = {**old, **value} if joined else value  # another kind of vision has other keys
    return Recipe(**sections)


def data(name: str, validation_limit: int = 4, **options) -> dict:
    """The section ``data`` of a recipe with one registered data set."""
    source = {"format": "dataset", "name": name, "options": options}
    return {"sources": [source], "validation_limit": validation_limit}


def made(noise: float = 0.1, **changes):
    """A model in evaluation mode and its processor, with ``noise`` on every adapter so that nothing is the identity."""
    return made_of(recipe(**changes), noise)


def made_of(given: Recipe, noise: float = 0.1):
    """As ``made``, of another recipe than the tiny one."""
    register()
    model, processor = build(given)
    disturb(model, noise)
    return model.eval(), processor


def place(model, arithmetic: str):
    """Put the mixers where this arithmetic has them, and leave everything else as it is."""
    ungraft(model.host)
    model.graft = model.auxiliary.graft = graft(model.host, model.mixers, arithmetic, model.config.context_layer)
    return model


def disturb(model, scale: float, seed: int = 1) -> None:
    """Add seeded normal noise to all adapter parameters: identity-initialised mixers hide every mistake."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.adapter_parameters().values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * scale)


class TinyPanoptic(Expert):
    """Names the picture's middle by its colour."""

    name = "tiny-panoptic"
    role = "panoptic"
    version = "1"

    def perceive(self, images, context):
        """One segment per image."""
        return [self.to_perception(np.asarray(image.resize((8, 8)))) for image in images]

    def to_perception(self, pixels: np.ndarray) -> Perception:
        """``(8, 8, 3)`` to one segment with mask and box."""
        channel = pixels[4, 4].astype(int)
        name = COLORS[int(channel.argmax())] if channel.max() > 100 else COLORS[3]
        mask = np.zeros((8, 8), dtype=bool)
        mask[2:6, 2:6] = True
        return Perception(segments=(Segment(name, 0.9, (0.25, 0.25, 0.75, 0.75), Mask.encode(mask)),))


def picture(color: str, shape: str = "ellipse") -> Image.Image:
    """A 64 x 64 picture of one shape on grey."""
    image = Image.new("RGB", (64, 64), (90, 90, 90))
    getattr(ImageDraw.Draw(image), shape)((12, 12, 52, 52), fill=color)
    return image


def png(image: Image.Image) -> bytes:
    """The picture as the bytes of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def dataset(split: str, limit: int | None = None) -> list[Sample]:
    """24 questions of different lengths about 8 images per split."""
    samples = []
    for index in range(24):
        color, shape = COLORS[index % 4], ("ellipse", "rectangle")[index // 4 % 2]
        question, answer = "What color is the shape?", color
        if index // 8 % 2:
            question, answer = "Is there a red shape in it?", "yes" if color == "red" else "no"
        image = png(picture(color, shape))
        samples.append(Sample.from_question(f"{split}-{index}", image, f"{color}-{shape}", question, answer, "color"))
    return samples[:limit]


def register() -> None:
    """Put the expert and the data set into this process's registry, as a plugin would."""
    registry().experts[TinyPanoptic.name] = TinyPanoptic
    registry().datasets["tiny"] = dataset


def seen(*names: str, text: str = "") -> Perception:
    """What a panoptic, a scene-graph and an OCR expert might have seen; the names side by side, in order."""
    step = 1 / max(1, len(names))
    boxes = [(round(i * step, 3), 0.2, round((i + 0.8) * step, 3), 0.8) for i in range(len(names))]
    relations = tuple(
        Relation(a, "left of", b, 0.9, boxes[i], boxes[i + 1]) for i, (a, b) in enumerate(zip(names, names[1:]))
    )
    return Perception(
        segments=tuple(Segment(name, 0.9, box) for name, box in zip(names, boxes)),
        relations=relations,
        texts=(TextLine(text, 0.9),) if text else (),
        sources=(Source("tiny-panoptic", "panoptic", "1"),),
    )


def user_turn(image, question: str, images: int = 1) -> list[dict]:
    """A conversation of one turn, as transformers' chat templates take it; ``image`` None leaves a bare placeholder."""
    item = {"type": "image"} if image is None else {"type": "image", "image": image}
    return [{"role": "user", "content": [item] * images + [{"type": "text", "text": question}]}]


def prompt_inputs(processor, questions, perceptions, images=None) -> dict[str, torch.Tensor]:
    """Left-padded model inputs for one question per row, as ``Augmented.answer`` makes them."""
    images = images or [picture(COLORS[index % 4]) for index in range(len(questions))]
    asked = [Conversation.ask(question, [image]) for question, image in zip(questions, images, strict=True)]
    return dict(processor.batch(asked, [[p] for p in perceptions]))


def training_batch(processor, samples, perceptions) -> dict[str, torch.Tensor]:
    """Right-padded inputs with labels of samples with one image each."""
    return dict(processor.batch([sample.conversation for sample in samples], [[p] for p in perceptions], labels=True))


def pixels(processor, *pictures) -> torch.Tensor:
    """The pictures as the model gets them."""
    return processor.images.encode([pictures])[1]["pixel_values"]


@contextmanager
def forward_contexts() -> Iterator[list[ForwardContext]]:
    """The contexts of the forward passes that run inside the block, in order."""
    found, made = [], modeling.ForwardContext

    def recorded(*args, **kwargs):
        found.append(made(*args, **kwargs))
        return found[-1]

    modeling.ForwardContext = recorded
    try:
        yield found
    finally:
        modeling.ForwardContext = made


def gates_of(model, forward) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """What each mixer's gates weigh, image and language, while ``forward`` runs; padding included."""
    found = []

    def collect(mixer, args):
        found.append(mixer.gate_weights(args[0]))

    hooks = [mixer.register_forward_pre_hook(collect) for mixer in model.mixers.values()]
    try:
        with torch.no_grad():
            forward()
    finally:
        for hook in hooks:
            hook.remove()
    return found


def interrupt(patch, *steps: int, error: type[BaseException] = KeyboardInterrupt) -> list[int]:
    """Let training end, once each, where one of these steps (from 0) begins; return the steps that began."""
    from moai.training.callbacks import StepSeed

    begin, begun = StepSeed.on_step_begin, []

    def stopping(self, args, state, control, **kwargs):
        begun.append(state.global_step)
        if state.global_step in steps and begun.count(state.global_step) == 1:
            raise error
        return begin(self, args, state, control, **kwargs)

    patch.setattr(StepSeed, "on_step_begin", stopping)
    return begun


def stage(name: str = "gates", steps: int = 3, **changes) -> dict:
    """A stage of a recipe, as a mapping."""
    return {"name": name, "steps": steps, **changes}


def draw_nothing(patch) -> None:
    """No curves, charts or plots, which take longer than all else in a small run; ``patch`` is a ``MonkeyPatch``."""
    patch.setattr("moai.training.run.draw_curves", lambda run_dir: run_dir / "curves.png")
    patch.setattr("moai.evaluation.report.chart.draw_chart", lambda summary, path: path)
    patch.setattr("moai.evaluation.report.page.draw_all", lambda summary: {"accuracy": "data:,"})
