"""The benchmarks: their table is honest, what they compare agrees, and their command line is usable."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and Path(sys.modules[name].__file__).parent == FOLDER:
            del sys.modules[name]


def test_a_row_knows_what_its_target_means():
    from measure import Row

    assert Row("a", 1.3, 1.35, at_most=True).passed and not Row("a", 1.4, 1.35, at_most=True).passed
    assert Row("a", 3.1, 3.0, at_most=False).passed and not Row("a", 2.9, 3.0, at_most=False).passed
    assert not Row("a", float("nan"), 3.0, at_most=False).passed


def test_two_works_are_timed_in_turns():
    from measure import in_turns, ratio

    calls = []
    slow, fast = in_turns(lambda: calls.append("a"), lambda: calls.append("b"), 3)
    assert "".join(calls) == "ab" + "abbaab" and len(slow) == len(fast) == 3
    assert ratio([3.0, 1.0, 2.0], [1.0, 1.0, 9.0]) == 2.0


def test_operations_are_counted():
    from measure import operations

    a, b = torch.randn(3, 5), torch.randn(5, 7)
    assert operations(lambda: a @ b) == 2 * 3 * 5 * 7


@pytest.mark.parametrize("arithmetic", ["moai", "published"])
def test_the_published_loop_is_the_mixers_reference(arithmetic):
    """The same numbers, from fewer operations."""
    from measure import operations
    from mixing import paper_mixer, straight, streams

    torch.manual_seed(0)
    mixer, s = paper_mixer(512, arithmetic), streams(2, 512, 80, 20, 16)
    for gate in (mixer.gate_image, mixer.gate_language):
        torch.nn.init.normal_(gate.weight, std=0.1)
    with torch.no_grad():
        for ours, loop in zip(mixer(s), straight(mixer, s)):
            assert loop.abs().max() > 0.1 and torch.allclose(ours, loop, atol=1e-4)
        assert operations(lambda: mixer(s)) < operations(lambda: straight(mixer, s))


def test_a_disagreement_is_no_ratio(monkeypatch):
    import mixing

    monkeypatch.setattr(mixing, "straight", lambda mixer, s: (s.image, s.language))
    with pytest.raises(AssertionError, match="the two disagree by"):
        mixing._compare("moai", mixing.streams(1, 64, 4, 3, 2), 1)


def test_the_augmented_host_shares_weights_and_leaves_the_bare_one_without_hooks():
    from subjects import augmented, bare, batch

    model, host = augmented("tiny", 4), bare("tiny")
    assert list(model.mixers) == ["7"]
    assert all(a is b for a, b in zip(model.host.parameters(), host.parameters()))
    assert not any(module._forward_pre_hooks for module in host.modules())
    calls = []
    model.mixers["7"].register_forward_hook(lambda *_: calls.append(1))
    assert model(**batch("tiny", 2, 4, 5, aux=6, answer=2)).loss.isfinite() and len(calls) == 1


def test_a_training_step_is_looked_at():
    from training import Step

    step = Step("augmented", "tiny", quick=True)
    before = {name: p.detach().clone() for name, p in step.model.adapter_parameters().items()}
    assert set(step.check().values()) == {True}
    step()
    moved = {
        name.split(".")[0] for name, p in step.model.adapter_parameters().items() if not torch.equal(p, before[name])
    }
    assert moved == {"connector", "compressor", "mixers"}
    step.model.host.get_input_embeddings().requires_grad_(True)
    assert step.check()["no backward below the first trainable part"] is False


def test_prefill_and_decoding_at_a_tiny_size():
    from answering import _decode, _prefill

    [prefill] = _prefill("tiny", 2, 4, 6, 1)
    assert prefill.floor > 1 and prefill.value > 0 and prefill.detail["sequence"] == 10
    decode = _decode("tiny", 2, 4, 6, 1, quick=True)
    assert decode.floor == 1.0, "a generated token costs as many operations as on the bare host"


def test_the_command_prints_the_table_and_keeps_it(tmp_path, monkeypatch, capsys):
    import mixing
    import run
    from measure import Row

    monkeypatch.setattr(mixing, "run", lambda quick, repeats: [Row("a thing", 2.0, 3.0, at_most=False, floor=2.5)])
    threads = torch.get_num_threads()
    try:
        code = run.main(["mixing", "--quick", "--threads", "1", "--json", str(tmp_path / "made" / "b.json")])
    finally:
        torch.set_num_threads(threads)
    printed = capsys.readouterr().out
    assert code == 1 and "1 threads of" in printed and "3 repeats in turns" in printed
    assert printed.splitlines()[-1].split() == ["a", "thing", "2.00", "x", ">=", "3", "x", "2.50", "x", "MISS"]
    [row] = json.loads((tmp_path / "made" / "b.json").read_text())["rows"]
    assert row["value"] == 2.0 and row["passed"] is False


def test_an_unknown_name_is_one_sentence():
    command = [sys.executable, str(FOLDER / "run.py"), "mixers"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "no benchmark 'mixers'; there are mixing, answering" in done.stderr
