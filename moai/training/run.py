"""A training run, stage by stage.

Knows: the model, the data, and the trainer of one stage. Each stage is one run of transformers' ``Trainer``.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from safetensors.torch import save_file
from torch import nn

from moai.dependencies import warn_of_newer_versions
from moai.errors import RecipeError, TrainingError
from moai.model.packing import check_packing
from moai.model.parts import parts_of, saved_parameters, set_connector_parts, train_only
from moai.model.run_folder import MANIFEST
from moai.recipe.schema import Recipe
from moai.recipe.stages import PartSection
from moai.training import sampling
from moai.training.arguments import training_arguments
from moai.training.batches import AnswerBatches, Shares, packed_length
from moai.training.build import build
from moai.training.callbacks import StepSeed, StopOnSignal, terminable
from moai.training.card import write_card
from moai.training.checkpoints import Checkpoint, Moments, check_data, load_checkpoint, restore, save_checkpoint
from moai.training.curves import draw_curves
from moai.training.data import TrainingData
from moai.training.log import TrainingLog, headline
from moai.training.monitor import Monitor
from moai.training.objectives.attention import AttentionBatches, AttentionObjective, HeldOutAttention, perceived_images
from moai.training.objectives.supervision import TargetFinder
from moai.training.perceiving import Perceptions, perceive, perceive_by_batch, warn_of_failures
from moai.training.prefix_states import PrefixStates
from moai.training.progress import Progress
from moai.training.schedule import mm1_rate
from moai.training.sharding import gather, is_sharded, make_whole, reshard, shard
from moai.training.stage_plan import StagePlan, aligned_samples, plan_stages, used_samples
from moai.training.stage_trainer import StageTrainer, Values
from moai.training.word_cache import GROUP, WordCache
from moai.types import Sample

MM1_DECAY = 0.1  # MM1's weight decay over its learning rate
FAILED = "failed"  # the folder of a step whose loss was not finite


class Run:
    """A run that is ready to train: everything of its recipe is found."""

    def __init__(self, recipe: Recipe, run_dir: Path, progress: Progress) -> None:
        self.recipe, self.run_dir, self.progress = recipe, run_dir, progress
        self.training = recipe.training
        # The first arguments settle devices and processes, and refuse what cannot be; nothing is written yet.
        args = training_arguments(self.training, recipe.stages[0], run_dir=run_dir, seed=recipe.seed, steps=1)
        self.rank, self.world, self.workers = args.process_index, args.world_size, args.dataloader_num_workers
        self.main = progress.shown = self.rank == 0
        if self.main:
            warn_of_newer_versions()  # before the host is built: a newer library may be the reason when that fails
        progress.note(f"loading the host {recipe.host.reference}")
        self.model, self.processor = build(recipe)
        # A part that the connector has not is refused now; what the last stage sets stays, for a run that is done.
        for stage in recipe.stages:
            set_connector_parts(self.model, stage.connector)
        if self.training.packing:
            self._check_packing()
        self.data = TrainingData(recipe, self.processor, progress)
        self.samples, self.data_digest = self.data.samples, self.data.facts.digest
        self.plans = plan_stages(recipe.stages, self.training, recipe.seed, self.data.facts)
        self.steps = sum(plan.steps for plan in self.plans)
        self.perceptions: Perceptions = {}
        self.finder: TargetFinder | None = None
        self.validation: list[Sample] = []
        self.measure_guide: Callable[[], Values] | None = None  # of a stage that teaches what to attend to
        self.log: TrainingLog | None = None
        self.started = 0.0

    def train(self) -> Path:
        """Train all stages that are not done, and write the run folder."""
        found = load_checkpoint(self.run_dir)
        if found is not None:
            check_data(found, self.data_digest, self.run_dir)
        if self.data.quarantine is not None:
            self.data.quarantine.open(self.run_dir, fresh=found is None, writes_all=self.main)
        self.validation = validation = self.data.read_validation()
        self.data.note_left_out()
        told = self.data.facts.perceived or any(sample.perceived for sample in validation)
        if self.recipe.perception.experts or told:
            self.perceptions = self._perceive(validation)
        self.monitor = Monitor(validation, self.perceptions, self.processor, self.training.batch_size)
        self.finder = self._finder()
        self.words = self._word_cache()
        if found is not None:
            restore(found, saved_parameters(self.model), self.run_dir)
        if self.main:
            self.log = TrainingLog(self.run_dir, found.step if found else 0)
        moments = found.moments if found else {}
        for plan in self.plans:
            done = plan.steps if found and found.step >= plan.first + plan.steps else 0
            if found and plan.stage.name == found.stage:
                done = found.stage_step
            if done < plan.steps:
                kept = moments if done or plan.stage.continues else {}
                moments = self._stage(plan, done, kept)
        return self._finish()

    # One stage -----------------------------------------------------------------------------------------------------

    def _stage(self, plan: StagePlan, done: int, moments: Moments) -> Moments:
        """Train one stage from its step ``done``, and return what its optimizer then keeps."""
        stage = plan.stage
        set_connector_parts(self.model, stage.connector)
        self._prepare_words(plan)
        attention = stage.objective == "attention"
        given = {"optim": "adamw_torch"} if attention else {}  # its few small tensors gain nothing by a fused kernel
        args = training_arguments(
            self.training, stage, run_dir=self.run_dir, seed=self.recipe.seed, steps=plan.steps - done, **given
        )
        self._place(plan, args.device)
        if self.workers:
            self.words.compute_all()  # else each process of the loader would compute all of them
        parameters = train_only(self.model, stage.train.parts())
        prefix = PrefixStates.of_stage(self.model, self.processor, self.samples, self.training, plan)
        if prefix is not None:
            self.progress.note(f"the layers below {prefix.layer} run once for each of {len(prefix.states):,} rows")
        module, collate, batches = self._objective(plan, prefix)
        shares = Shares(batches[done:], plan.first_draw + done, stage.accumulation, self.rank, self.world)
        stop = StopOnSignal(self.world)
        with self._progress(plan, done, parameters) as advance:
            trainer = StageTrainer(
                module,
                args,
                plan=plan,
                done=done,
                shares=shares,
                collate=collate,
                groups=self._groups(stage.train.parts(), stage.weight_decay),
                names={id(p): name for name, p in parameters.items()},
                moments=moments,
                supervision=self.training.attention_supervision,
                record=lambda step, values: self._record(plan, step, values, advance),
                save=lambda step, kept: self._save(plan, step, kept),
                callbacks=[StepSeed(self.recipe.seed, self.rank), stop],
            )
            self.started = time.monotonic()
            with terminable(stop), nullcontext() if prefix is None else prefix.installed():
                self._run(trainer, plan)
        kept = trainer.current_moments()
        # Each stage wraps the model anew: hooks of this one's wrapping must be gone before.
        trainer.accelerator.unwrap_model(trainer.model_wrapped, keep_fp32_wrapper=False)
        trainer.accelerator.free_memory()
        del trainer
        gc.collect()
        if stop.stopped:
            self.progress.note(f"asked to end, and saved; go on with --resume --run {self.run_dir}")
            raise SystemExit(143)
        if stage.train.host is not None:
            self.words.clear()
        return kept

    def _place(self, plan: StagePlan, device: torch.device) -> None:
        """Bring the model to its device: whole, or this process's shard of it."""
        if self.world == 1 or not self.training.trainer.get("fsdp") or plan.stage.objective == "attention":
            self.model.to(device)
        elif not is_sharded(self.model):
            if self.recipe.perception.context_layer is not None:
                self.model.to(device)
                self.words.compute_all()  # the host's layers cannot run in one process alone from here on
            shard(self.model, device, self.training.trainer.get("fsdp_config", {}))

    def _run(self, trainer: StageTrainer, plan: StagePlan) -> None:
        try:
            trainer.train()
        except TrainingError as error:
            step = trainer.state.global_step - plan.first
            where = self._keep_batch(trainer, plan, step)
            raise TrainingError(
                f"stage '{plan.stage.name}', step {step}: {error}; its samples are in {where}; check them, or "
                "lower the rates under train in another run; the checkpoint before it is whole"
            ) from None

    def _objective(self, plan: StagePlan, prefix: PrefixStates | None) -> tuple[nn.Module, Any, Sequence[list[int]]]:
        """What the loop runs, what makes its batches, and the samples of each step."""
        stage = plan.stage
        if stage.objective == "answers":
            collate = AnswerBatches(
                self.model, self.processor, self.samples, self.perceptions, seed=self.recipe.seed,
                training=self.training, stage=stage, word_cache=self.words,
                finder=self.finder if self.training.attention_supervision else None, prefix=prefix,
            )  # fmt: skip
            return self.model, collate, plan.batches
        chosen = aligned_samples(plan, self.plans, self.recipe.seed, len(self.samples))
        made = AttentionBatches(
            self.model, self.processor, self.finder, self.samples, self.perceptions,
            chosen=chosen, stage=stage, word_cache=self.words,
        )  # fmt: skip
        objective = AttentionObjective(self.model)
        if self.main:
            held_out = HeldOutAttention(self.model, self.processor, self.finder, self.validation, self.perceptions)
            self.measure_guide = partial(held_out.measure, objective)
        return objective, made, sampling.draw_questions(self.recipe.seed, made.usable, stage)

    def _groups(self, parts: Mapping[str, PartSection], decay: float | None) -> list[dict[str, Any]]:
        """The optimizer's groups: one for each part, with its rate and weight decay."""
        named, groups = parts_of(self.model), []
        for name, part in parts.items():
            rate = mm1_rate(sum(p.numel() for p in self.model.host.parameters())) if part.rate == "mm1" else part.rate
            shared = rate * MM1_DECAY if part.rate == "mm1" else self.training.weight_decay
            parameters = [p for p in named[name].values()]
            groups.append({"params": parameters, "lr": rate, "weight_decay": shared if decay is None else decay})
        return groups

    def _record(self, plan: StagePlan, step: int, values: Values, advance: Any) -> None:
        """Write a step's line, now and then with the monitor's losses."""
        number = plan.first + step
        monitored = number == self.steps or number % self.training.monitor_every == 0
        if monitored and plan.stage.objective == "answers" and (self.main or is_sharded(self.model)):
            values = {**values, **self.monitor.measure(self.model)}
            reshard(self.model)
        last = step == plan.steps
        if self.measure_guide is not None and plan.stage.objective == "attention" and (monitored or last):
            values = {**values, **self.measure_guide()}
        if self.log is not None:
            seconds = round(time.monotonic() - self.started, 3)
            self.log.write(step=number, stage=plan.stage.name, **values, seconds=seconds)
        self.started = time.monotonic()
        advance(1, headline(values))

    def _save(self, plan: StagePlan, step: int, moments: Moments) -> None:
        tensors = gather(saved_parameters(self.model), self.main)
        moments = {name: gather(moments[name], self.main) for name in sorted(moments)}
        if self.main:
            place = (plan.first + step, plan.stage.name, step)
            save_checkpoint(self.run_dir, Checkpoint(*place, tensors, moments, data=self.data_digest))
        self.started = time.monotonic()

    def _keep_batch(self, trainer: StageTrainer, plan: StagePlan, step: int) -> Path:
        """Save the samples and tensors of a step that failed."""
        folder = self.run_dir / FAILED
        if self.main:
            folder.mkdir(exist_ok=True)
            shares = trainer.train_dataset
            share = shares[(step - trainer.done - 1) * shares.parts]
            ids = [self.samples[index].id for index in share.indices]
            facts = {"stage": plan.stage.name, "step": step, "samples": ids}
            (folder / "step.json").write_text(json.dumps(facts, indent=2) + "\n")
            for number, batch in enumerate(trainer.batches):
                save_file({k: v.contiguous() for k, v in batch.items()}, folder / f"batch-{number}.safetensors")
        return folder

    # Preparation and end -------------------------------------------------------------------------------------------

    def _check_packing(self) -> None:
        """Refuse packed rows where the host cannot run them."""
        if self.recipe.vision is not None and self.recipe.vision.kind == "host":
            raise RecipeError("training.packing needs an encoder of ours: a host's own vision numbers positions itself")
        check_packing(self.model.host, packed_length(self.processor))

    @cached_property
    def used(self) -> list[int]:
        """The samples that some stage uses."""
        return used_samples(self.plans, self.recipe.seed, len(self.samples))

    def _perceive(self, validation: list[Sample]) -> Perceptions:
        """Perceive the images of all samples, or, of very many, those of each batch when it is reached."""
        shards, ahead = self.recipe.perception.shards, self._ahead()
        if not self.data.facts.lazy or ahead:
            if ahead and self.data.facts.lazy:
                self.progress.note(f"{ahead} needs the perceptions of all images that are used before its first step")
            wanted = [*(self.samples[index] for index in self.used), *validation]
            return perceive(self.processor, wanted, self.progress, shards)
        if shards is None and self.processor.experts and self.workers:
            raise RecipeError(
                "training.trainer.dataloader_num_workers: experts do not run in these processes; leave it out, or "
                "perceive the images ahead with moai perceive-dataset and set perception.shards"
            )
        if self.processor.experts:
            self.progress.note("images are perceived when their batch is reached; moai perceive-dataset does it ahead")
        return perceive_by_batch(self.processor, validation, self.progress, shards)

    def _ahead(self) -> str | None:
        """Name what needs the perceptions of all images before the first step; None for nothing."""
        if self.training.attention_supervision:
            return "training.attention_supervision"
        if any(plan.stage.objective == "attention" for plan in self.plans):
            return "the objective attention"
        return None if self.recipe.perception.context_layer is None else "perception.context_layer"

    def _finder(self) -> TargetFinder | None:
        """What finds the words that questions should attend to, where a stage needs it."""
        asked = self.training.attention_supervision or any(p.stage.objective == "attention" for p in self.plans)
        if not asked or not self.perceptions:
            return None
        samples, null = (self.samples[index] for index in self.used), self.recipe.mixer.null_token
        return TargetFinder.from_perceptions(self.processor, self.perceptions.values(), null, samples)

    def _word_cache(self) -> WordCache:
        """The cache of words in context, which knows from the start what is computed together."""
        if self.recipe.perception.context_layer is None or not self.perceptions:
            return WordCache(self.model)
        seen = list(perceived_images(map(self.samples.__getitem__, self.used), self.perceptions).values())
        parts = (seen[start : start + GROUP] for start in range(0, len(seen), GROUP))
        encoded = (self.processor.perceptions.auxiliary(part) for part in parts)
        return WordCache(self.model, [group for group in encoded if group])

    def _prepare_words(self, plan: StagePlan) -> None:
        """Use the cache of words in context where the host stays as it is."""
        self.words.enabled = plan.stage.train.host is None
        if not self.words.enabled and self.recipe.perception.context_layer is not None:
            self.progress.note(
                f"stage '{plan.stage.name}' trains the host, so that words in context are computed anew in every step"
            )

    @contextmanager
    def _progress(self, plan: StagePlan, done: int, parameters: dict[str, nn.Parameter]) -> Iterator[Any]:
        count = sum(p.numel() for p in parameters.values())
        frozen = sum(p.numel() for p in self.model.parameters()) - count
        sizes = f"{count / 1e6:.1f} M parameters beside {frozen / 1e6:.1f} M frozen ones"
        self.progress.note(f"stage '{plan.stage.name}' trains {', '.join(plan.stage.train.parts())}: {sizes}")
        with self.progress.bar(f"stage '{plan.stage.name}'", plan.steps, done) as advance:
            yield advance

    def _finish(self) -> Path:
        if self.data.facts.lazy or self.workers:
            self.data.note_left_out()
        warn_of_failures(self.perceptions)
        PartialState().wait_for_everyone()
        if is_sharded(self.model):
            make_whole(self.model, self.main)
        if self.main:
            (self.run_dir / MANIFEST).unlink(missing_ok=True)  # it comes back last: a run with a manifest is whole
            draw_curves(self.run_dir)
            self.processor.save_pretrained(self.run_dir)
            self.model.save_pretrained(self.run_dir)
            write_card(self.run_dir)
        return self.run_dir
