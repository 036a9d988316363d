"""Predict the memory of a model, a context and its pictures on each device.

There are two ways, and they agree. `predict_memory` needs only a header or a listing: it builds the graph that
llama.cpp would build, without data, and places it as ggml would. `dry_run` asks llama.cpp in a process of its own.

memory_request                             the configuration to predict for
plan                                       the prediction, part by part and device by device
text_graph, vision_graph                   llama.cpp's graphs, node by node
ggml_graph, ggml_scheduler, ggml_allocator ggml's rules: nodes, devices, places in a buffer
work_buffer                                the CPU's work buffer, beside the compute buffer
openvino_memory                            the vision encoder in OpenVINO
dry_run                                    llama.cpp's own answer
"""

from internvl_gguf.gguf.arch.base import TextShape, VisionShape
from internvl_gguf.gguf.model_weights import ModelShape, TextWeights, VisionWeights, Weight
from internvl_gguf.gguf.read_shape import resized_text, resized_vision, shape_from_headers, shape_from_listing
from internvl_gguf.memory.memory_request import MemoryRequest
from internvl_gguf.memory.plan import PARTS, DeviceMemory, MemoryPlan, kv_bytes_per_position, predict_memory

__all__ = [
    "PARTS",
    "DeviceMemory",
    "MemoryPlan",
    "MemoryRequest",
    "ModelShape",
    "TextShape",
    "TextWeights",
    "VisionShape",
    "VisionWeights",
    "Weight",
    "kv_bytes_per_position",
    "predict_memory",
    "resized_text",
    "resized_vision",
    "shape_from_headers",
    "shape_from_listing",
]
