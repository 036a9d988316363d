"""Many pictures on many machines: a model in each of Ray's actors (the extra `ray`).

import ray
from internvl_gguf.ray import answer

answer(ray.data.read_images("photos/", include_paths=True), "demo", prompt="What is it?").write_parquet("answers")
"""

from internvl_gguf.ray.dataset import answer

__all__ = ["answer"]
