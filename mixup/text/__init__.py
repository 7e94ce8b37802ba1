"""Reading rows, naming tasks, building the distiller's prompts and parsing its answers."""
