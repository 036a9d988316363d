"""GGUF files, read without llama.cpp: their names, headers, shapes, and whether they can be trusted.

filenames      what a file of a repository is, by its name
file_pieces    models that are split over several files
values         typed values of a header, and where tensors lie
header         reads headers, of local files and of the first bytes of remote ones
validation/    checks files before llama.cpp sees them
arch/          what an architecture is: sizes, keys, tensors
weights        the tensors of a model, which memory and speed follow from
read_shape     sizes and tensors from headers, or from a listing
size_names     what models.toml and --json call the sizes
fingerprint    identities of files by content
report         what `internvl show` tells of a file
"""
