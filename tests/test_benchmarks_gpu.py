"""The GPU benchmark: what fits, its clock, its tables; and, without a GPU, each of its ways with toy shapes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_benchmarks import FOLDER, on_path  # noqa: F401

GIB = 2**30
CPU = torch.device("cpu")


def test_turns_end_when_the_time_is_over_but_not_before_one_was_measured():
    from measure import in_turns

    calls = []
    slow, fast = in_turns(lambda: calls.append("a"), lambda: calls.append("b"), 9, warm=False, until=0.0)
    assert calls == ["a", "b"] and len(slow) == len(fast) == 1


def test_the_samples_of_a_step_are_cut_to_the_card():
    from gpu_subjects import RESERVE, fitting

    class Plan:
        def training(self, batch, checkpointed):
            return 10 * GIB + batch * (GIB if checkpointed else 4 * GIB)

    assert fitting(Plan(), 4, None) == (4, False), "a CPU leaves nothing out"
    assert fitting(Plan(), 4, 80 * GIB) == (4, False)
    assert fitting(Plan(), 4, 18 * GIB + RESERVE) == (2, False)
    assert fitting(Plan(), 4, 13 * GIB + RESERVE) == (3, True)
    assert fitting(Plan(), 4, 10 * GIB) is None


@pytest.mark.slow
def test_the_shapes_are_those_that_their_names_say():
    from gpu_subjects import SUBJECTS, fitting

    plans = {name: one.plan() for name, one in SUBJECTS.items()}
    hosts = {name: made.parts[0] for name, made in plans.items()}
    assert round(hosts["1B"].parameters / 1e9, 1) == 1.1 and round(hosts["7B"].parameters / 1e9, 2) == 6.74
    assert hosts["7B NF4"].weights < 0.35 * hosts["7B"].weights
    assert all(made.tokens == {"image": 576, "prompt": 72, "aux": 256} for made in plans.values())
    assert fitting(plans["7B"], 4, 79 * GIB) == (4, False), "an H100 trains all that is asked"
    assert fitting(plans["1B"], 8, 79 * GIB) == (8, False)
    assert fitting(plans["7B"], 4, 15 * GIB) is None, "which a card of 16 GiB has free"
    assert fitting(plans["7B NF4"], 4, 15 * GIB) is not None


def test_what_does_not_fit_is_skipped_with_a_sentence(monkeypatch):
    import gpu_answering
    import gpu_training

    for module, function in ((gpu_training, "train"), (gpu_answering, "answer")):
        monkeypatch.setattr(module, "free_memory", lambda device: GIB)
        [row] = getattr(module, function)("1B", CPU, True, 0.0)
        assert "skipped, it needs 1.5 GiB" in row["note"] or "skipped, it needs 0.0 GiB" in row["note"]
        assert "and 1.0 are free" in row["note"]


def test_a_model_on_the_device_is_the_one_that_the_plan_counts():
    """And connector-only training runs the host without mixers, stage 1 one module of three, stage 2 all."""
    from gpu_subjects import augmented, batch, random_host, subject
    from gpu_training import STAGES, Step, _memory

    one = subject("1B", tiny=True)
    host = random_host(one, CPU)
    frozen = {name: p.clone() for name, p in host.named_parameters()}
    model = augmented(one, host, CPU).train()
    inputs = batch(one, model, 2)
    rows = list(_memory(one, one.plan(), model, inputs, 2, False))
    assert all(row["ratio"] == 1 for row in rows[:-2]) and [row["measured"] for row in rows[-2:]] == [None, None]
    assert {row["what"].split(",")[0] for row in rows[:-2]} == {"host", "vision", "connector", "compressor", "mixers"}
    steps = {stage: Step(model, inputs, stage) for stage in STAGES}
    moved = {}
    for stage, step in steps.items():
        before = {name: p.detach().clone() for name, p in model.adapter_parameters().items()}
        assert step().isfinite()
        moved[stage] = {n for n, p in model.adapter_parameters().items() if not torch.equal(p, before[n])}
    parts = {stage: {name.split(".")[0] for name in names} for stage, names in moved.items()}
    assert parts["connector-only"] == {"connector"}
    assert parts["stage 1, modules"] == parts["stage 2, gates"] == {"connector", "compressor", "mixers"}
    assert any("gate" in name for name in moved["stage 2, gates"])
    assert not any("gate_" in name for name in moved["stage 1, modules"])
    assert all(torch.equal(p, frozen[name]) for name, p in model.host.named_parameters())


def test_losses_that_differ_from_a_cpus_are_an_error(monkeypatch):
    import gpu_training

    given = iter([[2.0, 1.0], [2.0, 1.5]])
    monkeypatch.setattr(gpu_training, "_losses", lambda one, device: next(given))
    rows = gpu_training.agree("tiny", CPU, True, 0.0)
    assert next(rows)["largest"] == 0.5
    with pytest.raises(AssertionError, match=r"differ from a CPU's by 0.00e\+00 at first and 5.00e-01"):
        next(rows)


@pytest.mark.parametrize("name", ["1B", pytest.param("7B NF4", marks=pytest.mark.slow)])
def test_the_bare_host_shares_weights_and_not_hooks(name):
    from gpu_subjects import augmented, random_host, sharing_copy, subject

    one = subject(name, tiny=True)
    if one.missing:
        pytest.skip(one.missing)
    host = random_host(one, CPU)
    bare = sharing_copy(host)
    model = augmented(one, host, CPU)
    assert all(a is b for a, b in zip(model.host.parameters(), bare.parameters(), strict=True))
    assert not any(module._forward_pre_hooks for module in bare.modules())


def test_a_part_that_fails_or_hangs_is_a_line(monkeypatch, tmp_path):
    import gpu

    script = tmp_path / "part.py"
    monkeypatch.setattr(gpu, "__file__", str(script))
    options = gpu.arguments(["agreement", "--device", "cpu"])
    script.write_text(
        'import time\nprint(\'{"note": "one"}\', flush=True)\nprint(\'{"cut\', flush=True)\ntime.sleep(60)'
    )
    found = gpu.run_part("agreement", 1.0, options)
    assert found["rows"] == [{"note": "one"}] and found["ended"] == "stopped at its limit"
    script.write_text("raise ValueError('no such kernel')")
    assert gpu.run_part("agreement", 30.0, options)["ended"] == "failed with exit code 1: ValueError: no such kernel"


def test_tables_are_markdown_with_what_was_left_out():
    import gpu

    rows = [
        {
            "table": "memory",
            "model": "7B",
            "what": "host, weights",
            "planned": 13 * GIB,
            "measured": None,
            "ratio": None,
        },
        {"note": "7B, training: skipped, it needs 20.0 GiB by moai plan, and 15.0 are free"},
    ]
    lines = gpu.markdown({"part": "train-7B", "limit": 60.0, "seconds": 3.2, "ended": "whole", "rows": rows})
    assert lines[0] == "### train-7B" and "| 7B | host, weights | 13.00 GiB | - | - |" in lines
    assert lines[-2:] == [f"- {rows[1]['note']}", "- 3 of at most 60 s; whole"]


def test_an_unknown_part_is_one_sentence(capsys):
    import gpu

    with pytest.raises(SystemExit):
        gpu.arguments(["training"])
    assert "no part 'training'; there are agreement, train-1B" in capsys.readouterr().err


@pytest.mark.slow
def test_the_whole_command_runs_on_a_cpu(tmp_path):
    out = tmp_path / "gpu.json"
    command = [sys.executable, str(FOLDER / "gpu.py"), "agreement", "train-7B-NF4", "answer-1B"]
    given = ["--device", "cpu", "--tiny", "--minutes", "30", "--out", str(out)]
    done = subprocess.run([*command, *given], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    made = json.loads(out.read_text())
    assert "a CPU" in made["setting"]["card"] and [one["ended"] for one in made["parts"]] == ["whole"] * 3
    agreement, training, answering = (one["rows"] for one in made["parts"])
    assert agreement[0]["steps"] == 20 and agreement[0]["fell_by"] > 0
    if "note" not in training[0]:
        stages = [row for row in training if row["table"] == "training"]
        assert [row["stage"] for row in stages] == ["stage 1, modules", "stage 2, gates"]
        assert all(row["steps"] >= 1 and row["ratio"] > 0 for row in stages)
    modes = [(row["mode"], row["what"]) for row in answering]
    assert len(modes) == len(set(modes)) == 4 and all(row["timed"] >= 1 for row in answering)
    assert done.stdout.count("| model |") >= 2 and Path(out).exists()
