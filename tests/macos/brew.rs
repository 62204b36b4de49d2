//! Jobs with a Homebrew prefix of their own on a Mac made of stand-ins.

use std::fs;

use crate::fake::{FakeHomebrew, Repository, walk};
use crate::stand::Mac;

fn mac_with_brew() -> (Mac, FakeHomebrew) {
    let mac = Mac::with_accounts();
    let host = FakeHomebrew::make(&mac.host.homebrew, Repository::Prefix);
    (mac, host)
}

#[test]
fn a_job_changes_the_prefix_of_its_slot_and_nothing_of_it_stays() {
    let (mac, host) = mac_with_brew();
    let before = walk(host.prefix.as_std_path());
    let script = format!(
        "set -e
        command -v brew; brew list; alpha
        brew install zeta 9.0; zeta
        echo $HOMEBREW_AVOID_NESTED_SANDBOXING
        ls {}/2 2>&1 || true",
        mac.host.prefixes
    );
    // What another slot's job has there, open to every account.
    let sibling = mac.host.prefixes.join("2");
    fs::create_dir_all(&sibling).unwrap();
    for _ in 0..2 {
        let (code, out, err) = mac.exec(&script);
        assert_eq!(code, 0, "{out}{err}");
        let lines: Vec<&str> = out.lines().collect();
        let expected = format!("{}/1/bin/brew", mac.host.prefixes);
        let listed = ["alpha 1.0 1.1", "beta 2.0", "delta 4.0_1", "gamma@3 3.0"];
        assert_eq!(lines[0], expected);
        assert_eq!(lines[1..5], listed, "each job begins anew");
        assert_eq!(lines[5..8], ["alpha 1.1 bin/alpha", "zeta 9.0", "1"]);
        assert!(lines[8].contains("Permission denied"), "{}", lines[8]);
        assert!(!mac.host.prefixes.join("1").exists());
    }
    assert_eq!(walk(host.prefix.as_std_path()), before);
    assert_eq!(mac.remains(), [""; 0]);
}

#[test]
fn the_configuration_decides_what_a_job_of_a_mac_gets() {
    let (mac, host) = mac_with_brew();
    let config = mac.top.join("ephemerd.toml");
    let text = fs::read_to_string(&config).unwrap();
    let has = |mode: &str| {
        fs::write(&config, format!("{text}homebrew = {mode:?}\n")).unwrap();
        let (code, out, err) = mac.exec("command -v brew || echo none");
        assert_eq!(code, 0, "{err}");
        out
    };
    assert_eq!(has("shared-read-only"), format!("{}/bin/brew\n", host.prefix));
    assert_eq!(has("none"), "none\n");
    assert!(!mac.host.prefixes.exists(), "no job needed a place");
}

#[test]
fn a_homebrew_that_holds_the_daemons_configuration_is_not_copied() {
    let (mac, host) = mac_with_brew();
    let config = host.at("etc/ephemerd.toml");
    fs::copy(mac.top.join("ephemerd.toml"), &config).unwrap();
    let output = std::process::Command::new(mac.top.join("bin/ephemerd"))
        .args(["--config", config.as_str(), "exec", "--", "true"])
        .output()
        .unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success(), "{errors}");
    let expected = format!("overlaps the daemon's `{config}`");
    assert!(errors.contains(&expected), "{errors}");
    assert!(!mac.host.prefixes.join("1").exists());
}
