//! The engine over loopback sockets, against scripted servers.

mod answers;
mod failures;
mod hostile;
mod stage;
mod tunnels;

/// What an idle connection costs is this, the future of `connection::serve`, the registration of its
/// socket, its place among the lives, and a task's header.
#[test]
fn an_idle_connection_stays_small() {
    let size = size_of::<super::Client>();
    assert!(size <= 320, "{size} bytes");
}
