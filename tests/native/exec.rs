//! `ephemerd exec`: one command through the whole pipeline, as if it ran by itself.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Site, err, out, said, wait_for};

const POSTURES: [&str; 2] = ["strict", "standard"];

fn exec(site: &Site, command: &[&str]) -> Output {
    site.ephemerd(&["exec", "--"])
        .args(command)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn sh(site: &Site, script: &str) -> Output {
    exec(site, &["sh", "-c", script])
}

#[test]
fn ends_with_the_code_of_the_command_in_both_postures() {
    let site = Site::new("");
    for posture in POSTURES {
        for (script, code) in [
            ("exit 0", 0),
            ("exit 3", 3),
            ("exit 255", 255),
            ("kill -TERM $$", 128 + libc::SIGTERM),
            ("kill -SEGV $$", 128 + libc::SIGSEGV),
            ("kill -KILL $$", 128 + libc::SIGKILL),
        ] {
            let output = site.run(&["exec", "--posture", posture, "--", "sh", "-c", script]);
            assert_eq!(
                output.status.code(),
                Some(code),
                "{posture} `{script}`: {}",
                said(&output)
            );
            assert_eq!(
                (out(&output), err(&output)),
                (String::new(), String::new()),
                "nothing of ours is printed"
            );
        }
    }
}

#[test]
fn ends_with_127_for_a_missing_command_and_126_for_one_that_cannot_be_executed() {
    let site = Site::new("");
    for (command, code, why) in [
        ("no-such-program", 127, "No such file or directory"),
        ("/no/such/program", 127, "No such file or directory"),
        ("./absent", 127, "No such file or directory"),
        ("", 127, "No such file or directory"),
        ("/etc/passwd", 126, "Permission denied"),
        ("/etc", 126, "Permission denied"),
    ] {
        let output = exec(&site, &[command]);
        assert_eq!(output.status.code(), Some(code), "`{command}`: {}", said(&output));
        assert!(
            err(&output).contains(&format!("ephemerd: cannot execute `{command}`: {why}")),
            "{}",
            said(&output)
        );
    }
}

#[test]
fn passes_input_and_both_outputs_through_byte_for_byte() {
    let site = Site::new("");
    let every_byte: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let mut child = site
        .ephemerd(&["exec", "--", "sh", "-c", "tee /dev/stderr"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let sent = every_byte.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&sent).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "{:?}", output.status);
    assert!(
        output.stdout == every_byte,
        "{} bytes of output",
        output.stdout.len()
    );
    assert!(
        output.stderr == every_byte,
        "{} bytes of errors",
        output.stderr.len()
    );
}

#[test]
fn a_command_that_does_not_read_its_input_ends_all_the_same() {
    let site = Site::new("");
    let endless = site
        .ephemerd(&["exec", "--", "true"])
        .stdin(File::open("/dev/zero").unwrap())
        .output()
        .unwrap();
    assert!(endless.status.success(), "{}", said(&endless));
    let (reader, writer) = std::io::pipe().unwrap();
    let open = site
        .ephemerd(&["exec", "--", "true"])
        .stdin(reader)
        .output()
        .unwrap();
    drop(writer);
    assert!(open.status.success(), "{}", said(&open));
}

#[test]
fn works_with_closed_standard_streams() {
    let site = Site::new("");
    let mut closed = site.ephemerd(&["exec", "--", "sh", "-c", "cat; echo out; echo err >&2; exit 4"]);
    // SAFETY: closing descriptors is all that happens between fork and exec.
    unsafe {
        closed.pre_exec(|| {
            for fd in 0..3 {
                libc::close(fd);
            }
            Ok(())
        })
    };
    assert_eq!(closed.status().unwrap().code(), Some(4));
    let mut input = site.ephemerd(&["exec", "--", "sh", "-c", "cat; echo out"]);
    // SAFETY: as above.
    unsafe {
        input.pre_exec(|| {
            libc::close(0);
            Ok(())
        })
    };
    let output = input.output().unwrap();
    assert_eq!(out(&output), "out\n", "{}", said(&output));
    assert!(output.status.success());
}

#[test]
fn a_reader_that_goes_away_does_not_leave_the_command_behind() {
    let site = Site::new("");
    let mut child = site
        .ephemerd(&[
            "exec",
            "--",
            "sh",
            "-c",
            "while :; do echo line; done & wait & sleep 0.3",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    child.wait().unwrap();
    site.assert_clean();
}

#[test]
fn the_environment_is_minimal_and_holds_nothing_of_the_callers() {
    let site = Site::new("[native.env]\nCONFIGURED = \"yes\"\n");
    let output = site
        .ephemerd(&["exec", "--", "env"])
        .env("EPHT_SECRET", "hunter2")
        .env("LD_PRELOAD_X", "x")
        .env("GITHUB_TOKEN", "hunter2")
        .env("SSH_AUTH_SOCK", "/hunter2")
        .env("LANG", "de_DE.UTF-8")
        .env("PATH", format!("/hunter2:{}", std::env::var("PATH").unwrap()))
        .output()
        .unwrap();
    let text = out(&output);
    assert!(!text.contains("hunter2"), "{text}");
    let mut names: Vec<_> = text.lines().filter_map(|line| line.split('=').next()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "CI",
            "CONFIGURED",
            "EPHEMERD_JOB_ID",
            "EPHEMERD_PORTS",
            "HOME",
            "LANG",
            "LOGNAME",
            "PATH",
            "SHELL",
            "TMPDIR",
            "USER"
        ],
        "{text}"
    );
    for line in ["LANG=C.UTF-8", "CI=true", "SHELL=/bin/sh", "CONFIGURED=yes"] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
}

#[test]
fn descriptors_of_the_caller_do_not_reach_the_command() {
    let site = Site::new("");
    let secret = File::open("/etc/shadow").unwrap();
    let fd = secret.as_raw_fd();
    let mut command = site.ephemerd(&["exec", "--", "sh", "-c", "ls -l /proc/self/fd; cat <&7"]);
    // SAFETY: dup2 takes two integers and clears close-on-exec; `secret` outlives the spawn.
    unsafe {
        command.pre_exec(move || {
            libc::dup2(fd, 7);
            Ok(())
        })
    };
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(
        !out(&output).contains("shadow") && !out(&output).contains("root:"),
        "{}",
        said(&output)
    );
    let numbers: Vec<_> = out(&output)
        .lines()
        .filter_map(|line| line.split_whitespace().nth(8).map(str::to_owned))
        .collect();
    // The fourth is the listing itself.
    assert_eq!(numbers, ["0", "1", "2", "3"], "{}", said(&output));
    assert_ne!(output.status.code(), Some(0), "descriptor 7 is open");
}

#[test]
fn has_no_terminal_and_a_session_of_its_own() {
    let site = Site::new("");
    let output = sh(
        &site,
        "(: < /dev/tty) 2>&1 && echo terminal; cut -d' ' -f6,7 /proc/self/stat",
    );
    assert!(!out(&output).contains("terminal"), "{}", said(&output));
    let line = out(&output).lines().last().unwrap().to_owned();
    let (session, tty) = line.split_once(' ').unwrap();
    assert_ne!(session, "0", "its session began inside");
    assert_eq!(tty, "0");
}

#[test]
fn a_signal_cancels_the_command_and_leaves_nothing() {
    let site = Site::new("[native]\nstop_grace = \"300ms\"\n");
    for (signal, script) in [
        (Signal::SIGTERM, "echo ready; exec sleep 1000"),
        (Signal::SIGINT, "echo ready; exec sleep 1000"),
        (
            Signal::SIGTERM,
            "trap '' TERM INT; echo ready; while :; do sleep 1000; done",
        ),
    ] {
        let mut child = site
            .ephemerd(&["exec", "--", "sh", "-c", script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(
            &mut std::io::BufReader::new(child.stdout.as_mut().unwrap()),
            &mut line,
        )
        .unwrap();
        assert_eq!(line, "ready\n");
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
        let status = wait_for("the end of exec", || child.try_wait().unwrap());
        assert_eq!(status.code(), Some(137), "{signal} {status:?}");
        site.assert_clean();
    }
}

#[test]
fn killing_exec_itself_kills_the_command_and_the_next_one_clears_up() {
    let site = Site::new("");
    let mut child = site
        .ephemerd(&["exec", "--", "sh", "-c", "trap '' TERM; echo ready; sleep 1000"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(
        &mut std::io::BufReader::new(child.stdout.as_mut().unwrap()),
        &mut line,
    )
    .unwrap();
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    for uid in site.family.uids() {
        wait_for("the end of the job", || {
            crate::harness::processes_of(uid).is_empty().then_some(())
        });
    }
    let output = sh(&site, "echo next");
    assert_eq!(out(&output), "next\n", "{}", said(&output));
    assert!(err(&output).starts_with("recovered job "), "{}", said(&output));
    site.assert_clean();
}

#[test]
fn report_names_every_axis_and_how_well_it_stands() {
    let site = Site::new("");
    let output = site.run(&["exec", "--report", "--", "true"]);
    assert!(output.status.success());
    for axis in [
        "accounts",
        "filesystem",
        "processes",
        "ipc",
        "network",
        "limits",
        "credentials",
    ] {
        let line = err(&output)
            .lines()
            .find(|line| line.starts_with(axis))
            .map(str::to_owned);
        assert!(
            line.is_some_and(|line| line.contains(" enforced ")),
            "{axis}: {}",
            said(&output)
        );
    }
    site.configure("[egress]\nmode = \"open\"\n");
    let output = site.run(&["exec", "--report", "--", "true"]);
    assert!(output.status.success());
    assert!(
        err(&output).contains("network      DEGRADED"),
        "{}",
        said(&output)
    );
}

#[test]
fn keep_keeps_the_workspace_where_only_the_owner_gets() {
    let site = Site::new("");
    let output = site.run(&["exec", "--keep", "--", "sh", "-c", "echo result > file; exit 5"]);
    assert_eq!(output.status.code(), Some(5), "{}", said(&output));
    let kept = err(&output)
        .lines()
        .find_map(|line| {
            line.strip_prefix("ephemerd: workspace kept at ")
                .map(str::to_owned)
        })
        .unwrap();
    assert_eq!(
        fs::read_to_string(format!("{kept}/work/file")).unwrap(),
        "result\n"
    );
    site.assert_clean();
    let peek = sh(&site, &format!("cat {kept}/work/file"));
    assert!(
        !peek.status.success() && !out(&peek).contains("result"),
        "{}",
        said(&peek)
    );
}

#[test]
fn a_repository_is_decided_upon_and_gets_its_grants() {
    let site = Site::new("");
    let granted = site.top.join("granted");
    fs::create_dir(&granted).unwrap();
    fs::write(granted.join("file"), "for acme/ios\n").unwrap();
    site.configure(&format!("[repos.\"acme/ios\"]\nextra_read = [{granted:?}]\n"));
    let cat = format!("cat {granted}/file");
    let with = site.run(&["exec", "--repo", "acme/ios", "--", "sh", "-c", &cat]);
    assert_eq!(out(&with), "for acme/ios\n", "{}", said(&with));
    let without = site.run(&["exec", "--repo", "acme/web", "--", "sh", "-c", &cat]);
    assert_eq!(without.status.code(), Some(1), "{}", said(&without));
    let refused = site.run(&["exec", "--repo", "stranger/app", "--", "true"]);
    assert_eq!(refused.status.code(), Some(125), "{}", said(&refused));
    assert!(
        err(&refused).contains("stranger/app does not run on this host: ")
            && err(&refused).contains("\nhint: "),
        "{}",
        said(&refused)
    );
}

#[test]
fn a_granted_path_that_is_not_there_is_named_before_the_command_starts() {
    let site = Site::new("[native]\nextra_read = [\"/no/such/folder\"]\n");
    let output = sh(&site, "echo ran");
    assert_eq!(output.status.code(), Some(125), "{}", said(&output));
    assert!(
        err(&output).contains("`/no/such/folder`") && err(&output).contains("\nhint: "),
        "{}",
        said(&output)
    );
    assert_eq!(out(&output), "");
    site.assert_clean();
}

#[test]
fn more_commands_than_slots_are_refused_and_disturb_nobody() {
    let site = Site::new("[native]\nslots = 1\n");
    let mut first = site
        .ephemerd(&["exec", "--", "sh", "-c", "echo ready; read line; echo $line"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut reader = std::io::BufReader::new(first.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut reader, &mut line).unwrap();
    let second = sh(&site, "echo ran");
    assert_eq!(second.status.code(), Some(125), "{}", said(&second));
    assert!(
        err(&second).contains("every slot is in use") && err(&second).contains("\nhint: "),
        "{}",
        said(&second)
    );
    first.stdin.take().unwrap().write_all(b"undisturbed\n").unwrap();
    assert_eq!(std::io::read_to_string(reader).unwrap(), "undisturbed\n");
    assert!(first.wait().unwrap().success());
}
