//! Rules of ours beside those of others, as they would be in the kernel.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot make its own data has failed"
)]

use rules::beside::{beside, is_own_rule};
use rules::installed::Writer;
use rules::ruleset::Target;
use rules::{Facts, Family, Fate, Flags, Installed, Origin, Packet, Ruleset, State, dumps, nft};

const FOREIGN: &str = "\
*nat
:OUTPUT ACCEPT [0:0]
:THEIRS - [0:0]
-A OUTPUT -d 10.9.0.0/16 -j RETURN
-A OUTPUT -j THEIRS
COMMIT
";

fn wanted() -> (Vec<Ruleset>, Vec<Ruleset>) {
    let flags = Flags {
        sidecar: true,
        ..Flags::default()
    };
    let intent = flags.intent().unwrap();
    let plan = rules::plan(&intent, &Facts::fresh(&[Family::V4])).unwrap();
    (rules::render(&plan), nft::render(&plan))
}

fn targets(installed: &Installed, chain: &str) -> Vec<String> {
    let nat = installed.tables.iter().find(|table| table.name == "nat").unwrap();
    let chain = nat.chains.iter().find(|found| found.name == chain).unwrap();
    let target = |target: &Target| match target {
        Target::Jump(to) => to.clone(),
        other => format!("{other:?}"),
    };
    chain.rules.iter().map(|rule| target(&rule.target)).collect()
}

fn to(address: &str) -> Packet {
    Packet {
        origin: Origin::Socket {
            uid: 1000,
            gid: 1000,
            mark: 0,
        },
        protocol: rules::ruleset::IpProtocol::Tcp,
        source: "10.1.0.1".parse().unwrap(),
        source_port: 40_000,
        destination: address.parse().unwrap(),
        destination_port: 80,
        device: "eth0".to_owned(),
        state: State::New,
        connection_mark: 0,
        transparent: false,
        dns_answers: true,
    }
}

#[test]
fn ours_stand_where_init_would_put_them() {
    let foreign = dumps::iptables(Writer::IptablesNft, Family::V4, FOREIGN).unwrap();
    let (by_iptables, _) = wanted();
    let ours: Vec<_> = by_iptables
        .into_iter()
        .map(|ruleset| (Writer::IptablesNft, ruleset))
        .collect();
    let both = beside(&foreign, &ours);
    assert_eq!(targets(&both, "OUTPUT"), ["Return", "THEIRS", "WEIR_OUTPUT"]);
    assert_eq!(both.evaluate(&to("10.9.0.1")).fate, Fate::Direct);
    let captured = both.evaluate(&to("10.8.0.1"));
    assert_eq!(captured.fate, Fate::Redirect { port: 15001 });
    assert!(is_own_rule(&both, captured.decided_by().unwrap().at));
    // Once they are in, another run changes nothing, wherever others have put theirs.
    assert_eq!(beside(&both, &ours), both);
    let nat = "*nat\n:OUTPUT ACCEPT [0:0]\n:WEIR_OUTPUT - [0:0]\n-A OUTPUT -j WEIR_OUTPUT\n-A OUTPUT -d 10.9.0.0/16 -j RETURN\nCOMMIT\n";
    let before = dumps::iptables(Writer::IptablesNft, Family::V4, nat).unwrap();
    assert_eq!(
        targets(&beside(&before, &ours), "OUTPUT"),
        ["WEIR_OUTPUT", "Return"]
    );
    assert_eq!(targets(&beside(&both, &[]), "OUTPUT"), ["Return", "THEIRS"]);
}

#[test]
fn native_tables_are_replaced_whole() {
    let foreign = dumps::iptables(Writer::IptablesNft, Family::V4, FOREIGN).unwrap();
    let (_, by_nft) = wanted();
    let ours: Vec<_> = by_nft.into_iter().map(|ruleset| (Writer::Nft, ruleset)).collect();
    let both = beside(&foreign, &ours);
    assert_eq!(beside(&both, &ours), both);
    assert_eq!(beside(&both, &[]), foreign);
    // A RETURN in one nat chain leaves the packet to the other.
    for installed in [both, beside(&Installed::default(), &ours)] {
        let verdict = installed.evaluate(&to("10.9.0.1"));
        assert_eq!(verdict.fate, Fate::Redirect { port: 15001 });
    }
}
