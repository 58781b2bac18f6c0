"""The model half: compressor, mixers, connectors, and the model that joins them to a frozen host.

Shape legend, used by every file in this folder:

    B  batch rows            D  decoder width (the host's hidden size)
    S  sequence positions    V  vision width
    I  image tokens          H  attention heads
    P  prompt text tokens    r  rank of a factored projection
    A  auxiliary tokens      C  compressed tokens (64)

Nothing here knows what a perception is: auxiliary tokens arrive as ids and masks.
"""
