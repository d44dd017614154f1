//! Tries with a wrong token: counted by address, and slowed.
//!
//! Invariants: an address that guesses gets at most some tries a minute; the table has a limit, and an address of it that has
//! not tried for the longest time makes room for a new one.

use crate::model::Mono;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Tries that cost nothing: people mistype.
const FREE_TRIES: u32 = 5;
const WAIT_SECS_MAX: u64 = 60;
/// An address that has not failed for so long begins anew.
const FORGET_MS: u64 = 600_000;
const ADDRESSES_MAX: usize = 4_096;

#[derive(Debug, Default)]
pub struct FailedTries {
    by_address: BTreeMap<IpAddr, Failed>,
    count: u64,
}

#[derive(Debug)]
struct Failed {
    tries: u32,
    last_at: Mono,
    /// Until when further tries are refused unread.
    wait_until: Mono,
}

impl FailedTries {
    pub fn count(&self) -> u64 {
        self.count
    }

    /// How long this address has to wait before its next try; 1 s or more.
    pub fn must_wait_secs(&self, address: IpAddr, now: Mono) -> Option<u64> {
        let failed = self.by_address.get(&network_of(address))?;
        let left = failed.wait_until.since(now);
        (!left.is_zero()).then(|| left.as_millis().div_ceil(1_000) as u64)
    }

    pub fn failed(&mut self, address: IpAddr, now: Mono) {
        self.count += 1;
        let address = network_of(address);
        if ADDRESSES_MAX <= self.by_address.len() && !self.by_address.contains_key(&address) {
            let oldest = self.by_address.iter().min_by_key(|(_, failed)| failed.last_at).map(|(address, _)| *address);
            oldest.and_then(|oldest| self.by_address.remove(&oldest));
        }
        let failed = self.by_address.entry(address).or_insert(Failed { tries: 0, last_at: now, wait_until: now });
        if failed.last_at.plus_ms(FORGET_MS) <= now {
            failed.tries = 0;
        }
        failed.tries += 1;
        failed.last_at = now;
        let excess = failed.tries.saturating_sub(FREE_TRIES);
        if 0 < excess {
            let wait_secs = 1_u64.checked_shl(excess - 1).unwrap_or(WAIT_SECS_MAX).min(WAIT_SECS_MAX);
            failed.wait_until = now.plus_ms(wait_secs * 1_000);
        }
    }

    pub fn succeeded(&mut self, address: IpAddr) {
        self.by_address.remove(&network_of(address));
    }
}

/// One host has a whole /64 of IPv6 addresses to try from.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 64 << 64).into()),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_guesses_is_slowed_and_no_other() {
        let (guesser, other): (IpAddr, IpAddr) = ("2001:db8::1".parse().unwrap(), "192.0.2.1".parse().unwrap());
        let mut tries = FailedTries::default();
        let mut now = Mono(1_000_000);
        (0..FREE_TRIES).for_each(|_| tries.failed(guesser, now));
        assert_eq!(tries.must_wait_secs(guesser, now), None);
        let mut waits = Vec::new();
        for _ in 0..8 {
            tries.failed("2001:db8::2".parse().unwrap(), now);
            let wait_secs = tries.must_wait_secs(guesser, now).unwrap();
            waits.push(wait_secs);
            now = now.plus_ms(wait_secs * 1_000);
            assert_eq!(tries.must_wait_secs(guesser, now), None);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(tries.must_wait_secs(other, now), None);
        tries.failed(guesser, now.plus_ms(FORGET_MS));
        assert_eq!(tries.must_wait_secs(guesser, now.plus_ms(FORGET_MS)), None, "forgotten");
        assert_eq!(tries.count(), 14);
    }

    #[test]
    fn the_table_has_a_limit() {
        let mut tries = FailedTries::default();
        for at in 0..=ADDRESSES_MAX as u32 {
            tries.failed(IpAddr::V4(at.into()), Mono(u64::from(at)));
        }
        assert_eq!(tries.by_address.len(), ADDRESSES_MAX);
        assert!(!tries.by_address.contains_key(&IpAddr::V4(0.into())), "the oldest made room");
    }
}
