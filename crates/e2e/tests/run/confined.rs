//! What the command may do: all that its user may, and nothing to its network.

use anyhow::Result;
use e2e::{APP_ID, RunAs, eventually};

use crate::{BOTH, Laptop};

#[test]
fn it_keeps_its_user_and_gets_no_privilege() -> Result<()> {
    let laptop = Laptop::create()?;
    let script = "id -u; id -g; grep CapEff /proc/self/status; touch \"$0\"; stat -c %u \"$0\"";
    let file = laptop.shared.path().join("made").display().to_string();
    let finished = laptop.run(RunAs::Application, &["sh", "-c", script, &file])?;
    let id = APP_ID;
    assert_eq!(
        finished.text(),
        format!("{id}\n{id}\nCapEff:\t0000000000000000\n{id}\n"),
        "{finished:?}"
    );
    Ok(())
}

#[test]
fn it_can_neither_see_nor_undo_its_capture() -> Result<()> {
    let laptop = Laptop::create()?;
    let attempts = [
        "iptables -t nat -F",
        "nft flush ruleset",
        "nft list ruleset | grep -q .",
        "ip link set eth0 down",
        "ip route del default",
        "unshare -Ur nft flush ruleset",
        "unshare -Ur iptables -t nat -F",
        "nsenter -t $PPID -n true",
        "nsenter -t $(ps -o ppid= -p $PPID) -n true",
        "nsenter --net=/proc/$(ps -o ppid= -p $PPID | tr -d ' ')/ns/net true",
        "python3 -c 'import socket; socket.socket(socket.AF_INET, socket.SOCK_STREAM).setsockopt(socket.SOL_SOCKET, 36, 0x539)'",
        "python3 -c 'import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)'",
    ];
    for who in BOTH {
        for attempt in attempts {
            let finished = laptop.run(who, &["sh", "-c", attempt])?;
            assert!(!finished.status.success(), "{who:?}: {attempt}: {finished:?}");
        }
    }
    Ok(())
}

/// The process that makes sockets inside for the proxy has a right that the command must not borrow.
#[test]
fn it_cannot_use_the_porter() -> Result<()> {
    let laptop = Laptop::create()?;
    let find = "keeper=$(ps -o ppid= -p $$ | tr -d ' '); porter=$(pgrep -P $keeper | grep -vx $$); \
                grep -q weir /proc/$porter/comm || exit 0; ";
    let attach = "python3 -c 'import ctypes, sys; sys.exit(ctypes.CDLL(None).ptrace(16, int(sys.argv[1]), 0, 0) != 0)' $porter";
    let attempts = [
        "nsenter -t $porter -n true",
        "nsenter -t $porter -U true",
        "cat /proc/$porter/mem",
        "readlink /proc/$porter/fd/0",
        attach,
    ];
    for who in BOTH {
        for attempt in attempts {
            let script = format!("{find}{attempt}");
            let finished = laptop.run(who, &["sh", "-c", &script])?;
            assert!(!finished.status.success(), "{who:?}: {attempt}: {finished:?}");
        }
    }
    Ok(())
}

#[test]
fn two_at_once_do_not_meet() -> Result<()> {
    let laptop = Laptop::create()?;
    let serve = "echo first > index; exec python3 -u -m http.server 7000 --bind 127.0.0.1";
    let serve = format!("cd {} && {serve}", laptop.shared.path().display());
    let first = laptop.start(RunAs::Application, &["sh", "-c", &serve])?;
    eventually("the first server", || {
        first.said().contains("Serving").then_some(())
    })?;
    // The port is free, and nobody answers on it.
    let meet = "curl -s -o /dev/null http://127.0.0.1:7000/ && exit 1; \
                python3 -c 'import socket; socket.create_server((\"127.0.0.1\", 7000))' && curl -sf http://web.mesh/";
    let second = laptop.sh(RunAs::Application, meet)?;
    assert!(second.starts_with("web-"), "{second}");
    Ok(())
}

#[test]
fn its_own_loopback_and_addresses_stay_inside() -> Result<()> {
    let laptop = Laptop::create()?;
    let script = "python3 -u -m http.server 7000 --bind :: > $0 2>&1 & \
                  while ! grep -q Serving $0; do sleep 0.02; done; \
                  own=$(ip -4 -o addr show eth0 | sed 's,.*inet \\([^/]*\\)/.*,\\1,'); \
                  for host in 127.0.0.1 127.1.2.3 '[::1]' localhost $own; do curl -gsf -o /dev/null http://$host:7000/ && echo $host; done";
    for who in BOTH {
        let log = laptop
            .shared
            .path()
            .join(format!("served-{who:?}"))
            .display()
            .to_string();
        let finished = laptop.run(who, &["sh", "-c", script, &log])?;
        assert_eq!(
            finished.text(),
            "127.0.0.1\n127.1.2.3\n[::1]\nlocalhost\n192.0.0.2\n",
            "{finished:?}"
        );
    }
    Ok(())
}
