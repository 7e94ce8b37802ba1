"""What a person reads about a release: one page, one dataset card, and the plain data of both."""
