-- Policies, what they hang on, and by what each mirror was judged last.

CREATE TABLE policy (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL UNIQUE,
  description TEXT NOT NULL,
  families TEXT NOT NULL,                   -- JSON array
  rules TEXT NOT NULL,                      -- JSON
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  revision INTEGER NOT NULL DEFAULT 1
) STRICT;

-- Records without a server's own time that a rule about age has looked at; a re-upload is a new sight.
CREATE TABLE first_sight (
  mirror_id INTEGER NOT NULL,
  part TEXT NOT NULL,
  filename TEXT NOT NULL,
  digest TEXT NOT NULL,
  seen_at INTEGER NOT NULL,
  PRIMARY KEY (mirror_id, part, filename)
) STRICT, WITHOUT ROWID;

CREATE TABLE advisory (
  id TEXT PRIMARY KEY,
  families TEXT NOT NULL,                   -- JSON array: those of the packages that it names
  names TEXT NOT NULL,                      -- their names, one a line, for searching
  document BLOB NOT NULL,                   -- JSON, what was set by hand included
  status TEXT NOT NULL,
  imported_at INTEGER NOT NULL,
  set_by TEXT,
  set_at INTEGER,
  note TEXT NOT NULL DEFAULT ''
) STRICT, WITHOUT ROWID;

-- The policy with its revision and what else its verdicts hang on; '': by none.
ALTER TABLE mirror ADD COLUMN judged TEXT NOT NULL DEFAULT '';

