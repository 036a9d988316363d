"""A model in a process of its own, whose death is an error message and not the end of who talks to it.

The line is cut at the engine: token ids and the pixels of tiles go in, tokens and logits come out. Templates, pictures,
history and terminals stay on this side, and llama.cpp is never loaded here.

    runtime     the model as a session knows it: started, started again, shared, released
    engine      requests and their handles, as `engine.contract` wants them
    client      this side of the line: what is under way, who waits, what ended it
    process     the child process: started, read, written to, ended
    child       the other side: the main module of that process
    serving     its work: takes requests, has the engine work, tells what came of it
    tiles       pixels that the other side asks for when it encodes them
    messages    what is said across the line
    channel     how: pickles on two pipes
"""
