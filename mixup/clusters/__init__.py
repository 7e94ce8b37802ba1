"""Cells of near neighbors, the groups inside them, and the text a group shows the distiller."""
