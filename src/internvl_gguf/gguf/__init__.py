"""GGUF files, read without llama.cpp: their names, headers, shapes, and whether they can be trusted.

filenames      what a file of a repository is, by its name
file_pieces    models that are split over several files
values         typed values of a header, and where tensors lie
header         reads headers, of local files and of the first bytes of remote ones
validation/    checks files before llama.cpp sees them
facts          the shape of a model as people publish it
shape          the shape of a model as memory and speed depend on it
read_shape     shapes from headers, or from a listing
tensor_lists   the tensors of an architecture
encoder_flops  operations of the vision encoder
fingerprint    identities of files by content
report         what `internvl show` tells of a file
"""
