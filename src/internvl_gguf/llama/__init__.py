"""llama.cpp behind a wall: the only room that imports llama_cpp or speaks ctypes.

Every native object is owned by one Python object with `close()`; free order: samplers, contexts, vision, model.
What the library refuses becomes a `LibraryError` or a `ModelFileError`; what would abort it is validated before.
"""
