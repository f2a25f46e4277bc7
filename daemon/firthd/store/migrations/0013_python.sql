-- What a source's list says of a part, and why the source takes back what a part listed.

ALTER TABLE source_index ADD COLUMN mark TEXT;
ALTER TABLE source_index ADD COLUMN refused TEXT;
ALTER TABLE page ADD COLUMN refused TEXT;
ALTER TABLE page ADD COLUMN base_url TEXT;  -- where its files' addresses begin, if not where it was asked for
