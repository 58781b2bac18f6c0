"""Find the runs at hand, and open them when they are chosen.

Knows: run folders. A run is named by its number, never by a path, and only those that were at hand at the start open.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moai.errors import CheckpointError, ExpertError, MoaiError
from moai.plugin_api import default_store, installed_experts, read_log, run_facts

if TYPE_CHECKING:
    from moai import Augmented, Perceiver

log = logging.getLogger("moai")
NONE = "none"  # the name of no run: experts alone
MAX_OPEN = 2  # runs in memory at a time
POINTS = 240  # of a training curve


@dataclass
class Opened:
    """Hold a run that is open, or experts alone.

    Attributes:
        name: by which the page asks for it.
        perceiver: of its experts.
        run: None for experts alone.
        folder: of the run.
        lock: held while a question is answered, so that several visitors share the processor one after another.
        analysing: held while it is found out what an answer rests on, which takes longer.
    """

    name: str
    perceiver: Perceiver
    run: Augmented | None = None
    folder: Path | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    analysing: threading.Lock = field(default_factory=threading.Lock)


class Runs:
    """Hold the runs at hand; each is opened once, when it is first asked for."""

    def __init__(self, folders: Sequence[Path], experts: Sequence[str] | None = None) -> None:
        """List run folders by number.

        Args:
            folders: of runs.
            experts: that run where no run is chosen; None: all that are installed.
        """
        self.folders = {str(number): folder for number, folder in enumerate(folders)}
        self.experts = experts
        self._opened: OrderedDict[str, Opened] = OrderedDict()
        self._loading: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def at_hand(self) -> list[dict[str, Any]]:
        """List the runs at hand as JSON types."""
        listed = []
        for name, folder in self.folders.items():
            about, found = run_facts(folder), evaluations(folder)
            accuracy = found[0]["accuracy"].get("on") if found else None
            listed.append(
                {
                    "id": name,
                    "name": folder.resolve().name,
                    "recipe": about["name"],
                    "host": about["facts"].get("Host", "").partition(",")[0],
                    "experts": list(about["experts"]),
                    "accuracy": accuracy["value"] if accuracy else None,
                }
            )
        return listed

    def open(self, name: str) -> Opened:
        """Open a run, or find it open; ``"none"`` means experts alone.

        Raises:
            CheckpointError: there is no such run, or it cannot be opened.
            ExpertError: there are no experts.
        """
        if name != NONE and name not in self.folders:
            raise CheckpointError("this run is not at hand any more; reload the page")
        with self._lock:
            loading = self._loading.setdefault(name, threading.Lock())
        with loading:  # others, whose run is open, do not wait for this one
            with self._lock:
                found = self._opened.get(name)
            found = found or self._load(name)
            with self._lock:
                self._opened[name] = found
                self._opened.move_to_end(name)
                while len(self._opened) > MAX_OPEN:
                    self._opened.popitem(last=False)
        return found

    def warm(self, name: str) -> None:
        """Open a run and load its experts ahead, so that the first question need not wait."""
        try:
            self.open(name).perceiver.load()
        except MoaiError as error:
            log.info("%s", error)

    def _load(self, name: str) -> Opened:
        import moai

        if name == NONE:
            names = installed_experts() if self.experts is None else self.experts
            if not names:
                raise ExpertError("no expert is installed; `moai experts` lists them and how to install each")
            return Opened(name, moai.Perceiver(names, store=default_store()))
        run = moai.load(self.folders[name])
        return Opened(name, run.perceiver, run, self.folders[name])


def find_runs(folder: Path) -> list[Path]:
    """Find the run folders in a folder, those changed last first."""
    found = [path for path in folder.iterdir() if is_run(path)] if folder.is_dir() else []
    return sorted(found, key=lambda path: -(path / "config.json").stat().st_mtime)


def is_run(path: Path) -> bool:
    """Tell whether a folder holds a finished run."""
    return (path / "config.json").is_file() and (path / "moai.safetensors").is_file()


def evaluations(folder: Path) -> list[dict[str, Any]]:
    """Read the figures of a run's evaluations, the largest first, as JSON types; a damaged report is left out."""
    found = []
    for path in folder.glob("eval*/report.json"):
        try:
            report = json.loads(path.read_text(encoding="utf-8"))
            overall = report["groups"]["overall"]
            found.append(
                {
                    "data": str(report.get("data") or "data"),
                    "split": str(report["split"]),
                    "questions": int(overall["n"]),
                    "pictures": report.get("images"),
                    "accuracy": {
                        condition: {key: float(value[key]) for key in ("value", "low", "high")}
                        for condition, value in overall["accuracy"].items()
                    },
                }
            )
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return sorted(found, key=lambda one: -one["questions"])


def curves(folder: Path) -> list[dict[str, Any]]:
    """Read the curves of a run's training: names and points (step, value), thinned out by means."""
    lines = read_log(folder)
    series = {
        "loss": ("loss", "training"),
        "loss_on": ("loss", "validation, perception on"),
        "loss_off": ("loss", "validation, perception off"),
        "loss_shuffled": ("loss", "validation, another picture's"),
        "attention": ("attention", "attention supervision"),
    }
    made = []
    for key, (panel, title) in series.items():
        points = [(line["step"], float(line[key])) for line in lines if isinstance(line.get(key), (int, float))]
        if len(points) > 1:
            made.append({"panel": panel, "name": title, "points": _thinned(points)})
    return made


def _thinned(points: list[tuple[int, float]]) -> list[list[float]]:
    size = -(-len(points) // POINTS)
    parts = [points[start : start + size] for start in range(0, len(points), size)]
    return [[part[-1][0], round(sum(value for _, value in part) / len(part), 4)] for part in parts]


def card(opened: Opened) -> dict[str, Any]:
    """Describe a run, or experts alone, as JSON types: facts, experts, curves and evaluations."""
    experts = [
        {
            "name": expert.name,
            "role": expert.role,
            "version": expert.version,
            "weights": expert.weights,
            "licence": expert.licence or "not stated",
            "package": "",
        }
        for expert in opened.perceiver.experts
    ]
    if opened.folder is None:
        return {"name": "Experts alone", "facts": {}, "experts": experts, "curves": [], "evaluations": []}
    about = run_facts(opened.folder)
    for expert in experts:
        trained = about["experts"].get(expert["name"], {})
        package = f"{trained.get('distribution') or ''} {trained.get('distribution_version') or ''}".strip()
        expert |= {"package": package, "licence": trained.get("licence") or expert["licence"]}
    return {
        "name": about["name"],
        "facts": about["facts"],
        "experts": experts,
        "curves": curves(opened.folder),
        "evaluations": evaluations(opened.folder),
    }
