"""Runs as they grow, served to a browser on this machine."""
