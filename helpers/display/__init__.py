"""What the notebook's reader sees, in French."""
