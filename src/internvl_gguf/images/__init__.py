"""Pictures: found, decoded within bounds, and limits for cutting them into tiles.

sources       where a picture comes from: a path, bytes, a data URI, a pipe
formats       decoding, with bounds on what a file may make of a few bytes
load          any picture that a question may bring, upright and in RGB
tile_limits   how many tiles a picture may have, and whose word counts
fit_context   tile limits that make all pictures of a question fit the context
grid_overlay  a picture with its tiles drawn on it
"""
