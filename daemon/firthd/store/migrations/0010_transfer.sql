-- Where files may be had nearer than at the source, how fast, and when one was last asked for.
ALTER TABLE mirror ADD COLUMN also_from TEXT NOT NULL DEFAULT '[]';  -- folders and addresses, the first one first
ALTER TABLE mirror ADD COLUMN drop_unused_days INTEGER;              -- NULL: never
ALTER TABLE mirror ADD COLUMN max_rate INTEGER;                      -- bytes a second; NULL: as fast as it goes
ALTER TABLE mirror ADD COLUMN max_rate_hours TEXT;                   -- in UTC, such as 8-18; NULL: always

-- The last UTC day on which somebody asked a channel for a file, of channels whose mirrors drop what is not used.
CREATE TABLE asked (
  channel_id INTEGER NOT NULL REFERENCES channel(id),
  sha256 BLOB NOT NULL,
  day INTEGER NOT NULL,                     -- days since the epoch
  PRIMARY KEY (channel_id, sha256)
) STRICT, WITHOUT ROWID;
