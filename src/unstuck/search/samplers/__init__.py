"""What proposes the points of a search, one a file: each is a function named like it, from a `Setting` to a `Sampler`."""
