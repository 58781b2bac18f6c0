"""Hold the phrasings of questions, each list for one part only.

Knows: wording. Fields: ``{a}`` a name with its article, ``{name}``, ``{names}`` its plural, ``{other}`` the name that a
relation is to, ``{beside}`` a relation, ``{place}`` a part of the picture with its preposition; in Korean ``{이}``,
``{은}`` and ``{을}`` the name with that particle. Relations and places have words of their own.
"""

from __future__ import annotations

from collections.abc import Mapping

Parts = Mapping[str, tuple[str, ...]]  # part -> phrasings


def _parts(train: str, validation: str, test: str) -> dict[str, tuple[str, ...]]:
    lists = {"train": train, "validation": validation, "test": test}
    return {part: tuple(line.strip() for line in text.split("|") if line.strip()) for part, text in lists.items()}


ENGLISH: Mapping[str, Parts] = {
    "existence": _parts(
        """Is there {a} in the image? | Is there {a}? | Is {a} in the picture? | Can you see {a}? | Do you see {a}? |
        Does the image show {a}? | Are there any {names}? | Are there {names} in the photo? | Is {a} visible? |
        Do you see any {names} here?""",
        """Does this picture contain {a}? | Is {a} anywhere in this photograph? | Are any {names} pictured?""",
        """Is {a} shown here? | Does the photograph have {a} in it? | Are any {names} to be found?""",
    ),
    "count": _parts(
        """How many {names} are there? | How many {names} are in the image? | How many {names} can you see? |
        What is the number of {names}? | Count the {names}. | How many {names} does the picture show? |
        How many {names} do you see in the photo?""",
        """How many {names} are visible in this photograph? | Tell me the number of {names}. |
        How many {names} do you count?""",
        """How many {names} appear here? | In this photograph, how many {names} exist? |
        What is the count of {names}?""",
    ),
    "position": _parts(
        """Where is the {name}? | Where in the image is the {name}? | In which part of the picture is the {name}? |
        Where can the {name} be seen? | What is the position of the {name}? | Where in the photo is the {name}? |
        What is the place of the {name}?""",
        """Whereabouts is the {name}? | In what region of this photograph is the {name}? |
        Which area holds the {name}?""",
        """Where does the {name} appear? | Which section of this photograph is the {name} in? |
        Where is the {name} located?""",
    ),
    "side": _parts(
        """Is the {name} {sides}? | Is the {name} in the picture {sides}? | {Sides}: where is the {name}? |
        Is the position of the {name} {sides}? | Where is the {name}, {sides}?""",
        """Whereabouts is the {name}: {sides}? | Does the {name} stand {sides}?""",
        """Would you find the {name} {sides}? | Which is right for the {name}, {sides}?""",
    ),
    "at": _parts(
        """Is the {name} {place}? | Is the {name} {place} of the image? | Do you see the {name} {place}? |
        Is there {a} {place}? | Does the picture show the {name} {place}?""",
        """Does the {name} stand {place}? | Would one find the {name} {place}?""",
        """Is the {name} located {place}? | Is it true that the {name} is {place}?""",
    ),
    "relation": _parts(
        """Is the {name} {beside} the {other}? | Is the {name} {beside} the {other} in the image? |
        Do you see the {name} {beside} the {other}? | Does the picture show the {name} {beside} the {other}? |
        Is there {a} {beside} the {other}? | Would you say the {name} is {beside} the {other}?""",
        """Can the {name} be found {beside} the {other}? | In this photograph, is the {name} {beside} the {other}?""",
        """Is it true that the {name} is {beside} the {other}? | Does the {name} appear {beside} the {other}?""",
    ),
    "open": _parts(
        """What is {beside} the {other}? | What can you see {beside} the {other}? |
        Which thing is {beside} the {other}? | What object is {beside} the {other}? |
        What is there {beside} the {other}? | What do you see {beside} the {other} in the image?""",
        """What can be found {beside} the {other}? | Tell me what is {beside} the {other}.""",
        """What appears {beside} the {other}? | Name the thing {beside} the {other}.""",
    ),
    "support": _parts(
        """What is the {name} on? | What is the {name} on top of? | On what is the {name}? |
        Which thing is the {name} on? | What does the {name} stand on?""",
        """What does the {name} rest on? | Upon what is the {name}?""",
        """What holds the {name} up? | What is the {name} placed on?""",
    ),
    "direction": _parts(
        """Where is the {name} relative to the {other}? | On which side of the {other} is the {name}? |
        Seen from the {other}, where is the {name}? | What is the position of the {name} relative to the {other}? |
        In which direction from the {other} is the {name}?""",
        """Whereabouts is the {name} compared to the {other}? | Which way from the {other} is the {name}?""",
        """How does the {name} stand to the {other}? | Where is the {name} with respect to the {other}?""",
    ),
    "text": _parts(
        """What does the text say? | What does the sign say? | What is written in the image? | What is printed? |
        What text can you read? | Read the text. | What words are in the picture? | What is written on the sign?""",
        """What can be read here? | What does the writing say? | Which words are printed in this photograph?""",
        """What does the lettering read? | Tell me what is written. | What do the printed words say?""",
    ),
    "text_at": _parts(
        """What does the text {place} say? | What is written {place}? | What words are {place}? |
        Read the text {place}. | What text is {place} of the image?""",
        """What can be read {place}? | What does the writing {place} say?""",
        """What does the lettering {place} read? | Tell me what is written {place}.""",
    ),
    "any_text": _parts(
        """Is there any text in the image? | Is anything written in the picture? | Does the image show text? |
        Can you read any words? | Is there a printed word?""",
        """Is there any writing? | Does this photograph contain words?""",
        """Is any lettering visible? | Are there printed words here?""",
    ),
    "says": _parts(
        """Does the text say "{name}"? | Does the sign say "{name}"? | Is "{name}" written in the image? |
        Can you read "{name}"? | Is the word "{name}" in the picture?""",
        """Does the writing say "{name}"? | Can "{name}" be read here?""",
        """Does the lettering read "{name}"? | Is "{name}" printed anywhere?""",
    ),
    "attribute": _parts(
        """What color is the {name}? | What colour is the {name}? | What is the color of the {name}? |
        Which color does the {name} have? | The {name} is of which color?""",
        """In what color is the {name}? | Tell me the color of the {name}.""",
        """What color does the {name} appear to be? | Name the color of the {name}.""",
    ),
    "identity": _parts(
        """What is in the image? | What does the picture show? | What do you see? | What is shown in the photo? |
        What is this? | What can you see in the picture?""",
        """What does this photograph contain? | What is pictured?""",
        """What is depicted here? | Name what this photograph shows.""",
    ),
    "category": _parts(
        """What {text} is in the image? | Which {text} is there? | What {text} do you see? |
        Which {text} does the picture show? | What {text} is in the photo?""",
        """What {text} is pictured? | Which {text} can be found here?""",
        """What {text} is depicted? | Name the {text} of this photograph.""",
    ),
    "what_at": _parts(
        """What is {place}? | What do you see {place}? | Which thing is {place}? | What is {place} of the image? |
        What can you see {place} of the picture?""",
        """What can be found {place}? | What stands {place}?""",
        """What appears {place}? | Name the thing {place}.""",
    ),
}
BESIDE: Mapping[str, Parts] = {
    "left of": _parts("left of | to the left of | on the left of", "at the left of", "on the left side of"),
    "right of": _parts("right of | to the right of | on the right of", "at the right of", "on the right side of"),
    "above": _parts("above | over | higher than", "somewhere above", "up above"),
    "below": _parts("below | under | lower than", "somewhere below", "down below"),
    "next to": _parts("next to | beside | by", "alongside", "right beside"),
    "on": _parts("on | on top of", "upon", "standing on"),
    "inside": _parts("inside | in", "within", "inside of"),
    "touching": _parts("touching | overlapping | in contact with", "overlapped with", "in touch with"),
}
PLACE: Mapping[str, Parts] = {
    "left": _parts("on the left | on the left side", "at the left", "at the left side"),
    "right": _parts("on the right | on the right side", "at the right", "at the right side"),
    "top": _parts("at the top | in the upper part", "in the top part", "near the top"),
    "bottom": _parts("at the bottom | in the lower part", "in the bottom part", "near the bottom"),
    "center": _parts("in the center | in the middle", "at the center", "in the central part"),
    "top left": _parts("at the top left | in the top left corner", "in the upper left part", "on the upper left"),
    "top right": _parts("at the top right | in the top right corner", "in the upper right part", "on the upper right"),
    "bottom left": _parts(
        "at the bottom left | in the bottom left corner", "in the lower left part", "on the lower left"
    ),
    "bottom right": _parts(
        "at the bottom right | in the bottom right corner", "in the lower right part", "on the lower right"
    ),
}
KOREAN: Mapping[str, Parts] = {
    "existence": _parts(
        "{이} 있나요? | 사진에 {이} 있습니까? | {이} 보이나요? | 이미지에 {이} 있나요? | 그림에서 {을} 볼 수 있나요?",
        "이 사진에 {이} 나오나요? | 혹시 {이} 있을까요?",
        "여기에 {이} 있나요? | {을} 찾을 수 있나요?",
    ),
    "count": _parts(
        """{은} 몇 개인가요? | {이} 몇 개 있나요? | 사진에 {이} 몇 개 보이나요? | {name}의 수는 얼마인가요? |
        이미지에 {이} 몇 개 있습니까?""",
        "이 사진에 {은} 몇 개나 있을까요? | {을} 세어 보면 몇 개인가요?",
        "여기에 {은} 모두 몇 개인가요? | {name}의 개수를 말해 주세요.",
    ),
    "position": _parts(
        """{은} 어디에 있나요? | 사진에서 {은} 어디에 있습니까? | {이} 어느 쪽에 있나요? | {name}의 위치는 어디인가요? |
        이미지의 어느 부분에 {이} 있나요?""",
        "{을} 어디에서 볼 수 있나요? | 이 사진의 어디쯤에 {이} 있나요?",
        "{name}의 자리는 어디인가요? | {은} 어디에 나오나요?",
    ),
    "at": _parts(
        """{은} {place}에 있나요? | {place}에 {이} 있나요? | 사진의 {place}에 {이} 있습니까? |
        {이} {place}에 보이나요? | 이미지에서 {은} {place}에 있나요?""",
        "{이} 혹시 {place}에 있을까요?",
        "{은} {place}에 나오나요?",
    ),
    "relation": _parts(
        """{은} {beside} 있나요? | {이} {beside} 있습니까? | 사진에서 {은} {beside} 있나요? | {이} {beside} 보이나요? |
        이미지에서 {이} {beside} 있나요?""",
        "{이} 혹시 {beside} 있을까요?",
        "{은} 정말 {beside} 있나요?",
    ),
    "open": _parts(
        """{beside} 무엇이 있나요? | {beside} 있는 것은 무엇인가요? | 사진에서 {beside} 무엇이 있습니까? |
        {beside} 무엇이 보이나요? | {beside} 어떤 것이 있나요?""",
        "{beside} 있는 물건은 무엇일까요?",
        "{beside} 나오는 것은 무엇인가요?",
    ),
    "text": _parts(
        """뭐라고 쓰여 있나요? | 글자는 무엇인가요? | 표지판에 뭐라고 쓰여 있나요? | 사진에 어떤 글이 있나요? |
        적힌 글을 읽어 주세요.""",
        "이 사진의 글은 무엇이라고 하나요? | 읽을 수 있는 글이 무엇인가요?",
        "인쇄된 글은 무엇인가요? | 쓰인 말을 알려 주세요.",
    ),
    "attribute": _parts(
        """{은} 무슨 색인가요? | {name}의 색은 무엇인가요? | {이} 어떤 색인가요? | 사진의 {은} 무슨 색입니까? |
        {name}의 색깔이 뭔가요?""",
        "{name}의 색깔을 말해 주세요.",
        "{은} 어떤 색으로 보이나요?",
    ),
    "identity": _parts(
        """사진에 무엇이 있나요? | 무엇이 보이나요? | 이미지는 무엇을 보여 주나요? | 이것은 무엇인가요? |
        그림에 무엇이 있습니까?""",
        "이 사진에는 무엇이 나오나요? | 무엇을 찍은 사진인가요?",
        "여기에 무엇이 나와 있나요? | 사진 속의 것은 무엇인가요?",
    ),
    "what_at": _parts(
        """{place}에 무엇이 있나요? | {place}에 있는 것은 무엇인가요? | 사진의 {place}에 무엇이 보이나요? |
        {place}에 어떤 것이 있습니까? | 이미지의 {place}에 무엇이 있나요?""",
        "{place}에는 무엇이 있을까요?",
        "{place}에 나오는 것은 무엇인가요?",
    ),
}
"""A pattern that English alone has is asked in English."""

BEFORE = (  # what stands before and after half of the training questions
    *("", "", "Look at the picture. ", "Please answer: ", "I wonder, ", "A question: ", "Look closely. "),
    *("Let me know: ", "Here is an image. ", "One more thing, ", "I have a photo. ", "So, ", "Could you help me: "),
)
AFTER = ("", "", "", " Please.", " Answer in a word.", " Thanks.", " Have a look.")
