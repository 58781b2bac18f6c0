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
# What shards the model or the optimizer; our checkpoints do not put such pieces together yet.
SHARDING = ("fsdp", "fsdp_config", "deepspeed", "parallelism_config")
# Arguments that would change what a run is, or where it lies.
OURS = frozenset({
    "output_dir", "resume_from_checkpoint", "load_best_model_at_end", "ignore_data_skip", "save_strategy",
    "save_total_limit", "save_only_model", "save_on_each_node", "logging_strategy", "logging_nan_inf_filter",
    "logging_first_step", "eval_strategy", "eval_on_start", "do_train", "do_eval", "do_predict",
    "metric_for_best_model", "remove_unused_columns", "label_names", "label_smoothing_factor",
    "neftune_noise_alpha", "disable_tqdm", "push_to_hub", "use_cache", "average_tokens_across_devices",
    "accelerator_config", "enable_jit_checkpoint", "full_determinism", "ddp_find_unused_parameters",
    "restore_callback_states_from_checkpoint", "dataloader_drop_last", "use_liger_kernel",

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
    chosen = {**defaults, **given, **training.trainer}
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
    for name in given:
        if name in KEYS:
            raise RecipeError(f"training.trainer.{name}: a recipe says this as {KEYS[name]}; set that")
        if name in SHARDING:
            raise RecipeError(
                f"training.trainer.{name}: a run's checkpoints cannot hold a sharded model yet; leave it out, and "
                "start several processes with torchrun, each of which holds the model"
            )
        if name in OURS:
            raise RecipeError(f"training.trainer.{name} is decided by moai; leave it out")
        if name not in known:
            raise RecipeError(f"training.trainer.{name}: TrainingArguments has no such argument{nearest(name, known)}")
