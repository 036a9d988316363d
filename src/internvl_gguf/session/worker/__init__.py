"""A model in a worker process: if that process dies, the session gets an error and starts another one.

The processes are split at the engine: token ids and the pixels of tiles go in, tokens and logits come out. Templates,
pictures, history and terminals stay in the parent, which never loads llama.cpp.

    worker_runtime  parent: the runtime of a session, which starts, restarts, shares and ends the process
    remote_engine   parent: the engine of that runtime; implements `engine.contract`
    worker_client   parent: requests under way, threads that wait for them, restarts
    worker_process  parent: the child process with its reading and writing threads
    child_side      worker: what such a process begins with
    child_main      worker: main module of the process
    serving         worker: takes requests, makes the engine work, sends what they produce
    tiles           worker: pixels of tiles, requested from the parent when they are encoded
    messages        the messages between the two
    channel         sends and receives messages: pickles on two pipes
"""
