"""Code that makes model files; the runtime never imports it."""
