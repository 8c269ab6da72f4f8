//! Listening sockets that macOS's launchd made for this process.
//!
//! No backend needs them, the daemon does; but it has no unsafe code, and this crate is the line between Rust and C.

use rustix::io::Errno;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

unsafe extern "C" {
    /// Of `launch(3)`. Returns 0 or an error number.
    fn launch_activate_socket(
        name: *const c_char,
        fds: *mut *mut c_int,
        n_fds: *mut usize,
    ) -> c_int;
    fn free(memory: *mut c_void);
}

/// The sockets of one key under `Sockets` in the job's property list, which launchd gives once. None where launchd did not start
/// this process, or knows no such key.
pub fn sockets(name: &CStr) -> io::Result<Vec<OwnedFd>> {
    let mut fds = std::ptr::null_mut();
    let mut n_fds = 0;
    // SAFETY: the name ends with a NUL, and the two others are valid to write to.
    match unsafe { launch_activate_socket(name.as_ptr(), &raw mut fds, &raw mut n_fds) } {
        0 => {}
        error => {
            return match Errno::from_raw_os_error(error) {
                Errno::SRCH | Errno::NOENT => Ok(Vec::new()),
                error => Err(error.into()),
            };
        }
    }
    let mut sockets = Vec::with_capacity(n_fds);
    for n in 0..n_fds {
        // SAFETY: after success the array has `n_fds` descriptors, which are open and, given once, nobody else's.
        sockets.push(unsafe { OwnedFd::from_raw_fd(*fds.add(n)) });
    }
    // SAFETY: the array is the caller's to free, as `launch(3)` says, and is not looked at any more.
    unsafe { free(fds.cast()) };
    for socket in &sockets {
        rustix::io::fcntl_setfd(socket, rustix::io::FdFlags::CLOEXEC)?;
    }
    Ok(sockets)
}
