//! Tests that concern MySQL only: the older system's tables, narrow character sets, a server that goes away.

mod support;

use mysql::prelude::Queryable;
use support::mariadb::{self, Database};
use wing_crontab::core::io::ports::{Bump, Change, StoreError};
use wing_crontab::model::command::RequestKey;
use wing_crontab::model::config::{MysqlConfig, Secret};
use wing_crontab::model::log_row::LogFilter;
use wing_crontab::model::{Attempt, Job, JobId, LogRow, NodeId, RunKey, RunState, Second, Server, Version};
use wing_crontab::worker::store::mysql::MysqlStore;
use wing_crontab::worker::store::{Hand, Store};

/// The tables as the older system's README has them.
const OLDER_CRON: &str = "CREATE TABLE `cron` (
 `id` int(11) NOT NULL AUTO_INCREMENT COMMENT '自增id',
 `cron_set` varchar(128) NOT NULL DEFAULT '' COMMENT '定时任务配置，如：* * * * * *，这里精确到秒，前面的意思是每秒执行一次，分别对应，秒分时日月周',
 `start_time` int(11) NOT NULL DEFAULT '0' COMMENT '大于等于此时间才执行，默认0',
 `end_time` int(11) NOT NULL DEFAULT '0' COMMENT '小于此时间才执行，默认0不限',
 `command` varchar(2048) NOT NULL DEFAULT '' COMMENT '定时任务执行的命令',
 `stop` tinyint(4) NOT NULL DEFAULT '0' COMMENT '1停止执行，0非，0为默认值',
 `remark` varchar(1024) NOT NULL DEFAULT '' COMMENT '定时任务的备注信息',
 PRIMARY KEY (`id`)
) ENGINE=InnoDB AUTO_INCREMENT=1184 DEFAULT CHARSET=utf8";
/// The same table for a cluster, by the same README: with is_mutex and lock_limit, without start_time and end_time.
const CLUSTER_CRON: &str = "CREATE TABLE `cron` (
 `id` int(11) NOT NULL AUTO_INCREMENT COMMENT '自增id',
 `cron_set` varchar(128) NOT NULL DEFAULT '' COMMENT '定时任务配置，如：* * * * * *，这里精确到秒，前面的意思是每秒执行一次，分别对应，秒分时日月周',
 `command` varchar(2048) NOT NULL DEFAULT '' COMMENT '定时任务执行的命令',
 `is_mutex` tinyint(4) NOT NULL DEFAULT '0' COMMENT '是否需要互斥运行，1互斥，0非互斥，默认为0，非互斥，即可并发运行',
 `stop` tinyint(4) NOT NULL DEFAULT '0' COMMENT '1停止执行，0非，0为默认值',
 `remark` varchar(1024) NOT NULL DEFAULT '' COMMENT '定时任务的备注信息',
 `lock_limit` int(11) NOT NULL DEFAULT '0' COMMENT '最长锁定时长，单位为秒',
 PRIMARY KEY (`id`)
) ENGINE=InnoDB AUTO_INCREMENT=5 DEFAULT CHARSET=utf8";
const OLDER_LOG: &str = "CREATE TABLE `log` (
 `id` int(11) NOT NULL AUTO_INCREMENT,
 `cron_id` int(11) NOT NULL DEFAULT '0',
 `time` bigint(20) NOT NULL COMMENT '命令运行的时间',
 `output` longtext NOT NULL COMMENT '执行命令输出',
 `use_time` bigint(20) NOT NULL COMMENT '执行命令耗时，单位为毫秒',
 `dispatch_time` int(11) NOT NULL DEFAULT '0' COMMENT '分发时间',
 `dispatch_server` varchar(1024) NOT NULL DEFAULT '' COMMENT '调度server',
 `run_server` varchar(1024) NOT NULL DEFAULT '' COMMENT '该命令在那个节点上被执行（服务器）',
 PRIMARY KEY (`id`)
) ENGINE=InnoDB AUTO_INCREMENT=6649189 DEFAULT CHARSET=utf8";

fn store(database: &Database) -> MysqlStore {
    MysqlStore::new(&database.config(), Hand::Lead)
}

fn row(id: u32, output: &str) -> LogRow {
    LogRow {
        attempt: Attempt { run: RunKey::scheduled(JobId(id), Second(1_700_000_000)), number: 1 },
        version: Version(1),
        state: RunState::Ok,
        exit_code: Some(0),
        output: output.into(),
        start_time_ms: 0,
        use_time_ms: 0,
        usage: Default::default(),
        dispatch_time: Second(0),
        dispatch_server: Server::default(),
        run_server: Server::default(),
    }
}

fn outputs(store: &mut MysqlStore) -> Vec<String> {
    let filter = LogFilter { page: 1, limit: 100, ..LogFilter::default() };
    store.list_logs(&filter).unwrap().rows.into_iter().map(|row| row.output).collect()
}

#[test]
fn either_variant_of_the_older_systems_tables_is_taken_as_it_is() {
    for (cron, window) in [(OLDER_CRON, "start_time, "), (CLUSTER_CRON, "")] {
        let Some(database) = mariadb::database() else { return };
        let columns = format!("INSERT INTO cron (id, cron_set, {window}command) VALUES");
        let value = if window.is_empty() { "" } else { "77, " };
        database.run(&[
            cron,
            OLDER_LOG,
            &format!("{columns} (1538, '*/1 * * * * *', {value}'php -v')"),
            "INSERT INTO log (cron_id, time, output, use_time) VALUES (1538, 1526772008, '旧', 48)",
        ]);
        let mut store = store(&database);
        let advice = store.open().unwrap().advice;
        assert!(advice.len() == 1 && advice[0].contains("utf8mb4"), "{advice:?}");
        let jobs = store.list_jobs().unwrap();
        assert_eq!((jobs[0].id, jobs[0].command.as_str(), jobs[0].version), (JobId(1538), "php -v", Version(1)));
        assert_eq!(jobs[0].start_time, if window.is_empty() { 0 } else { 77 });
        assert_eq!((jobs[0].is_mutex, jobs[0].stop, jobs[0].lock_limit, jobs[0].since), (false, false, 0, Second(0)));
        assert_eq!(outputs(&mut store), ["旧"]);
        // The older system's own statements still work on the tables.
        database.run(&[
            "INSERT INTO log (cron_id, time, output, use_time, dispatch_time, dispatch_server, run_server) VALUES (1, 2, '', 3, 4, 'a', 'b')",
            "INSERT INTO cron (cron_set, command, stop, remark) VALUES ('* * * * * *', 'true', 0, '')",
        ]);
        assert_eq!(store.list_jobs().unwrap().len(), 2);
        let kind: String = database
            .connect()
            .query_first("SELECT data_type FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = 'log' AND column_name = 'id'")
            .unwrap()
            .unwrap();
        assert_eq!(kind, "bigint", "the small table's INT was widened");
        let id: i64 = database.connect().query_first("SELECT MAX(id) FROM log").unwrap().unwrap();
        assert_eq!(id, 6_649_190, "numbering goes on");
    }
}

/// 2100-01-01: no INT holds it.
const LATE: i64 = 4_102_444_800;

/// The columns with a time or with the id of a log row whose types are too small.
fn narrow_columns(database: &Database) -> Vec<String> {
    let sql = "SELECT CONCAT(table_name, '.', column_name) FROM information_schema.columns WHERE table_schema = DATABASE() AND
               data_type IN ('int', 'timestamp') AND (column_name LIKE '%time' OR column_name IN ('time', 'since', 'tick', 'applied_at')
               OR table_name = 'log' AND column_name = 'id') ORDER BY 1";
    database.connect().query(sql).unwrap()
}

/// Adds a job that begins in 2100.
fn add_late(store: &mut MysqlStore, request: u64) -> Result<JobId, StoreError> {
    let bump = Bump {
        lock_key: "key".into(),
        server: Server::default(),
        node_id: NodeId("a".into()),
        alone: false,
        lease_ms: 10_000,
    };
    let epoch = store.bump(&bump).unwrap().epoch;
    let late = Job { cron_set: "@daily".into(), command: "true".into(), start_time: LATE, ..Job::default() };
    store.change(epoch, request, &Change::Add(late, RequestKey(request.to_string())))
}

/// Stores a job and a log row of the year 2100, and reads them back.
#[track_caller]
fn holds_late_times(store: &mut MysqlStore) {
    let id = add_late(store, 7).unwrap();
    assert!(store.list_jobs().unwrap().iter().any(|job| job.id == id && job.start_time == LATE));
    store.write_logs(&[LogRow { dispatch_time: Second(LATE), ..row(id.0, "late") }]).unwrap();
    let filter = LogFilter { cron_id: Some(id), page: 1, limit: 1, ..LogFilter::default() };
    assert_eq!(store.list_logs(&filter).unwrap().rows[0].dispatch_time, LATE);
}

/// The statement that a piece of advice ends with.
fn statement(advice: &[String], start: &str) -> String {
    let at = |text: &String| text.find(start).map(|at| text[at..].to_string());
    advice.iter().find_map(at).unwrap_or_else(|| panic!("nothing says {start:?}: {advice:?}"))
}

#[test]
fn new_tables_and_small_ones_of_either_older_variant_hold_times_after_2038() {
    for tables in [&[][..], &[OLDER_CRON, OLDER_LOG], &[CLUSTER_CRON, OLDER_LOG]] {
        let Some(database) = mariadb::database() else { return };
        database.run(tables);
        let mut store = store(&database);
        store.open().unwrap();
        assert_eq!(narrow_columns(&database), [""; 0]);
        holds_late_times(&mut store);
        // The older system's own statements still work on the tables.
        database.run(&["INSERT INTO log (cron_id, time, output, use_time, dispatch_time) VALUES (1, 2, '', 3, 4)"]);
    }
}

#[test]
fn a_large_table_takes_no_time_after_2038_until_it_is_widened_as_the_daemon_says() {
    let Some(database) = mariadb::database() else { return };
    database.run(&[
        OLDER_CRON,
        OLDER_LOG,
        "INSERT INTO cron (cron_set, command) SELECT '@daily', 'true' FROM seq_1_to_150000",
        "INSERT INTO log (cron_id, time, output, use_time) SELECT 1, seq, '', 0 FROM seq_1_to_150000",
        "ANALYZE TABLE cron",
        "ANALYZE TABLE log",
    ]);
    let mut store = store(&database);
    let advice = store.open().unwrap().advice;
    assert_eq!(narrow_columns(&database), ["cron.end_time", "cron.start_time", "log.dispatch_time", "log.id"]);
    let refused = add_late(&mut store, 1).unwrap_err();
    assert!(matches!(&refused, StoreError::Permanent(why) if why.starts_with("start_time: 4102444800")), "{refused}");
    assert!(format!("{refused}").contains("ALTER TABLE `cron` MODIFY `start_time` bigint"), "{refused}");
    let notes: u64 = database.connect().query_first("SELECT COUNT(*) FROM journal").unwrap().unwrap();
    assert_eq!(notes, 0, "the journal has no note of it");
    let late = LogRow { dispatch_time: Second(LATE), ..row(7, "late") };
    store.write_logs(&[late]).unwrap();
    assert!(outputs(&mut store).contains(&"late".into()), "whatever a column cannot hold, the row is kept");
    database.run(&[&statement(&advice, "ALTER TABLE `cron` MODIFY"), &statement(&advice, "ALTER TABLE `log` MODIFY")]);
    assert_eq!(narrow_columns(&database), [""; 0]);
    holds_late_times(&mut store);
}

#[test]
fn a_user_who_may_not_widen_a_column_works_on_and_is_told_the_statement() {
    let Some(database) = mariadb::database() else { return };
    store(&database).open().unwrap();
    database.run(&[
        "ALTER TABLE log MODIFY dispatch_time int(11) NOT NULL DEFAULT '0'",
        &format!("CREATE USER '{}'@'127.0.0.1' IDENTIFIED BY 'x'", database.name),
        &format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {0}.* TO '{0}'@'127.0.0.1'", database.name),
    ]);
    let config = MysqlConfig { user: database.name.clone(), password: Secret("x".into()), ..database.config() };
    let mut poor = MysqlStore::new(&config, Hand::Lead);
    let advice = poor.open().unwrap().advice;
    assert!(advice[0].contains("denied"), "{advice:?}");
    poor.write_logs(&[row(9, "written")]).unwrap();
    database.run(&[&statement(&advice, "ALTER TABLE `log` MODIFY `dispatch_time`")]);
    holds_late_times(&mut poor);
}

#[test]
fn the_nodes_that_share_a_database_share_the_secret_of_their_links_and_no_others_do() {
    let (Some(database), Some(another)) = (mariadb::database(), mariadb::database()) else { return };
    let secret_of = |database: &Database| store(database).open().unwrap().link_secret.unwrap();
    secret_of(&database);
    database.run(&["DELETE FROM link_secret"]);
    // All of them find that there is none, as on a new database.
    let secrets: Vec<Secret> = std::thread::scope(|scope| {
        let opening: Vec<_> = (0..8).map(|_| scope.spawn(|| secret_of(&database))).collect();
        opening.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(secrets[0].0.len(), 64);
    assert!(secrets.iter().all(|secret| *secret == secrets[0]), "one secret");
    assert_eq!(secret_of(&database), secrets[0], "it is kept");
    assert_ne!(secret_of(&another), secrets[0]);
}

#[test]
fn a_database_that_is_not_there_is_made() {
    let Some(mut database) = mariadb::database() else { return };
    database.name = format!("{}-new", database.name);
    store(&database).open().unwrap();
    assert_eq!(store(&database).list_jobs().unwrap(), []);
}

#[test]
fn a_large_log_gets_its_keys_beside_the_work_and_its_rows_are_upserted_meanwhile() {
    let Some(database) = mariadb::database() else { return };
    database.run(&[
        OLDER_CRON,
        OLDER_LOG,
        "INSERT INTO log (cron_id, time, output, use_time) SELECT 1, seq, '', 0 FROM seq_1_to_150000",
        "ANALYZE TABLE log",
    ]);
    let mut store = store(&database);
    let advice = store.open().unwrap().advice;
    assert!(advice.iter().any(|text| text.contains("ALTER TABLE `log` MODIFY `id` bigint")), "{advice:?}");
    // Whether the keys are there yet or not, a row is written once.
    store.write_logs(&[LogRow { state: RunState::Lost, ..row(7, "lost") }]).unwrap();
    store.write_logs(&[row(7, "true end")]).unwrap();
    store.write_logs(&[row(7, "too late")]).unwrap();
    let keys = "SELECT COUNT(DISTINCT index_name) FROM information_schema.statistics
                WHERE table_schema = DATABASE() AND table_name = 'log' AND index_name IN ('run_key_attempt', 'cron_id_id')";
    support::wait_until("both keys are built", || database.connect().query_first::<u8, _>(keys).unwrap() == Some(2));
    store.write_logs(&[row(7, "too late")]).unwrap();
    let filter = LogFilter { cron_id: Some(JobId(7)), page: 1, limit: 10, ..LogFilter::default() };
    let rows = store.list_logs(&filter).unwrap().rows;
    assert_eq!(rows.iter().map(|row| row.output.as_str()).collect::<Vec<_>>(), ["true end"]);
}

#[test]
fn characters_that_a_column_cannot_hold_are_replaced_and_the_row_is_kept() {
    for (charset, expect) in [("utf8", "a中\u{fffd}"), ("latin1", "a??"), ("utf8mb4", "a中😀")] {
        let Some(database) = mariadb::database() else { return };
        let tables = [OLDER_CRON, OLDER_LOG].map(|table| table.replace("CHARSET=utf8", &format!("CHARSET={charset}")));
        // Comments in Chinese do not matter here.
        database.run(&[&tables[0], &tables[1]]);
        let mut store = store(&database);
        store.open().unwrap();
        store.write_logs(&[row(1, "a中😀")]).unwrap();
        assert_eq!(outputs(&mut store), [expect]);
    }
}

/// Adds a job; `store` takes the lead for it.
fn add(store: &mut MysqlStore, command: &str) -> Result<JobId, StoreError> {
    let bump = Bump {
        lock_key: "key".into(),
        server: Server::default(),
        node_id: NodeId("a".into()),
        alone: false,
        lease_ms: 10_000,
    };
    let epoch = store.bump(&bump)?.epoch;
    let job = Job { cron_set: "* * * * * *".into(), command: command.into(), remark: command.into(), ..Job::default() };
    store.change(epoch, 1, &Change::Add(job, RequestKey(format!("{}.1", epoch.0))))
}

#[test]
fn narrow_tables_are_told_of_once_with_the_statements_that_mend_them() {
    for (charset, tables) in [("utf8", [OLDER_CRON, OLDER_LOG]), ("latin1", [CLUSTER_CRON, OLDER_LOG])] {
        let Some(database) = mariadb::database() else { return };
        let [cron, log] = tables.map(|table| table.replace("CHARSET=utf8", &format!("CHARSET={charset}")));
        database.run(&[&cron, &log]);
        let advice = store(&database).open().unwrap().advice;
        assert!(advice.len() == 1 && advice[0].contains(charset), "{advice:?}");
        assert_eq!(store(&database).open().unwrap().advice, Vec::<String>::new(), "not at the next start");
        let statements =
            advice[0].split_once("ALTER TABLE `cron` ").unwrap().1.split_once("; ALTER TABLE `log` ").unwrap();
        let keys = "SELECT GROUP_CONCAT(column_name, column_type, is_nullable, collation_name, column_comment) FROM information_schema.columns
                    WHERE table_schema = DATABASE() AND column_name IN ('run_key', 'request_key')";
        let keys = || database.connect().query_first::<String, _>(keys).unwrap();
        let before = keys();
        database
            .run(&[&format!("ALTER TABLE `cron` {}", statements.0), &format!("ALTER TABLE `log` {}", statements.1)]);
        assert_eq!(keys(), before, "keys go on telling a from A");
        let mut store = store(&database);
        assert_eq!(store.open().unwrap().advice, Vec::<String>::new());
        add(&mut store, "echo 😀中").unwrap();
        assert_eq!(store.list_jobs().unwrap()[0].remark, "echo 😀中");
        store.write_logs(&[row(1, "a中😀")]).unwrap();
        assert_eq!(outputs(&mut store), ["a中😀"]);
    }
}

#[test]
fn a_command_that_a_column_cannot_hold_is_refused_and_nothing_is_changed() {
    let Some(database) = mariadb::database() else { return };
    database.run(&[OLDER_CRON, OLDER_LOG]);
    let mut store = store(&database);
    store.open().unwrap();
    let refused = add(&mut store, "echo 😀").unwrap_err();
    assert!(matches!(&refused, StoreError::Permanent(why) if why.starts_with("command: '😀'")), "{refused}");
    assert_eq!(store.list_jobs().unwrap(), []);
    let notes: u64 = database.connect().query_first("SELECT COUNT(*) FROM journal").unwrap().unwrap();
    assert_eq!(notes, 0, "the journal has no note of it");
}

#[test]
fn a_server_that_goes_away_and_comes_back_is_found_again() {
    let Some(mut server) = mariadb::server() else { return };
    let database = server.database("utf8mb4");
    let mut store = store(&database);
    store.open().unwrap();
    store.write_logs(&[row(1, "before")]).unwrap();
    server.stop(true);
    let away = store.write_logs(&[row(2, "meanwhile")]).unwrap_err();
    assert!(matches!(away, StoreError::Unavailable(_) | StoreError::Away(_)), "{away:?}");
    let away = store.write_logs(&[row(2, "meanwhile")]).unwrap_err();
    assert!(matches!(&away, StoreError::Away(why) if why.contains("connect to MySQL at 127.0.0.1")), "{away:?}");
    server.start();
    store.write_logs(&[row(2, "after")]).unwrap();
    assert_eq!(outputs(&mut store), ["after", "before"]);
}

#[test]
fn the_password_is_in_no_error() {
    let Some(database) = mariadb::database() else { return };
    let config = MysqlConfig { password: Secret("not-its-password".into()), ..database.config() };
    let error = MysqlStore::new(&config, Hand::Lead).open().unwrap_err();
    let text = format!("{error} {error:?} {config:?}");
    assert!(text.contains("Access denied") && !text.contains("not-its-password"), "{text}");
}

#[test]
fn a_user_who_may_only_read_and_write_can_work_on_tables_that_are_up_to_date() {
    let Some(database) = mariadb::database() else { return };
    store(&database).open().unwrap();
    database.run(&[
        &format!("CREATE USER '{}'@'127.0.0.1' IDENTIFIED BY 'x'", database.name),
        &format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {0}.* TO '{0}'@'127.0.0.1'", database.name),
    ]);
    let config = MysqlConfig { user: database.name.clone(), password: Secret("x".into()), ..database.config() };
    let mut store = MysqlStore::new(&config, Hand::Lead);
    store.open().unwrap();
    store.write_logs(&[row(1, "written")]).unwrap();
    assert_eq!(outputs(&mut store), ["written"]);
}

#[test]
fn a_read_that_takes_too_long_is_ended_by_the_server_and_says_what_to_do() {
    let Some(database) = mariadb::database() else { return };
    store(&database).open().unwrap();
    store(&database).write_logs(&[row(1, "one"), row(2, "two")]).unwrap();
    // A view instead of the table makes the read as slow as on a large log.
    database.run(&[
        "RENAME TABLE log TO log_rows",
        "CREATE VIEW log AS SELECT log_rows.*, SLEEP(20) AS slow FROM log_rows WHERE SLEEP(20) = 0",
    ]);
    let mut reader = MysqlStore::new(&database.config(), Hand::Reader);
    let filter = LogFilter { page: 1, limit: 10, ..LogFilter::default() };
    let error = reader.list_logs(&filter).unwrap_err();
    assert!(matches!(&error, StoreError::Away(why) if why.contains("narrow it")), "{error}");
}
