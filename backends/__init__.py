"""Target families: legality, selection, pipelines."""
