-- The tables of the embedded store. Names and meanings are those of the MySQL ones (see ../mysql).
CREATE TABLE cron (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  cron_set TEXT NOT NULL DEFAULT '',
  start_time INTEGER NOT NULL DEFAULT 0,
  end_time INTEGER NOT NULL DEFAULT 0,
  command TEXT NOT NULL DEFAULT '',
  is_mutex INTEGER NOT NULL DEFAULT 0,
  stop INTEGER NOT NULL DEFAULT 0,
  remark TEXT NOT NULL DEFAULT '',
  lock_limit INTEGER NOT NULL DEFAULT 0,
  version INTEGER NOT NULL DEFAULT 1,
  since INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE log (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  cron_id INTEGER NOT NULL DEFAULT 0,
  time INTEGER NOT NULL,
  output TEXT NOT NULL,
  use_time INTEGER NOT NULL,
  dispatch_time INTEGER NOT NULL DEFAULT 0,
  dispatch_server TEXT NOT NULL DEFAULT '',
  run_server TEXT NOT NULL DEFAULT '',
  run_key TEXT,
  attempt INTEGER,
  state TEXT,
  exit_code INTEGER,
  start_time INTEGER,
  version INTEGER,
  UNIQUE (run_key, attempt)
);
CREATE INDEX log_by_cron ON log (cron_id, id);
CREATE INDEX log_by_time ON log (time);
CREATE TABLE scheduler (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  lock_key TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  leader TEXT NOT NULL,
  node_id TEXT NOT NULL
);
CREATE TABLE journal (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  epoch INTEGER NOT NULL,
  request INTEGER NOT NULL,
  tick INTEGER,
  part INTEGER NOT NULL DEFAULT 0,
  node_id TEXT NOT NULL,
  body TEXT NOT NULL,
  done INTEGER NOT NULL DEFAULT 0,
  created_at INTEGER NOT NULL,
  UNIQUE (tick, part),
  UNIQUE (epoch, request)
);
CREATE INDEX journal_open ON journal (done, id);
