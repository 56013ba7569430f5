//! Exit codes, signals, the terminal, and what is left behind: nothing.

use std::fs;
use std::os::unix::process::ExitStatusExt;

use anyhow::{Context, Result};
use e2e::{RunAs, eventually};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::{BOTH, Laptop};

#[test]
fn the_exit_code_is_the_commands() -> Result<()> {
    let laptop = Laptop::create()?;
    let plain = laptop.shared.path().join("plain");
    fs::write(&plain, "no program")?;
    for who in BOTH {
        let code = |command: &[&str]| anyhow::Ok(laptop.run(who, command)?.status);
        assert_eq!(code(&["true"])?.code(), Some(0));
        assert_eq!(code(&["sh", "-c", "exit 7"])?.code(), Some(7));
        assert_eq!(code(&["no-such-program"])?.code(), Some(127));
        assert_eq!(code(&["/no/such/program"])?.code(), Some(127));
        assert_eq!(code(&[plain.to_str().unwrap()])?.code(), Some(126));
        assert_eq!(code(&["sh", "-c", "kill -KILL $$"])?.signal(), Some(9));
        assert_eq!(code(&["sh", "-c", "kill -SEGV $$"])?.signal(), Some(11));
        assert_eq!(code(&["sh", "-c", "kill -TERM $$"])?.signal(), Some(15));
    }
    // The exit code is never weir's own by mistake.
    let mistaken = laptop.run_with(RunAs::Application, &["--no-such-option"], &["true"])?;
    assert_eq!(mistaken.status.code(), Some(125), "{mistaken:?}");
    // As `ping` has it: CAP_NET_RAW, permitted and effective (vfs_cap_data of linux/capability.h, revision 2).
    let capable = laptop.shared.path().join("capable");
    fs::copy("/bin/true", &capable)?;
    let value: Vec<u8> = [0x0200_0001_u32, 1 << 13, 0, 0, 0]
        .into_iter()
        .flat_map(u32::to_le_bytes)
        .collect();
    rustix::fs::setxattr(
        &capable,
        "security.capability",
        &value,
        rustix::fs::XattrFlags::empty(),
    )?;
    let refused = laptop.run(RunAs::Root, &[capable.to_str().unwrap()])?;
    assert_eq!(refused.status.code(), Some(126));
    assert!(
        refused
            .errors()
            .contains("the file has capabilities, which no command of weir run may have; a copy"),
        "{refused:?}"
    );
    let missing = laptop.run(RunAs::Application, &["no-such-program"])?;
    assert_eq!(
        missing.errors(),
        "weir run: no-such-program: command not found [WEIR-COMMAND]\n"
    );
    Ok(())
}

#[test]
fn what_weir_itself_cannot_do_is_said_before_the_command_starts() -> Result<()> {
    let laptop = Laptop::create()?;
    let weir = laptop.weir.to_str().unwrap();
    let missing = laptop.pod.try_run(
        RunAs::Application,
        weir,
        ["run", "--manifests", "/no/such", "--", "echo", "started"],
    )?;
    assert_eq!((missing.status.code(), missing.text().as_str()), (Some(125), ""));
    assert!(
        missing.errors().contains("/no/such; give a directory"),
        "{}",
        missing.errors()
    );

    let nobody = laptop.run_with(RunAs::Application, &["--as", "mesh/nobody"], &["echo", "started"])?;
    assert_eq!((nobody.status.code(), nobody.text().as_str()), (Some(125), ""));
    assert!(
        nobody.errors().contains("no manifest describes this pod"),
        "{}",
        nobody.errors()
    );
    Ok(())
}

#[test]
fn where_user_namespaces_are_off_it_says_what_to_do() -> Result<()> {
    let laptop = Laptop::create()?;
    // In a user namespace of the test's own, so that the machine's limit stays as it is.
    let script = format!(
        "export XDG_RUNTIME_DIR={2}/runtime; mkdir {2}/runtime; echo 0 > /proc/sys/user/max_user_namespaces && \
         exec setpriv --bounding-set=-all --inh-caps=-all {0} run --manifests {1} -- echo started",
        laptop.weir.display(),
        laptop.mesh.manifests.path().display(),
        laptop.shared.path().display(),
    );
    let refused = laptop
        .pod
        .try_run(RunAs::Application, "unshare", ["-Ur", "sh", "-c", &script])?;
    assert_eq!(
        (refused.status.code(), refused.text().as_str()),
        (Some(125), ""),
        "{refused:?}"
    );
    for advice in [
        "does not allow a user namespace",
        "max_user_namespaces",
        "apparmor",
        "run weir as root",
    ] {
        assert!(refused.errors().contains(advice), "{}", refused.errors());
    }
    Ok(())
}

#[test]
fn standard_output_is_the_commands_alone() -> Result<()> {
    let laptop = Laptop::create()?;
    let finished = laptop.run_with(
        RunAs::Application,
        &["--journey"],
        &["sh", "-c", "curl -s http://web.mesh/ > /dev/null; printf '\\0x'"],
    )?;
    assert_eq!(finished.stdout, b"\0x");
    assert!(
        finished.errors().contains("web.mesh.svc.cluster.local"),
        "{}",
        finished.errors()
    );
    Ok(())
}

#[test]
fn signals_reach_the_command() -> Result<()> {
    let laptop = Laptop::create()?;
    for who in BOTH {
        for (signal, name) in [
            (Signal::TERM, "TERM"),
            (Signal::HUP, "HUP"),
            (Signal::USR1, "USR1"),
            (Signal::INT, "INT"),
        ] {
            let script =
                format!("trap 'echo got {name}; exit 33' {name}; echo ready; while :; do sleep 0.02; done");
            let mut program = laptop.start(who, &["sh", "-c", &script])?;
            eventually("the command", || program.said().contains("ready").then_some(()))?;
            program.signal(signal)?;
            assert_eq!(program.wait()?.code(), Some(33), "{name}: {}", program.said());
            assert!(
                program.said().contains(&format!("got {name}")),
                "{}",
                program.said()
            );
        }
        // One that does not catch it: weir ends as the command did.
        let mut program = laptop.start(who, &["sh", "-c", "echo ready; exec sleep 1000"])?;
        eventually("the command", || program.said().contains("ready").then_some(()))?;
        program.signal(Signal::TERM)?;
        assert_eq!(program.wait()?.signal(), Some(15));
    }
    Ok(())
}

#[test]
fn an_interrupt_of_the_group_ends_both() -> Result<()> {
    let laptop = Laptop::create()?;
    let mut program = laptop.start(RunAs::Application, &["sh", "-c", "echo ready; exec sleep 1000"])?;
    eventually("the command", || program.said().contains("ready").then_some(()))?;
    kill_process_group(pid(program.id())?, Signal::INT)?;
    assert_eq!(program.wait()?.signal(), Some(2));
    Ok(())
}

#[test]
fn nothing_outlives_the_command_or_weir() -> Result<()> {
    let laptop = Laptop::create()?;
    for who in BOTH {
        // A child that has left session and process group behind, and its child.
        let script = "setsid sh -c 'echo $$ > $0; sleep 1000; true' $0 & setsid setsid sleep 1000 & \
                      while [ ! -s $0 ]; do sleep 0.02; done; echo ready; [ $1 = stay ] && sleep 1000; exit 3";
        for (mode, expected) in [("stay", None), ("go", Some(3))] {
            let file = laptop.shared.path().join(format!("pid-{who:?}-{mode}"));
            let mut program = laptop.start(who, &["sh", "-c", script, file.to_str().unwrap(), mode])?;
            eventually("the command", || program.said().contains("ready").then_some(()))?;
            let orphan = fs::read_to_string(&file)?.trim().parse()?;
            if mode == "stay" {
                assert!(is_alive(orphan));
                kill_process(pid(program.id())?, Signal::KILL)?;
            }
            assert_eq!(program.wait()?.code(), expected);
            eventually("the command's children to end", || {
                (!is_alive(orphan)).then_some(())
            })?;
        }
    }
    Ok(())
}

#[test]
fn the_socket_file_goes_too() -> Result<()> {
    let laptop = Laptop::create()?;
    let runtime = laptop.shared.path().join("runtime");
    fs::create_dir(&runtime)?;
    let directory = runtime.join("weir");
    let files = || fs::read_dir(&directory).map_or(0, |files| files.count());
    let variable = format!("XDG_RUNTIME_DIR={}", runtime.display());
    let weir = laptop.weir.to_str().unwrap();
    for kill in [Signal::TERM, Signal::KILL] {
        let mut arguments = vec![variable.clone(), weir.to_owned()];
        arguments.extend(laptop.arguments(&[], &["sh", "-c", "echo ready; exec sleep 1000"]));
        let mut program = laptop.pod.start(RunAs::Root, "env", arguments)?;
        eventually("the command", || program.said().contains("ready").then_some(()))?;
        assert_eq!(files(), 1);
        program.signal(kill)?;
        program.wait()?;
        eventually("the socket file to go", || (files() == 0).then_some(()))?;
    }
    Ok(())
}

#[test]
fn a_runtime_directory_of_somebody_else_does_no_harm() -> Result<()> {
    let laptop = Laptop::create()?;
    let mut arguments = vec![
        String::from("XDG_RUNTIME_DIR=/root"),
        laptop.weir.to_str().unwrap().to_owned(),
    ];
    arguments.extend(laptop.arguments(&[], &["true"]));
    let finished = laptop.pod.try_run(RunAs::Application, "env", arguments)?;
    assert_eq!(finished.status.code(), Some(0), "{finished:?}");
    Ok(())
}

/// Drives a shell with job control on a terminal of its own.
const TERMINAL: &str = include_str!("terminal.py");

#[test]
fn the_terminal_is_as_without_weir() -> Result<()> {
    let laptop = Laptop::create()?;
    let script = laptop.shared.path().join("terminal.py");
    fs::write(&script, TERMINAL)?;
    for who in BOTH {
        let weir = laptop.weir.to_str().unwrap();
        let manifests = laptop.mesh.manifests.path().to_str().unwrap();
        let finished = laptop
            .pod
            .try_run(who, "python3", [script.to_str().unwrap(), weir, manifests])?;
        assert!(
            finished.status.success(),
            "{who:?}:\n{}{}",
            finished.text(),
            finished.errors()
        );
    }
    Ok(())
}

fn pid(id: u32) -> Result<Pid> {
    Pid::from_raw(id.try_into()?).context("a process id")
}

/// A zombie is not.
fn is_alive(process: u32) -> bool {
    fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}
