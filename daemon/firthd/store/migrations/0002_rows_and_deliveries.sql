-- One live row a file of a mirror, and what each channel has been given.

-- What a crash has left unfinished is taken away here: a row of a change set that counts for nothing must not decide
-- which of two rows stays. What it added goes before what it closed is open again.
DELETE FROM artifact_record WHERE artifact_id IN (
  SELECT a.id FROM artifact a JOIN change_set s ON s.id = a.added_set WHERE s.state IN ('open', 'abandoned'));
DELETE FROM artifact WHERE added_set IN (SELECT id FROM change_set WHERE state IN ('open', 'abandoned'));
UPDATE artifact SET closed_set = NULL, closed_reason = NULL
  WHERE closed_set IN (SELECT id FROM change_set WHERE state IN ('open', 'abandoned'));
UPDATE change_set SET state = 'discarded', added = 0, closed = 0 WHERE state IN ('open', 'abandoned');

-- Files that were kept twice have several live rows. The newest stays; each other one ends with the change set that
-- brought the next, so that every generation has one row of the file: the one whose bytes it served.
CREATE TEMP TABLE doubled AS
  SELECT channel_id, mirror_id, family, subdir, section, filename FROM artifact WHERE closed_set IS NULL
  GROUP BY channel_id, mirror_id, family, subdir, section, filename HAVING count(*) > 1;
CREATE TEMP TABLE ended (id INTEGER PRIMARY KEY, channel_id INTEGER NOT NULL, following INTEGER NOT NULL);
INSERT INTO temp.ended
  SELECT id, channel_id, following FROM (
    SELECT a.id, a.channel_id, lead(a.added_set) OVER (
      PARTITION BY a.channel_id, a.mirror_id, a.family, a.subdir, a.section, a.filename ORDER BY a.id) AS following
    FROM temp.doubled d CROSS JOIN artifact a INDEXED BY artifact_file
      ON a.channel_id = d.channel_id AND a.family = d.family AND a.subdir = d.subdir AND a.filename = d.filename
      AND a.mirror_id = d.mirror_id AND a.section = d.section
    WHERE a.closed_set IS NULL)
  WHERE following IS NOT NULL;
UPDATE artifact SET closed_reason = 'replaced',
    closed_set = (SELECT e.following FROM temp.ended e WHERE e.id = artifact.id)
  WHERE id IN (SELECT id FROM temp.ended);
UPDATE change_set SET closed = closed + (SELECT count(*) FROM temp.ended e WHERE e.following = change_set.id)
  WHERE state = 'finished' AND id IN (SELECT following FROM temp.ended);

-- The indexes in force still list those files twice: the next publication renders all of them.
ALTER TABLE channel ADD COLUMN render_anew INTEGER NOT NULL DEFAULT 0;
UPDATE channel SET render_anew = 1 WHERE deleted_at IS NULL AND id IN (SELECT channel_id FROM temp.ended);
DROP TABLE temp.ended;
DROP TABLE temp.doubled;

CREATE UNIQUE INDEX artifact_live ON artifact(channel_id, mirror_id, family, subdir, section, filename)
  WHERE closed_set IS NULL;

-- What a channel has been given, by a source of one of its mirrors or from a channel that all of its readers may read.
-- A blob that lies in the store and is not named here does not exist for the channel.
CREATE TABLE delivered (
  channel_id INTEGER NOT NULL,
  sha256 BLOB NOT NULL,                     -- written before the file has its name and its row in blob
  PRIMARY KEY (channel_id, sha256)
) STRICT, WITHOUT ROWID;
CREATE INDEX delivered_blob ON delivered(sha256);
CREATE TRIGGER blob_undelivered AFTER DELETE ON blob BEGIN
  DELETE FROM delivered WHERE sha256 = OLD.sha256;
END;

-- Until now every channel that named a blob was served it; nothing is fetched anew.
INSERT INTO delivered(channel_id, sha256)
  SELECT DISTINCT a.channel_id, b.sha256 FROM artifact a NOT INDEXED
  JOIN blob b ON b.sha256 = a.sha256 JOIN channel c ON c.id = a.channel_id WHERE c.deleted_at IS NULL;
