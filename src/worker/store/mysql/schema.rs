//! The tables in MySQL: migrations on an empty database, on either of the older system's variants, and on our own.
//!
//! Migrations only add, so a node of the previous version goes on working beside us. What takes long on a large log is
//! done beside the work, on a connection of its own.
//!
//! Invariant: applied twice, or by two nodes at once, they do what they do once.

use mysql::prelude::Queryable;
use mysql::{Conn, OptsBuilder};
use std::borrow::Cow;

/// In order; the number of a file is its place here, from 1.
const MIGRATIONS: [&str; 4] = [
    include_str!("../../../../sql/mysql/0001_seed_tables.sql"),
    include_str!("../../../../sql/mysql/0002_columns.sql"),
    include_str!("../../../../sql/mysql/0003_scheduler.sql"),
    include_str!("../../../../sql/mysql/0004_control.sql"),
];
/// Up to so many rows (as the server estimates) a log is altered at once.
const SMALL_LOG_ROWS: u64 = 100_000;
/// The keys of `log` that are ours.
const LOG_KEYS: [(&str, &str); 2] = [
    ("run_key_attempt", "ADD UNIQUE KEY `run_key_attempt` (`run_key`, `attempt`)"),
    ("cron_id_id", "ADD KEY `cron_id_id` (`cron_id`, `id`)"),
];
/// For each table the column that tells whether its texts are narrow, and what widens them.
const WIDEN_TEXTS: [(&str, &str, &str); 2] = [
    (
        "cron",
        "command",
        "ALTER TABLE `cron` MODIFY `command` varchar(2048) CHARACTER SET utf8mb4 NOT NULL DEFAULT '' COMMENT '定时任务执行的命令', \
         MODIFY `remark` varchar(1024) CHARACTER SET utf8mb4 NOT NULL DEFAULT '' COMMENT '定时任务的备注信息', \
         MODIFY `work_dir` varchar(1024) CHARACTER SET utf8mb4 NOT NULL DEFAULT '', \
         MODIFY `env` varchar(2048) CHARACTER SET utf8mb4 NOT NULL DEFAULT '' COMMENT 'JSON object'",
    ),
    (
        "log",
        "output",
        "ALTER TABLE `log` MODIFY `output` longtext CHARACTER SET utf8mb4 NOT NULL COMMENT '执行命令输出'",
    ),
];

/// What of the log table matters when rows are written.
#[derive(Clone, Copy, Debug)]
pub struct LogTable {
    pub has_unique_key: bool,
    pub charset: Charset,
}

/// Which characters column `log.output` can hold.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Charset {
    /// utf8mb4: all of them.
    All,
    /// utf8: those of up to three bytes.
    ThreeBytes,
    /// Anything else: ASCII is sure.
    Ascii,
}

impl Charset {
    pub fn of(name: &str) -> Charset {
        match name {
            "utf8mb4" => Charset::All,
            "utf8" | "utf8mb3" => Charset::ThreeBytes,
            _ => Charset::Ascii,
        }
    }

    pub fn holds(self, character: char) -> bool {
        match self {
            Charset::All => true,
            Charset::ThreeBytes => character.len_utf8() <= 3,
            Charset::Ascii => character.is_ascii(),
        }
    }
}

impl LogTable {
    /// The text as the column can hold it, and no longer than `bytes_max`.
    pub fn storable<'a>(&self, text: &'a str, bytes_max: usize) -> Cow<'a, str> {
        let holds = |character: char| self.charset.holds(character);
        let substitute = if self.charset == Charset::Ascii { '?' } else { '\u{fffd}' };
        let text = match text.chars().all(holds) {
            true => Cow::Borrowed(text),
            false => Cow::Owned(
                text.chars().map(|character| if holds(character) { character } else { substitute }).collect(),
            ),
        };
        if text.len() <= bytes_max {
            return text;
        }
        let end = text.floor_char_boundary(bytes_max);
        Cow::Owned(format!(
            "{}\n[... {} bytes left out: max_allowed_packet is too small ...]\n",
            &text[..end],
            text.len() - end
        ))
    }
}

pub fn log_table(conn: &mut Conn) -> mysql::Result<LogTable> {
    let charset: Option<Option<String>> = conn.query_first(
        "SELECT character_set_name FROM information_schema.columns
         WHERE table_schema = DATABASE() AND table_name = 'log' AND column_name = 'output'",
    )?;
    let charset = Charset::of(charset.flatten().as_deref().unwrap_or_default());
    Ok(LogTable { has_unique_key: has_key(conn, LOG_KEYS[0].0)?, charset })
}

/// Brings the tables up to date. Answers what the operator should know. `own` connects anew, for what takes long.
pub fn migrate(conn: &mut Conn, own: OptsBuilder) -> mysql::Result<Vec<String>> {
    // One node at a time; the lock is the connection's, so it cannot be left behind.
    let got: Option<Option<u8>> = conn.query_first("SELECT GET_LOCK(CONCAT('wing-crontab ', DATABASE()), 5)")?;
    if got.flatten() != Some(1) {
        return Err(mysql::Error::IoError(std::io::Error::other("another node is applying the migrations")));
    }
    let result = migrate_locked(conn, own);
    conn.query_drop("SELECT RELEASE_LOCK(CONCAT('wing-crontab ', DATABASE()))")?;
    result
}

fn migrate_locked(conn: &mut Conn, own: OptsBuilder) -> mysql::Result<Vec<String>> {
    // Asked first: a user who may only read and write can start on tables that are up to date.
    if !has_column(conn, "schema_migration", "id")? {
        conn.query_drop(
            "CREATE TABLE IF NOT EXISTS schema_migration (id int NOT NULL PRIMARY KEY, applied_at timestamp NOT NULL \
             DEFAULT CURRENT_TIMESTAMP) ENGINE=InnoDB",
        )?;
    }
    let applied: Option<Option<usize>> = conn.query_first("SELECT MAX(id) FROM schema_migration")?;
    let applied = applied.flatten().unwrap_or(0);
    for (at, migration) in MIGRATIONS.iter().enumerate().skip(applied) {
        for statement in statements(migration) {
            if let Some((table, column)) = statement.unless
                && has_column(conn, table, column)?
            {
                continue;
            }
            conn.query_drop(statement.sql)?;
        }
        conn.exec_drop("INSERT INTO schema_migration (id) VALUES (?)", (at + 1,))?;
    }
    let rows: Option<Option<u64>> = conn.query_first(
        "SELECT table_rows FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = 'log'",
    )?;
    let is_small = rows.flatten().unwrap_or(0) <= SMALL_LOG_ROWS;
    let mut advice = Vec::new();
    widen_log_id(conn, is_small, &mut advice)?;
    add_log_keys(conn, own, is_small)?;
    // Only whoever has migrated says it: at every start it would be noise.
    if applied < MIGRATIONS.len() {
        advice.extend(narrow_columns(conn)?);
    }
    Ok(advice)
}

struct Statement<'a> {
    /// Left out where this column is there.
    unless: Option<(&'a str, &'a str)>,
    sql: &'a str,
}

fn statements(migration: &str) -> impl Iterator<Item = Statement<'_>> {
    migration.split_inclusive(";\n").filter_map(|text| {
        let unless = text.lines().find_map(|line| line.strip_prefix("-- unless "));
        let sql = text.split_inclusive('\n').skip_while(|line| line.starts_with("--")).map(str::len).sum::<usize>();
        let sql = text[text.len() - sql..].trim();
        (!sql.is_empty()).then(|| Statement { unless: unless.and_then(|name| name.trim().split_once('.')), sql })
    })
}

/// An INT is used up after 24 days at 1,000 runs a second.
fn widen_log_id(conn: &mut Conn, is_small: bool, advice: &mut Vec<String>) -> mysql::Result<()> {
    if column_type(conn, "log", "id")?.is_none_or(|kind| kind == "bigint") {
        return Ok(());
    }
    const WIDEN: &str = "ALTER TABLE `log` MODIFY `id` bigint(20) NOT NULL AUTO_INCREMENT";
    if is_small {
        return conn.query_drop(WIDEN);
    }
    advice.push(format!(
        "log.id is an INT and ends at 2147483647; the table is large, so widen it yourself at a quiet hour (it is locked meanwhile): {WIDEN}"
    ));
    Ok(())
}

fn add_log_keys(conn: &mut Conn, own: OptsBuilder, is_small: bool) -> mysql::Result<()> {
    let mut missing = Vec::new();
    for (name, add) in LOG_KEYS {
        if !has_key(conn, name)? {
            missing.push(add);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    if is_small {
        return conn.query_drop(format!("ALTER TABLE `log` {}", missing.join(", ")));
    }
    let build = move || {
        let patient = own.read_timeout(None);
        for add in missing {
            log::info!("a key of table log is being built: {add}");
            let sql = format!("ALTER TABLE `log` {add}, ALGORITHM=INPLACE, LOCK=NONE");
            match Conn::new(patient.clone()).and_then(|mut conn| conn.query_drop(sql)) {
                Ok(()) => log::info!("the key is built"),
                Err(error) => log::error!("build a key of table log: {error}; it is tried again at the next start"),
            }
        }
    };
    std::thread::Builder::new().name("log-keys".into()).spawn(build).map(drop).map_err(mysql::Error::IoError)
}

/// Columns that cannot hold every character, and what mends that. The whole table is not converted: its keys are to stay
/// as they are, case and all.
fn narrow_columns(conn: &mut Conn) -> mysql::Result<Option<String>> {
    let mut narrow: Vec<(String, &str)> = Vec::new();
    for (table, column, widen) in WIDEN_TEXTS {
        let charset: Option<Option<String>> = conn.exec_first(
            "SELECT character_set_name FROM information_schema.columns
             WHERE table_schema = DATABASE() AND table_name = ? AND column_name = ?",
            (table, column),
        )?;
        narrow.extend(charset.flatten().filter(|charset| charset != "utf8mb4").map(|charset| (charset, widen)));
    }
    let Some((charset, _)) = narrow.first() else { return Ok(None) };
    let statements: Vec<&str> = narrow.iter().map(|(_, widen)| *widen).collect();
    Ok(Some(format!(
        "this database uses {charset}, which has no place for characters such as emoji: they are replaced in outputs and refused in \
         commands (this is said once). What mends it, locks each table while it lasts, and counts from the next start: {}",
        statements.join("; ")
    )))
}

fn has_column(conn: &mut Conn, table: &str, column: &str) -> mysql::Result<bool> {
    Ok(column_type(conn, table, column)?.is_some())
}

fn column_type(conn: &mut Conn, table: &str, column: &str) -> mysql::Result<Option<String>> {
    conn.exec_first(
        "SELECT data_type FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = ? AND column_name = ?",
        (table, column),
    )
}

fn has_key(conn: &mut Conn, name: &str) -> mysql::Result<bool> {
    let sql = "SELECT 1 FROM information_schema.statistics WHERE table_schema = DATABASE() AND table_name = 'log' AND index_name = ? LIMIT 1";
    Ok(conn.exec_first::<u8, _, _>(sql, (name,))?.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_migration_is_taken_apart_into_its_statements() {
        let counts = MIGRATIONS.map(|migration| statements(migration).count());
        assert_eq!(counts, [2, 12, 2, 15]);
        let guards = statements(MIGRATIONS[1]).filter(|statement| statement.unless.is_some()).count();
        assert_eq!(guards, 12);
        assert!(statements(MIGRATIONS[1]).all(|statement| statement.sql.starts_with("ALTER TABLE")));
    }

    #[track_caller]
    fn check(charset: Charset, text: &str, bytes_max: usize, expect: &str) {
        assert_eq!(LogTable { has_unique_key: true, charset }.storable(text, bytes_max), expect);
    }

    #[test]
    fn a_text_is_made_to_fit_its_column() {
        check(Charset::All, "a中😀", 100, "a中😀");
        check(Charset::ThreeBytes, "a中😀", 100, "a中\u{fffd}");
        check(Charset::Ascii, "a中😀", 100, "a??");
        check(Charset::All, "中中", 5, "中\n[... 3 bytes left out: max_allowed_packet is too small ...]\n");
    }
}
