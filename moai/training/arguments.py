"""Arguments of transformers' ``Trainer``: what a recipe says, and what it may add under ``training.trainer``.

Knows: the recipe and ``TrainingArguments``. What decides draws, batches, rates, checkpoints and logs is ours, since a
run is repeated exactly by its recipe; everything else may be given.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments
from transformers.integrations import get_reporting_integration_callbacks

from moai.errors import RecipeError, nearest
from moai.recipe.schema import Recipe
from moai.recipe.stages import Stage, Training

# Arguments that a recipe says in keys of its own -> that key.
KEYS = {
    "max_steps": "stages.NAME.steps", "num_train_epochs": "stages.NAME.epochs", "seed": "seed", "data_seed": "seed",
    "per_device_train_batch_size": "training.batch_size", "gradient_accumulation_steps": "training.accumulation",
    "auto_find_batch_size": "training.batch_size", "learning_rate": "stages.NAME.train",
    "weight_decay": "training.weight_decay", "max_grad_norm": "training.clip",
    "lr_scheduler_type": "training.schedule", "lr_scheduler_kwargs": "training.schedule",
    "warmup_steps": "training.schedule", "warmup_ratio": "training.schedule",
    "save_steps": "training.checkpoint_every", "logging_steps": "training.monitor_every",
    "eval_steps": "training.monitor_every", "train_sampling_strategy": "training.mixed_lengths",
}  # fmt: skip
OTHER_SHARDING = ("deepspeed", "parallelism_config")  # other ways to spread a model over processes than ours
FSDP = ("fsdp", "fsdp_config")  # what we shard by ourselves, so that the adapters and every draw keep their meaning
FSDP_CONFIG = {"version": (2,), "reshard_after_forward": (True, False)}
CHECKPOINTING = (
    "activation_checkpointing", "activation_checkpointing_kwargs", "gradient_checkpointing",
    "gradient_checkpointing_kwargs",
)  # fmt: skip
# Arguments that would change what a run is, or where it lies.
OURS = frozenset({
    "output_dir", "resume_from_checkpoint", "load_best_model_at_end", "ignore_data_skip", "save_strategy",
    "save_total_limit", "save_only_model", "save_on_each_node", "logging_strategy", "logging_nan_inf_filter",
    "logging_first_step", "eval_strategy", "eval_on_start", "do_train", "do_eval", "do_predict",
    "metric_for_best_model", "remove_unused_columns", "label_names", "label_smoothing_factor",
    "neftune_noise_alpha", "disable_tqdm", "push_to_hub", "use_cache", "average_tokens_across_devices",
    "accelerator_config", "enable_jit_checkpoint", "full_determinism", "ddp_find_unused_parameters",
    "restore_callback_states_from_checkpoint", "dataloader_drop_last", "use_liger_kernel",
    "dataloader_in_order", "dataloader_multiprocessing_context", "dataloader_persistent_workers",
})  # fmt: skip


def training_arguments(
    training: Training, stage: Stage, *, run_dir: Path, seed: int, steps: int, **given: Any
) -> TrainingArguments:
    """Build the arguments of one stage's ``Trainer``.

    Args:
        training, stage: of the recipe.
        run_dir: of the run.
        seed: of the run.
        steps: that the stage still has to do.
        given: arguments that an objective sets, unless the recipe does.

    Raises:
        RecipeError: an argument that is unknown, or decided by another key, or whose value is refused.
    """
    check_arguments(training.trainer)
    ours = {
        "output_dir": str(run_dir), "max_steps": steps, "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": stage.accumulation, "max_grad_norm": training.clip, "seed": seed,
        "logging_steps": 1, "logging_nan_inf_filter": False, "save_strategy": "steps",
        "save_steps": training.checkpoint_every, "eval_strategy": "no", "disable_tqdm": True,
        "remove_unused_columns": False, "average_tokens_across_devices": True,
        # The draw of modules leaves some without a gradient, and a process without images its connector.
        "ddp_find_unused_parameters": True,
    }  # fmt: skip
    cpu = not torch.accelerator.is_available()  # said, since several processes of a CPU are not found otherwise
    defaults = {"report_to": "none", "dataloader_pin_memory": False, "use_cpu": cpu}
    # The attention objective runs on cached states: it has no layers to checkpoint.
    others = CHECKPOINTING if stage.objective == "attention" else ()
    theirs = {name: value for name, value in training.trainer.items() if name not in (*FSDP, *others)}
    chosen = {**defaults, **given, **theirs}
    try:
        made = TrainingArguments(**chosen, **ours)
        _ = made.device  # settles devices and processes
        for tracker in get_reporting_integration_callbacks(made.report_to):
            tracker()  # which says what is not installed
    except (TypeError, ValueError, ImportError, RuntimeError) as error:
        raise RecipeError(f"training.trainer: {str(error).strip()}; change the argument, or leave it out") from None
    made._n_gpu = min(made.n_gpu, 1)  # several devices take several processes; one process uses one
    return made


def check_arguments(given: Mapping[str, Any]) -> None:
    """Refuse arguments that are unknown, or that other keys decide.

    Raises:
        RecipeError: names the argument, and the key.
    """
    known = {field.name for field in dataclasses.fields(TrainingArguments) if field.init}
    for name, value in given.items():
        if name in KEYS:
            raise RecipeError(f"training.trainer.{name}: a recipe says this as {KEYS[name]}; set that")
        if name in OTHER_SHARDING:
            raise RecipeError(
                f"training.trainer.{name}: moai shards a model by FSDP2 alone; leave it out, and set "
                "training.trainer.fsdp: true"
            )
        if name in OURS:
            raise RecipeError(f"training.trainer.{name} is decided by moai; leave it out")
        if name not in known:
            raise RecipeError(f"training.trainer.{name}: TrainingArguments has no such argument{nearest(name, known)}")
        if name in CHECKPOINTING and isinstance(value, Mapping) and value.get("use_reentrant"):
            raise RecipeError(
                f"training.trainer.{name}: use_reentrant: true would walk the compressor's graph once per mixer, and "
                "it lasts for one walk; leave use_reentrant out"
            )
    _check_fsdp(given)


def _check_fsdp(given: Mapping[str, Any]) -> None:
    fsdp, config = given.get("fsdp", False), given.get("fsdp_config", {})
    if not isinstance(fsdp, bool):
        raise RecipeError(f"training.trainer.fsdp is {fsdp!r}; set it to true or false")
    if not isinstance(config, Mapping):
        raise RecipeError("training.trainer.fsdp_config is no mapping; name its keys in the recipe")
    for name, value in config.items():
        if name not in FSDP_CONFIG:
            raise RecipeError(f"training.trainer.fsdp_config has {', '.join(FSDP_CONFIG)}; leave {name} out")
        if value not in FSDP_CONFIG[name]:
            raise RecipeError(f"training.trainer.fsdp_config.{name} cannot be {value!r}; leave it out")


def check_sharding(recipe: Recipe) -> None:
    """Refuse what cannot go with ``fsdp: true``, whatever the number of processes.

    Raises:
        RecipeError: names the keys.
    """
    trainer = recipe.training.trainer
    if not trainer.get("fsdp"):
        return
    key = "training.trainer.fsdp"
    if recipe.host.quantization is not None:
        raise RecipeError(f"{key}: a quantized host cannot be sharded; leave one of fsdp and host.quantization out")
    for name in ("torch_compile", "fp16"):
        if trainer.get(name):
            raise RecipeError(f"{key} does not go with training.trainer.{name}; leave one of them out")
    for number, stage in enumerate(recipe.stages):
        if number and stage.objective == "attention":
            raise RecipeError(
                f"{key}: stage '{stage.name}' has the attention objective, which needs a whole model; put it first"
            )
        if stage.train.host is not None and recipe.perception.context_layer is not None:
            raise RecipeError(
                f"{key}: stage '{stage.name}' trains the host, whose layers would run anew for perceived words in some "
                "processes alone; set perception.context_layer to null, or leave fsdp out"
            )
