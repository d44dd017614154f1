-- The leader (scheduler), and the decisions of the leaders (journal).
CREATE TABLE IF NOT EXISTS `scheduler` (
  `id` tinyint NOT NULL,
  `lock_key` varchar(255) NOT NULL,
  `epoch` bigint unsigned NOT NULL,
  `leader` varchar(255) NOT NULL COMMENT 'bind_address',
  `node_id` varchar(64) NOT NULL,
  PRIMARY KEY (`id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE TABLE IF NOT EXISTS `journal` (
  `id` bigint NOT NULL AUTO_INCREMENT,
  `epoch` bigint unsigned NOT NULL,
  `request` bigint unsigned NOT NULL COMMENT 'counts the entries of one epoch',
  `tick` bigint DEFAULT NULL COMMENT 'the second that the entry handles',
  `part` int NOT NULL DEFAULT '0' COMMENT 'a tick is whole once part 0 is in',
  `node_id` varchar(64) NOT NULL COMMENT 'of the leader',
  `body` longtext NOT NULL,
  `done` tinyint NOT NULL DEFAULT '0',
  `created_at` bigint NOT NULL COMMENT 'ms, by the clock of the database',
  PRIMARY KEY (`id`),
  UNIQUE KEY `tick_part` (`tick`, `part`),
  UNIQUE KEY `epoch_request` (`epoch`, `request`),
  KEY `done_id` (`done`, `id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
