"""How changes are published: as records that are numbered, masked, logged, stored, counted, and sent to subscribers."""
