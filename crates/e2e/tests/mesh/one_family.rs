//! A kernel that was booted without IPv6: the proxy lives with IPv4 alone.

use anyhow::{Result, ensure};
use e2e::{Mesh, RunAs, servers, weir};
use model::ports::{DNS, HEALTH, INBOUND, METRICS, OUTBOUND};

/// Runs a program as 1337 for which no socket of IPv6 can be made, as with `ipv6.disable=1`: EAFNOSUPPORT.
/// Its arguments: the number of socket(2), the program, the program's own arguments.
const WITHOUT_IPV6: &str = r#"
import ctypes, os, struct, sys
LOAD, IS, RETURN = 0x20, 0x15, 0x06
steps = [(LOAD, 0, 0, 0), (IS, 0, 3, int(sys.argv[1])), (LOAD, 0, 0, 16), (IS, 0, 1, 10),
    (RETURN, 0, 0, 0x00050000 | 97), (RETURN, 0, 0, 0x7fff0000)]
filters = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(steps), ctypes.addressof(filters)))
weir = os.open(sys.argv[2], os.O_RDONLY | os.O_CLOEXEC)
if ctypes.CDLL(None).prctl(22, 2, program, 0, 0): sys.exit("no seccomp")
os.setgroups([]), os.setgid(1337), os.setuid(1337)
os.execve(weir, ["weir"] + sys.argv[3:], os.environ)
"#;
/// Of socket(2).
const NUMBER: &str = if cfg!(target_arch = "x86_64") { "41" } else { "198" };

#[test]
fn without_ipv6_everything_is_there_by_ipv4() -> Result<()> {
    let mesh = Mesh::create()?;
    let server = mesh.pod("server", "server")?;
    let _nginx = servers::nginx(&server, mesh.dir(), 80, "location / { return 200 hello; }")?;
    let client = mesh.pod("client", "client")?;
    weir::run(&client, &["init", "--sidecar"])?;
    let binary = weir::binary()?;
    let (binary, folder) = (binary.to_string_lossy(), mesh.manifests.path().to_string_lossy());
    for more in [&[][..], &["--dns"]] {
        let arguments = [
            "-c",
            WITHOUT_IPV6,
            NUMBER,
            &binary,
            "proxy",
            "--manifests",
            &folder,
        ];
        let proxy = client.start(RunAs::Root, "python3", arguments.iter().chain(more))?;
        let ports = [OUTBOUND, INBOUND, METRICS, HEALTH];
        for port in ports.into_iter().chain((!more.is_empty()).then_some(DNS)) {
            client
                .wait_listening(port)
                .map_err(|error| error.context(proxy.said()))?;
        }
        let url = format!("http://{}/", server.v4);
        let said = client.run_as(RunAs::Application, "curl", ["-sSf", "--max-time", "15", &url])?;
        ensure!(said.text() == "hello", "{said:?}\n{}", proxy.said());
        let six = client.within(|| std::net::TcpStream::connect(("::1", OUTBOUND)))?;
        ensure!(six.is_err(), "the filter did not hold");
    }
    Ok(())
}
