//! What whoever started us left to us must not come to the commands: signals blocked or ignored, and descriptors open.
//!
//! Not a change of what we do ourselves: a signal that was ignored is handled by doing nothing, and a handler, unlike
//! being ignored, ends with exec. SIGPIPE is left alone: Rust ignores it in every program, and std gives it back to
//! whatever it starts.

use rustix::io::{FdFlags, fcntl_setfd};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, RawFd};

/// Signals that come again at once when a handler returns: the instruction or the write that they are about is
/// repeated. Those go back to their default.
const REPEATED: [i32; 8] = [
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGSEGV,
    libc::SIGSYS,
    libc::SIGTRAP,
    libc::SIGTTIN,
    libc::SIGTTOU,
];

/// Sees to it that nothing is handed on. Called while there is one thread.
pub fn end_inheritance() {
    unblock_signals();
    let done =
        ignored_signals().map(|ignored| ignored.into_iter().for_each(stop_ignoring)).and_then(|()| close_on_exec());
    if let Err(error) = done {
        log::warn!("keep what we inherited from commands: {error}");
    }
}

fn unblock_signals() {
    let mut none = MaybeUninit::uninit();
    // SAFETY: sigemptyset makes the set whole, and it is only read after that.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
}

fn ignored_signals() -> io::Result<Vec<i32>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    let is_ignored = |signal: &i32| mask.unwrap_or(0) & 1 << (signal - 1) != 0 && *signal != libc::SIGPIPE;
    Ok((1..=64).filter(is_ignored).collect())
}

fn stop_ignoring(signal: i32) {
    extern "C" fn do_nothing(_: libc::c_int) {}
    let handler = do_nothing as *const () as libc::sighandler_t;
    let action = if REPEATED.contains(&signal) { libc::SIG_DFL } else { handler };
    // SAFETY: the handler does nothing, so there is nothing in it that a handler may not do. The C library refuses
    // those that it keeps for itself; posix_spawn leaves these ignored in every child, and the child's library sets
    // them anew.
    unsafe { libc::signal(signal, action) };
}

fn close_on_exec() -> io::Result<()> {
    let names: Vec<_> = std::fs::read_dir("/proc/self/fd")?.flatten().map(|entry| entry.file_name()).collect();
    let numbers = names.iter().filter_map(|name| name.to_str()?.parse::<RawFd>().ok());
    for number in numbers.filter(|number| 2 < *number) {
        // SAFETY: only a flag of the number is set; nothing is read, written or closed by it. The folder's own, closed
        // by now, is refused with an error.
        let _ = fcntl_setfd(unsafe { BorrowedFd::borrow_raw(number) }, FdFlags::CLOEXEC);
    }
    Ok(())
}
