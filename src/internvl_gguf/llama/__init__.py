"""llama.cpp behind a wall: the only room that imports llama_cpp or speaks ctypes.

Every native object is owned by one Python object with `close()`; free order: samplers, contexts, vision, model.
What the library refuses becomes a `LibraryError` or a `ModelFileError`; what would abort it is validated before.

library                      loading it: version, layout, logs, devices
model, context, vision       weights and vocabulary; the KV cache and decoding; tiles to embeddings
sampler, sequence_state      the next token; the KV of a sequence as bytes
native, interrupts, ending   ownership, Ctrl-C, and the end of a process that native code does not let go on
forked, openmp, room         forked children, threads that wait, and whether a device has room
position_fix                 the corrected copy of an mmproj, where the build shifts its positions
quantize, imatrix, dry_run   processes and callbacks behind `quantizing` and `memory`
trial/, measure/             child processes that try it and that measure it
synthetic                    models made up to ask it something
"""
