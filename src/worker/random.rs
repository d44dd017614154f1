//! Random numbers of the system.
//!
//! Not the keys of a link: those are made where they are used, by the library that uses them.
//!
//! Invariant: what comes from here was given to nobody else.

use std::io;

/// So many random bytes, in hex digits.
pub fn hex<const BYTES: usize>() -> io::Result<String> {
    let mut bytes = [0_u8; BYTES];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
