//! Whether the kernel takes what TPROXY is made of: asked by runs of the back-end's program that check and write
//! nothing, so that it is known, with the name of the module, before anything is changed.

use super::native::Native;
use super::program::{Backend, Programs};
use super::{Error, native};

/// One thing that rules of TPROXY are made of.
struct Part {
    /// The table of iptables that has it.
    table: &'static str,
    iptables: &'static str,
    iptables_module: &'static str,
    nft: &'static str,
    nft_module: &'static str,
}

const CAPTURE: [Part; 5] = [
    Part {
        table: "mangle",
        iptables: "-p tcp -j TPROXY --on-port 1",
        iptables_module: "xt_TPROXY",
        nft: "meta l4proto tcp tproxy to :1 accept",
        nft_module: "nft_tproxy",
    },
    Part {
        table: "mangle",
        iptables: "-m mark --mark 1 -j MARK --set-mark 1",
        iptables_module: "xt_mark",
        nft: "meta mark 1 meta mark set 1",
        nft_module: "nf_tables",
    },
    Part {
        table: "mangle",
        iptables: "-m connmark --mark 1 -j CONNMARK --save-mark",
        iptables_module: "xt_connmark",
        nft: "ct mark set meta mark",
        nft_module: "nft_ct",
    },
    Part {
        table: "mangle",
        iptables: "-m conntrack --ctdir ORIGINAL",
        iptables_module: "xt_conntrack",
        nft: "ct direction original",
        nft_module: "nft_ct",
    },
    Part {
        table: "mangle",
        iptables: "-p tcp -m socket --transparent",
        iptables_module: "xt_socket",
        nft: "socket transparent 1",
        nft_module: "nft_socket",
    },
];

const UNTRACKED: [Part; 1] = [Part {
    table: "raw",
    iptables: "-j CT --notrack",
    iptables_module: "xt_CT",
    nft: "notrack",
    nft_module: "nft_ct",
}];

/// What rules are written by.
#[derive(Clone, Copy)]
pub(super) enum Writer<'a> {
    Iptables(&'a Programs),
    Native(&'a Native),
}

/// What is lacking for the capture itself.
pub(super) fn lacks_capture(writer: Writer<'_>) -> Option<String> {
    lacks(writer, &CAPTURE)
}

/// What is lacking for keeping conntrack out.
pub(super) fn lacks_untracked(writer: Writer<'_>) -> Option<String> {
    lacks(writer, &UNTRACKED)
}

/// All at once, and only where that is refused one by one.
fn lacks(writer: Writer<'_>, parts: &[Part]) -> Option<String> {
    let refused = check(writer, &parts.iter().collect::<Vec<_>>()).err()?;
    if matches!(refused, Error::Hung { .. }) {
        return Some(refused.to_string());
    }
    let refused_alone = parts.iter().filter(|part| check(writer, &[part]).is_err());
    let modules: Vec<_> = refused_alone
        .map(|part| match writer {
            Writer::Iptables(_) => part.iptables_module,
            Writer::Native(_) => part.nft_module,
        })
        .collect();
    // Where nothing at all can be asked, it is no module.
    if modules.is_empty() || check(writer, &[]).is_err() {
        return Some(refused.to_string());
    }
    let backend = match writer {
        Writer::Iptables(programs) => programs.backend,
        Writer::Native(_) => Backend::Nft,
    };
    let modules = modules.join(", ");
    Some(format!(
        "{backend} is refused it, as the kernel lacks {modules}: load it on the machine (modprobe), or try another \
         back-end with --backend"
    ))
}

fn check(writer: Writer<'_>, parts: &[&Part]) -> Result<(), Error> {
    match writer {
        Writer::Iptables(programs) => {
            let each = parts.iter().map(|part| {
                let Part { table, iptables, .. } = part;
                format!("*{table}\n:{PROBE} - [0:0]\n-A {PROBE} {iptables}\nCOMMIT\n")
            });
            programs.check(&each.collect::<String>())
        }
        Writer::Native(native) => {
            let statements = parts.iter().map(|part| format!("{}\n", part.nft));
            native.check(&format!(
                "table {family} {PROBE} {{\nchain probe {{\ntype filter hook prerouting priority -300;\n{}}}\n}}\n",
                statements.collect::<String>(),
                family = native::PROBE_FAMILY,
            ))
        }
    }
}

/// Nothing of this name is ever made.
const PROBE: &str = "WEIR_PROBE";
