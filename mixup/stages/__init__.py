"""Thin Ray Data shells around the pure functions: table in, table out."""
