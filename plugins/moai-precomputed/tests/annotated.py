"""Pictures and annotation files for the tests."""

from __future__ import annotations

import json

from moai_precomputed import Precomputed
from PIL import Image

import moai
from moai import Perceiver

WIDTH, HEIGHT = 40, 20
CATEGORIES = [{"id": 7, "name": "dog"}, {"id": 9, "name": "cat"}]


def picture(path, colour="white", size=(WIDTH, HEIGHT)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def coco(*names, **more):
    """A COCO file with a dog in the upper left quarter of each picture."""
    images = [{"id": n, "file_name": name, "width": WIDTH, "height": HEIGHT} for n, name in enumerate(names)]
    boxes = [{"id": n, "image_id": n, "category_id": 7, "bbox": [0, 0, 20, 10]} for n, _ in enumerate(names)]
    return {"images": images, "annotations": boxes, "categories": CATEGORIES, **more}


def write(path, data):
    lines = data if isinstance(data, list) and path.suffix == ".jsonl" else None
    path.write_text("\n".join(map(json.dumps, lines)) if lines is not None else json.dumps(data))
    return str(path)


def perceive(image, store=None, **options):
    """What the perceiver returns for a picture that is given as a path or as bytes."""
    return Perceiver([Precomputed(**options)], store=store).perceive([moai.read_image(image)])[0]


def labels(perception):
    assert not perception.failures, perception.failures
    return [item.label for item in (*perception.segments, *perception.detections)]


def reason(perception):
    [failure] = perception.failures
    return failure.reason
