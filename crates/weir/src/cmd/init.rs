//! `weir init`: flags to an intent, the intent to rules, the rules into a network namespace, in one
//! commit a table. Also takes them out again, and on a machine of somebody's takes them back by itself.

mod args;
mod foreign;
mod report;
mod undo;
mod validate;
mod watch;

use std::io::Write;
use std::process::ExitCode;
use std::{fs, io};

use anyhow::Result;
use model::ErrorName;
use netsys::links;
use netsys::rules::{Backend, Session};
use rules::plan::{Stack, TproxyFacts, remembered};
use rules::ruleset::Ruleset;
use rules::{Facts, Intent, Plan, Selection};

pub(crate) use self::args::Args;
use crate::cmd::place;
use crate::errors::{OrNamed, fail, named, of_mistakes as all, while_doing};

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    netsys::rules::wait_at_most(args.action.wait);
    let netns = args.netns().map(place::named).transpose()?;
    let all = || {
        act(args)?;
        validate::run(args)
    };
    match netns {
        None => all(),
        Some(netns) => netns.run(all).map_err(|error| cannot_enter(args, error))?,
    }
}

fn cannot_enter(args: &Args, error: io::Error) -> anyhow::Error {
    let name = args.action.netns.as_deref().unwrap_or_default();
    let (kind, text) = match error.kind() {
        io::ErrorKind::InvalidInput => (
            ErrorName::Namespace,
            format!("--netns {name} is a file, but no network namespace"),
        ),
        _ => (
            ErrorName::Privilege,
            "cannot enter the network namespace: that needs CAP_SYS_ADMIN, so run as root".to_owned(),
        ),
    };
    while_doing(kind, &text, error)
}

/// What these flags of `weir init` ask for, and the back-end that they name: other commands take them after `--`.
pub(crate) fn asked(flags: &[String]) -> Result<(Intent, Option<Backend>)> {
    #[derive(clap::Parser)]
    #[command(name = "weir init", disable_help_flag = true)]
    struct Asked {
        #[command(flatten)]
        args: Args,
    }
    let words = std::iter::once("weir init").chain(flags.iter().map(String::as_str));
    let asked = <Asked as clap::Parser>::try_parse_from(words);
    let asked = asked.map_err(|error| named(ErrorName::Usage, format!("after `--`: {error}")))?;
    let args = asked.args;
    let mut intent = args.intent()?;
    if let Some(folder) = &args.what.services {
        intent.outbound.services = Some(watch::services_of(folder)?);
    }
    Ok((intent, args.action.backend()?))
}

fn act(args: &Args) -> Result<()> {
    let action = &args.action;
    if let Some(seconds) = action.undo_after {
        undo::wait(seconds)
    } else if action.confirm {
        netsys::rules::undo::confirm()?;
        say("Confirmed: the rules stay.\n")
    } else if action.cleanup {
        clean_up(args)
    } else {
        let intent = args.intent()?;
        if let Some(folder) = &args.what.services {
            watch::run(args, intent, folder)
        } else if action.dry_run {
            dry_run(args, &intent)
        } else if args.skips_rules() {
            say("No rule was written, as --skip-rule-apply asks.\n")
        } else {
            install(args, &intent)
        }
    }
}

fn clean_up(args: &Args) -> Result<()> {
    if args.action.dry_run {
        fail!(
            Usage,
            "--cleanup has no dry run; iptables-save | grep WEIR_ and nft list tables show what it would take out"
        );
    }
    may_write()?;
    let done = Session::open(None)?.remove()?;
    say(match done.changed {
        true => "Taken out: nothing of Weir's is left in this namespace.\n",
        false => "Nothing to take out: this namespace holds nothing of Weir's.\n",
    })
}

fn dry_run(args: &Args, intent: &Intent) -> Result<()> {
    let plan = rules::plan(intent, &assumed_facts(intent)?).map_err(|mistakes| all(&mistakes))?;
    notes(&plan);
    dns_circle(args, intent);
    if plan.is_empty() {
        return say(report::NOTHING_CAPTURED);
    }
    for route in &plan.policy_routes {
        say(&format!("# {route}\n"))?;
    }
    let mut switches: Vec<_> = rules::render(&plan).iter().flat_map(remembered).collect();
    switches.dedup();
    for switch in switches {
        say(&format!("# sysctl -w {}=1\n", switch.name()))?;
    }
    // Which back-end a run would choose depends on what the namespace holds, and to look takes a right.
    if args.action.backend()?.unwrap_or(Backend::Nft) == Backend::Nft {
        let wanted = rules::nft::render(&plan);
        return say(&rules::nft::transaction(&[], &wanted, true));
    }
    for ruleset in rules::render(&plan) {
        let family = ruleset.family;
        let text = rules::diff::changes(&Ruleset::empty(family), &ruleset);
        say(&format!("# {family}\n{text}"))?;
    }
    Ok(())
}

/// What can be told without any right and without any program.
fn assumed_facts(intent: &Intent) -> Result<Facts> {
    Ok(Facts {
        ipv4: Stack::On,
        ipv6: match links::ipv6_is_on()? {
            true => Stack::On,
            false => Stack::Off,
        },
        physical_devices: links::physical_devices()?,
        cgroups: netsys::cgroups::facts(intent),
        tproxy: TproxyFacts::default(),
    })
}

fn install(args: &Args, intent: &Intent) -> Result<()> {
    let backend = args.action.backend()?;
    if intent.captures_nothing() {
        // What is wrong with the rest is wrong all the same.
        rules::plan(intent, &assumed_facts(intent)?).map_err(|mistakes| all(&mistakes))?;
        let is_held = may_write().is_ok() && !Session::open(None)?.own().rules.is_empty();
        return say(match is_held {
            true => report::NOTHING_ASKED_FOR,
            false => report::NOTHING_CAPTURED,
        });
    }
    may_write()?;
    let session = Session::open(backend)?;
    let plan = planned(intent, &session)?;
    notes(&plan);
    dns_circle(args, intent);
    let waiting = match args.action.host {
        true => Some(undo::start(&session.own(), args.action.confirm_within)?),
        false => None,
    };
    let done = session.install(&plan);
    if !matches!(&done, Ok(done) if done.changed)
        && let Some(waiting) = &waiting
    {
        waiting.call_off();
    }
    let choices = session.choices(&plan.families)?;
    say(&report::installed(intent, &plan, &choices, &done?))?;
    foreign::warn(&foreign::in_the_way(&session, intent, &plan, &choices), &[]);
    match waiting {
        Some(waiting) => say(&waiting.how_to_confirm(args.action.netns.as_deref())),
        None => Ok(()),
    }
}

/// What should hold in the namespace of the session.
fn planned(intent: &Intent, session: &Session) -> Result<Plan> {
    let facts = Facts {
        cgroups: netsys::cgroups::facts(intent),
        ..session.facts(intent)?
    };
    rules::plan(intent, &facts).map_err(|mistakes| all(&mistakes))
}

/// Said at once and plainly, before a program says it in its own way.
fn may_write() -> Result<()> {
    const NET_ADMIN: u64 = 1 << 12;
    let status =
        fs::read_to_string("/proc/thread-self/status").or_named(ErrorName::System, "cannot read /proc")?;
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or_default();
    if effective & NET_ADMIN == 0 {
        fail!(
            Privilege,
            "changing rules needs CAP_NET_ADMIN: run as root, or give the init container \
             securityContext.capabilities.add: [NET_ADMIN, NET_RAW] (--dry-run needs nothing)"
        );
    }
    Ok(())
}

fn notes(plan: &Plan) {
    for note in &plan.notes {
        eprintln!("weir: note: {note}");
    }
}

/// What a server on loopback asks others is captured too, where look-ups to any server are.
fn dns_circle(args: &Args, intent: &Intent) {
    let captures_all = intent
        .captured_dns()
        .is_some_and(|dns| dns.servers == Selection::All);
    let file = args.resolv_conf();
    for server in dns::nameservers(file)
        .iter()
        .filter(|server| captures_all && server.is_loopback())
    {
        eprintln!(
            "weir: warning: {}: the server {server} is on loopback, and look-ups to any server are captured: those that it \
             passes on to others come back to it in a circle [{}]\n  Fix: leave out --capture-all-dns, or have the rules let \
             the server's user pass too (-u 1337,ITS-UID)",
            file.display(),
            ErrorName::ResolvConf
        );
    }
}

fn say(text: &str) -> Result<()> {
    io::stdout()
        .write_all(text.as_bytes())
        .or_named(ErrorName::Output, "standard output")
}
