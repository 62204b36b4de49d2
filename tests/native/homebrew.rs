//! Jobs with a Homebrew prefix of their own, on a host whose Homebrew is a stand-in's.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use ephemerd::job::Outcome;

use crate::fake::{FakeHomebrew, Repository, walk};
use crate::harness::{Census, Daemon, Site, err, out, said};

/// A place with a Homebrew on its host, and `more` in the configuration after naming it.
fn place(more: &str) -> (Site, FakeHomebrew) {
    place_of(Repository::Below, more)
}

fn place_of(repository: Repository, more: &str) -> (Site, FakeHomebrew) {
    let site = Site::new("");
    let host = FakeHomebrew::make(&site.top.join("linuxbrew"), repository);
    site.configure(&format!("[native]\nhomebrew_prefix = {:?}\n{more}", host.prefix));
    (site, host)
}

const LISTED: &str = "alpha 1.0 1.1\nbeta 2.0\ndelta 4.0_1\ngamma@3 3.0\n";

#[test]
fn a_job_changes_its_own_homebrew_and_nothing_of_it_stays() {
    for posture in ["strict", "standard"] {
        let (site, host) = place(&format!("posture = {posture:?}\n"));
        let before = walk(host.prefix.as_std_path());
        let daemon = Daemon::start_at(site);
        let census = Census::take(&daemon);
        let script = "set -e
            command -v brew
            brew list
            alpha; alpha-real; beta; $(brew --prefix)/opt/gamma/bin/gamma
            brew install zeta 9.0; zeta
            brew upgrade alpha 1.2; alpha
            brew uninstall delta; brew list
            echo setting = 2 > $(brew --prefix)/etc/delta.conf";
        let output = daemon.run(script);
        assert!(output.status.success(), "{posture}: {}", said(&output));
        let expected = format!(
            "/var/eph/brew/bin/brew\n{LISTED}alpha 1.1 bin/alpha\nalpha 1.1 libexec/real\nbeta 2.0 bin/beta\n\
             gamma@3 3.0 bin/gamma\nzeta 9.0\nalpha 1.2\nalpha 1.0 1.1 1.2\nbeta 2.0\ngamma@3 3.0\nzeta 9.0\n"
        );
        assert_eq!(out(&output), expected, "{posture}");
        assert_eq!(walk(host.prefix.as_std_path()), before, "{posture}");
        assert_eq!(out(&daemon.run("brew list")), LISTED, "the next job begins anew");
        assert_eq!(Census::take(&daemon), census, "{posture}");
    }
}

#[test]
fn a_job_can_write_neither_the_hosts_homebrew_nor_the_template() {
    let (site, host) = place_of(Repository::Prefix, "");
    // What modes alone would allow.
    fs::set_permissions(host.at("Cellar/alpha/1.1/bin"), fs::Permissions::from_mode(0o777)).unwrap();
    fs::set_permissions(
        host.at("Cellar/alpha/1.1/bin/alpha"),
        fs::Permissions::from_mode(0o777),
    )
    .unwrap();
    let before = walk(host.prefix.as_std_path());
    let daemon = Daemon::start_at(site);
    let script = format!(
        "echo x > {prefix}/bin/new; echo x > {prefix}/Cellar/alpha/1.1/bin/alpha; echo x > /var/eph/brew/bin/alpha
         rm {prefix}/Cellar/alpha/1.1/bin/alpha; ls {data}/templates; ls {data}; true",
        prefix = host.prefix,
        data = daemon.site().data_dir,
    );
    let output = daemon.run(&script);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(walk(host.prefix.as_std_path()), before, "{}", said(&output));
    assert_eq!(
        out(&output).matches("cannot create").count(),
        3,
        "{}",
        said(&output)
    );
    assert!(
        out(&output).contains("templates': No such file"),
        "{}",
        said(&output)
    );
    let templates = daemon.site().data_dir.join("templates");
    assert_eq!(fs::metadata(&templates).unwrap().mode() & 0o777, 0o700);
    assert_eq!(out(&daemon.run("alpha")), "alpha 1.1 bin/alpha\n");
}

#[test]
fn the_configuration_decides_what_a_job_gets() {
    let (site, host) = place("homebrew = \"shared-read-only\"\n[repos.\"other/app\"]\nhomebrew = \"none\"\n");
    let daemon = Daemon::start_at(site);
    let shared = daemon.run("command -v brew && brew list && alpha; brew install zeta 9.0 || echo refused");
    let expected = format!("{}/bin/brew\n{LISTED}alpha 1.1 bin/alpha\n", host.prefix);
    assert!(out(&shared).starts_with(&expected), "{}", said(&shared));
    assert!(out(&shared).ends_with("refused\n"), "{}", said(&shared));
    let none = daemon.submit(
        "other/app",
        &["sh", "-c", "command -v alpha; env | grep HOMEBREW; echo end"],
    );
    assert_eq!(daemon.outcome(&none), Outcome::Exited { code: 0 });
    assert_eq!(daemon.output(&none), "end\n");
    assert!(
        !daemon.site().data_dir.join("templates/homebrew").exists(),
        "no job needed a template"
    );
}

#[test]
fn a_named_prefix_without_homebrew_refuses_jobs_with_the_reason() {
    let (site, host) = place("");
    let daemon = Daemon::start_at(site);
    fs::rename(&host.prefix, host.prefix.with_extension("gone")).unwrap();
    let job = daemon.script("true");
    let Outcome::Refused { reason } = daemon.outcome(&job) else {
        panic!("{:?}", daemon.outcome(&job))
    };
    assert!(
        reason.contains(&format!("`{}` is not a Homebrew prefix", host.prefix)),
        "{reason}"
    );
    assert!(
        reason.contains("hint: name one in native.homebrew_prefix"),
        "{reason}"
    );
    fs::rename(host.prefix.with_extension("gone"), &host.prefix).unwrap();
    assert_eq!(out(&daemon.run("brew list")), LISTED);
}

#[test]
fn jobs_at_once_share_a_template_and_no_prefix() {
    let (site, _host) = place("slots = 2\n");
    let daemon = Daemon::start_at(site);
    let jobs: Vec<_> = (0..4)
        .map(|number| daemon.script(&format!("brew install mine{number} 1 && brew list | grep mine")))
        .collect();
    for (number, job) in jobs.iter().enumerate() {
        assert_eq!(daemon.outcome(job), Outcome::Exited { code: 0 });
        assert_eq!(daemon.output(job), format!("mine{number} 1\n"));
    }
    let shelf = daemon.site().data_dir.join("templates/homebrew");
    assert_eq!(
        fs::read_dir(shelf).unwrap().count(),
        2,
        "the lock and one template"
    );
}

#[test]
fn verify_finds_every_probe_as_it_must_be_on_a_host_with_homebrew_in_a_home() {
    let site = Site::new("");
    // Where the installer puts it on Linux: the way there goes through what is hidden.
    let home = tempfile::Builder::new()
        .prefix("epht-")
        .tempdir_in("/home")
        .unwrap();
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let home = camino::Utf8Path::from_path(home.path()).unwrap();
    let host = FakeHomebrew::make(&home.join(".linuxbrew"), Repository::Below);
    site.configure(&format!("[native]\nhomebrew_prefix = {:?}\n", host.prefix));
    let verified = site.run(&["profile", "verify"]);
    assert!(verified.status.success(), "{}", said(&verified));
    let listed = site.run(&["exec", "--", "sh", "-c", "brew list && alpha && ls /home"]);
    assert_eq!(
        out(&listed),
        format!("{LISTED}alpha 1.1 bin/alpha\n"),
        "{}",
        said(&listed)
    );
    assert!(
        err(&listed).contains("cannot open directory '/home'"),
        "{}",
        said(&listed)
    );
}
