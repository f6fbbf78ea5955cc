//! Connections and sockets that are taken, and daemons that are not there.

use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use hosted::{Config, StartError, client};
use libredox::call;
use nix::sys::socket::{MsgFlags, send};
use syscall::flag::CallFlags;
use syscall::schemev2::Opcode;

use super::common::{self, Daemon, errno, open};
use super::raw::*;

pub fn a_second_connection_of_a_process_is_refused() {
    let mut daemon = Daemon::start();
    let client = daemon.client("connects_twice");
    daemon.serve_open(20);
    let call = daemon.expect(Opcode::Call);
    daemon.answer(&call, 0);
    daemon.expect_close(20);
    client.finish();
}

pub fn connects_twice() {
    let fd = open("x");
    let second = raw_connection();
    let _ = send(second.as_raw_fd(), &hello(), MsgFlags::MSG_NOSIGNAL);
    assert!(hears(&second).is_none());
    call::call_rw(fd, &mut [], CallFlags::empty(), &[]).unwrap();
}

pub fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gem.sock");
    // A daemon that is killed leaves its socket behind.
    let mut first = common::Client::start("answers", &path);
    assert_eq!(first.told(), "serving");
    let error = hosted::start(Config::new(&path)).err().unwrap();
    assert!(matches!(error, StartError::InUse(_)));
    assert!(
        error.to_string().contains(path.to_str().unwrap()),
        "{error}"
    );
    first.kill();
    assert!(path.exists());
    let second = hosted::start(Config::new(&path)).unwrap();
    drop(second);
    // What is no socket is not touched.
    std::fs::write(&path, "precious").unwrap();
    let error = hosted::start(Config::new(&path)).err().unwrap();
    assert!(matches!(error, StartError::Failed(..)));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

pub fn answers() {
    let kernel = hosted::start(Config::new(std::env::var("GEM_SOCKET").unwrap())).unwrap();
    common::tell_daemon("serving");
    common::wait_for_daemon();
    drop(kernel);
}

pub fn the_socket_is_this_users_and_goes_with_the_kernel() {
    let directory = tempfile::tempdir().unwrap();
    let own = directory.path().join("run/gem");
    let path = own.join("gem.sock");
    let kernel = hosted::start(Config::new(&path)).unwrap();
    let mode = own.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    assert!(path.exists());
    drop(kernel);
    assert_eq!(std::fs::read_dir(&own).unwrap().count(), 0);
}

pub fn two_kernels_in_one_process_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let kernel = hosted::start(Config::new(directory.path().join("a"))).unwrap();
    let second = hosted::start(Config::new(directory.path().join("b")));
    assert!(matches!(second.err(), Some(StartError::AlreadyRunning)));
    drop(kernel);
    drop(hosted::start(Config::new(directory.path().join("b"))).unwrap());
}

pub fn who_finds_no_daemon_is_told_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    common::Client::start("finds_nobody", &directory.path().join("none.sock")).finish();
}

pub fn finds_nobody() {
    assert_eq!(errno(call::open("/scheme/test/x", 0, 0)), libc::ENODEV);
    assert_eq!(errno(call::close(3)), libc::EBADF);
    let error = client::connect().unwrap_err();
    assert_eq!(error.errno(), libc::ENODEV);
    let text = error.to_string();
    for hint in ["none.sock", "gemd", "GEM_SOCKET", "--socket"] {
        assert!(text.contains(hint), "{text}");
    }
    client::set_socket("/nowhere");
    assert_eq!(client::socket(), Path::new("/nowhere"));
}
