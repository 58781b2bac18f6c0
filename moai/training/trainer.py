"""One training run, from a recipe to a run folder.

Knows: recipes, data, the model and accelerate. The loop is here and nowhere else; what trains when is in ``steps``.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs

from moai.assets.replacing import replacing
from moai.data.context_fit import ContextFit
from moai.data.quarantine import LeftOut, write_quarantine
from moai.dependencies import warn_of_newer_versions
from moai.errors import CheckpointError, RecipeError
from moai.model.run_folder import MANIFEST
from moai.recipe.schema import Recipe
from moai.training import sampling
from moai.training.build import build
from moai.training.data import check_kinds, lengths_of, perceive, prepare_samples
from moai.training.log import TrainingLog, draw_curves
from moai.training.monitor import Monitor
from moai.training.objectives.alignment import align
from moai.training.objectives.supervision import TargetFinder, target_masks
from moai.training.progress import Progress
from moai.training.resume import load_checkpoint, save_checkpoint
from moai.training.word_cache import WordCache

ADAM = {"betas": (0.9, 0.999), "eps": 1e-8}


def train(recipe: Recipe, run_dir: str | Path, *, resume: bool = False, progress: Progress | None = None) -> Path:
    """Train and return the run folder, which ``moai.load`` opens.

    Started by ``torchrun`` or ``accelerate launch``, every process takes its share of each batch and the gradients are
    averaged; the first process writes the folder.

    Args:
        recipe: what to train.
        run_dir: where everything goes: ``recipe.yaml``, checkpoints, the log, and at the end the model.
        resume: go on from the last checkpoint; losses and weights then equal those of an uninterrupted run on CPU.
        progress: where progress is shown; a bar on a terminal by default.

    Raises:
        MoaiError: a recipe that does not fit together, or a run folder that is taken or of another recipe.
    """
    run_dir = Path(run_dir)
    _check_free(recipe, run_dir, resume)
    if recipe.training.threads:
        torch.set_num_threads(recipe.training.threads)
    run = _Run(recipe, run_dir, progress or Progress())
    if run.accelerator.is_main_process:
        _claim(recipe, run_dir)  # after everything has been found: a recipe to be fixed must not block its folder
    return run.train()


def _check_free(recipe: Recipe, run_dir: Path, resume: bool) -> None:
    """Refuse a folder that is taken, or, with ``resume``, one of another recipe."""
    path = run_dir / "recipe.yaml"
    if not path.is_file():
        return
    if not resume:
        raise RecipeError(f"{run_dir} holds a run already; go on with --resume, or name another folder with --run")
    if path.read_text() != recipe.to_yaml():
        raise CheckpointError(f"{path} differs from the recipe given; resume with the same recipe and overrides")


def _claim(recipe: Recipe, run_dir: Path) -> None:
    run_dir.mkdir(parents=True, exist_ok=True)
    with replacing(run_dir / "recipe.yaml") as part:
        part.write_text(recipe.to_yaml())


class _Run:
    def __init__(self, recipe: Recipe, run_dir: Path, progress: Progress) -> None:
        self.recipe, self.run_dir, self.progress = recipe, run_dir, progress
        self.training = recipe.training
        # Step 1 leaves two modules of three without a gradient, which plain data-parallel training refuses.
        handler = DistributedDataParallelKwargs(find_unused_parameters=True)
        self.accelerator = Accelerator(kwargs_handlers=[handler])
        self.progress.shown = self.accelerator.is_main_process
        if self.accelerator.is_main_process:
            warn_of_newer_versions()  # before the host is built: a newer library may be the reason when that fails
        self.model, self.processor = build(recipe)
        data = recipe.data
        self.samples, self.left_out = prepare_samples(data, data.train_split, self.processor, seed=recipe.seed)
        check_kinds(self.samples, self.training)
        kinds = [sample.kind for sample in self.samples]
        lengths = lengths_of(self.processor, self.samples)
        self._say_shortened(self.samples)
        pairs = [(sample.question, sample.answer) for sample in self.samples]
        self.batches = sampling.draw_batches(recipe.seed, lengths, kinds, self.training, pairs)
        self.word_cache = WordCache(self.model)
        self.perceptions: dict = {}
        self.finder: TargetFinder | None = None  # of attention supervision

    def train(self) -> Path:
        data = self.recipe.data
        prepared = prepare_samples(data, data.validation_split, self.processor, data.validation_limit)
        validation = list(prepared.samples)
        self._say_shortened(prepared.samples)
        self._quarantine([*self.left_out, *prepared.left_out])
        used = {index for batch in self.batches for index in batch}
        wanted = [*(self.samples[index] for index in sorted(used)), *validation]
        if self.recipe.perception.experts:
            shards = self.recipe.perception.shards
            self.perceptions = perceive(self.processor, wanted, self.progress, shards)
        monitor = Monitor(validation, self.perceptions, self.processor, self.training.batch_size)
        self.model.to(self.accelerator.device)
        optimizer = torch.optim.AdamW(
            sampling.parameter_groups(self.model, self.training),
            weight_decay=self.training.weight_decay,
            fused=True,
            **ADAM,
        )
        count = sum(p.numel() for p in self.model.adapter_parameters().values())
        frozen = sum(p.numel() for p in self.model.parameters()) - count
        self.progress.note(f"training {count / 1e6:.1f} M parameters around {frozen / 1e6:.1f} M frozen ones")
        done = load_checkpoint(self.run_dir, self.model.adapter_parameters(), optimizer)
        self._align(fresh=done == 0)
        self._loop(optimizer, monitor, done)
        return self._finish()

    def _say_shortened(self, samples: ContextFit) -> None:
        if lost := samples.shortened:
            turns = sum(lost.values())
            self.progress.note(f"{turns:,} turns of {len(lost):,} samples are left out: the context cannot hold them")

    def _quarantine(self, rows: list[LeftOut]) -> None:
        if rows and self.accelerator.is_main_process:
            path = write_quarantine(self.run_dir, rows)
            self.progress.note(f"{len(rows):,} bad rows are left out; {path} names them")

    def _loop(self, optimizer, monitor: Monitor, done: int) -> None:
        log = TrainingLog(self.run_dir, done) if self.accelerator.is_main_process else None
        parameters = self.model.adapter_parameters()
        wrapped, optimizer = self.accelerator.prepare(self.model, optimizer)
        wrapped.train()
        total = len(self.batches)
        with self.progress.bar("training", total, done) as advance:
            for step in range(done, total):
                started = time.monotonic()
                values = self._step(step, wrapped, optimizer, parameters)
                if log is not None:
                    ended = step + 1 == total
                    if ended or (step + 1) % self.training.monitor_every == 0:
                        values.update(monitor.measure(self.model))
                    log.write(step=step + 1, **values, seconds=round(time.monotonic() - started, 3))
                    if ended or (step + 1) % self.training.checkpoint_every == 0:
                        save_checkpoint(self.run_dir, step + 1, parameters, getattr(optimizer, "optimizer", optimizer))
                advance(1, _headline(values))

    def _align(self, fresh: bool) -> None:
        """Find what questions should attend to, where the recipe asks for it, and align a ``fresh`` model with it."""
        plan = self.training.align
        if not self.perceptions or not (self.training.attention_supervision or plan.steps):
            return
        null_token = self.recipe.mixer.null_token
        finder = TargetFinder.from_perceptions(self.processor, self.perceptions.values(), null_token)
        if self.training.attention_supervision:
            self.finder = finder
        if fresh and plan.steps:
            used = sorted({index for batch in self.batches for index in batch})
            with self.progress.bar("aligning", plan.steps) as advance:
                align(
                    self.model,
                    self.processor,
                    finder,
                    [self.samples[index] for index in used],
                    self.perceptions,
                    steps=plan.steps,
                    batch_size=plan.batch_size,
                    learning_rate=plan.learning_rate,
                    seed=self.recipe.seed,
                    advance=advance,
                    word_cache=self.word_cache,
                )

    def _step(self, step: int, model, optimizer, parameters) -> dict[str, float]:
        for connector in self.model.images.adapters().values():
            connector.requires_grad_(sampling.step_at(self.training, step).train_connector)
        batch = self._batch(step)
        factor = sampling.rate_at(self.training, step)
        for group in optimizer.param_groups:
            group["lr"] = group["base"] * factor
        output = model(**batch)
        loss, values = output.loss, {"loss": float(output.loss.detach())}
        if output.attention_loss is not None:
            loss = loss + self.training.attention_supervision * output.attention_loss
            values["attention"] = float(output.attention_loss.detach())
        self.accelerator.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(list(parameters.values()), self.training.clip, error_if_nonfinite=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return {**values, "gradient_norm": float(norm), "rate": factor}

    def _batch(self, step: int) -> dict:
        """This process's share of the step's batch, with the step's draws."""
        seed, training = self.recipe.seed, self.training
        indices = self.batches[step]
        part = sampling.step_at(training, step)
        keep = ~sampling.draw_rows(seed, step, len(indices), part.image_dropout, "image")
        blind = sampling.draw_rows(seed, step, len(indices), training.perception_dropout, "perception")
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        mine = list(range(len(indices)))[rank::world] or [0]  # a last short batch still gives every process a row
        samples = [self.samples[indices[i]] for i in mine]
        seen = [
            [None if blind[i] else self.perceptions.get(image) for image in sample.image_ids]
            for i, sample in zip(mine, samples, strict=True)
        ]
        batch = self.processor.batch([sample.conversation for sample in samples], seen, labels=True)
        if self.finder is not None and "aux_input_ids" in batch:
            words = (batch["aux_input_ids"], batch["aux_attention_mask"])
            batch["attention_targets"] = target_masks(self.finder, self.processor, samples, *words)
        batch = self.word_cache.fill(batch)
        batch["image_keep"] = keep[mine]
        if part.routing == "random_module":
            batch["module_choices"] = sampling.draw_modules(seed, step, len(self.model.mixers))
        return {key: value.to(self.accelerator.device) for key, value in batch.items()}

    def _finish(self) -> Path:
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            (self.run_dir / MANIFEST).unlink(missing_ok=True)  # it comes back last: a run with a manifest is whole
            draw_curves(self.run_dir, self.training.step1.steps)
            self.processor.save_pretrained(self.run_dir)
            self.model.save_pretrained(self.run_dir)
        return self.run_dir


def _headline(values: dict[str, float]) -> str:
    text = f"loss {values['loss']:.3f}"
    if "loss_on" in values:
        text += f", on {values['loss_on']:.3f} / shuffled {values['loss_shuffled']:.3f}, spread {values['spread']:.2f}"
    return text
