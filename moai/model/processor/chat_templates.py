"""Chat templates: how a conversation with images becomes a prompt.

Knows: Jinja text. A template of the host's expects plain strings; the prelude turns content lists (``image`` and
``text`` items) into strings first, with the placeholder where the image stood.
"""

from __future__ import annotations

from collections.abc import Collection

from moai.errors import RecipeError

PRELUDE = """\
{%- set flat = namespace(messages=[]) -%}
{%- for message in messages -%}
  {%- if message['content'] is string -%}
    {%- set flat.messages = flat.messages + [message] -%}
  {%- else -%}
    {%- set text = namespace(value='') -%}
    {%- for item in message['content'] -%}
      {%- if item['type'] == 'image' -%}{%- set text.value = text.value + '@IMAGE@' -%}
      {%- elif item['type'] == 'text' -%}{%- set text.value = text.value + item['text'] -%}{%- endif -%}
    {%- endfor -%}
    {%- set flat.messages = flat.messages + [{'role': message['role'], 'content': text.value}] -%}
  {%- endif -%}
{%- endfor -%}
{%- set messages = flat.messages -%}
"""

# After KOSMOS-1's prompt for visual questions (arXiv 2302.14045, section 4), without its first word: short, and right
# for hosts without a chat template of their own. The answer's first word keeps its leading space, as the same word has
# it in running text. The first token of a sequence becomes its attention sink, with activations that drown what it
# carries: without a token in front that would be the image.
QUESTION_ANSWER = """\
{{- bos_token -}}
{%- for message in messages -%}
  {%- if message['role'] == 'assistant' -%}{{ ' Answer: ' + message['content'] + eos_token }}
  {%- elif message['role'] == 'system' -%}{{ message['content'] + '\\n' }}
  {%- else -%}{{ message['content'] }}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ ' Answer:' }}{%- endif -%}
"""

# LLaVA-1.5's template `v1` (haotian-liu/LLaVA at c121f04, llava/conversation.py and llava/train/train.py): a turn's
# images come first, each on a line of its own, and the text of a turn with images is stripped.
VICUNA = """\
{{- bos_token -}}
{%- set start = namespace(turns=messages, gap=' ', system="A chat between a curious user and an artificial \
intelligence assistant. The assistant gives helpful, detailed, and polite answers to the user's questions.") -%}
{%- macro words(content) -%}
  {%- if content is string -%}{{ content }}
  {%- else -%}{%- for item in content if item['type'] == 'text' -%}{{ item['text'] }}{%- endfor -%}{%- endif -%}
{%- endmacro -%}
{%- if messages[0]['role'] == 'system' -%}
  {%- set start.system = words(messages[0]['content']) -%}{%- set start.turns = messages[1:] -%}
{%- endif -%}
{{- start.system -}}
{%- for message in start.turns -%}
  {%- if message['role'] == 'assistant' -%}
    {{ ' ASSISTANT: ' + words(message['content']) + eos_token }}{%- set start.gap = '' -%}
  {%- else -%}
    {%- set shown = namespace(images='') -%}
    {%- if message['content'] is not string -%}
      {%- for item in message['content'] if item['type'] == 'image' -%}
        {%- set shown.images = shown.images + '@IMAGE@\n' -%}
      {%- endfor -%}
    {%- endif -%}
    {{ start.gap + 'USER: ' + shown.images + (words(message['content']) | trim if shown.images
       else words(message['content'])) }}{%- set start.gap = ' ' -%}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ ' ASSISTANT:' }}{%- endif -%}
"""


def chat_template(wanted: str, own: str | None, image_token: str) -> str:
    """Return the processor's template.

    Args:
        wanted: ``"host"``, ``"question_answer"``, ``"vicuna"``, or a Jinja template that takes string contents.
        own: the host's own template, if it has one.
        image_token: the placeholder's text; an empty one writes nothing for an image.

    Raises:
        RecipeError: ``"host"`` for a host without a template.
    """
    if wanted == "host":
        if not own:
            raise RecipeError(
                "this host has no chat template; set host.chat_template to question_answer, vicuna or to a template"
            )
        wanted = own
    elif wanted == "vicuna":  # it puts images where it wants them, each with a line of its own
        return VICUNA.replace("@IMAGE@\n" if not image_token else "@IMAGE@", image_token)
    elif wanted == "question_answer":
        wanted = QUESTION_ANSWER
    elif "{" not in wanted:
        raise RecipeError(
            f"host.chat_template '{wanted}' is neither 'host', 'question_answer' nor 'vicuna' nor a Jinja template"
        )
    return PRELUDE.replace("@IMAGE@", image_token) + wanted


def check_boundary(boundary: tuple[str, str] | None, image_token: str, tokenizer) -> None:
    """Refuse tokens around images that are not two special tokens of the host, other than the placeholder.

    Raises:
        RecipeError: names the token.
    """
    for token in boundary or ():
        if token == image_token or token not in tokenizer.added_tokens_encoder:
            raise RecipeError(
                f"vision.image_boundary '{token}' is no special token of this host beside the placeholder "
                f"'{image_token}'; name two of its special tokens, or leave it out"
            )


def find_image_token(wanted: str | None, tokenizer, taken: Collection[str] = ()) -> str:
    """The placeholder: ``wanted``, a known name, or a special token that prompts never use; else one is added.

    ``taken`` are tokens that stand for something else.

    A host whose vocabulary is full (SmolLM2 has exactly as many embeddings as tokens) needs one of its own spare
    tokens, so that every id in a prompt stays inside the vocabulary.
    """
    vocabulary = tokenizer.get_vocab()
    if wanted is not None:
        if wanted not in tokenizer.added_tokens_encoder:  # an ordinary token would merge with the text around it
            raise RecipeError(
                f"vision.image_token '{wanted}' is no special token of this host; leave it out to find one"
            )
        return wanted
    for name in ("<image>", "<|image_pad|>", "<|image|>", "<img>", "<file_sep>", "<|vision_pad|>"):
        if name in vocabulary and name not in taken:
            return name
    template, used = tokenizer.chat_template or "", {*tokenizer.all_special_tokens, *taken}
    for token in tokenizer.added_tokens_decoder.values():
        if token.special and token.content not in used and token.content not in template:
            return token.content
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    return "<image>"
