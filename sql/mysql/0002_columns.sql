-- Columns that one of the older variants lacks, and columns of our own. Each has a default, so that the older system's
-- statements and rows written by hand go on working. A statement below `-- unless TABLE.COLUMN` is left out where that
-- column exists.
-- unless cron.is_mutex
ALTER TABLE `cron` ADD COLUMN `is_mutex` tinyint(4) NOT NULL DEFAULT '0';
-- unless cron.start_time
ALTER TABLE `cron` ADD COLUMN `start_time` bigint(20) NOT NULL DEFAULT '0';
-- unless cron.end_time
ALTER TABLE `cron` ADD COLUMN `end_time` bigint(20) NOT NULL DEFAULT '0';
-- unless cron.lock_limit
ALTER TABLE `cron` ADD COLUMN `lock_limit` int(11) NOT NULL DEFAULT '0';
-- unless cron.version
ALTER TABLE `cron` ADD COLUMN `version` bigint unsigned NOT NULL DEFAULT '1' COMMENT 'which definition';
-- unless cron.since
ALTER TABLE `cron` ADD COLUMN `since` bigint NOT NULL DEFAULT '0' COMMENT 'first second at which this definition was there';
-- unless log.run_key
ALTER TABLE `log` ADD COLUMN `run_key` varchar(96) CHARACTER SET ascii COLLATE ascii_bin DEFAULT NULL;
-- unless log.attempt
ALTER TABLE `log` ADD COLUMN `attempt` int DEFAULT NULL;
-- unless log.state
ALTER TABLE `log` ADD COLUMN `state` varchar(16) DEFAULT NULL;
-- unless log.exit_code
ALTER TABLE `log` ADD COLUMN `exit_code` int DEFAULT NULL;
-- unless log.start_time
ALTER TABLE `log` ADD COLUMN `start_time` bigint DEFAULT NULL COMMENT 'ms';
-- unless log.version
ALTER TABLE `log` ADD COLUMN `version` bigint unsigned DEFAULT NULL;
