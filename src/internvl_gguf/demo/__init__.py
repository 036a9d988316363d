"""The embedded demo model: a small InternVL trained on drawn pictures. Its two GGUF files lie beside this."""
