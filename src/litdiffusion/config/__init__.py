"""From yaml to objects: settings, names, trust, and every refusal before the work."""
