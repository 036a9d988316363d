"""Read GGUF files without llama.cpp: their names, headers and shapes, and checks whether they are safe to load.

filenames      kind and quant of a repository's files, from their names
file_pieces    files that were cut by `split` and have to be joined
values         typed values of a header, and the places of tensors
header         reads headers, of local files and of the first bytes of remote ones
validation/    checks files before llama.cpp sees them
arch/          architectures: sizes, keys, tensors
file_kind      text model, vision encoder or importance matrix, by the header
weights        the tensors of a model, which memory and speed follow from
read_shape     sizes and tensors from headers, or from a listing
size_names     names of the sizes in models.toml and --json
fingerprint    identities of files by content
report         the facts that `internvl show` prints
"""
