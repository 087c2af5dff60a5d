"""What `scripts/docs` runs."""
