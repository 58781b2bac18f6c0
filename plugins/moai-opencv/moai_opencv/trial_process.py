"""Read a network and run it once, in the process that ``trial`` starts: ``python trial_process.py MODEL CONFIG W H``.

Knows: OpenCV alone, so that starting it takes no longer than OpenCV. Whatever OpenCV merely refuses is no matter here:
the expert's own reading says so in a sentence.
"""

import sys

import cv2
import numpy as np


def main(model: str, config: str, width: str, height: str) -> None:
    """Read and run, as the expert does."""
    cv2.setNumThreads(1)
    try:
        onnx = model.lower().endswith(".onnx")
        network = cv2.dnn.readNetFromONNX(model) if onnx else cv2.dnn.readNetFromTensorflow(model, config)
        network.setInput(np.zeros((1, 3, int(height), int(width)), dtype=np.float32))
        network.forward(network.getUnconnectedOutLayersNames())
    except cv2.error as error:
        print(error)


if __name__ == "__main__":
    main(*sys.argv[1:])
