"""Models behind protocols: encoders and generators, and where their weights come from."""
