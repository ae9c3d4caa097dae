"""What a run leaves on the disk and on dashboards."""
