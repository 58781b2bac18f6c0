"""Check all samples before anything trains: rows, images, lengths, loss masks and ids, each with its place.

Knows: samples, images and a processor. Rows are read one after another, each image once.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from PIL import Image

from moai.data.context_fit import fit_context
from moai.data.perceive import images_of
from moai.data.records import each
from moai.data.samples import Samples
from moai.errors import CorpusError, DataError, ImageError
from moai.images import read_image
from moai.types import Sample

if TYPE_CHECKING:
    from moai.model.processor.processor import MoaiProcessor

SHOWN = 1000  # places that are kept of each kind of problem
TINY, HUGE = 16, 5000  # pixels of a side


@dataclass
class DataReport:
    """What a check found.

    Attributes:
        total: number of rows read.
        counts: what the rows are: kinds, images and turns.
        bad: kind of problem -> number of rows that a run stops at.
        odd: kind of oddity -> number of images or rows, which a run takes.
        examples: kind of either -> sentences with places.
        measured: whether lengths and loss masks were checked, which needs a recipe's processor.
    """

    total: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    bad: Counter[str] = field(default_factory=Counter)
    odd: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    measured: bool = False

    def record(self, group: Counter[str], problem: str, sentence: str) -> None:
        """Count a problem, and keep its sentence among the examples."""
        group[problem] += 1
        kept = self.examples.setdefault(problem, [])
        if len(kept) < SHOWN:
            kept.append(sentence)

    def stops(self, tolerate: float) -> bool:
        """Return whether a run that tolerates this share of bad rows would stop."""
        return self.bad.total() > tolerate * self.total

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        groups = {name: dict(getattr(self, name)) for name in ("counts", "bad", "odd")}
        return {"rows": self.total, **groups, "examples": self.examples, "measured": self.measured}


def check_samples(
    samples: Samples,
    processor: MoaiProcessor | None = None,
    too_long: str = "refuse",
    *,
    report: DataReport | None = None,
    advance: Callable[[int], None] | None = None,
    check_file: Callable[[str, Any], None] | None = None,
) -> DataReport:
    """Read all samples and their images, and report what is wrong or odd.

    Args:
        samples: of one source or split.
        processor: of the recipe; without it lengths and loss masks are left out.
        too_long: as in the recipe.
        report: of other samples, which is added to.
        advance: called with the number of rows read.
        check_file: called with the id of each image and the image; raises a CorpusError where shards hold another.
    """
    report = report or DataReport()
    report.measured = processor is not None
    ids: dict[int, int] = {}  # hash of an id -> number of its row
    examined = Examiner(processor, too_long, check_file)
    for index, sample in enumerate(each(samples)):
        report.total += 1
        try:
            if isinstance(sample, DataError):
                raise sample
            report.counts.update(_described(sample))
            other = ids.setdefault(hash(sample.id), index)
            if other != index:
                places = f"{samples.place(other)} and {samples.place(index)}"
                report.record(report.odd, "id that another row has", f"'{sample.id:.80}': {places}; give each its own")
            for oddity, sentence in examined(sample, samples.place(index)):
                report.record(report.odd, oddity, sentence)
        except DataError as error:
            report.record(report.bad, error.problem, str(error))
        if advance is not None:
            advance(1)
    return report


class Examiner:
    """Examine samples one by one: fit, loss mask, and each image once."""

    def __init__(
        self,
        processor: MoaiProcessor | None,
        too_long: str = "refuse",
        check_file: Callable[[str, Any], None] | None = None,
    ) -> None:
        self.processor, self.too_long, self.check_file = processor, too_long, check_file
        self._seen: dict[int, tuple[str, str] | None] = {}  # hash of an image's id -> why a run stops, and its name

    def __call__(self, sample: Sample, place: str) -> list[tuple[str, str]]:
        """Return oddities of a sample that a run takes: the kind, and a sentence.

        Raises:
            DataError: the run stops at it; names the place.
        """
        found = []
        try:
            if self.processor is not None:
                dropped = fit_context(sample, self.processor, self.too_long).dropped
                if dropped:
                    found.append(("row that loses its last turns", f"{place}: loses {dropped} turns"))
            for name, image in images_of([sample]).items():
                found += [(kind, f"{place}: {text}") for kind, text in self._image(image, name)]
        except DataError as error:
            raise DataError(f"{place}: {error}", error.problem) from error
        return found

    def _image(self, image: Any, name: str) -> list[tuple[str, str]]:
        key = hash(name)
        if key in self._seen:
            if known := self._seen[key]:
                raise DataError(*known)
            return []
        try:
            read_image(image)
            if self.check_file is not None:
                self.check_file(name, image)
        except (ImageError, CorpusError) as error:
            problem = "unreadable image" if isinstance(error, ImageError) else "image that is not the one in the shards"
            self._seen[key] = (str(error), problem)
            raise DataError(str(error), problem) from error
        self._seen[key] = None
        return list(oddities(image, name))


def check_images(sample: Sample) -> None:
    """Open all images of a sample.

    Raises:
        DataError: one cannot be read.
    """
    for image in sample.images:
        try:
            read_image(image)
        except ImageError as error:
            raise DataError(str(error), "unreadable image") from error


def oddities(image: Any, name: str) -> Iterator[tuple[str, str]]:
    """Yield what is odd about an image file that can be read: the kind, and a sentence."""
    if isinstance(image, bytes):
        image = io.BytesIO(image)
    elif not isinstance(image, Image.Image) and not hasattr(image, "__fspath__") and not isinstance(image, str):
        return
    opened = image if isinstance(image, Image.Image) else Image.open(image)
    if getattr(opened, "is_animated", False):
        yield "animated image", f"{name} has {opened.n_frames} frames, of which the first is used"
    if opened.has_transparency_data:
        yield "image with transparency", f"{name} is put over white"
    if min(opened.size) < TINY:
        yield "tiny image", f"{name} has {opened.width} x {opened.height} pixels"
    if max(opened.size) > HUGE:
        yield "huge image", f"{name} has {opened.width} x {opened.height} pixels"


def _described(sample: Sample) -> Iterator[str]:
    images = len(sample.images)
    if sample.perceived:
        yield "perception without an image"
    else:
        yield "text only" if not images else "one image" if images == 1 else "several images"
    answers = sum(turn.role == "assistant" for turn in sample.conversation.turns)
    yield "document" if not answers else "one answer" if answers == 1 else "several answers"
    if sample.kind:
        yield f"kind {sample.kind}"
