"""Training of language models: what is learned at which step, the workers, and what comes out."""
