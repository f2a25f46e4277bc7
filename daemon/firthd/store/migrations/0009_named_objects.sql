-- The objects in force that a render reads again, without walking those that hold their own hash: a hundred thousand shards.
CREATE INDEX object_named ON object(channel_id, family, path) WHERE until IS NULL AND NOT lasting;
