"""What a run writes to disk and to dashboards."""
