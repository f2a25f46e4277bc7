-- What clients have downloaded, and when a source last wrote what a mirror has taken in.

CREATE TABLE usage (
  channel_id INTEGER NOT NULL,
  family TEXT NOT NULL,
  name TEXT NOT NULL,
  day INTEGER NOT NULL,                     -- UTC days since the epoch
  version TEXT NOT NULL,
  token_id INTEGER NOT NULL,                -- 0: nobody said who he is
  downloads INTEGER NOT NULL,
  PRIMARY KEY (channel_id, family, name, day, version, token_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX usage_day ON usage(day);

-- By the source's own clock, in ms: of its newest index that was taken in, and of the newest that was seen.
ALTER TABLE mirror ADD COLUMN source_time INTEGER;
ALTER TABLE mirror ADD COLUMN source_seen INTEGER;
