"""Ray actors that stages and training share, and what they ask of a cluster."""
