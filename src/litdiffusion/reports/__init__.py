"""Reports on checkpoints: tables, pictures and their numbers as csv."""
