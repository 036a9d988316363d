"""The vision encoder: the contract of encoders, and the one that uses OpenVINO. The one of llama.cpp is in `llama`.

contract         protocol of an encoder as the engine uses it; `llama.vision.VisionEncoder` is the other implementation
openvino_graph   InternViT and InternVL's projector as an OpenVINO model, from the tensors of an mmproj
openvino_encoder tiles to embeddings through that model
choice           choose the encoder for this machine, and its precision
measure          child process that measures the time of a tile in OpenVINO
openvino_library loads OpenVINO, without its telemetry
"""
