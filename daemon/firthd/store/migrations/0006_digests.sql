-- What each mirror offers, versioned by change sets as artifact rows are: it decides who owns a package's name.
CREATE TABLE offered (
  id INTEGER PRIMARY KEY,
  channel_id INTEGER NOT NULL,
  mirror_id INTEGER NOT NULL,               -- 0: the channel itself
  family TEXT NOT NULL,
  part TEXT NOT NULL,
  name TEXT NOT NULL,
  added_set INTEGER NOT NULL,
  closed_set INTEGER
) STRICT;

-- Until now whoever had a file of a name offered it: the spans of change sets in which a mirror had any. One that was
-- replaced in a set goes on in the same. What a crash has left unfinished counts for nothing, its closings neither.
INSERT INTO offered(channel_id, mirror_id, family, part, name, added_set, closed_set)
WITH versions AS (
  SELECT a.channel_id, a.mirror_id, a.family, a.part, a.name, a.added_set,
         coalesce(iif(e.state IN ('finished', 'published'), e.id, NULL), 9223372036854775807) AS closed_set
  FROM artifact a NOT INDEXED
  JOIN channel c ON c.id = a.channel_id AND c.deleted_at IS NULL
  JOIN change_set s ON s.id = a.added_set AND s.state IN ('finished', 'published')
  LEFT JOIN change_set e ON e.id = a.closed_set
), reaching AS (
  SELECT *, max(closed_set) OVER (
    PARTITION BY channel_id, mirror_id, family, part, name ORDER BY added_set, closed_set
    ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS reached
  FROM versions
), spans AS (
  SELECT *, sum(reached IS NULL OR added_set > reached) OVER (
    PARTITION BY channel_id, mirror_id, family, part, name ORDER BY added_set, closed_set) AS span
  FROM reaching
)
SELECT channel_id, mirror_id, family, part, name, min(added_set), nullif(max(closed_set), 9223372036854775807)
FROM spans GROUP BY channel_id, mirror_id, family, part, name, span;

CREATE UNIQUE INDEX offered_live ON offered(channel_id, mirror_id, family, part, name) WHERE closed_set IS NULL;
CREATE INDEX offered_part ON offered(channel_id, mirror_id, family, part, name);
CREATE INDEX offered_name ON offered(channel_id, family, name, mirror_id, added_set, closed_set);
CREATE INDEX offered_added ON offered(added_set);
CREATE INDEX offered_closed ON offered(closed_set) WHERE closed_set IS NOT NULL;

-- A package's visible entries in one digest, and how many files of it are hidden of each mirror.
ALTER TABLE package ADD COLUMN digest BLOB;                          -- NULL: nobody has worked it out, or none is there
ALTER TABLE package ADD COLUMN hidden TEXT NOT NULL DEFAULT '{}';    -- JSON: mirror -> files of the name, not its owner

-- What a generation shows of a family is one state, which a publication changes by what it changes. NULL: a release
-- before this one published it; the next publication of its channel works it out from all rows, and kept generations
-- keep the digest that they have.
ALTER TABLE generation_family DROP COLUMN digests;
ALTER TABLE generation_family DROP COLUMN totals;
ALTER TABLE generation_family ADD COLUMN state BLOB;
ALTER TABLE generation_family ADD COLUMN shadowed TEXT NOT NULL DEFAULT '{}';  -- JSON: mirror -> hidden files
