//! The tables in MySQL: migrations on an empty database, on either of the older system's variants, and on our own.
//!
//! Migrations only add, so a node of the previous version goes on working beside us. What takes long on a large log is
//! done beside the work, on a connection of its own.
//!
//! Invariant: applied twice, or by two nodes at once, they do what they do once.

use mysql::prelude::Queryable;
use mysql::{Conn, OptsBuilder};
use std::borrow::Cow;

/// In order; the number of a file is its position here, from 1.
const MIGRATIONS: &[&str] = &[
    include_str!("../../../../sql/mysql/0001_tables.sql"),
    include_str!("../../../../sql/mysql/0002_columns.sql"),
    include_str!("../../../../sql/mysql/0003_scheduler.sql"),
    include_str!("../../../../sql/mysql/0004_control.sql"),
];
/// Up to so many rows (as the server estimates) a table is altered at once.
const SMALL_ROWS: u64 = 100_000;
/// Columns that once ended too early, table by table: ids after 24 days at 1,000 runs a second, times in 2038.
const WIDE: [(&str, &[Wide]); 3] = [
    (
        "log",
        &[
            Wide { column: "id", kind: "bigint", rest: "bigint(20) NOT NULL AUTO_INCREMENT" },
            Wide {
                column: "dispatch_time",
                kind: "bigint",
                rest: "bigint(20) NOT NULL DEFAULT '0' COMMENT '分发时间'",
            },
        ],
    ),
    (
        "cron",
        &[
            Wide {
                column: "start_time",
                kind: "bigint",
                rest: "bigint(20) NOT NULL DEFAULT '0' COMMENT '大于等于此时间才执行，默认0'",
            },
            Wide {
                column: "end_time",
                kind: "bigint",
                rest: "bigint(20) NOT NULL DEFAULT '0' COMMENT '小于此时间才执行，默认0不限'",
            },
        ],
    ),
    (
        "schema_migration",
        &[Wide { column: "applied_at", kind: "datetime", rest: "datetime NOT NULL DEFAULT CURRENT_TIMESTAMP" }],
    ),
];
/// What the server says to a user who may not alter a table.
const DENIED: [u16; 3] = [1044, 1142, 1227];
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

/// A column as wide as it must be.
struct Wide {
    column: &'static str,
    kind: &'static str,
    rest: &'static str,
}

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
            "CREATE TABLE IF NOT EXISTS schema_migration (id int NOT NULL PRIMARY KEY, applied_at datetime NOT NULL \
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
    let mut advice = Vec::new();
    for (table, _) in WIDE {
        advice.extend(widen(conn, table)?);
    }
    add_log_keys(conn, own)?;
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

fn is_small(conn: &mut Conn, table: &str) -> mysql::Result<bool> {
    let sql = "SELECT table_rows FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = ?";
    let rows: Option<Option<u64>> = conn.exec_first(sql, (table,))?;
    Ok(rows.flatten().unwrap_or(0) <= SMALL_ROWS)
}

/// Whether a column may end too early.
pub fn ends_early(table: &str, column: &str) -> bool {
    WIDE.iter().any(|(name, columns)| *name == table && columns.iter().any(|wide| wide.column == column))
}

/// The statement that widens what ends too early in a table; none where nothing does.
pub fn widening(conn: &mut Conn, table: &str) -> mysql::Result<Option<String>> {
    let mut narrow = Vec::new();
    for Wide { column, kind, rest } in WIDE.iter().filter(|(name, _)| *name == table).flat_map(|(_, columns)| *columns)
    {
        if column_type(conn, table, column)?.is_some_and(|found| found != *kind) {
            narrow.push(format!("MODIFY `{column}` {rest}"));
        }
    }
    Ok((!narrow.is_empty()).then(|| format!("ALTER TABLE `{table}` {}", narrow.join(", "))))
}

/// Widens a small table. Of another one, or where that is denied, answers how to.
fn widen(conn: &mut Conn, table: &str) -> mysql::Result<Option<String>> {
    let Some(statement) = widening(conn, table)? else { return Ok(None) };
    let why_not = match is_small(conn, table)? {
        true => match conn.query_drop(&statement) {
            Err(mysql::Error::MySqlError(error)) if DENIED.contains(&error.code) => error.message,
            altered => return altered.map(|()| None),
        },
        false => "it is large, and locked meanwhile".into(),
    };
    Ok(Some(format!(
        "table {table} has columns that end at 2147483647, or as times in 2038, and was not widened ({why_not}); do it \
         yourself, at a quiet hour: {statement}"
    )))
}

fn add_log_keys(conn: &mut Conn, own: OptsBuilder) -> mysql::Result<()> {
    let mut missing = Vec::new();
    for (name, add) in LOG_KEYS {
        if !has_key(conn, name)? {
            missing.push(add);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    if is_small(conn, "log")? {
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
    #[expect(clippy::disallowed_methods, reason = "it takes hours, and nobody waits for it")]
    std::thread::Builder::new().name("log-keys".into()).spawn(build).map(drop).map_err(mysql::Error::IoError)
}

/// Columns that cannot hold every character, and what mends that. The whole table is not converted: its keys are to
/// stay as they are, case and all.
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
        let counts: Vec<usize> = MIGRATIONS.iter().map(|migration| statements(migration).count()).collect();
        assert_eq!(counts[..4], [2, 12, 2, 15]);
        let guards = statements(MIGRATIONS[1]).filter(|statement| statement.unless.is_some()).count();
        assert_eq!(guards, 12);
        assert!(statements(MIGRATIONS[1]).all(|statement| statement.sql.starts_with("ALTER TABLE")));
        let mut added = MIGRATIONS.iter().flat_map(|migration| statements(migration));
        assert!(added.all(|statement| statement.unless.is_some() || !statement.sql.contains(" ADD COLUMN ")));
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
