-- Served objects: one row a span of generations in which a path shows the same bytes.
CREATE TABLE object (
  id INTEGER PRIMARY KEY,
  channel_id INTEGER NOT NULL,
  family TEXT NOT NULL,
  path TEXT NOT NULL,                       -- below the family's root, such as linux-64/repodata.json
  since INTEGER NOT NULL,                   -- the generation from which on it is served
  until INTEGER,                            -- the first generation that serves it no longer; NULL: in force
  sha256 BLOB NOT NULL,                     -- of the bytes that a client gets
  size INTEGER NOT NULL,                    -- of the same
  file BLOB NOT NULL,                       -- sha256 of the file that holds them
  offset INTEGER,                           -- where they begin in a pack; NULL: the whole file
  encoding TEXT,                            -- zstd: the file holds them compressed, they are unpacked when sent
  lasting INTEGER NOT NULL DEFAULT 0,       -- 1: the path holds its own hash and is served whatever the generation
  unnamed_at INTEGER                        -- lasting ones: when no kept generation named it any more
) STRICT;
CREATE INDEX object_path ON object(channel_id, family, path, since);
CREATE INDEX object_until ON object(channel_id, until, since);
CREATE INDEX object_file ON object(file, offset);
CREATE INDEX object_unnamed ON object(channel_id, unnamed_at) WHERE unnamed_at IS NOT NULL;
CREATE INDEX object_plain ON object(channel_id, until)
  WHERE until IS NOT NULL AND encoding IS NULL AND offset IS NULL AND NOT lasting;
CREATE INDEX object_packed ON object(channel_id) WHERE until IS NULL AND encoding IS NOT NULL;

-- Small objects lie one behind the other in packs.
CREATE TABLE pack (
  channel_id INTEGER NOT NULL,
  file BLOB NOT NULL,
  size INTEGER NOT NULL,
  PRIMARY KEY (channel_id, file)
) STRICT, WITHOUT ROWID;

-- Files whose last row has gone; they follow a while later, for somebody may be about to open them.
CREATE TABLE unnamed_file (
  file BLOB PRIMARY KEY,
  at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX package_number ON package(channel_id, number);

-- A row of the old table for each generation becomes one for each span of generations without a change.
INSERT INTO object(channel_id, family, path, since, until, sha256, size, file, encoding)
WITH kept AS (
  SELECT g.channel_id, g.number,
         row_number() OVER (PARTITION BY g.channel_id ORDER BY g.number) AS place,
         lead(g.number) OVER (PARTITION BY g.channel_id ORDER BY g.number) AS following
  FROM generation g JOIN channel c ON c.id = g.channel_id AND c.deleted_at IS NULL
  WHERE EXISTS (SELECT 1 FROM published_file f WHERE f.channel_id = g.channel_id AND f.number = g.number)
), seen AS (
  SELECT f.channel_id, f.family, f.path, f.number, f.sha256, f.size, f.stored, k.place, k.following,
         lag(f.sha256) OVER same AS sha256_before, lag(k.place) OVER same AS place_before
  FROM published_file f JOIN kept k ON k.channel_id = f.channel_id AND k.number = f.number
  WINDOW same AS (PARTITION BY f.channel_id, f.family, f.path ORDER BY f.number)
), spans AS (
  SELECT *, sum(sha256_before IS NOT sha256 OR place_before IS NOT place - 1) OVER
         (PARTITION BY channel_id, family, path ORDER BY number) AS span
  FROM seen
), ends AS (
  SELECT channel_id, family, path, min(number) AS since, max(number) AS newest, max(place) AS place,
         sha256, size, max(stored) AS stored
  FROM spans GROUP BY channel_id, family, path, span
)
SELECT e.channel_id, e.family, e.path, e.since, k.following, e.sha256, e.size,
       iif(e.stored, e.sha256, coalesce(twin.sha256, e.sha256)), iif(e.stored OR twin.sha256 IS NULL, NULL, 'zstd')
FROM ends e
JOIN kept k ON k.channel_id = e.channel_id AND k.place = e.place
LEFT JOIN published_file twin ON twin.channel_id = e.channel_id AND twin.number = e.newest
  AND twin.family = e.family AND twin.path = e.path || '.zst';

-- The old rows do not say which indexes name a shard: the next publication of a channel finds out and ends these.
INSERT INTO object(channel_id, family, path, since, until, sha256, size, file, offset, lasting)
SELECT s.channel_id, 'conda', 'shards/' || lower(hex(s.sha256)) || '.msgpack.zst', 0, NULL, s.sha256, s.length, s.pack,
       s.offset, 1
FROM shard s JOIN channel c ON c.id = s.channel_id AND c.deleted_at IS NULL;

INSERT INTO pack SELECT channel_id, pack, max(offset + length) FROM shard GROUP BY channel_id, pack;

-- Files that no row named were left behind: the next start looks for them as it does after a crash.
INSERT INTO setting SELECT 'at work', '1' WHERE EXISTS (SELECT 1 FROM channel)
  ON CONFLICT DO UPDATE SET value = '1';

DROP TABLE published_file;
DROP TABLE shard;
