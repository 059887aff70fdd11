"""What people and programs read of a visit: terminal text, JSON, one HTML page, and the line shown while it runs."""
