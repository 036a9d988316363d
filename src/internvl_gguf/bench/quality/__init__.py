"""Quality of a quant: divergence from a reference, and the share of right answers.

measure_quality            divergence on a text, and, by picture_quality, on answers about pictures
accuracy, matching         right answers, by the rules in `matching`
sets                       the texts, pictures and questions
scoring, divergence        next-token distributions of given tokens, and how far two of them are apart
reference_logits           a reference's distributions on disk; packed_rows: one of them in bytes
"""
