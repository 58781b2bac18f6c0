"""Define the wordings of seven languages: Korean, Chinese, Japanese, Arabic, Portuguese, Russian and Turkish.

Knows: sentences only. Boxes and scores are written as in English, in every language. A label may be a word of any
language, so no pattern inflects one. Where the grammar needs a case, a noun for "object" carries it (Russian, Turkish).
Korean chooses the particle by the last syllable, or writes both forms.
"""

from __future__ import annotations

from moai.perception.words.pattern import Wording

KOREAN = Wording(
    objects="이미지에는 다음 경계 상자 좌표와 객체가 포함되어 있습니다: ",
    relations="이미지에는 다음 객체 간 관계가 포함되어 있습니다: ",
    texts="이미지에는 다음 텍스트가 포함되어 있습니다: ",
    between={
        "inside": "{subject}{topic} {object} 안에 있음",
        "on": "{subject}{topic} {object} 위에 놓여 있음",
        "touching": "{subject}{topic} {object}에 닿아 있음",
        "next to": "{subject}{topic} {object} 옆에 있음",
        "left of": "{subject}{topic} {object} 왼쪽에 있음",
        "right of": "{subject}{topic} {object} 오른쪽에 있음",
        "above": "{subject}{topic} {object} 위쪽에 있음",
        "below": "{subject}{topic} {object} 아래쪽에 있음",
        "in front of": "{subject}{topic} {object} 앞에 있음",
        "behind": "{subject}{topic} {object} 뒤에 있음",
        "near": "{subject}{topic} {object} 가까이에 있음",
    },
    other="{subject}{with_} {object}의 관계는 '{predicate}'",
    last=" 및 ",
    semicolon=", ",
    particles={"topic": ("은", "는", "은(는)"), "with_": ("과", "와", "와(과)")},
)

CHINESE = Wording(
    objects="图像包含以下边界框坐标及其对象：",
    relations="图像包含以下对象之间的关系：",
    texts="图像包含以下文字：",
    between={
        "inside": "{subject}在{object}里面",
        "on": "{subject}在{object}上面",
        "touching": "{subject}与{object}接触",
        "next to": "{subject}在{object}旁边",
        "left of": "{subject}在{object}的左边",
        "right of": "{subject}在{object}的右边",
        "above": "{subject}在{object}的上方",
        "below": "{subject}在{object}的下方",
        "in front of": "{subject}在{object}的前面",
        "behind": "{subject}在{object}的后面",
        "near": "{subject}在{object}附近",
    },
    other="{subject}与{object}的关系是“{predicate}”",
    comma="，",
    last="，以及",
    semicolon="；",
    stop="。",
)

JAPANESE = Wording(
    objects="画像には次のバウンディングボックスの座標と物体が含まれます：",
    relations="画像には次の物体間の関係が含まれます：",
    texts="画像には次の文字が含まれます：",
    between={
        "inside": "{subject}は{object}の中に位置する",
        "on": "{subject}は{object}の上に載っている",
        "touching": "{subject}は{object}に接している",
        "next to": "{subject}は{object}の隣に位置する",
        "left of": "{subject}は{object}の左側に位置する",
        "right of": "{subject}は{object}の右側に位置する",
        "above": "{subject}は{object}の上方に位置する",
        "below": "{subject}は{object}の下方に位置する",
        "in front of": "{subject}は{object}の前に位置する",
        "behind": "{subject}は{object}の後ろに位置する",
        "near": "{subject}は{object}の近くに位置する",
    },
    other="{subject}と{object}の関係は「{predicate}」",
    comma="、",
    last="、および",
    semicolon="、",
    stop="。",
)

ARABIC = Wording(
    objects="تتضمن الصورة إحداثيات المربعات المحيطة والكائنات التالية: ",
    relations="تتضمن الصورة العلاقات التالية بين الكائنات: ",
    texts="تتضمن الصورة النصوص التالية: ",
    between={
        "inside": "{subject} داخل {object}",
        "on": "{subject} على {object}",
        "touching": "{subject} في تلامس مع {object}",
        "next to": "{subject} بجانب {object}",
        "left of": "{subject} إلى يسار {object}",
        "right of": "{subject} إلى يمين {object}",
        "above": "{subject} فوق {object}",
        "below": "{subject} تحت {object}",
        "in front of": "{subject} أمام {object}",
        "behind": "{subject} خلف {object}",
        "near": "{subject} بالقرب من {object}",
    },
    other="العلاقة بين {subject} و{object} هي «{predicate}»",
    comma="؛ ",  # and no "و" before the last: it would grow together with a bracket or a foreign word
    last="؛ ",
    semicolon="؛ ",
)

PORTUGUESE = Wording(
    objects="A imagem contém as seguintes coordenadas de caixas delimitadoras e seus objetos: ",
    relations="A imagem contém as seguintes relações entre objetos: ",
    texts="A imagem contém os seguintes textos: ",
    between={
        "inside": "{subject} está dentro de {object}",
        "on": "{subject} está sobre {object}",
        "touching": "{subject} está em contato com {object}",
        "next to": "{subject} está ao lado de {object}",
        "left of": "{subject} está à esquerda de {object}",
        "right of": "{subject} está à direita de {object}",
        "above": "{subject} está acima de {object}",
        "below": "{subject} está abaixo de {object}",
        "in front of": "{subject} está na frente de {object}",
        "behind": "{subject} está atrás de {object}",
        "near": "{subject} está perto de {object}",
    },
    other="a relação entre {subject} e {object} é “{predicate}”",
    last=" e ",
)

RUSSIAN = Wording(
    objects="На изображении есть следующие объекты с координатами ограничивающих рамок: ",
    relations="На изображении есть следующие отношения между объектами: ",
    texts="На изображении есть следующие надписи: ",
    between={
        "inside": "объект «{subject}» находится внутри объекта «{object}»",
        "on": "объект «{subject}» находится на объекте «{object}»",
        "touching": "объект «{subject}» касается объекта «{object}»",
        "next to": "объект «{subject}» находится рядом с объектом «{object}»",
        "left of": "объект «{subject}» находится слева от объекта «{object}»",
        "right of": "объект «{subject}» находится справа от объекта «{object}»",
        "above": "объект «{subject}» находится над объектом «{object}»",
        "below": "объект «{subject}» находится под объектом «{object}»",
        "in front of": "объект «{subject}» находится перед объектом «{object}»",
        "behind": "объект «{subject}» находится позади объекта «{object}»",
        "near": "объект «{subject}» находится вблизи объекта «{object}»",
    },
    other="отношение объекта «{subject}» к объекту «{object}» — «{predicate}»",
    last=" и ",
)

TURKISH = Wording(
    objects="Görüntüde şu sınırlayıcı kutu koordinatları ve nesneler yer alıyor: ",
    relations="Görüntüde nesneler arasında şu ilişkiler var: ",
    texts="Görüntüde şu metinler yer alıyor: ",
    between={
        "inside": "{subject} nesnesi {object} nesnesinin içinde",
        "on": "{subject} nesnesi {object} nesnesinin üzerinde",
        "touching": "{subject} nesnesi {object} nesnesine temas ediyor",
        "next to": "{subject} nesnesi {object} nesnesinin yanında",
        "left of": "{subject} nesnesi {object} nesnesinin solunda",
        "right of": "{subject} nesnesi {object} nesnesinin sağında",
        "above": "{subject} nesnesi {object} nesnesinin yukarısında",
        "below": "{subject} nesnesi {object} nesnesinin aşağısında",
        "in front of": "{subject} nesnesi {object} nesnesinin önünde",
        "behind": "{subject} nesnesi {object} nesnesinin arkasında",
        "near": "{subject} nesnesi {object} nesnesinin yakınında",
    },
    other="{subject} nesnesinin {object} nesnesiyle ilişkisi “{predicate}”",
    last=" ve ",
)

WORDINGS = {
    "ko": KOREAN,
    "zh": CHINESE,
    "ja": JAPANESE,
    "ar": ARABIC,
    "pt": PORTUGUESE,
    "ru": RUSSIAN,
    "tr": TURKISH,
}
TEMPLATES = {key: template for code, words in WORDINGS.items() for key, template in words.templates(code).items()}
