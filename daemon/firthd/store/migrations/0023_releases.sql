-- What files of a release tell of it and its index does not: licence and requirements. `digest` is the index's.
CREATE TABLE release (
  channel_id INTEGER NOT NULL,
  part TEXT NOT NULL,
  version TEXT NOT NULL,
  filename TEXT NOT NULL,
  digest TEXT NOT NULL,
  document BLOB NOT NULL,                   -- JSON, as the family has it
  PRIMARY KEY (channel_id, part, version, filename)
) STRICT, WITHOUT ROWID;
