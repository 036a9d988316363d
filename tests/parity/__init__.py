"""A reference made with Hugging Face transformers, and what is needed to make it again."""
