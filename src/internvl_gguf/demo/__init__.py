"""The embedded demo model: a small InternVL trained on drawn pictures. Its two GGUF files are in this folder."""
