-- The columns that control a job's runs, and the keys by which a repeated request is known.
-- unless cron.misfire
ALTER TABLE `cron` ADD COLUMN `misfire` varchar(8) NOT NULL DEFAULT 'all' COMMENT 'all, once or skip: ticks that were not handled in their second';
-- unless cron.on_lost
ALTER TABLE `cron` ADD COLUMN `on_lost` varchar(8) NOT NULL DEFAULT 'skip' COMMENT 'skip or rerun';
-- unless cron.max_parallel
ALTER TABLE `cron` ADD COLUMN `max_parallel` int NOT NULL DEFAULT '0' COMMENT 'runs at one time, 0 no limit';
-- unless cron.timeout
ALTER TABLE `cron` ADD COLUMN `timeout` int NOT NULL DEFAULT '0' COMMENT 'seconds, 0 no limit';
-- unless cron.retry_times
ALTER TABLE `cron` ADD COLUMN `retry_times` int NOT NULL DEFAULT '0' COMMENT 'attempts after one that failed';
-- unless cron.retry_delay
ALTER TABLE `cron` ADD COLUMN `retry_delay` int NOT NULL DEFAULT '0' COMMENT 'seconds before the first of them, doubling';
-- unless cron.run_as
ALTER TABLE `cron` ADD COLUMN `run_as` varchar(64) NOT NULL DEFAULT '' COMMENT 'user';
-- unless cron.work_dir
ALTER TABLE `cron` ADD COLUMN `work_dir` varchar(1024) NOT NULL DEFAULT '';
-- unless cron.env
ALTER TABLE `cron` ADD COLUMN `env` varchar(2048) NOT NULL DEFAULT '' COMMENT 'JSON object';
-- unless cron.shell
ALTER TABLE `cron` ADD COLUMN `shell` varchar(255) NOT NULL DEFAULT '' COMMENT 'gets -c COMMAND';
-- unless cron.node
ALTER TABLE `cron` ADD COLUMN `node` varchar(255) NOT NULL DEFAULT '' COMMENT 'the only server, or a label';
-- unless cron.jitter
ALTER TABLE `cron` ADD COLUMN `jitter` int NOT NULL DEFAULT '0' COMMENT 'seconds';
-- unless cron.request_key
ALTER TABLE `cron` ADD COLUMN `request_key` varchar(255) CHARACTER SET ascii COLLATE ascii_bin DEFAULT NULL COMMENT 'of the request that added it', ADD UNIQUE KEY `request_key` (`request_key`);
-- unless journal.request_key
ALTER TABLE `journal` ADD COLUMN `request_key` varchar(255) CHARACTER SET ascii COLLATE ascii_bin DEFAULT NULL COMMENT 'of the request that asked for it', ADD UNIQUE KEY `request_key` (`request_key`);
-- unless scheduler.paused
ALTER TABLE `scheduler` ADD COLUMN `paused` tinyint NOT NULL DEFAULT '0' COMMENT '1: no scheduled run';
