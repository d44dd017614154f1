-- What the processes of a run took. Both columns are last and may be null, so that the server need not write the rows of
-- a large log anew (MySQL from 8.0.12, MariaDB from 10.3).
-- unless log.cpu_ms
ALTER TABLE `log` ADD COLUMN `cpu_ms` bigint DEFAULT NULL COMMENT 'processor time';
-- unless log.memory_kb_max
ALTER TABLE `log` ADD COLUMN `memory_kb_max` bigint DEFAULT NULL COMMENT 'most memory at one time, in 1,024 bytes';
