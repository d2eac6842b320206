"""How changes are told: as records that are numbered, masked, logged, kept, counted, and sent to whoever subscribed."""
