"""A chat whose model is with an OpenAI-compatible server: `internvl serve`, or any other."""
