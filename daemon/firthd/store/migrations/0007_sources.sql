-- Files beside a source's index, how its file names are to be spelled, and what a channel tells its users.
ALTER TABLE source_index ADD COLUMN beside TEXT;                  -- NULL: a part; else the part that it belongs to
ALTER TABLE source_index ADD COLUMN signed INTEGER NOT NULL DEFAULT 0; -- 1: there are signatures of records in it
ALTER TABLE mirror ADD COLUMN encoded INTEGER NOT NULL DEFAULT 0; -- 1: the source wants `+`, `!`, `~` percent-encoded
ALTER TABLE channel ADD COLUMN notices TEXT NOT NULL DEFAULT '[]';

-- No package is empty: a size of 0 is one that the source did not know.
UPDATE artifact SET size = NULL WHERE size = 0;

-- Clients refuse a whole index for a file name that they cannot split: the next publication leaves such files out.
UPDATE channel SET render_anew = 1 WHERE deleted_at IS NULL AND id IN (
  SELECT channel_id FROM artifact
  WHERE closed_set IS NULL AND family = 'conda' AND section <> 'v3.whl' AND filename NOT LIKE '%-%-%');
INSERT OR REPLACE INTO setting(key, value) SELECT 'proven above', max(id) FROM artifact HAVING max(id) > 0;
