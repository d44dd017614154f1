//! What whoever started us left to us must not come to the commands: signals blocked or ignored, and descriptors open.
//!
//! Not a change of what we do ourselves: a signal that was ignored is handled by doing nothing, and a handler, unlike
//! being ignored, ends with exec. SIGPIPE is left alone: Rust ignores it in every program, and std gives it back to
//! whatever it starts.

use rustix::io::{FdFlags, fcntl_setfd};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, RawFd};

/// Signals that come again at once when a handler returns: the instruction or the write that they are about is repeated.
/// Those go back to their default.
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
    (1..=libc::SIGRTMAX()).filter(|signal| *signal != libc::SIGPIPE).for_each(stop_ignoring);
    if let Err(error) = close_on_exec() {
        log::warn!("keep inherited descriptors from commands: {error}");
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

fn stop_ignoring(signal: i32) {
    extern "C" fn do_nothing(_: libc::c_int) {}
    // SAFETY: zeroes are a sigaction (no flags, an empty mask), and it outlives the calls. The handler does nothing, so
    // there is nothing in it that a handler may not do. A number that may not be handled (KILL, STOP, the C library's
    // own) is refused by the first call.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        let is_known = libc::sigaction(signal, std::ptr::null(), &mut action) == 0;
        if is_known && action.sa_sigaction == libc::SIG_IGN {
            action.sa_sigaction =
                if REPEATED.contains(&signal) { libc::SIG_DFL } else { do_nothing as *const () as libc::sighandler_t };
            action.sa_flags = libc::SA_RESTART;
            libc::sigaction(signal, &action, std::ptr::null_mut());
        }
    }
}

fn close_on_exec() -> io::Result<()> {
    let names: Vec<_> = std::fs::read_dir("/proc/self/fd")?.flatten().map(|entry| entry.file_name()).collect();
    let numbers = names.iter().filter_map(|name| name.to_str()?.parse::<RawFd>().ok());
    for number in numbers.filter(|number| 2 < *number) {
        // SAFETY: only a flag of the number is set; nothing is read, written or closed by it. The folder's own, closed by
        // now, is refused with an error.
        let _ = fcntl_setfd(unsafe { BorrowedFd::borrow_raw(number) }, FdFlags::CLOEXEC);
    }
    Ok(())
}
