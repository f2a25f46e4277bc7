-- The store's own runs belong to no channel; files that were not what they should be; what may not be served.

DROP INDEX run_by_channel;
ALTER TABLE run RENAME COLUMN channel_id TO of_channel;
ALTER TABLE run ADD COLUMN channel_id INTEGER REFERENCES channel(id);  -- NULL: a run of the store
UPDATE run SET channel_id = of_channel;
ALTER TABLE run DROP COLUMN of_channel;
CREATE INDEX run_by_channel ON run(channel_id, id);

-- Files that were found lost or damaged. What is left of them lies in the store's folder for quarantine.
CREATE TABLE quarantine (
  store TEXT NOT NULL,                      -- blobs, rendered
  sha256 BLOB NOT NULL,                     -- the name under which it lay
  size INTEGER NOT NULL,                    -- bytes in quarantine; 0: there was nothing
  reason TEXT NOT NULL,
  found_at INTEGER NOT NULL,
  mended_at INTEGER,                        -- when the right file had come again, or nothing named it any more
  PRIMARY KEY (store, sha256)
) STRICT, WITHOUT ROWID;

-- What package.remove has taken out: no run brings it back, no address gives it.
CREATE TABLE block (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  channel_id INTEGER NOT NULL REFERENCES channel(id),
  family TEXT NOT NULL,
  spec TEXT NOT NULL,
  by TEXT NOT NULL,
  at INTEGER NOT NULL,
  note TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE UNIQUE INDEX block_spec ON block(channel_id, family, spec);

-- Deleted together with its packages: what it brought is refused until another mirror offers it.
ALTER TABLE mirror ADD COLUMN refused INTEGER NOT NULL DEFAULT 0;

-- Which artifacts have a file: what may leave the store, and what is to come again.
CREATE INDEX artifact_sha256 ON artifact(sha256) WHERE sha256 IS NOT NULL;
