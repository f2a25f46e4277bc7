"""The only room that knows conda: its records, indexes, shards, version order and addresses."""
