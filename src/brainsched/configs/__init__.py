"""From a config to a scheduler."""
