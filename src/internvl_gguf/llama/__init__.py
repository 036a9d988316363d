"""The wrapper of llama.cpp: the only room that imports llama_cpp or uses ctypes.

Every native object is owned by one Python object with `close()`; free order: samplers, contexts, vision, model.
What the library refuses becomes a `LibraryError` or a `ModelFileError`; what would abort it is validated before.

library                  load the library: version, structure layouts, logs, devices
model, context, vision   weights and vocabulary; KV cache and decoding; tiles to embeddings
sampler, sequence_state  choose the next token; the KV of a sequence as bytes
native, interrupts       ownership of native objects; Ctrl-C during native calls
hard_exit                end a process whose native code cannot continue
fork_guard, openmp       refuse llama.cpp in forked children; spin time of OpenMP threads
rpc                      devices of ggml RPC servers
allocation_probe         ask a device whether it can allocate buffers
position_fix             corrected copy of an mmproj for builds that shift its positions
quantize_process         child process of `quantizing.quantizer_process`
dry_run_process          child process of `memory.dry_run`
rpc_process              child process of `hardware.rpc`
imatrix                  callback that collects an importance matrix
trial/, measure/         child processes that check and that measure the library
synthetic                small generated models for checks and measurements
"""
