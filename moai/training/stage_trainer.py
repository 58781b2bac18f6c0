"""The ``Trainer`` of one stage: transformers' loop, with our batches, rates, log and checkpoints.

Knows: transformers' ``Trainer``. The loop, devices, accumulation, mixed precision, compilation, trackers and callbacks
are its; what makes a run repeatable is ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import ProgressCallback

from moai.errors import MoaiError, TrainingError
from moai.training.batches import COUNT, Collator, Share, Shares
from moai.training.checkpoints import Moments, moments_of, restore_moments
from moai.training.schedule import rate_factor
from moai.training.sharding import is_sharded, with_all_gradients
from moai.training.stage_plan import StagePlan

Values = dict[str, float]


class StageTrainer(Trainer):
    """Trains one stage.

    Args:
        model: what the loop runs: the augmented model, or an objective's own module.
        args: of ``training_arguments``.
        plan: the stage, and where in the run it is.
        done: steps of it that are done already.
        shares: this process's, of the steps that are left.
        collate: makes a share into the model's arguments.
        groups: parameter groups with ``lr`` and ``weight_decay``.
        names: parameter's ``id`` -> its name in checkpoints.
        moments: of a checkpoint, or of the stage before it that this one continues.
        supervision: weight of the attention loss beside the answers'.
        record: takes each step's values, before a checkpoint is made.
        save: makes a checkpoint after a step of the stage.
        callbacks: further ones.
    """

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments,
        *,
        plan: StagePlan,
        done: int,
        shares: Shares,
        collate: Collator,
        groups: list[dict[str, Any]],
        names: dict[int, str],
        moments: Moments,
        supervision: float,
        record: Callable[[int, Values], None],
        save: Callable[[int, Moments], None],
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        uses_cache = getattr(getattr(model, "config", None), "use_cache", None)
        super().__init__(model, args, data_collator=collate, train_dataset=shares, callbacks=list(callbacks))
        self.callback_handler.callbacks.insert(0, _Place(plan, done))  # before trackers, which look at the step
        if hasattr(model, "config"):  # Trainer writes into it what would then be saved
            vars(model.config).pop("use_cache") if uses_cache is None else setattr(
                model.config, "use_cache", uses_cache
            )
        for ours in (PrinterCallback, ProgressCallback):
            self.remove_callback(ours)
        self.sharded = is_sharded(model)
        if self.sharded:
            self.accelerator.prepare_model = partial(_prepare_sharded, self.accelerator.prepare_model)
        self.plan, self.done, self.groups, self.names = plan, done, groups, names
        self.moments, self.supervision = moments, supervision
        self.record, self.save = record, save
        self.values: dict[str, Tensor] = {}
        self.counted = 0  # of the step's batches, for the attention loss
        self.batches: list[dict[str, Any]] = []  # of the step that runs
        self.trained: list[nn.Parameter] = []

    def _move_model_to_device(self, model: nn.Module, device: torch.device) -> None:
        """Leave a sharded model where it is: what moves it would part its shards from what is gathered of them."""
        if not is_sharded(model):
            super()._move_model_to_device(model, device)

    # Data and rates ------------------------------------------------------------------------------------------------

    def get_train_dataloader(self) -> DataLoader:
        """Load this process's shares; they are shared out already, so that accelerate must not do it again."""
        workers = self.args.dataloader_num_workers
        return DataLoader(
            self.train_dataset,
            batch_size=1,
            shuffle=False,
            collate_fn=partial(_made_or_error, self.data_collator),
            num_workers=workers,
            pin_memory=self.args.dataloader_pin_memory,
            prefetch_factor=self.args.dataloader_prefetch_factor,
            multiprocessing_context="fork" if workers else None,  # which shares the model's memory
        )

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device) -> tuple[list, Any]:
        """Collect a step's batches, and count the labels and supervised rows of all processes."""
        batches, items = super().get_batch_samples(map(_made, epoch_iterator), num_batches, device)
        self.batches = batches
        counts = [batch[COUNT] for batch in batches if COUNT in batch]
        if counts:
            total = torch.stack(counts).sum().to(device)
            self.counted = int(self.accelerator.reduce(total, "sum"))
        return batches, items

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Create the optimizer of ``args.optim`` over the stage's parts."""
        if self.optimizer is None:
            optimizer_class, arguments = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            arguments = {name: value for name, value in arguments.items() if name != "lr"}
            self.optimizer = optimizer_class([dict(group) for group in self.groups], **arguments)
            restore_moments(self.optimizer, self.names, self.moments)
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> LambdaLR:
        """Create the schedule, which is a function of the step alone."""
        if self.lr_scheduler is None:
            first = self.plan.schedule_step + self.done

            def factor(step: int) -> float:
                return rate_factor(self.plan.stage.schedule, first + step, self.plan.schedule_steps)

            self.lr_scheduler = LambdaLR(self.optimizer if optimizer is None else optimizer, factor)
        return self.lr_scheduler

    # A step --------------------------------------------------------------------------------------------------------

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Compute a batch's share of the step's loss: the mean over all labels of all processes' batches."""
        inputs = dict(inputs)
        count = inputs.pop(COUNT, None)
        given = {} if num_items_in_batch is None else {"num_items_in_batch": num_items_in_batch, "use_cache": False}
        output = model(**inputs, **given)
        world = self.accelerator.num_processes  # over which gradients are averaged
        share = None if count is None or not self.counted else float(count) / self.counted
        if num_items_in_batch is None:  # an objective's own module, whose loss is a mean over its rows
            loss = output["loss"] if share in (None, 1.0) else output["loss"] * share
            self._add("attention", loss)
        else:
            loss = output.loss
            self._add("loss", loss)
            if output.attention_loss is not None and share:
                attention = output.attention_loss if share == 1.0 else output.attention_loss * share
                self._add("attention", attention)
                loss = loss + self.supervision * attention
        loss = loss * world if world > 1 else loss
        loss = with_all_gradients(loss, model) if self.sharded else loss
        return (loss, output) if return_outputs else loss

    def _add(self, name: str, loss: Tensor) -> None:
        self.values[name] = self.values[name] + loss.detach() if name in self.values else loss.detach()

    def log(self, logs: Values, start_time: float | None = None) -> None:
        """Take a step's values apart from the others that ``Trainer`` logs, check them and hand them on.

        Raises:
            TrainingError: one of them is not finite.
        """
        if "grad_norm" not in logs:
            return
        step = self.state.global_step - self.plan.first
        if self.counted:  # a process without a supervised row takes part in the sum below
            self.values.setdefault("attention", torch.zeros((), device=self.args.device))
        values = {name: float(self.accelerator.reduce(value, "sum")) for name, value in self.values.items()}
        values["gradient_norm"] = float(logs["grad_norm"])
        self.values = {}
        if bad := [name for name, value in values.items() if not math.isfinite(value)]:
            raise TrainingError(f"{bad[0].replace('_', ' ')} is {values[bad[0]]}")
        at = self.plan.schedule_step + step - 1
        values["rate"] = rate_factor(self.plan.stage.schedule, at, self.plan.schedule_steps)
        super().log(dict(values), start_time)
        self.record(step, values)

    def _clip_grad_norm(self, model: nn.Module) -> Tensor:
        """Clip over what trains alone: a walk through all that is frozen takes longer than the norm of the rest."""
        if not self.trained:
            self.trained = [p for p in model.parameters() if p.requires_grad]
        norm = self.accelerator.clip_grad_norm_(self.trained, self.args.max_grad_norm)
        return norm.full_tensor() if self.sharded else norm

    # Checkpoints ---------------------------------------------------------------------------------------------------

    def _save_checkpoint(self, model: nn.Module, trial: Any, *_: Any) -> None:
        """Save as ``checkpoints`` does, without a pickle."""
        self.save(self.state.global_step - self.plan.first, self.current_moments())

    def current_moments(self) -> Moments:
        """Read what the optimizer keeps."""
        optimizer = getattr(self.optimizer, "optimizer", self.optimizer)  # accelerate wraps it
        return moments_of(optimizer, self.names)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Count none: to count a step's operations walks through all modules."""
        return 0


def _made_or_error(collate: Collator, shares: Sequence[Share]) -> dict[str, Any] | MoaiError:
    """Make a batch; an error comes back as it is, since a process of the loader would put its traceback into it."""
    try:
        return collate(shares)
    except MoaiError as error:
        return error


def _made(batch: dict[str, Any] | MoaiError) -> dict[str, Any]:
    if isinstance(batch, MoaiError):
        raise batch
    return batch


def _prepare_sharded(prepare: Callable[..., nn.Module], model: nn.Module, **_: Any) -> nn.Module:
    """Let accelerate wrap a sharded model for autocast alone: it reduces its gradients itself, and is in its place."""
    return prepare(model, device_placement=False, evaluation_mode=True)


class _Place(TrainerCallback):
    """Numbers the steps over the whole run, also for trackers and other callbacks."""

    def __init__(self, plan: StagePlan, done: int) -> None:
        self.first, self.steps, self.done = plan.first, plan.steps, done

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        """Set the number of the last step that is done, and of the stage's last."""
        state.global_step = self.first + self.done
        state.max_steps = self.first + self.steps
