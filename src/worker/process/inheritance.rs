//! The end of what the daemon inherits: blocked signals, ignored signals and open descriptors of the program that
//! started the daemon must not come to its commands.
//!
//! Not a change for the daemon itself: a signal that it ignored gets a handler that does nothing, and exec takes
//! handlers away, but not ignored signals. SIGPIPE stays ignored, as Rust sets it, and std resets it in every child.
//!
//! Invariant: a command starts with no blocked signal, no ignored signal, and no descriptor above 2.

use rustix::io::{FdFlags, fcntl_setfd};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, RawFd};

/// Signals that get their default again instead of a handler. When a handler returns, the instruction or the write that
/// caused the signal is repeated, so the signal would come for ever.
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

/// Signals that would end a process which has no handler for them, and that tell this program nothing: somebody sent them
/// by mistake, or a limit was reached (the write behind SIGXFSZ then fails, and is reported).
const SURVIVED: [i32; 9] = [
    libc::SIGALRM,
    libc::SIGIO,
    libc::SIGPROF,
    libc::SIGPWR,
    libc::SIGSTKFLT,
    libc::SIGUSR2,
    libc::SIGVTALRM,
    libc::SIGXCPU,
    libc::SIGXFSZ,
];

/// Lets this process survive signals that it has no use for. Commands have the default again, because exec sets it.
pub fn survive_signals() {
    SURVIVED.into_iter().chain(libc::SIGRTMIN()..=libc::SIGRTMAX()).for_each(stop_ignoring);
}

/// Ends the inheritance. To be called while there is one thread, because a mask of blocked signals is a thread's.
pub fn end_inheritance() {
    unblock_signals();
    let done =
        ignored_signals().map(|ignored| ignored.into_iter().for_each(stop_ignoring)).and_then(|()| close_on_exec());
    if let Err(error) = done {
        log::warn!("keep ignored signals and open descriptors from commands: {error}; commands may inherit some");
    }
}

fn unblock_signals() {
    let mut none = MaybeUninit::uninit();
    // SAFETY: sigemptyset initializes the set, which is read only after that.
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
    // SAFETY: the handler does nothing, so it does nothing that a handler may not do. The C library refuses the signals
    // that it keeps for itself, which a child's library sets anew.
    unsafe { libc::signal(signal, action) };
}

fn close_on_exec() -> io::Result<()> {
    let names: Vec<_> = std::fs::read_dir("/proc/self/fd")?.flatten().map(|entry| entry.file_name()).collect();
    let numbers = names.iter().filter_map(|name| name.to_str()?.parse::<RawFd>().ok());
    for number in numbers.filter(|number| 2 < *number) {
        // SAFETY: this only sets a flag of the descriptor; nothing is read, written or closed. The descriptor by which
        // the folder was read is closed by now, and refused with an error.
        let _ = fcntl_setfd(unsafe { BorrowedFd::borrow_raw(number) }, FdFlags::CLOEXEC);
    }
    Ok(())
}
