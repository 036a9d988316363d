"""What the installed llama.cpp is asked before it is trusted. `internvl_gguf.trial` starts it and reads its answers."""
