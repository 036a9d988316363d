"""ggml RPC servers, asked before the native library meets them.

That library aborts where none answers, and waits for ever for one that is busy.

Pure Python; no native library is loaded here. docs/rpc.md is about all of it.

library_file   the libggml-rpc to use: of the installed llama.cpp, or named by INTERNVL_GGML_RPC
protocol       the version of the protocol that it speaks, asked in a child process
connection     the wire format, with a time limit
handshake      version, devices, memory and network of a server
lost           which servers answer no more, after a worker has died
serving        `internvl rpc-server`: the native server in a child process
"""
