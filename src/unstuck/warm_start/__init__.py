"""Training from weights that were trained before: load what fits, freeze, thaw by schedule, stay near the start."""
