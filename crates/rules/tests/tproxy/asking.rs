//! What may be asked of TPROXY, which kind it comes to, and what is told and remembered of it.

use rules::nft;
use rules::plan::{Facts, Switch, TproxyFacts, remembered};
use rules::{Family, Flags, Intent, plan};

use super::{both, flags};

#[test]
fn what_cannot_be_is_said_by_its_flag() {
    let mistakes = |change: fn(&mut Flags)| -> Vec<String> {
        let mut flags = flags("on");
        change(&mut flags);
        let planned = flags
            .intent()
            .and_then(|intent| plan(&intent, &Facts::fresh(&Family::ALL)));
        planned
            .unwrap_err()
            .into_iter()
            .map(|mistake| mistake.flag)
            .collect()
    };
    const MARK: &str = "-t (--istio-inbound-tproxy-mark)";
    const TABLE: &str = "-r (--istio-inbound-tproxy-route-table)";
    assert_eq!(mistakes(|flags| flags.tproxy_mark = Some("0".to_owned())), [MARK]);
    assert_eq!(
        mistakes(|flags| {
            flags.tproxy_mark = Some("1338".to_owned());
            flags.tproxy_table = Some("254".to_owned());
        }),
        [MARK, TABLE]
    );
    assert_eq!(
        mistakes(|flags| flags.tproxy_table = Some("main".to_owned())),
        [TABLE]
    );
    assert_eq!(
        mistakes(|flags| flags.proxy_mark = Some("0x39/0xff".to_owned())),
        ["--proxy-mark"]
    );
    assert_eq!(
        mistakes(|flags| flags.tproxy_mark = Some("1339".to_owned())),
        [MARK]
    );
    assert_eq!(
        mistakes(|flags| {
            flags.tproxy_conntrack = Some("off".to_owned());
            flags.proxy_mark = Some("1339".to_owned());
        }),
        ["--proxy-mark"]
    );
    assert_eq!(
        mistakes(|flags| flags.tproxy_conntrack = Some("none".to_owned())),
        ["--inbound-tproxy-conntrack"]
    );
    let contained = Intent {
        inbound: planned_inbound(),
        ..Intent::contained(vec![], None)
    };
    let refused = plan(&contained, &Facts::fresh(&Family::ALL)).unwrap_err();
    assert_eq!(refused[0].flag, "TPROXY");
}

fn planned_inbound() -> rules::intent::Inbound {
    flags("on").intent().unwrap().inbound
}

#[test]
fn the_kind_is_the_one_that_was_named_or_an_error_or_the_one_that_is_possible() {
    let decided = |kind: &str, tproxy: TproxyFacts| {
        let facts = Facts {
            tproxy,
            ..Facts::fresh(&Family::ALL)
        };
        plan(&flags(kind).intent().unwrap(), &facts)
            .map(|plan| plan.tproxy.map(|kind| (kind.is_tracked, kind.why)).unwrap())
            .map_err(|mistakes| {
                mistakes
                    .into_iter()
                    .map(|mistake| mistake.to_string())
                    .collect::<Vec<_>>()
            })
    };
    let untracked = |untracked| TproxyFacts {
        untracked,
        ..TproxyFacts::default()
    };
    let can = || untracked(Ok(vec![]));
    let cannot = || untracked(Err("no module xt_socket".to_owned()));
    assert!(decided("", can()).unwrap().0);
    assert!(decided("on", cannot()).unwrap().0);
    assert!(!decided("off", can()).unwrap().0);
    assert!(!decided("auto", can()).unwrap().0);
    let (is_tracked, why) = decided("auto", cannot()).unwrap();
    assert!(is_tracked && why.contains("xt_socket"), "{why}");
    let mistakes = decided("off", cannot()).unwrap_err();
    assert!(
        mistakes[0].starts_with("--inbound-tproxy-conntrack: off is not possible here: no module xt_socket"),
        "{mistakes:?}"
    );
    for kind in ["on", "off", "auto"] {
        let lacking = TproxyFacts {
            lacks: Some("no module xt_TPROXY".to_owned()),
            ..TproxyFacts::default()
        };
        let mistakes = decided(kind, lacking).unwrap_err();
        assert!(mistakes[0].contains("no module xt_TPROXY"), "{mistakes:?}");
    }
}

#[test]
fn syn_cookies_are_told_where_not_all_of_them_are_followed() {
    let cases = [
        ("on", true, false),
        ("off", true, true),
        ("on", false, false),
        ("off", false, false),
    ];
    for (kind, syn_cookies_by_iptables, told) in cases {
        let facts = Facts {
            tproxy: TproxyFacts {
                syn_cookies_by_iptables,
                ..TproxyFacts::default()
            },
            ..Facts::fresh(&Family::ALL)
        };
        let plan = plan(&flags(kind).intent().unwrap(), &facts).unwrap();
        let mut notes = plan.notes.iter();
        let is_told = notes.any(|note| note.contains("net.ipv4.tcp_syncookies"));
        assert_eq!(is_told, told, "{kind}: {:?}", plan.notes);
    }
}

#[test]
fn the_rules_remember_which_switches_are_ours() {
    for ours in [
        vec![],
        vec![Switch::Accept],
        vec![Switch::Reflect(Family::V6)],
        Switch::ALL.to_vec(),
    ] {
        let facts = Facts {
            tproxy: TproxyFacts {
                untracked: Ok(ours.clone()),
                ..TproxyFacts::default()
            },
            ..Facts::fresh(&Family::ALL)
        };
        let plan = plan(&flags("off").intent().unwrap(), &facts).unwrap();
        for rulesets in both(&plan) {
            let mut found: Vec<_> = rulesets.iter().flat_map(remembered).collect();
            found.sort_unstable();
            found.dedup();
            assert_eq!(found, ours);
        }
        let text = nft::transaction(&[], &nft::render(&plan), true);
        assert_eq!(nft::parse(&text), nft::render(&plan), "{text}");
    }
}
