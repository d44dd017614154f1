-- What the processes of a run took.
ALTER TABLE log ADD COLUMN cpu_ms INTEGER;
ALTER TABLE log ADD COLUMN memory_kb_max INTEGER;
