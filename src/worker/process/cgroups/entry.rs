//! Starting a program inside a control group: the kernel makes the process there (clone3 with CLONE_INTO_CGROUP), so it
//! has no moment in which it could start others outside.
//!
//! std cannot do that: its posix_spawn knows no groups, and a fork of a large daemon is slow. As posix_spawn does, the
//! child borrows the memory of the daemon, and the thread that starts it waits until the child has become its program.
//!
//! Not here: which program, and in which group.
//!
//! Invariants: the child calls nothing that allocates, locks or can panic; where the program cannot be executed, there is
//! no process left.

use super::super::program::Program;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ffi::{CString, OsStr, c_char, c_int, c_void};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicI32, Ordering};

/// The child has a stack of its own until it executes its program.
const STACK_BYTES: usize = 64 << 10;
const STACK_ALIGN: usize = 16;
/// From linux/sched.h, where they are longer than the `int` that libc gives flags.
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// What a child exits with that could not become its program. Nobody sees it.
const NOT_EXECUTED: c_int = 127;

/// `struct clone_args` of linux/sched.h.
#[repr(C)]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// What the child works with: made before it is there.
struct Beginning {
    path: *const c_char,
    arguments: *const *const c_char,
    environment: *const *const c_char,
    input: c_int,
    output: c_int,
    /// Why the program could not be executed; 0 while it could.
    error: AtomicI32,
}

/// Whether this build can start a program inside a group.
pub const IS_THERE: bool = cfg!(any(target_arch = "x86_64", target_arch = "aarch64"));

/// Starts the program inside the group of this folder, as the leader of a new process group, with these two descriptors
/// as its input and its outputs. Answers its pid. Waits until the program is executed: about a millisecond.
pub fn start(program: &Program, input: impl AsFd, output: impl AsFd, group: BorrowedFd) -> io::Result<u32> {
    let path = text(program.path.as_os_str())?;
    let arguments = [&program.name].into_iter().chain(&program.arguments).map(|argument| text(argument));
    let arguments = arguments.collect::<io::Result<Vec<CString>>>()?;
    let pair = |(name, value): (&std::ffi::OsString, &std::ffi::OsString)| {
        text(OsStr::from_bytes(&[name.as_bytes(), b"=", value.as_bytes()].concat()))
    };
    let environment = program.environment.iter().map(pair).collect::<io::Result<Vec<CString>>>()?;
    let (arguments, environment) = (list(&arguments), list(&environment));
    let beginning = Beginning {
        path: path.as_ptr(),
        arguments: arguments.as_ptr(),
        environment: environment.as_ptr(),
        input: input.as_fd().as_raw_fd(),
        output: output.as_fd().as_raw_fd(),
        error: AtomicI32::new(0),
    };
    let pid = make(&beginning, group)?;
    match beginning.error.load(Ordering::Relaxed) {
        0 => Ok(pid as u32),
        error => {
            let mut status = 0;
            // SAFETY: it waits for the child that was just made and is nobody else's; the status is ours.
            unsafe { libc::waitpid(pid, &mut status, 0) };
            Err(io::Error::from_raw_os_error(error))
        }
    }
}

fn text(text: &OsStr) -> io::Result<CString> {
    Ok(CString::new(text.as_bytes())?)
}

fn list(texts: &[CString]) -> Vec<*const c_char> {
    texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
}

/// Makes the process, and waits until it has executed its program or ended.
fn make(beginning: &Beginning, group: BorrowedFd) -> io::Result<libc::pid_t> {
    let mut stack = Vec::<u8>::with_capacity(STACK_BYTES + STACK_ALIGN);
    let bottom = stack.as_mut_ptr() as usize;
    let bottom = bottom.next_multiple_of(STACK_ALIGN);
    let arguments = CloneArguments {
        // Its handlers are the daemon's, and must not run in it.
        flags: (libc::CLONE_VM | libc::CLONE_VFORK) as u64 | CLONE_CLEAR_SIGHAND | CLONE_INTO_CGROUP,
        exit_signal: libc::SIGCHLD as u64,
        stack: bottom as u64,
        stack_size: STACK_BYTES as u64,
        cgroup: group.as_raw_fd() as u64,
        ..CloneArguments::default()
    };
    // SAFETY: `begin` never returns and has a stack of its own; `beginning`, all that it points to, and the stack live
    // until the child has left our memory, because CLONE_VFORK keeps this thread here until then. `begin` is as careful
    // as its invariant says: no other thread of ours stands still meanwhile.
    let made = unsafe { clone3(&arguments, begin, std::ptr::from_ref(beginning).cast()) };
    match i32::try_from(made) {
        Ok(pid) if 0 < pid => Ok(pid),
        Ok(error) => Err(io::Error::from_raw_os_error(-error)),
        Err(_) => Err(io::ErrorKind::Other.into()),
    }
}

/// The child: it becomes its program, or notes why not and ends.
extern "C" fn begin(beginning: *const c_void) -> ! {
    // SAFETY: `make` passed it, and waits as long as this reads it. Each call is one system call without memory of its
    // own; what it changes (group, descriptors, mask, dispositions) is this process's alone. The C library's errno is
    // that of the waiting thread.
    unsafe {
        let beginning = &*beginning.cast::<Beginning>();
        libc::setpgid(0, 0);
        libc::dup2(beginning.input, 0);
        libc::dup2(beginning.output, 1);
        libc::dup2(beginning.output, 2);
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        let mut none = std::mem::MaybeUninit::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
        libc::execve(beginning.path, beginning.arguments, beginning.environment);
        beginning.error.store(*libc::__errno_location(), Ordering::Relaxed);
        libc::_exit(NOT_EXECUTED)
    }
}

/// The system call. Answers the child's pid, or a negative error number. The C libraries have no function for it, and a
/// child on another stack cannot return to its caller: so these lines are the machine's own.
///
/// # Safety
///
/// As `make` says.
#[cfg(target_arch = "x86_64")]
unsafe fn clone3(
    arguments: &CloneArguments,
    begin: extern "C" fn(*const c_void) -> !,
    beginning: *const c_void,
) -> isize {
    let made: isize;
    // SAFETY: in the parent it is a system call like any other; the child goes to `begin` and never comes back.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r13",
            "call r12",
            "2:",
            inlateout("rax") libc::SYS_clone3 as isize => made,
            in("rdi") std::ptr::from_ref(arguments),
            in("rsi") size_of::<CloneArguments>(),
            in("r12") begin,
            in("r13") beginning,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    made
}

/// As above.
///
/// # Safety
///
/// As `make` says.
#[cfg(target_arch = "aarch64")]
unsafe fn clone3(
    arguments: &CloneArguments,
    begin: extern "C" fn(*const c_void) -> !,
    beginning: *const c_void,
) -> isize {
    let made: isize;
    // SAFETY: in the parent it is a system call like any other; the child goes to `begin` and never comes back.
    unsafe {
        std::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x21",
            "blr x20",
            "2:",
            inlateout("x0") std::ptr::from_ref(arguments) => made,
            in("x1") size_of::<CloneArguments>(),
            in("x8") libc::SYS_clone3,
            in("x20") begin,
            in("x21") beginning,
        );
    }
    made
}

/// Elsewhere nothing is started in a group.
///
/// # Safety
///
/// It does nothing.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn clone3(_: &CloneArguments, _: extern "C" fn(*const c_void) -> !, _: *const c_void) -> isize {
    -(libc::ENOSYS as isize)
}
