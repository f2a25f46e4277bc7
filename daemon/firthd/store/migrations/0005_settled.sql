-- Whether a mirror's rows are what its source's index says is known part by part.
ALTER TABLE source_index ADD COLUMN settled INTEGER NOT NULL DEFAULT 0; -- the run that took it in whole; 0: none has
UPDATE source_index SET settled = CASE WHEN file IS NULL THEN 1
  ELSE (SELECT CASE WHEN m.settled THEN coalesce(m.last_run_id, 1) ELSE 0 END FROM mirror m WHERE m.id = mirror_id) END;
-- mirror.settled says from here on that the last look at what parts the source has came to its end.

-- Pages of parts that no run reads: each version as it was read when a client asked, the newest one and those that a
-- kept generation needs.
CREATE TABLE page (
  id INTEGER PRIMARY KEY AUTOINCREMENT,     -- rendered pages are remembered by it: never given away twice
  mirror_id INTEGER NOT NULL REFERENCES mirror(id),
  part TEXT NOT NULL,
  read_at INTEGER NOT NULL,
  checked_at INTEGER NOT NULL,              -- when the source last said that it is still the same
  url_path TEXT NOT NULL,
  encoding TEXT NOT NULL,
  etag TEXT,
  last_modified TEXT,
  size INTEGER NOT NULL,                    -- of the page as it came
  body BLOB,                                -- compressed; NULL: the source had the page no more
  UNIQUE (mirror_id, part, read_at)
) STRICT;

-- When the rows of such parts were listed: by the versions read from `since` on and before `until`.
CREATE TABLE page_span (
  artifact_id INTEGER PRIMARY KEY,
  since INTEGER NOT NULL,
  until INTEGER
) STRICT;
