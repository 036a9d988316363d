"""The vision encoder: one contract, and the second of its two implementations.

contract         what the engine asks of an encoder; `llama.vision.VisionEncoder` is the first implementation
openvino_graph   InternViT and InternVL's projector as an OpenVINO model, from the tensors of an mmproj
openvino_encoder tiles to embeddings through that model
choice           which of the two encodes on this machine, and in which precision
"""
