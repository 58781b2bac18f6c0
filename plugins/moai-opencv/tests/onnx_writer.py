"""Write small ONNX files without the onnx package: detectors whose findings a reader can foretell.

Knows: the wire format of protocol buffers, and the few field numbers of onnx.proto that two detectors need.
"""

from __future__ import annotations

import numpy as np

FLOAT, INT64 = 1, 7


def quadrants(layout: str, side: int = 64, classes: int = 3) -> bytes:
    """Build a detector that says of each quarter of its input how red, green and blue it is.

    Args:
        layout: ``"yolo"`` or ``"ssd"``; the latter looks for red alone, as class 1.
        side: of the input in pixels.
        classes: up to 3, in the order red, green, blue.
    """
    half = side // 2
    places = [(x, y) for y in (0, half) for x in (0, half)]
    if layout == "yolo":
        boxes = [[x + half / 2, y + half / 2, half, half] for x, y in places]
        nodes = [
            node("Conv", ["image", "choice"], ["colors"], kernel_shape=[1, 1]),
            node("AveragePool", ["colors"], ["means"], kernel_shape=[half, half], strides=[half, half]),
            node("Reshape", ["means", "shape"], ["scores"]),
            node("Concat", ["boxes", "scores"], ["output0"], axis=1),
        ]
        constants = {
            "choice": np.eye(3, dtype=np.float32)[:classes].reshape(classes, 3, 1, 1),
            "shape": np.array([1, classes, 4]),
            "boxes": np.array(boxes, dtype=np.float32).T[None],
        }
        outputs = {"output0": [1, 4 + classes, 4]}
    else:
        corners = [[x / side, y / side, (x + half) / side, (y + half) / side] for x, y in places]
        nodes = [
            node("Conv", ["image", "choice"], ["red"], kernel_shape=[1, 1]),
            node("AveragePool", ["red"], ["means"], kernel_shape=[half, half], strides=[half, half]),
            node("Reshape", ["means", "shape"], ["scores"]),
            node("Concat", ["kinds", "scores", "boxes"], ["detections"], axis=3),
        ]
        constants = {
            "choice": np.array([1, 0, 0], dtype=np.float32).reshape(1, 3, 1, 1),
            "shape": np.array([1, 1, 4, 1]),
            "kinds": np.tile(np.float32([0, 1]), (1, 1, 4, 1)),
            "boxes": np.array(corners, dtype=np.float32)[None, None],
        }
        outputs = {"detections": [1, 1, 4, 7]}
    return model(nodes, constants, {"image": [1, 3, side, side]}, outputs)


def model(nodes: list[bytes], constants: dict[str, np.ndarray], inputs: dict, outputs: dict) -> bytes:
    """Write a ModelProto."""
    graph = b"".join(field(1, each) for each in nodes) + field(2, "detector")
    graph += b"".join(field(5, tensor(name, array)) for name, array in constants.items())
    graph += b"".join(field(11, value(name, shape)) for name, shape in inputs.items())
    graph += b"".join(field(12, value(name, shape)) for name, shape in outputs.items())
    return field(1, 8) + field(8, field(1, "") + field(2, 13)) + field(7, graph)


def node(kind: str, inputs: list[str], outputs: list[str], **attributes) -> bytes:
    """Write a NodeProto with whole numbers as attributes."""
    made = b"".join(field(1, name) for name in inputs) + b"".join(field(2, name) for name in outputs)
    made += field(3, outputs[0]) + field(4, kind)
    for name, given in attributes.items():
        many = isinstance(given, list)
        numbers = b"".join(field(8, number) for number in given) if many else field(3, given)
        made += field(5, field(1, name) + numbers + field(20, 7 if many else 2))
    return made


def tensor(name: str, array: np.ndarray) -> bytes:
    """Write a TensorProto."""
    kind = FLOAT if array.dtype == np.float32 else INT64
    return (
        b"".join(field(1, size) for size in array.shape) + field(2, kind) + field(8, name) + field(9, array.tobytes())
    )


def value(name: str, shape: list[int]) -> bytes:
    """Write the ValueInfoProto of a float tensor."""
    sizes = b"".join(field(1, field(1, size)) for size in shape)
    return field(1, name) + field(2, field(1, field(1, FLOAT) + field(2, sizes)))


def field(number: int, content: int | str | bytes) -> bytes:
    """Write one field: a whole number as a varint, anything else with its length."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    data = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(number: int) -> bytes:
    """Write a non-negative whole number, seven bits a byte, the lowest first."""
    made = b""
    while number > 127:
        made, number = made + bytes([number & 127 | 128]), number >> 7
    return made + bytes([number])
