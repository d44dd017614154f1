//! The tables in MySQL. The migrations work on an empty database, on both variants of the older system's tables, and on
//! tables of an earlier version of this program.
//!
//! Migrations only add, so a node of the previous version goes on working on the same tables. A key of a large log
//! takes long to build: that has a thread and a connection of its own, and nothing waits for it.
//!
//! Not here: the reading and writing of rows.
//!
//! Invariant: migrations that are applied twice, or by two nodes at once, have the same result as when applied once.

use mysql::prelude::Queryable;
use mysql::{Conn, OptsBuilder};
use std::borrow::Cow;

/// The migrations, in order; the number in a file's name is its position here, from 1.
const MIGRATIONS: &[&str] = &[
    include_str!("../../../../sql/mysql/0001_tables.sql"),
    include_str!("../../../../sql/mysql/0002_columns.sql"),
    include_str!("../../../../sql/mysql/0003_scheduler.sql"),
    include_str!("../../../../sql/mysql/0004_control.sql"),
    include_str!("../../../../sql/mysql/0005_links.sql"),
    include_str!("../../../../sql/mysql/0006_usage.sql"),
];
/// A table with at most so many rows (by the server's estimate) is altered during the start: that takes seconds.
const SMALL_ROWS: u64 = 100_000;
/// The columns whose types are too small in older tables. An INT id of `log` lasts for 24 days at 1,000 runs a second;
/// a time in an INT or TIMESTAMP ends in 2038.
const WIDE: [(&str, &[Wide]); 3] = [
    (
        "log",
        &[
            Wide { column: "id", kind: "bigint", definition: "bigint(20) NOT NULL AUTO_INCREMENT" },
            Wide {
                column: "dispatch_time",
                kind: "bigint",
                definition: "bigint(20) NOT NULL DEFAULT '0' COMMENT '分发时间'",
            },
        ],
    ),
    (
        "cron",
        &[
            Wide {
                column: "start_time",
                kind: "bigint",
                definition: "bigint(20) NOT NULL DEFAULT '0' COMMENT '大于等于此时间才执行，默认0'",
            },
            Wide {
                column: "end_time",
                kind: "bigint",
                definition: "bigint(20) NOT NULL DEFAULT '0' COMMENT '小于此时间才执行，默认0不限'",
            },
        ],
    ),
    (
        "schema_migration",
        &[Wide { column: "applied_at", kind: "datetime", definition: "datetime NOT NULL DEFAULT CURRENT_TIMESTAMP" }],
    ),
];
/// The server's errors where a user may not alter a table.
const DENIED: [u16; 3] = [1044, 1142, 1227];
/// The keys that this program adds to table `log`.
const LOG_KEYS: [(&str, &str); 2] = [
    ("run_key_attempt", "ADD UNIQUE KEY `run_key_attempt` (`run_key`, `attempt`)"),
    ("cron_id_id", "ADD KEY `cron_id_id` (`cron_id`, `id`)"),
];
/// For each table, a column by whose charset the table is judged, and the statement that widens the table's texts.
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

/// A column with the type that it must have.
struct Wide {
    column: &'static str,
    /// The type's name, as information_schema has it.
    kind: &'static str,
    /// The definition behind the column's name in an ALTER TABLE.
    definition: &'static str,
}

/// The properties of table `log` that matter to a writer of rows.
#[derive(Clone, Copy, Debug)]
pub struct LogTable {
    /// The key of run and attempt is built.
    pub has_unique_key: bool,
    /// That of column `output`.
    pub charset: Charset,
}

/// The charset of a column, by the characters that it can hold.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Charset {
    /// utf8mb4: all of them.
    All,
    /// utf8: those of up to three bytes.
    ThreeBytes,
    /// Any other charset: only ASCII is certain.
    Ascii,
}

impl Charset {
    /// The charset of this name.
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
    /// The text as the column can hold it: other characters are replaced, and bytes beyond `bytes_max` are cut off,
    /// with a remark instead.
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

/// Reads the properties of table `log`.
pub fn log_table(conn: &mut Conn) -> mysql::Result<LogTable> {
    let charset: Option<Option<String>> = conn.query_first(
        "SELECT character_set_name FROM information_schema.columns
         WHERE table_schema = DATABASE() AND table_name = 'log' AND column_name = 'output'",
    )?;
    let charset = Charset::of(charset.flatten().as_deref().unwrap_or_default());
    Ok(LogTable { has_unique_key: has_key(conn, LOG_KEYS[0].0)?, charset })
}

/// Brings the tables up to date. Answers messages for the operator. Keys that take long to build are built on a
/// connection of their own, made with `own`.
pub fn migrate(conn: &mut Conn, own: OptsBuilder) -> mysql::Result<Vec<String>> {
    // One node at a time. The server frees the lock when the connection ends, so a dead node cannot keep it.
    let got: Option<Option<u8>> = conn.query_first("SELECT GET_LOCK(CONCAT('wing-crontab ', DATABASE()), 5)")?;
    if got.flatten() != Some(1) {
        return Err(mysql::Error::IoError(std::io::Error::other("another node is applying the migrations")));
    }
    let result = migrate_locked(conn, own);
    conn.query_drop("SELECT RELEASE_LOCK(CONCAT('wing-crontab ', DATABASE()))")?;
    result
}

fn migrate_locked(conn: &mut Conn, own: OptsBuilder) -> mysql::Result<Vec<String>> {
    // CREATE needs a right even where the table exists, and a user without it may start on tables that are up to date.
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
    // Only the node that migrated says it: at every start it would be noise.
    if applied < MIGRATIONS.len() {
        advice.extend(narrow_columns(conn)?);
    }
    Ok(advice)
}

struct Statement<'a> {
    /// The statement is left out where this column (table, column) exists.
    unless: Option<(&'a str, &'a str)>,
    sql: &'a str,
}

/// The statements of a migration. A line `-- unless TABLE.COLUMN` stands above a statement that is left out where that
/// column exists.
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

/// Whether a column may have too small a type.
pub fn may_be_narrow(table: &str, column: &str) -> bool {
    WIDE.iter().any(|(name, columns)| *name == table && columns.iter().any(|wide| wide.column == column))
}

/// The statement that widens the columns of a table whose types are too small; none where it has no such column.
pub fn widening(conn: &mut Conn, table: &str) -> mysql::Result<Option<String>> {
    let mut narrow = Vec::new();
    let columns = WIDE.iter().filter(|(name, _)| *name == table).flat_map(|(_, columns)| *columns);
    for Wide { column, kind, definition } in columns {
        if column_type(conn, table, column)?.is_some_and(|found| found != *kind) {
            narrow.push(format!("MODIFY `{column}` {definition}"));
        }
    }
    Ok((!narrow.is_empty()).then(|| format!("ALTER TABLE `{table}` {}", narrow.join(", "))))
}

/// Widens a small table. Where the table is large, or the user may not alter it, answers how the operator can.
fn widen(conn: &mut Conn, table: &str) -> mysql::Result<Option<String>> {
    let Some(statement) = widening(conn, table)? else { return Ok(None) };
    let why_not = match is_small(conn, table)? {
        true => match conn.query_drop(&statement) {
            Err(mysql::Error::MySqlError(error)) if DENIED.contains(&error.code) => error.message,
            altered => return altered.map(|()| None),
        },
        false => "it is large, and would be locked meanwhile".into(),
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
            log::info!("building a key of table log: {add}");
            let sql = format!("ALTER TABLE `log` {add}, ALGORITHM=INPLACE, LOCK=NONE");
            match Conn::new(patient.clone()).and_then(|mut conn| conn.query_drop(sql)) {
                Ok(()) => log::info!("built a key of table log: {add}"),
                Err(error) => log::error!("build a key of table log: {error}; it is tried again at the next start"),
            }
        }
    };
    #[expect(clippy::disallowed_methods, reason = "it takes hours, and nobody waits for it")]
    std::thread::Builder::new().name("log-keys".into()).spawn(build).map(drop).map_err(mysql::Error::IoError)
}

/// A message where columns cannot hold every character, with the statements that widen them. They do not convert whole
/// tables, because that would change the collation of the keys.
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
        "this database uses {charset}, which cannot hold characters such as emoji: they are replaced in outputs and refused in \
         commands (this is said once). These statements mend it; they lock each table while they run, and count from the next \
         start: {}",
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
    fn every_migration_is_split_into_its_statements() {
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
