"""MIXTURE's pure parts: items cut from text, their degradations, fusion, pairs, splits; no models."""
