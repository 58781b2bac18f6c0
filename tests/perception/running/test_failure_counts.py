"""Failures of experts are counted, and one that fails for most images is refused with all that a user needs."""

import pytest

from moai.errors import ExpertError
from moai.perception.running.failure_counts import ENOUGH, FailureCounts
from moai.types import Failure, Perception

GOOD = Perception()


def bad(reason: str = "out of paint", expert: str = "ocr") -> Perception:
    return Perception(failures=(Failure(expert, reason),))


def test_more_than_half_of_enough_images_is_refused_with_expert_count_first_reason_and_fix():
    counts = FailureCounts("do something")
    assert counts.count([bad("first"), bad("second"), GOOD]) == [("ocr", "first"), ("ocr", "second")]
    assert counts.count([bad("second"), bad("second")]) == []
    with pytest.raises(ExpertError) as error:
        counts.count([GOOD, bad(), GOOD])
    assert str(error.value) == "expert 'ocr' gave nothing for 5 of 8 images (first); do something"


def test_half_of_the_images_is_a_counted_warning(caplog):
    counts = FailureCounts("do something")
    counts.count([bad(), GOOD] * ENOUGH)
    counts.count([bad(expert="other")])
    counts.check()
    counts.warn()
    assert [record.getMessage() for record in caplog.records] == [
        "expert 'ocr' gave nothing for 8 of 17 images: out of paint",
        "expert 'other' gave nothing for 1 of 17 images: out of paint",
    ]


def test_few_images_are_judged_at_the_end():
    counts = FailureCounts("do something")
    counts.count([bad()] * (ENOUGH - 1))
    with pytest.raises(ExpertError, match="7 of 7 images"):
        counts.check()


def test_no_image_at_all_is_no_failure():
    FailureCounts("do something").check()
