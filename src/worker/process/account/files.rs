//! A user, and the users and groups in /etc/passwd and /etc/group.
//!
//! Not other directories: those are asked of `getent`.
//!
//! Invariant: no account has 4294967295 (minus one) as its user or group.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;

pub const PASSWD: &str = "/etc/passwd";
pub const GROUP: &str = "/etc/group";

/// A user that a command may run as.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Account {
    pub name: OsString,
    pub uid: u32,
    pub gid: u32,
    /// All of its groups, `gid` among them.
    pub groups: Vec<u32>,
    pub home: OsString,
}

/// The user of this name, else of this number; its own group is its only one.
pub fn account(user: &str) -> Result<Option<Account>, String> {
    Ok(find(user.as_bytes(), &read(PASSWD)?))
}

/// The groups in which the user is a member.
pub fn groups(user: &[u8]) -> Result<Vec<u32>, String> {
    Ok(members(user, &read(GROUP)?))
}

/// A file that is missing is empty: a host may have all its users elsewhere.
fn read(path: &str) -> Result<Vec<u8>, String> {
    match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read.map_err(|error| format!("read {path}: {error}")),
    }
}

fn find(user: &[u8], passwd: &[u8]) -> Option<Account> {
    let accounts = || lines(passwd).filter_map(account_of);
    let by_name = accounts().find(|account| account.name.as_bytes() == user);
    by_name.or_else(|| {
        let uid = number(user)?;
        accounts().find(|account| account.uid == uid)
    })
}

fn members(user: &[u8], group: &[u8]) -> Vec<u32> {
    lines(group).filter_map(|line| member_of(line, user)).collect()
}

fn lines(text: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    text.split(|byte| *byte == b'\n').map(|line| line.split(|byte| *byte == b':').collect())
}

/// The account of a line of /etc/passwd: `name:password:uid:gid:comment:home:shell`.
pub fn account_of(fields: Vec<&[u8]>) -> Option<Account> {
    let [name, _, uid, gid, _, home, _] = fields[..] else { return None };
    let gid = number(gid)?;
    let text = |bytes: &[u8]| OsStr::from_bytes(bytes).to_owned();
    (!name.is_empty()).then_some(Account {
        name: text(name),
        uid: number(uid)?,
        gid,
        groups: vec![gid],
        home: text(home),
    })
}

/// The number of the group in a line of /etc/group (`name:password:gid:member,member`), where the user is a member.
fn member_of(fields: Vec<&[u8]>, user: &[u8]) -> Option<u32> {
    let [_, _, gid, members] = fields[..] else { return None };
    members.split(|byte| *byte == b',').any(|member| member == user).then(|| number(gid))?
}

/// A number that may be a user's or a group's.
pub fn number(text: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    text.parse().ok().filter(|number| *number != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &[u8] = b"root:x:0:0:root:/root:/bin/bash\n\
        # a comment: with a colon\n\
        +::::::\n\
        alice:x:1000:100:Alice,,,:/home/alice:/bin/sh\n\
        1000:x:1001:1001::/home/number:\n\
        minus:x:4294967295:7::/:\n\
        minus_group:x:7:4294967295::/:\n\
        large:x:4294967296:7::/:\n\
        signed:x:+0:-1::/:\n\
        nothing:x::::/:\n\
        short:x:5:5\n\
        caf\xe9:x:1002:1002::/caf\xe9:/bin/sh\n\
        alice:x:0:0:a second one:/:/bin/sh";
    const GROUPS: &[u8] = b"root:x:0:\nusers:x:100:alice\nwheel:x:10:bob,alice\nbob:x:11:bob\nal:x:12:alic,alicea\n\
        bad:x:-1:alice\nlast:x:13:alice";

    #[track_caller]
    fn check(user: &str, expect: Option<(u32, u32, &[u32], &str)>) {
        let found = find(user.as_bytes(), USERS);
        let groups = found.as_ref().map(|account| members(account.name.as_bytes(), GROUPS)).unwrap_or_default();
        let found = found
            .as_ref()
            .map(|account| (account.uid, account.gid, &groups[..], account.home.to_str().expect("these are UTF-8")));
        assert_eq!(found, expect);
    }

    #[test]
    fn a_user_is_found_with_all_groups_by_name_and_else_by_number() {
        check("root", Some((0, 0, &[], "/root")));
        check("alice", Some((1_000, 100, &[100, 10, 13], "/home/alice")));
        check("1001", Some((1_001, 1_001, &[], "/home/number")));
        check("1000", Some((1_001, 1_001, &[], "/home/number")));
        check("0", Some((0, 0, &[], "/root")));
    }

    #[test]
    fn a_name_without_a_line_or_with_a_malformed_one_is_not_found() {
        for user in ["bob", "", "ali", "alice:x", "+", "# a comment", "1003", "4294967295", "-1", "+0", " 0"] {
            check(user, None);
        }
        for user in ["minus", "minus_group", "large", "signed", "nothing", "short"] {
            check(user, None);
        }
        assert_eq!(find(b"alice", b""), None);
    }

    #[test]
    fn a_name_may_be_other_bytes_than_utf_8() {
        assert_eq!(find(b"caf\xe9", USERS).map(|account| account.groups), Some(vec![1_002]));
        assert_eq!(members(b"caf\xe9", b"more:x:14:caf\xe9"), [14]);
    }
}
