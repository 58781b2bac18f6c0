"""Re-routing end to end, on a model whose gates were spoilt: it was taught to read, and then told not to."""

import json
import random

import pytest
import tiny
import torch
from click.testing import CliRunner

import moai
from moai.cli.main import cli
from moai.errors import RecipeError
from moai.evaluation.rerouting import build_record, other_half, recorded_half, rerouted
from moai.expert import Expert
from moai.model.analysis.rerouting import FOLDER, Rerouting, load_record
from moai.model.run_folder import save_run
from moai.plugins import registry
from moai.training.trainer import train
from moai.types import Perception, Sample, Segment

SPOILT = 2.0  # logits taken from every module that reads the auxiliary tokens


class TinyBoxes(Expert):
    """Names the picture's middle by its colour, in a box that differs from picture to picture."""

    name, role, version = "tiny-boxes", "panoptic", "1"

    def perceive(self, images, context):
        """One segment per image."""
        return [self.to_perception(image) for image in images]

    def to_perception(self, image) -> Perception:
        """The corner's brightness says where the box is; on plain grey, around the middle."""
        corner, box = image.getpixel((0, 0))[0], (0.25, 0.25, 0.75, 0.75)
        if corner != 90:
            where, low, high = random.Random(corner), (0.1, 0.2, 0.25, 0.3), (0.6, 0.7, 0.75, 0.8)
            box = (where.choice(low), where.choice(low), where.choice(high), where.choice(high))
        red, green, blue = image.getpixel((32, 32))
        names = {(255, 0, 0): "red", (0, 128, 0): "green", (0, 0, 255): "blue"}
        return Perception(segments=(Segment(names.get((red, green, blue), "black"), 0.9, box),))


def colours(split, limit=None):
    """One question about each of 48 pictures; for training 16 that are nearly alike."""
    if split == "train":
        return [sample for sample in tiny.dataset(split) if sample.question.startswith("What")][:limit]
    first = {"validation": 100, "test": 160}[split]
    samples = []
    for index in range(48):
        name = tiny.COLORS[index % 4]
        image = tiny.picture(name)
        image.paste((first + index,) * 3, (0, 0, 4, 4))
        key, question = f"{split}-{index}", "What color is the shape?"
        samples.append(Sample(key, tiny.png(image), key, question, name, "color"))
    return samples[:limit]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that reads its perception, with gates that keep it from doing so."""
    root = tmp_path_factory.mktemp("rerouting")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOAI_CACHE", str(root / "cache"))
        tiny.draw_nothing(patch)
        patch.setitem(registry().experts, TinyBoxes.name, TinyBoxes)
        patch.setitem(registry().datasets, "tiny-boxed", colours)
        plan = {
            "step1": {"steps": 8, "routing": "random_module", "image_dropout": 1.0},
            "step2": {"steps": 40, "routing": "gates", "image_dropout": 1.0},
            "batch_size": 16, "learning_rate": 1e-2, "compressor_rate": 1.0,
            "checkpoint_every": 100, "monitor_every": 100,
        }  # fmt: skip
        parts = {"data": {"name": "tiny-boxed", "validation_limit": 8}, "perception": {"experts": ["tiny-boxes"]}}
        made = train(tiny.recipe(training=plan, **parts), root / "run")
        augmented = moai.load(made, device="cpu")
        with torch.no_grad():
            for mixer in augmented.model.mixers.values():
                for gate in (mixer.gate_image, mixer.gate_language):
                    gate.bias[0] -= SPOILT
        save_run(augmented.model, made)
        yield made


@pytest.fixture(scope="module")
def augmented(run):
    return moai.load(run, device="cpu")


def perceived(augmented, samples):
    from moai.data.perceive import perceive_samples

    return perceive_samples(augmented.perceiver, samples)


def answers(augmented, samples):
    from moai.images import read_image

    seen = perceived(augmented, samples)
    images = [read_image(s.image) for s in samples]
    return augmented.answer_batch(images, [s.question for s in samples], [seen[s.image_id] for s in samples])


def right(augmented, samples):
    return sum(text == s.answer for text, s in zip(answers(augmented, samples), samples))


@pytest.fixture(scope="module")
def record(augmented):
    samples = colours("validation")
    return build_record(augmented, samples, perceived(augmented, samples), batch_size=7)


def test_only_solved_samples_are_recorded_each_beside_its_own_figures(augmented, record):
    samples = {s.id: s for s in colours("validation")}
    solved = [samples[name] for name in record.about["solved"]]
    assert 4 <= len(solved) < 48 == record.about["asked"]
    assert answers(augmented, solved) == [s.answer for s in solved]
    assert record.states.shape == (len(solved), tiny.WIDTH) and record.gradients.shape == (len(solved), 2, 2, 3)
    again = build_record(augmented, [solved[3]], perceived(augmented, [solved[3]]))
    assert torch.allclose(again.states[0], record.states[3], atol=1e-4)
    assert torch.allclose(again.gradients[0], record.gradients[3], atol=1e-4)


def test_rerouting_finds_the_routing_that_helps(augmented, record):
    test = colours("test")
    weights = {name: p.detach().clone() for name, p in augmented.model.adapter_parameters().items()}
    plain = right(augmented, test)
    with rerouted(augmented, Rerouting(record, neighbours=4, strength=1.0)):
        moved = right(augmented, test)
    assert moved >= plain + 10, f"{plain} of 48 right without re-routing, {moved} with it"
    assert right(augmented, test) == plain and augmented.rerouting is None
    assert all(torch.equal(p, weights[name]) for name, p in augmented.model.adapter_parameters().items())


def test_the_solved_samples_ask_for_more_of_the_modules_that_were_spoilt(record):
    assert (record.gradients.mean(dim=0)[..., 0] < 0).all(), "in every layer, for image and for question tokens"


@pytest.mark.parametrize("neighbours, strength", [(0, 1.0), (4, 0.0)])
def test_no_neighbours_or_no_strength_is_the_plain_model_bit_for_bit(augmented, record, neighbours, strength):
    samples = colours("test")[:5]
    seen = perceived(augmented, samples)
    inputs = tiny.prompt_inputs(augmented.processor, [s.question for s in samples], list(seen.values()))
    with rerouted(augmented, Rerouting(record, neighbours, strength)):
        assert augmented._rerouted(inputs) is inputs


def test_an_answer_does_not_depend_on_what_else_is_asked(augmented, record):
    samples = colours("test")[:6]
    with rerouted(augmented, Rerouting(record, neighbours=4)):
        together = answers(augmented, samples)
        assert [answers(augmented, [sample])[0] for sample in samples] == together


def test_nothing_solved_is_a_sentence(augmented):
    wrong = [Sample("a", tiny.png(tiny.picture("red")), "a", "What color?", "mauve", "color")]
    with pytest.raises(RecipeError, match="none of 1 samples was solved, so there is nothing to re-route by"):
        build_record(augmented, wrong, perceived(augmented, wrong))


def test_the_two_halves_of_a_split_share_no_image():
    samples = colours("validation")
    first, second = recorded_half(samples), other_half(samples)
    assert len(first) + len(second) == 48 and min(len(first), len(second)) > 12
    assert not {s.image_id for s in first} & {s.image_id for s in second}
    assert recorded_half(samples[::-1]) == first[::-1]


# The command --------------------------------------------------------------------------------------------------------


def evaluate(run, *arguments):
    return CliRunner().invoke(cli, ["eval", str(run), *map(str, arguments)])


def report(run, folder):
    return json.loads((run / folder / "report.json").read_text())


def test_eval_sets_rerouted_answers_beside_plain_ones(run, monkeypatch):
    result = evaluate(run, "--full", "--perception", "on,off", "--reroute", 4)
    assert result.exit_code == 0, result.stderr
    found = report(run, "eval-rerouted-4-full")
    assert found["conditions"] == ["on", "off", "plain"]
    overall = found["groups"]["overall"]
    assert overall["differences"]["on-plain"]["low"] > 0
    record = load_record(run)
    assert found["rerouting"] == {"neighbours": 4, "strength": 1.0, "solved": len(record.states)}
    assert "nearest of" in result.stderr and record.about["split"] == "validation"
    assert set(record.about["solved"]) <= {s.id for s in recorded_half(colours("validation"))}

    evaluate(run, "--full", "--perception", "on")
    plain = report(run, "eval-full")["groups"]["overall"]["accuracy"]["on"]
    assert plain == overall["accuracy"]["plain"]

    monkeypatch.setattr("moai.evaluation.rerouting.build_record", lambda *a, **b: pytest.fail("recorded already"))
    still = evaluate(run, "--full", "--perception", "on", "--reroute", 4, "--strength", 0)
    assert still.exit_code == 0, still.stderr
    overall = report(run, "eval-rerouted-4-full")["groups"]["overall"]
    assert overall["accuracy"]["on"] == overall["accuracy"]["plain"] == plain

    loaded = moai.load(run, device="cpu", reroute=4, strength=0.5)
    assert (loaded.rerouting.neighbours, loaded.rerouting.strength) == (4, 0.5)


def test_on_the_recorded_split_only_the_other_half_is_asked(run):
    result = evaluate(run, "--full", "--split", "validation", "--perception", "on", "--reroute", 2)
    assert result.exit_code == 0, result.stderr
    lines = (run / "eval-rerouted-2-validation-full" / "predictions.jsonl").read_text().splitlines()
    assert {json.loads(line)["id"] for line in lines} == {s.id for s in other_half(colours("validation"))}


def test_a_record_of_other_weights_is_made_anew(run):
    folder = run / FOLDER
    about = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps({**about, "key": "old"}))
    result = evaluate(run, "--limit", 4, "--perception", "on", "--reroute", 2)
    assert "recording solved samples" in result.stderr
    assert json.loads((folder / "record.json").read_text()) == about


def test_without_a_record_loading_says_what_makes_it(run, tmp_path):
    from moai.errors import CheckpointError

    (run / FOLDER).rename(tmp_path / FOLDER)
    with pytest.raises(CheckpointError, match="has no record of solved samples"):
        moai.load(run, device="cpu", reroute=4)
    (tmp_path / FOLDER).rename(run / FOLDER)
