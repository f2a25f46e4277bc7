-- Parts of any family: how the copy of an index is packed, and whether its rows are what it says.
ALTER TABLE artifact RENAME COLUMN subdir TO part;
ALTER TABLE run_failure RENAME COLUMN subdir TO part;
ALTER TABLE source_index ADD COLUMN encoding TEXT NOT NULL DEFAULT '';
UPDATE source_index SET encoding = CASE WHEN url_path LIKE '%.zst' THEN 'zst' ELSE 'json' END WHERE file IS NOT NULL;

-- What is read from here on is proven to be writable in every form; what lies here already is looked at when rendered.
INSERT INTO setting(key, value) SELECT 'proven above', max(id) FROM artifact HAVING max(id) > 0;
