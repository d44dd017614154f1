//! Table `link_secret`: the secret of the links between the nodes that share the database, where they are given none.
//! Whoever may read it may write the jobs as well.
//!
//! Not its use: links are the reactor's.
//!
//! Invariant: all nodes get the same secret, however many of them start at once on a new database.

use super::outcome::Outcome;
use crate::core::io::ports::StoreError;
use crate::model::config::Secret;
use crate::worker::random;
use mysql::Conn;
use mysql::prelude::Queryable;

const KEPT: &str = "SELECT secret FROM link_secret WHERE id = 1";

/// The secret; made where there is none.
pub fn link_secret(conn: &mut Conn) -> Outcome<Secret> {
    if let Some(kept) = conn.query_first(KEPT)? {
        return Ok(Secret(kept));
    }
    let made = random::hex::<32>().map_err(|error| StoreError::Away(format!("make the secret of links: {error}")))?;
    // Another node may be quicker: its secret stays.
    conn.exec_drop("INSERT IGNORE INTO link_secret (id, secret) VALUES (1, ?)", (made,))?;
    let kept: Option<String> = conn.query_first(KEPT)?;
    Ok(Secret(kept.ok_or_else(|| StoreError::Away("the secret of links was not stored; it is made again".into()))?))
}
