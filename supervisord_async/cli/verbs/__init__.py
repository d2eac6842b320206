"""asupctl's verbs, a module for each family; loaded one at a time."""
