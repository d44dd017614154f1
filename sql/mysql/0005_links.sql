-- The secret of the links between nodes that are given no cluster_secret. The first node that starts makes it.
CREATE TABLE IF NOT EXISTS `link_secret` (
  `id` tinyint NOT NULL,
  `secret` varchar(64) NOT NULL COMMENT 'hex digits',
  PRIMARY KEY (`id`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
