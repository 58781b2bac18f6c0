"""Answer waiting requests in batches: one thread perceives their pictures, others generate their answers.

Knows: a run of moai, and jobs. What waits goes together into the next batch, in the order in which it came; a batch
ends with its longest answer, and each answer is reported as soon as it ends.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Sequence

from moai import Augmented
from moai.errors import MoaiError, PromptError
from moai.types import merge
from moai_serve.choice import Choice
from moai_serve.drawing import Draw, Ended
from moai_serve.errors import ApiError, internal, refused
from moai_serve.job import Job, Perceived, late
from moai_serve.metrics import Metrics
from moai_serve.settings import Settings
from moai_serve.word_states import WordStates

GATHERING = 0.02  # seconds that a batch waits for pictures that are being perceived, so that more go along
PROMPTS = 256  # encoded prompts that are kept


class Engine:
    """Queue jobs, and run them in batches.

    Args:
        run: of ``moai.load``.
        settings: with sizes and limits.
        metrics: to count in.
    """

    def __init__(self, run: Augmented, settings: Settings, metrics: Metrics) -> None:
        self.run, self.settings, self.metrics = run, settings, metrics
        self._asked: deque[Job] = deque()
        self._ready: deque[Job] = deque()
        self._perceiving = self._running = 0  # answers
        self._changed = threading.Condition()
        self._stopped = False
        self._threads: list[threading.Thread] = []
        self._words = WordStates(run.model)
        self._pace = 0.2  # seconds per answer, a running mean
        run.processor.prompts.cache(PROMPTS)
        metrics.watch(lambda: self.waiting, lambda: self._running)

    # From outside ------------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Answers that wait."""
        with self._changed:
            return sum(job.asked.choices for job in (*self._asked, *self._ready)) + self._perceiving

    @property
    def alive(self) -> bool:
        """True while every thread of it runs."""
        return bool(self._threads) and all(thread.is_alive() for thread in self._threads) and not self._stopped

    def start(self) -> None:
        """Start the threads."""
        works = [self._perceive_waiting, *[self._answer_waiting] * self.settings.answering]
        self._threads = [threading.Thread(target=work, daemon=True, name=work.__name__) for work in works]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the threads after the batches that they are at; what still waits is refused."""
        with self._changed:
            self._stopped = True
            left = [*self._asked, *self._ready]
            self._asked.clear()
            self._ready.clear()
            self._changed.notify_all()
        for job in left:
            job.fail(ApiError(503, "the server is stopping; ask again later", "stopping"))
        for thread in self._threads:
            thread.join()

    def check_room(self, choices: int = 1) -> None:
        """Refuse what would wait too long.

        Raises:
            ApiError: 429, with the seconds after which there should be room.
        """
        waiting = self.waiting
        if waiting + choices > self.settings.max_waiting:
            seconds = min(60, max(1, math.ceil(waiting * self._pace)))
            raise ApiError(
                429, f"{waiting} answers wait already; ask again in {seconds} s", "overloaded",
                headers={"retry-after": str(seconds)},
            )  # fmt: skip

    def submit(self, job: Job) -> None:
        """Queue a job.

        Raises:
            ApiError: 429, when too many wait; 503, when the server stops.
        """
        with self._changed:
            if self._stopped:
                raise ApiError(503, "the server is stopping; ask again later", "stopping")
            self.check_room(job.asked.choices)
            self._asked.append(job)
            self._changed.notify_all()

    def leave(self, job: Job) -> None:
        """Give a job up whose client is gone: it waits no longer, and its answers end."""
        job.leave()
        self.metrics.left.inc()
        with self._changed:
            for queue in (self._asked, self._ready):
                if job in queue:
                    queue.remove(job)

    # Perceiving --------------------------------------------------------------------------------------------------

    def _perceive_waiting(self) -> None:
        while jobs := self._next(self._asked):
            try:
                self._perceive_batch(jobs)
            except Exception as error:  # an expert's own errors are failures of its perception; this is another
                self._fail(jobs, error)
            with self._changed:
                self._perceiving -= _answers(jobs)
                self._ready.extend(job for job in jobs if not job.over)
                self._changed.notify_all()
            jobs.clear()  # their pictures should not stay until the next ones come

    def _perceive_batch(self, jobs: Sequence[Job]) -> None:
        for experts in dict.fromkeys(job.asked.experts for job in jobs):
            own = [job for job in jobs if job.asked.experts == experts and not job.over]
            flat = [image for job in own for image in job.asked.conversation.images]
            perceiver = self.run.perceiver if experts is None else self.run.perceiver.only(experts)
            began = time.monotonic()
            found = iter(perceiver.perceive(flat) if flat else [])
            if flat:
                self.metrics.images.inc(len(flat))
                self.metrics.perceiving.observe(time.monotonic() - began)
            for job in own:
                job.perceptions = [next(found) for _ in job.asked.conversation.images]
        for job in jobs:
            if not job.over:
                try:
                    self._report(job)
                except Exception as error:  # of this one request, such as words that do not fit into its prompt
                    self._fail([job], error)

    def _report(self, job: Job) -> None:
        [counts] = self.run.token_counts([job.asked.conversation], [job.perceptions])
        whole = merge(job.perceptions)
        for failure in whole.failures:
            self.metrics.failures.labels(failure.expert).inc()
        job.report(Perceived(whole, self.run.words(job.perceptions), counts))

    # Answering ---------------------------------------------------------------------------------------------------

    def _answer_waiting(self) -> None:
        while jobs := self._next(self._ready):
            began = time.monotonic()
            try:
                self._answer_batch(jobs)
            finally:
                with self._changed:
                    self._running -= _answers(jobs)
            self._pace = 0.8 * self._pace + 0.2 * (time.monotonic() - began) / _answers(jobs)
            jobs.clear()

    def _answer_batch(self, jobs: Sequence[Job]) -> None:
        """Answer jobs together; when that fails before the first token, one by one, so that one costs no other."""
        try:
            self._generate(jobs)
        except Exception as error:
            fresh = [job for job in jobs if not any(choice.tokens for choice in job.choices)]
            self._fail([job for job in jobs if job not in fresh or len(jobs) == 1], error)
            if len(jobs) > 1:
                for job in fresh:
                    self._answer_batch([job])

    def _generate(self, jobs: Sequence[Job]) -> None:
        run = self.run
        for job in jobs:
            follow, number = job.asked.stream, range(job.asked.choices)
            given = (job.asked.sampling, run.processor.tokenizer, tuple(run.stops), job.deadline, follow)
            job.choices = [Choice(at, *given) for at in number]
        rows = [(job, choice) for job in jobs for choice in job.choices]
        choices = [choice for _, choice in rows]
        batch = run.processor.batch([j.asked.conversation for j, _ in rows], [j.perceptions for j, _ in rows])
        self.metrics.batches.observe(len(rows))
        waiting = set(map(id, jobs))

        def after() -> None:
            for job in jobs:
                if id(job) in waiting:
                    waiting.discard(id(job))
                    self.metrics.first.observe(time.monotonic() - job.came)
                job.tell()

        inputs = {name: value.to(run.model.device) for name, value in batch.items()}
        run.model.generate(
            **self._words.fill(inputs),
            max_new_tokens=max(choice.sampling.max_tokens for choice in choices),
            do_sample=False,
            eos_token_id=run.stops,
            logits_processor=[Draw(choices, after, run.stops[0])],
            stopping_criteria=[Ended(choices)],
        )

    # Inside ------------------------------------------------------------------------------------------------------

    def _next(self, queue: deque[Job]) -> list[Job]:
        """Take what waits, up to a batch; an empty list when the engine stops."""
        with self._changed:
            while not self._stopped:
                if queue is self._ready and queue:
                    self._gather()
                taken, size = self._take(queue)
                if taken:
                    self._perceiving += size if queue is self._asked else 0
                    self._running += size if queue is self._ready else 0
                    return taken
                self._changed.wait()
        return []

    def _gather(self) -> None:
        """Wait a moment for pictures that are being perceived."""
        until = time.monotonic() + GATHERING
        while not self._stopped and self._more_come() and (left := until - time.monotonic()) > 0:
            self._changed.wait(left)

    def _take(self, queue: deque[Job]) -> tuple[list[Job], int]:
        taken: list[Job] = []
        size = 0
        while queue and size + queue[0].asked.choices <= self.settings.batch_size:
            job = queue.popleft()
            if time.monotonic() > job.deadline:
                job.fail(late())
            elif not job.over:
                taken.append(job)
                size += job.asked.choices
        return taken, size

    def _more_come(self) -> bool:
        full = sum(job.asked.choices for job in self._ready) >= self.settings.batch_size
        return not full and bool(self._asked or self._perceiving)

    def _fail(self, jobs: Sequence[Job], error: Exception) -> None:
        if not jobs:
            return
        if isinstance(error, MoaiError):
            code = "context_length_exceeded" if isinstance(error, PromptError) else "invalid_value"
            made = refused(str(error), code, "messages")
        else:
            made = internal("a batch", error)
        self.metrics.errors.labels(type(error).__name__).inc()
        for job in jobs:
            job.fail(made)


def _answers(jobs: Sequence[Job]) -> int:
    return sum(job.asked.choices for job in jobs)
