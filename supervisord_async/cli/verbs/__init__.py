"""asupctl's verbs, a module for each family; only the module of the verb that is used is imported."""
