"""Read and decode pictures within limits, and decide how they are cut into tiles.

sources         read the bytes of a path, a pipe, or a `file://` or `data:` URI
raster_formats  decode picture files, with limits against files that expand to too much
load            load any kind of picture upright and in RGB
tile_limits     limits on the tiles of a picture, from picture, question and session
fit_context     lower the limits so that all pictures of a question fit the context
grid_overlay    draw the tiles over a picture
"""
