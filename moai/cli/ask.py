"""``moai ask``: one question about one image, with the answer and the perception."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moai.cli import show
from moai.cli.options import split_names, time_limits
from moai.errors import ImageError

if TYPE_CHECKING:
    from moai.answering import Answer, Augmented


@click.command(short_help="Ask a question about an image.")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("image")
@click.argument("question")
@click.option("--experts", metavar="A,B", help="Which experts run, instead of the run's own; '' for none.")
@click.option("--without", metavar="A,B", help="Which of the experts do not run.")
@click.option(
    "--explain",
    metavar="PNG",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw what the answer was computed from.",
)
@click.option("--time-limit", metavar="SECONDS", help="Of an expert for an image, as in moai perceive [the run's].")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--max-new-tokens", type=click.IntRange(min=1), default=16, show_default=True)
def ask(
    run: Path,
    image: str,
    question: str,
    experts: str | None,
    without: str | None,
    explain: Path | None,
    time_limit: str | None,
    as_json: bool,
    max_new_tokens: int,
) -> None:
    """Ask a question about an image.

    RUN is a folder made by `moai train`. An expert that fails is reported, and the answer still comes. Experts are
    switched off without training again: --experts and --without choose which of them run.
    """
    from moai.images import read_image

    if explain is not None and explain.suffix.lower() != ".png":
        raise ImageError(f"'{explain}' would be a PNG file; end the name in .png")
    picture = read_image(image)  # first: a misspelt path should not cost the loading of a model

    show.loading(f"the run {run}")
    from moai.answering import load

    augmented = load(run)
    if experts is not None:
        augmented.perceiver = choose_experts(augmented, experts)
    if time_limit is not None:
        augmented.perceiver.limit_time(time_limits(time_limit))
    wanted = {"without": split_names(without)} if without else {}
    wanted |= {"explain": True} if explain is not None else {}
    answer = augmented.ask(picture, question, max_new_tokens=max_new_tokens, **wanted)
    if explain is not None:
        from moai.evaluation.report.explanation import draw_explanation

        shown = augmented.processor.images.fitted(picture)
        draw_explanation(shown, question, answer.text, answer.explanation, explain)
    if as_json:
        click.echo(json.dumps(to_json(answer, image, question)))
    else:
        print_answer(answer, image, question)
        if explain is not None:
            click.echo(f"explained in {explain}")


def choose_experts(augmented: Augmented, experts: str) -> Any:
    """Make a perceiver with the named experts; those of the run have the options they were trained with."""
    from moai.model.processor.experts import build_perceiver
    from moai.perception.cache.store import default_store

    own = {expert.name: expert for expert in augmented.perceiver.experts}
    return build_perceiver(augmented.processor, [own.get(n, n) for n in split_names(experts)], default_store())


def to_json(answer: Answer, image: str, question: str) -> dict[str, Any]:
    """Return the answer with its perception, as plain JSON types."""
    explanation = getattr(answer, "explanation", None)
    return {
        "image": image,
        "question": question,
        "answer": answer.text,
        "verbalized": answer.verbalized,
        "failures": [{"expert": item.expert, "reason": item.reason} for item in answer.failures],
        "perception": answer.perception.to_dict() if answer.perception is not None else None,
        **({"explanation": explanation.to_dict()} if explanation is not None else {}),
    }


def print_answer(answer: Answer, image: str, question: str) -> None:
    """Print the answer, the perception, and the experts that failed."""
    click.echo(f"question: {show.plain(question)}")
    click.echo(f"answer:   {show.plain(answer.text)}")
    if answer.perception is not None:
        show.print_findings(answer.perception)
    click.echo(f"in words: {show.plain(answer.verbalized) or '(nothing)'}")
    for failure in answer.failures:
        show.warn(f"{image}: expert '{failure.expert}' gave nothing, answered without it: {failure.reason}")
