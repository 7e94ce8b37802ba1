"""The jobs: one function and one config each."""
