-- The state: channels, mirrors, runs, change sets, artifacts, generations, events, audit, tokens.
-- Times are integer milliseconds since the epoch, UTC; digests are blobs of raw bytes; JSON is text.

CREATE TABLE setting (
  key TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE channel (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL,                       -- parent/child for a subchannel
  parent_id INTEGER REFERENCES channel(id),
  description TEXT NOT NULL DEFAULT '',
  privacy TEXT NOT NULL,
  policy TEXT,
  keep_days INTEGER NOT NULL DEFAULT 90,
  keep_months INTEGER NOT NULL DEFAULT 1200,
  frozen_at INTEGER,
  frozen_by TEXT,
  generation INTEGER NOT NULL DEFAULT 0,    -- the published generation; 0 only while the channel is created
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  revision INTEGER NOT NULL DEFAULT 1,
  deleted_at INTEGER                        -- set: invisible, its rows are being taken away
) STRICT;
CREATE UNIQUE INDEX channel_name ON channel(name) WHERE deleted_at IS NULL;

CREATE TABLE mirror (
  id INTEGER PRIMARY KEY AUTOINCREMENT,     -- also the precedence: the oldest mirror owns a name
  channel_id INTEGER NOT NULL REFERENCES channel(id),
  name TEXT NOT NULL,
  type TEXT NOT NULL,
  mode TEXT NOT NULL,
  source TEXT NOT NULL,                     -- with {token} where a token stands
  schedule TEXT NOT NULL,
  policy TEXT,
  filters TEXT NOT NULL DEFAULT '{}',
  on_upstream_removal TEXT NOT NULL,
  proxy TEXT,
  ca_file TEXT,
  has_credentials INTEGER NOT NULL DEFAULT 0,
  enabled INTEGER NOT NULL DEFAULT 1,
  state TEXT NOT NULL DEFAULT 'pending',    -- that of its newest mirror run
  last_run_id INTEGER,
  last_success_at INTEGER,
  scheduled_from INTEGER NOT NULL,          -- due times after this one have not been answered yet
  coalesced INTEGER NOT NULL DEFAULT 0,     -- due times that fell into a run in progress
  artifacts INTEGER NOT NULL DEFAULT 0,
  bytes INTEGER NOT NULL DEFAULT 0,
  stored INTEGER NOT NULL DEFAULT 0,
  bytes_stored INTEGER NOT NULL DEFAULT 0,
  shadowed INTEGER NOT NULL DEFAULT 0,
  settled INTEGER NOT NULL DEFAULT 0,       -- its rows are what the source's index said, without a hole
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  revision INTEGER NOT NULL DEFAULT 1,
  deleted_at INTEGER
) STRICT;
CREATE UNIQUE INDEX mirror_name ON mirror(channel_id, name) WHERE deleted_at IS NULL;

-- What was last read of a source, one row an index file (a conda subdir).
CREATE TABLE source_index (
  mirror_id INTEGER NOT NULL REFERENCES mirror(id),
  part TEXT NOT NULL,                       -- conda: the subdir
  url_path TEXT NOT NULL,                   -- below the source
  etag TEXT,
  last_modified TEXT,
  file TEXT,                                -- the stored index, below the state folder; NULL: the source has none
  size INTEGER NOT NULL DEFAULT 0,
  records INTEGER NOT NULL DEFAULT 0,
  base_url TEXT,                            -- where the source keeps this part's files, when it says so
  read_at INTEGER NOT NULL,
  PRIMARY KEY (mirror_id, part)
) STRICT, WITHOUT ROWID;

CREATE TABLE run (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  kind TEXT NOT NULL,
  state TEXT NOT NULL,
  channel_id INTEGER NOT NULL REFERENCES channel(id),
  mirror_id INTEGER REFERENCES mirror(id),
  cause TEXT NOT NULL,                      -- by hand, schedule, run now, unfreeze, recovery ...
  by TEXT NOT NULL,
  params TEXT NOT NULL DEFAULT '{}',
  created_at INTEGER NOT NULL,
  started_at INTEGER,
  finished_at INTEGER,
  steps TEXT NOT NULL DEFAULT '[]',
  counts TEXT NOT NULL DEFAULT '{}',
  bytes_done INTEGER NOT NULL DEFAULT 0,
  bytes_total INTEGER,
  waiting_for TEXT,
  generation INTEGER,
  error TEXT,
  notes TEXT NOT NULL DEFAULT '[]',
  result TEXT,
  requeued INTEGER NOT NULL DEFAULT 0,      -- times in a row it was queued again without new verified bytes
  verified_bytes INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX run_by_mirror ON run(mirror_id, id);
CREATE INDEX run_by_channel ON run(channel_id, id);
CREATE INDEX run_open ON run(id) WHERE state IN ('pending', 'running', 'stopping');

CREATE TABLE run_log (
  run_id INTEGER NOT NULL REFERENCES run(id),
  number INTEGER NOT NULL,
  time INTEGER NOT NULL,
  level TEXT NOT NULL,
  step TEXT,
  text TEXT NOT NULL,
  PRIMARY KEY (run_id, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE run_failure (
  run_id INTEGER NOT NULL REFERENCES run(id),
  subdir TEXT NOT NULL,
  filename TEXT NOT NULL,
  reason TEXT NOT NULL,
  attempts INTEGER NOT NULL,
  PRIMARY KEY (run_id, subdir, filename)
) STRICT, WITHOUT ROWID;

CREATE TABLE change_set (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  channel_id INTEGER NOT NULL REFERENCES channel(id),
  mirror_id INTEGER,
  run_id INTEGER,
  cause TEXT NOT NULL,
  state TEXT NOT NULL,                      -- open, finished, published, abandoned, discarded
  number INTEGER,                           -- the generation that published it
  added INTEGER NOT NULL DEFAULT 0,
  closed INTEGER NOT NULL DEFAULT 0,
  parts TEXT NOT NULL DEFAULT '[]',         -- family/subdir that it touches
  created_at INTEGER NOT NULL,
  finished_at INTEGER
) STRICT;
CREATE INDEX change_set_by_channel ON change_set(channel_id, state, number);

-- A row is a version of a record: added by one change set, closed by another.
CREATE TABLE artifact (
  id INTEGER PRIMARY KEY,
  channel_id INTEGER NOT NULL,
  mirror_id INTEGER NOT NULL,               -- 0: the channel itself
  family TEXT NOT NULL,
  subdir TEXT NOT NULL,
  section TEXT NOT NULL,                    -- conda: packages, packages.conda, v3.conda ...
  filename TEXT NOT NULL,
  name TEXT NOT NULL,
  version TEXT NOT NULL,
  build TEXT NOT NULL,
  build_number INTEGER NOT NULL,
  size INTEGER,
  sha256 BLOB,                              -- declared by the source, or ours from first sight
  md5 BLOB,
  declared INTEGER NOT NULL,                -- 2: sha256 declared, 1: md5 only, 0: no digest
  license TEXT,
  timestamp INTEGER,
  fingerprint BLOB NOT NULL,                -- 16 bytes over the canonical record
  added_set INTEGER NOT NULL,
  closed_set INTEGER,
  closed_reason TEXT
) STRICT;
CREATE INDEX artifact_file ON artifact(channel_id, family, subdir, filename);
CREATE INDEX artifact_package ON artifact(channel_id, family, name);
CREATE INDEX artifact_added ON artifact(added_set);
CREATE INDEX artifact_closed ON artifact(closed_set) WHERE closed_set IS NOT NULL;

CREATE TABLE artifact_record (
  artifact_id INTEGER PRIMARY KEY,
  raw BLOB NOT NULL                         -- the source's record, byte for byte
) STRICT;

CREATE TABLE artifact_id_range (next INTEGER NOT NULL) STRICT;
INSERT INTO artifact_id_range VALUES (1);

CREATE TABLE blob (
  sha256 BLOB PRIMARY KEY,
  size INTEGER NOT NULL,
  created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE blob_total (blobs INTEGER NOT NULL, bytes INTEGER NOT NULL) STRICT;
INSERT INTO blob_total VALUES (0, 0);
CREATE TRIGGER blob_added AFTER INSERT ON blob BEGIN
  UPDATE blob_total SET blobs = blobs + 1, bytes = bytes + NEW.size;
END;
CREATE TRIGGER blob_removed AFTER DELETE ON blob BEGIN
  UPDATE blob_total SET blobs = blobs - 1, bytes = bytes - OLD.size;
END;

CREATE TABLE generation (
  channel_id INTEGER NOT NULL REFERENCES channel(id),
  number INTEGER NOT NULL,
  shows INTEGER NOT NULL,                   -- the generation whose content it shows; itself but after a rollback
  time INTEGER NOT NULL,
  cause TEXT NOT NULL,
  run_id INTEGER,
  added INTEGER NOT NULL,
  removed INTEGER NOT NULL,
  artifacts INTEGER NOT NULL,
  packages INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  digest TEXT NOT NULL,
  kept INTEGER NOT NULL DEFAULT 1,
  PRIMARY KEY (channel_id, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE generation_family (
  channel_id INTEGER NOT NULL,
  number INTEGER NOT NULL,
  family TEXT NOT NULL,
  artifacts INTEGER NOT NULL,
  packages INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  digests TEXT NOT NULL,                    -- JSON: part -> digest over its entries
  totals TEXT NOT NULL,                     -- JSON: part -> {artifacts, bytes}
  PRIMARY KEY (channel_id, number, family)
) STRICT, WITHOUT ROWID;

-- The index files that a generation serves; unchanged ones are named again.
CREATE TABLE published_file (
  channel_id INTEGER NOT NULL,
  number INTEGER NOT NULL,
  family TEXT NOT NULL,
  path TEXT NOT NULL,                       -- below the family's root, such as linux-64/repodata.json
  sha256 BLOB NOT NULL,
  size INTEGER NOT NULL,
  stored INTEGER NOT NULL DEFAULT 1,        -- 0: taken away, streamed out of its compressed twin
  PRIMARY KEY (channel_id, number, family, path)
) STRICT, WITHOUT ROWID;

-- Shards lie one behind the other in packs; a pack is a rendered file.
CREATE TABLE shard (
  channel_id INTEGER NOT NULL,
  sha256 BLOB NOT NULL,
  pack BLOB NOT NULL,                       -- sha256 of the pack
  offset INTEGER NOT NULL,
  length INTEGER NOT NULL,
  PRIMARY KEY (channel_id, sha256)
) STRICT, WITHOUT ROWID;

-- Summaries for lists; the row in force at generation N is the one with the greatest number <= N. files = 0: gone.
CREATE TABLE package (
  channel_id INTEGER NOT NULL,
  family TEXT NOT NULL,
  name TEXT NOT NULL,
  number INTEGER NOT NULL,
  version TEXT NOT NULL,
  versions INTEGER NOT NULL,
  files INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  platforms TEXT NOT NULL,                  -- JSON array of subdirs
  depends TEXT NOT NULL DEFAULT '[]',       -- JSON array: names that the newest version depends on
  PRIMARY KEY (channel_id, family, name, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE event (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  time INTEGER NOT NULL,
  topic TEXT NOT NULL,
  type TEXT NOT NULL,
  channel TEXT,                             -- the channel it belongs to, for callers limited to some
  ids TEXT NOT NULL,
  data TEXT NOT NULL
) STRICT;
CREATE INDEX event_time ON event(time);

CREATE TABLE audit (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  time INTEGER NOT NULL,
  uid INTEGER NOT NULL,
  pid INTEGER NOT NULL,
  user TEXT NOT NULL,
  role TEXT NOT NULL,
  method TEXT NOT NULL,
  params TEXT NOT NULL,
  outcome TEXT NOT NULL
) STRICT;

CREATE TABLE token (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL,
  hash BLOB NOT NULL UNIQUE,                -- sha256 of the secret
  channels TEXT NOT NULL DEFAULT '[]',
  created_at INTEGER NOT NULL,
  created_by TEXT NOT NULL,
  expires_at INTEGER,
  last_used_at INTEGER,
  revoked_at INTEGER
) STRICT;

CREATE TABLE health (
  subject TEXT PRIMARY KEY,
  text TEXT NOT NULL,
  hint TEXT NOT NULL DEFAULT '',
  since INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
