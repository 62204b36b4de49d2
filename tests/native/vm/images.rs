//! What a guest is made of, and whether there is room for it.

use std::fs;

use ephemerd::job::Outcome;

use super::{give, guests, tart_config, tart_site};
use crate::harness::{Daemon, out, said};

#[test]
fn an_image_without_an_agent_is_reached_by_ssh_and_no_argument_has_what_the_job_is_given() {
    let (site, home) = tart_site("");
    let log = site.top.join("ssh-log");
    let inside = site.top.join("inside");
    fs::create_dir(&inside).unwrap();
    fs::write(&log, "").unwrap();
    give(&inside, &site.family);
    give(&log, &site.family);
    // Stands in for ssh, and for the guest at its other end.
    let ssh = site.top.join("ssh");
    fs::write(
        &ssh,
        format!("#!/bin/sh\necho \"$@\" >>{log}\nHOME={inside} exec sh -s\n"),
    )
    .unwrap();
    fs::set_permissions(&ssh, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let exec = format!(
        "exec = [\"/bin/sh\", \"-c\", \"address=$(\\\"$1\\\" ip \\\"$2\\\" --wait 30) && exec {ssh} -o BatchMode=yes admin@$address /bin/sh -s\", \"exec\", \"{{tool}}\", \"{{name}}\"]\n"
    );
    let config = tart_config(&home, "").replace("preset = \"tart\"\n", &format!("preset = \"tart\"\n{exec}"));
    site.configure(&config);
    let daemon = Daemon::start_at(site);
    let job = daemon.submit("vm/app", &["sh", "-c", "echo s3cret; exit 6"]);
    assert_eq!(daemon.outcome(&job), Outcome::Exited { code: 6 });
    assert_eq!(daemon.output(&job), "s3cret\n");
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("-o BatchMode=yes admin@192.168."), "{log}");
    assert!(!log.contains("s3cret"), "{log}");
    assert_eq!(guests(&home), Vec::<String>::new());
}

#[test]
fn an_image_that_is_not_here_is_told_and_fetched_by_a_command_of_its_own() {
    let (site, home) = tart_site("");
    let config = fs::read_to_string(&site.config).unwrap();
    let image = "example.org/base@sha256:aaaa";
    fs::write(
        &site.config,
        config.replace(
            "image = \"base\"",
            &format!("image = \"{image}\"\nimage_size = \"1MiB\""),
        ),
    )
    .unwrap();
    fs::create_dir_all(home.join("registry")).unwrap();
    fs::write(
        home.join("registry/example.org%2Fbase%40sha256%3Aaaaa.json"),
        "{\"os\":\"darwin\",\"digest\":\"sha256:aaaa\"}",
    )
    .unwrap();
    let check = site.run(&["vm", "check"]);
    assert_eq!(check.status.code(), Some(1), "{}", said(&check));
    assert!(
        out(&check).contains("is not on this host\nhint: `ephemerd vm pull` fetches it"),
        "{}",
        said(&check)
    );
    let pull = site.run(&["vm", "pull"]);
    assert!(pull.status.success(), "{}", said(&pull));
    let check = site.run(&["vm", "check"]);
    assert!(
        check.status.success() && out(&check) == "tart: ready\n",
        "{}",
        said(&check)
    );
    let daemon = Daemon::start_at(site);
    assert_eq!(
        daemon.outcome(&daemon.submit("vm/app", &["true"])),
        Outcome::Exited { code: 0 }
    );
}

#[test]
fn a_guest_that_does_not_fit_beside_the_slots_is_refused_with_the_arithmetic() {
    let (site, _) = tart_site("");
    let config = fs::read_to_string(&site.config).unwrap();
    fs::write(
        &site.config,
        config.replace("memory = \"4GiB\"", "memory = \"100TiB\""),
    )
    .unwrap();
    let plan = out(&site.run(&["vm", "plan"]));
    assert!(plan.contains("tart: guests of 104857600 MiB; 0 fit"), "{plan}");
    let daemon = Daemon::start_at(site);
    let Outcome::Refused { reason } = daemon.outcome(&daemon.submit("vm/app", &["true"])) else {
        panic!()
    };
    assert!(reason.contains("does not fit: "), "{reason}");
}
