"""Score curation: neighbors, near-duplicates, the KNN-Bayes posterior and the long-tail score."""
