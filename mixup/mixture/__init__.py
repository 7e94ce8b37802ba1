"""MIXTURE's pure parts: items cut from text, degradations, fusion, pairs and splits; no models."""
