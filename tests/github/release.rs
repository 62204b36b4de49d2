//! A release of the runner whose listener is the stand-in, and jobs for it.

use std::fs;

use camino::{Utf8Path, Utf8PathBuf};
use ephemerd::github::runner::tree::Build;
use sha2::{Digest, Sha256};

use super::hub::state::{JobSpec, Step};

/// Packs a runner for this host, see [`publish_for`].
pub(crate) fn publish(releases: &Utf8Path) -> String {
    publish_with(releases, |_| {})
}

/// The same with more files, which `more` adds by their path, content and mode.
pub(crate) fn publish_with(
    releases: &Utf8Path,
    more: impl FnOnce(&mut dyn FnMut(&str, &[u8], u32)),
) -> String {
    let arch = match ephemerd::host::Host::system().machine().as_str() {
        "x86_64" => "x64",
        _ => "arm64",
    };
    publish_for(&format!("linux-{arch}"), releases, more)
}

/// Packs a runner for a platform, as GitHub calls it, whose listener is the stand-in below `releases`, where GitHub's would
/// be; the hash of the archive.
pub(crate) fn publish_for(
    platform: &str,
    releases: &Utf8Path,
    more: impl FnOnce(&mut dyn FnMut(&str, &[u8], u32)),
) -> String {
    let build: Build = format!("2.336.0-{platform}").parse().unwrap();
    let archive = Utf8PathBuf::from(build.url(releases.as_str()));
    fs::create_dir_all(archive.parent().unwrap()).unwrap();
    let listener = Utf8Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fakes/runner/Runner.Listener");
    let mut packed = tar::Builder::new(flate2::write::GzEncoder::new(
        fs::File::create(&archive).unwrap(),
        flate2::Compression::fast(),
    ));
    let mut add = |path: &str, content: &[u8], mode: u32| {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        packed.append_data(&mut header, path, content).unwrap();
    };
    add("./bin/Runner.Listener", &fs::read(listener).unwrap(), 0o755);
    add(
        "./bin/faults.json",
        b"{\"poll\": 0.05, \"grace\": [0.2, 0.2]}",
        0o644,
    );
    add("./externals/node24/bin/node", b"#!/bin/sh\n", 0o755);
    add("./run.sh", b"#!/bin/sh\n", 0o755);
    more(&mut add);
    packed.into_inner().unwrap().finish().unwrap();
    let digest = Sha256::digest(fs::read(&archive).unwrap());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A job of these steps; those that begin with `always:` have `if: always()`.
pub(crate) fn steps(name: &str, labels: &[&str], steps: &[&str]) -> JobSpec {
    let step = |text: &&str| match text.strip_prefix("always:") {
        Some(run) => Step {
            run: run.to_owned(),
            always: true,
        },
        None => Step {
            run: (*text).to_owned(),
            always: false,
        },
    };
    JobSpec {
        steps: steps.iter().map(step).collect(),
        ..JobSpec::new(name, labels)
    }
}
