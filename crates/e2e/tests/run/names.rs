//! Names: those of the mesh resolve, others as outside.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{fs, thread};

use anyhow::Result;
use e2e::RunAs;

use crate::{BOTH, Laptop};

#[test]
fn services_resolve_by_every_name() -> Result<()> {
    let laptop = Laptop::create()?;
    laptop.mesh.manifests.write(
        "pods.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: pods, namespace: mesh}\n\
         spec: {clusterIP: None, ports: [{name: http, port: 8080}]}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
         metadata: {name: pods-1, namespace: mesh, labels: {kubernetes.io/service-name: pods}}\n\
         ports: [{name: http, port: 8080, protocol: TCP}]\n\
         endpoints:\n- {addresses: [10.77.0.2], hostname: pods-0, conditions: {ready: true}}\n\
         - {addresses: [10.77.0.3], hostname: pods-1, conditions: {ready: true}}\n",
    )?;
    let look_up = "for name; do getent ahostsv4 $name | sed -n 's/ *STREAM.*//p' | tr '\\n' ' '; done";
    for who in BOTH {
        let names = [
            "web",
            "web.mesh",
            "web.mesh.svc",
            "web.mesh.svc.cluster.local",
            "pods.mesh",
            "pods-1.pods.mesh",
            "pods-1.pods",
        ];
        let command = [&["sh", "-c", look_up, "sh"], &names[..]].concat();
        let finished = laptop.run(who, &command)?;
        assert_eq!(
            finished.text(),
            "10.96.0.1 10.96.0.1 10.96.0.1 10.96.0.1 10.77.0.2 10.77.0.3 10.77.0.3 10.77.0.3 ",
            "{finished:?}"
        );
        let six = laptop.run(who, &["getent", "ahostsv6", "web.mesh"])?;
        assert!(six.text().starts_with("fd00:96::1 "), "{six:?}");
    }
    // Any server asked, by UDP and by TCP; and clients that read no hosts file.
    for transport in ["+notcp", "+tcp"] {
        let dig = laptop.run(
            RunAs::Application,
            &["dig", "+short", transport, "@192.0.2.1", "web.mesh", "AAAA"],
        )?;
        assert_eq!(dig.text(), "fd00:96::1\n", "{dig:?}");
    }
    Ok(())
}

#[test]
fn a_new_service_resolves_while_the_command_runs() -> Result<()> {
    let laptop = Laptop::create()?;
    let file = laptop.mesh.manifests.path().join("late.yaml");
    let program = laptop.start(
        RunAs::Application,
        &[
            "sh",
            "-c",
            "echo ready; until getent ahostsv4 late.mesh; do sleep 0.05; done",
        ],
    )?;
    e2e::eventually("the command", || program.said().contains("ready").then_some(()))?;
    fs::write(
        file,
        "apiVersion: v1\nkind: Service\nmetadata: {name: late, namespace: mesh}\nspec: {clusterIP: 10.96.0.9, ports: [{port: 80}]}\n",
    )?;
    e2e::eventually("the new name", || {
        program.said().contains("10.96.0.9").then_some(())
    })
}

#[test]
fn services_without_an_address_get_one_that_tells_them_apart() -> Result<()> {
    let laptop = Laptop::create()?;
    let mut servers = vec![];
    for name in ["one", "two"] {
        let pod = laptop.mesh.pod(&format!("{name}-1"), name)?;
        let says = format!("SYSTEM:echo {name}");
        let listen = "TCP-LISTEN:7000,fork,reuseaddr";
        servers.push(pod.start(RunAs::Application, "socat", [listen, &says])?);
        pod.wait_listening(7000)?;
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: mesh}}\n\
             spec: {{selector: {{app: {name}}}, ports: [{{name: tcp, port: 5432, targetPort: 7000}}]}}\n"
        );
        laptop
            .mesh
            .manifests
            .write(&format!("{name}-service.yaml"), &text)?;
    }
    let python = "import socket, sys\n\
        for name in sys.argv[1:]:\n\
        \x20   with socket.create_connection((name, 5432), timeout=30) as s:\n\
        \x20       print(s.makefile().readline().strip(), s.getpeername()[0].rsplit('.', 2)[0])\n";
    for who in BOTH {
        let said = laptop.run(who, &["python3", "-c", python, "one.mesh", "two"])?;
        assert_eq!(said.text(), "one 240.240\ntwo 240.240\n", "{said:?}");
    }
    Ok(())
}

/// Notes in a file that it was asked, and says nothing.
const FAKE_NSCD: &str = "import socket, sys\n\
    s = socket.socket(socket.AF_UNIX); s.bind('/run/nscd/socket'); s.listen()\n\
    while True:\n\
    \x20   s.accept()[0].close()\n\
    \x20   open(sys.argv[1], 'a').write('asked\\n')\n";

#[test]
fn a_daemon_that_answers_names_for_the_c_library_is_not_asked() -> Result<()> {
    let laptop = Laptop::create()?;
    let note = laptop.shared.path().join("note");
    // That it is asked outside shows that it could be inside.
    let script = format!(
        "set -e; mount -t tmpfs tmpfs /run; mkdir /run/nscd; python3 -c \"{FAKE_NSCD}\" {0} & trap \"kill $!\" EXIT\n\
         until [ -S /run/nscd/socket ]; do sleep 0.05; done\n\
         {1} run --manifests {2} -- getent ahostsv4 web.mesh | sed -n 's/ *STREAM.*//p'\n\
         [ ! -e {0} ] && echo nobody asked it\n\
         until [ -e {0} ]; do getent hosts localhost > /dev/null; done",
        note.display(),
        laptop.weir.display(),
        laptop.mesh.manifests.path().display()
    );
    let said = laptop
        .pod
        .run_as(RunAs::Root, "unshare", ["-m", "sh", "-c", &script])?;
    assert_eq!(said.text(), "10.96.0.1\nnobody asked it\n", "{said:?}");
    Ok(())
}

/// The same of systemd-resolved: notes that it was asked, by its socket.
const FAKE_RESOLVED: &str = "import socket, sys
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen()
while True:
    s.accept()[0].close()
    open(sys.argv[2], 'a').write('asked\\n')
";
/// What nss-resolve does first; where that fails, the C library goes on with DNS.
const NSS_RESOLVE: &str = "import socket, sys
try:
    socket.socket(socket.AF_UNIX).connect(sys.argv[1]); print('reached')
except ConnectionRefusedError:
    print('refused')
";
const RESOLVED: &str = "/run/systemd/resolve/io.systemd.Resolve";

/// A machine as systemd-resolved sets it up: its stub in `resolv.conf`, `resolve` in `nsswitch.conf`.
#[test]
fn systemd_resolved_is_asked_by_dns_alone_and_for_other_names_alone() -> Result<()> {
    let laptop = Laptop::create()?;
    let at = |name: &str| laptop.shared.path().join(name).display().to_string();
    for (name, text) in [
        ("daemon.py", FAKE_RESOLVED),
        ("ask.py", NSS_RESOLVE),
        (
            "resolv.conf",
            "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch .\n",
        ),
        ("nsswitch.conf", "hosts: files resolve [!UNAVAIL=return] dns\n"),
    ] {
        fs::write(at(name), text)?;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let stub = laptop.pod.within(|| {
        let socket = UdpSocket::bind("127.0.0.53:53").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let stop = Arc::clone(&stop);
        thread::spawn(move || answer_all(&socket, &stop))
    })?;
    let inside = format!(
        "python3 {} {RESOLVED}; getent ahostsv4 web.mesh | sed -n 's/ *STREAM.*//p'; \
         dig +noall +comments other.example TXT | grep -o 'status: [A-Z]*'",
        at("ask.py")
    );
    let script = format!(
        "set -e; mount -t tmpfs tmpfs /run; mkdir -p /run/systemd/resolve; python3 {daemon} {RESOLVED} {note} & trap \"kill $!\" EXIT\n\
         until [ -S {RESOLVED} ]; do sleep 0.05; done\n\
         for file in resolv.conf nsswitch.conf; do mount --bind {shared}/$file /etc/$file; done\n\
         {weir} run --manifests {manifests} -- sh -c \"{inside}\"\n\
         [ ! -e {note} ] && echo nobody asked it\n\
         python3 {ask} {RESOLVED}",
        daemon = at("daemon.py"),
        note = at("note"),
        ask = at("ask.py"),
        shared = laptop.shared.path().display(),
        weir = laptop.weir.display(),
        manifests = laptop.mesh.manifests.path().display()
    );
    let said = laptop
        .pod
        .run_as(RunAs::Root, "unshare", ["-m", "sh", "-c", &script])?;
    stop.store(true, Ordering::Relaxed);
    let asked = stub.join().unwrap();
    assert_eq!(
        said.text(),
        "refused\n10.96.0.1\nstatus: NXDOMAIN\nnobody asked it\nreached\n",
        "{said:?}"
    );
    let is_about = |query: &Vec<u8>, label: &[u8]| query.windows(label.len()).any(|window| window == label);
    assert!(
        !asked.is_empty() && asked.iter().all(|query| is_about(query, b"\x05other")),
        "{asked:?}"
    );
    Ok(())
}

#[test]
fn other_names_are_asked_of_the_callers_resolvers_as_they_came() -> Result<()> {
    let laptop = Laptop::create()?;
    let resolver = laptop.mesh.net.pod("resolver")?;
    let resolv_conf = laptop.shared.path().join("resolv.conf");
    fs::write(&resolv_conf, format!("nameserver {}\n", resolver.v4))?;
    let stop = Arc::new(AtomicBool::new(false));
    let server = resolver.within(|| {
        let socket = UdpSocket::bind("0.0.0.0:53").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let stop = Arc::clone(&stop);
        thread::spawn(move || answer_all(&socket, &stop))
    })?;
    // dig asks with an option that our own answers would not carry back.
    let script = format!(
        "mount --bind {} /etc/resolv.conf && exec {} run --manifests {} -- dig +nsid +norecurse other.example TXT",
        resolv_conf.display(),
        laptop.weir.display(),
        laptop.mesh.manifests.path().display()
    );
    let dig = laptop
        .pod
        .try_run(RunAs::Root, "unshare", ["-m", "sh", "-c", &script])?;
    stop.store(true, Ordering::Relaxed);
    let asked = server.join().unwrap();
    assert!(dig.text().contains("status: NXDOMAIN"), "{dig:?}");
    // A slow machine may make dig ask again.
    assert!(!asked.is_empty(), "never asked");
    let has = |needle: &[u8]| asked[0].windows(needle.len()).any(|window| window == needle);
    assert!(
        has(b"\x05other\x07example\0") && has(&[0, 3, 0, 0]),
        "the query with its NSID option: {asked:?}"
    );
    assert_eq!(asked[0][2] & 1, 0, "recursion was not desired");
    Ok(())
}

/// Answers "no such name" to everything, and gives back what was asked.
fn answer_all(socket: &UdpSocket, stop: &AtomicBool) -> Vec<Vec<u8>> {
    let mut asked = vec![];
    let mut buffer = [0; 2000];
    while !stop.load(Ordering::Relaxed) {
        let Ok((length, client)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        let query = buffer[..length].to_vec();
        let mut answer = query.clone();
        answer[2] |= 0x80;
        answer[3] = 3;
        socket.send_to(&answer, client).unwrap();
        asked.push(query);
    }
    asked
}
