-- Digests by stretches of ids: the rows of a run lie side by side, and what it writes follows what it adds.
CREATE INDEX artifact_digest ON artifact(id >> 16, sha256) WHERE sha256 IS NOT NULL;
DROP INDEX artifact_sha256;
