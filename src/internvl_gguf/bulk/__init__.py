"""Many questions: where they come from, where their answers go, and who answers them."""
