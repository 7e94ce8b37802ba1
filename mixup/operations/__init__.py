"""What people ask of a workspace: its status, where a row came from and went, its report."""
