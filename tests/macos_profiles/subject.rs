//! A rendered profile that can be asked.

use std::sync::LazyLock;

use camino::Utf8PathBuf;
use ephemerd::profile::decide::{Operation, Verdict, macos};
use ephemerd::profile::expect::Places;
use ephemerd::profile::policy::Network;
use ephemerd::profile::render::{
    HomebrewInput, RenderError, RenderInput, Rendered, Renderer, System, macos::Places as Mac,
};
use ephemerd::profile::sbpl::{Release, Ruleset, Semantics};
use ephemerd::profile::{Posture, Rules};
use ephemerd::workspace::Place;

/// Both postures.
pub(crate) const POSTURES: [Posture; 2] = [Posture::Strict, Posture::Standard];

/// The releases ephemerd is for.
pub(crate) const RELEASES: [Release; 2] = [Release::MacOs15, Release::MacOs26];

static RENDERER: LazyLock<Renderer> = LazyLock::new(|| Renderer::new().unwrap());

/// The job all profiles here are rendered for.
pub(crate) fn input(release: Release) -> RenderInput {
    RenderInput {
        job: "aaaaaaaaaaa".parse().unwrap(),
        workspace: "/private/var/lib/ephemerd/native/aaaaaaaaaaa".into(),
        data_dir: "/private/var/lib/ephemerd".into(),
        daemon_files: vec!["/private/etc/ephemerd/ephemerd.toml".into()],
        extra_read: vec![],
        extra_write: vec![],
        homebrew: Some(homebrew("/opt/eph/1")),
        runner: None,
        network: Network::None,
        system: System::MacOs(Mac {
            release,
            program: "/Users/builder/bin/ephemerd".into(),
            user_folders: "/private/var/folders".into(),
            user_folder: "/private/var/folders/zz/one".into(),
            developer_dir: "/Applications/Xcode.app/Contents/Developer".into(),
            prefixes: "/opt/eph".into(),
            runner_places: "/opt/eph-runner".into(),
            protected_ports: vec![22, 88, 445, 548, 3283, 5900],
        }),
    }
}

/// Homebrew of the host, and the job's own in `own`.
pub(crate) fn homebrew(own: &str) -> HomebrewInput {
    HomebrewInput {
        host: Some("/opt/homebrew".into()),
        own: Some(Place {
            shown: own.into(),
            real: own.into(),
        }),
    }
}

/// What expectations call its places.
pub(crate) fn places() -> Places {
    Places::from([
        ("workspace", "/private/var/lib/ephemerd/native/aaaaaaaaaaa".into()),
        ("sibling", "/private/var/lib/ephemerd/native/bbbbbbbbbbb".into()),
        ("data_dir", "/private/var/lib/ephemerd".into()),
        ("config", "/private/etc/ephemerd/ephemerd.toml".into()),
        ("program", "/Users/builder/bin/ephemerd".into()),
        ("user_folder", "/private/var/folders/zz/one".into()),
        ("sibling_user_folder", "/private/var/folders/zz/two".into()),
        (
            "developer_dir",
            "/Applications/Xcode.app/Contents/Developer".into(),
        ),
        ("host_homebrew", "/opt/homebrew".into()),
        ("sibling_homebrew", "/opt/eph/2".into()),
        ("sibling_runner", "/opt/eph-runner/2".into()),
        ("protected_port", "22".into()),
    ])
}

/// A profile, with its text.
pub(crate) struct Subject {
    pub(crate) text: String,
    pub(crate) rules: Rules,
}

/// The profile of `posture` after `change`.
pub(crate) fn try_rendered(
    posture: Posture,
    release: Release,
    change: impl FnOnce(&mut RenderInput),
) -> Result<Subject, RenderError> {
    let mut input = input(release);
    change(&mut input);
    let Rendered { text, rules } = RENDERER.render(posture, &input)?;
    Ok(Subject { text, rules })
}

/// The profile of `posture` for the newest release after `change`.
pub(crate) fn rendered(posture: Posture, change: impl FnOnce(&mut RenderInput)) -> Subject {
    try_rendered(posture, Release::NEWEST, change).unwrap()
}

/// What only macOS has of an input.
pub(crate) fn mac(input: &mut RenderInput) -> &mut Mac {
    match &mut input.system {
        System::MacOs(mac) => mac,
        System::Linux => panic!("an input for the other system"),
    }
}

impl Subject {
    /// Its rules.
    pub(crate) fn ruleset(&self) -> &Ruleset {
        match &self.rules {
            Rules::MacOs(ruleset) => ruleset,
            Rules::Linux(_) => panic!("rendered for the other system"),
        }
    }

    /// Whether `operation`, by its own name, is allowed on `target`.
    pub(crate) fn allows(&self, operation: &str, target: &str) -> bool {
        let operation = Operation::Sbpl(operation.into());
        let semantics = Semantics::of(self.ruleset().vocabulary.release());
        let asked = (&operation, target);
        let ruling = macos::decide(self.ruleset(), asked, Verdict::Allow, &semantics).unwrap();
        ruling.verdict == Verdict::Allow
    }

    /// Whether each of `operations` is allowed on `target`.
    pub(crate) fn allows_all(&self, operations: &[&str], target: &str) -> bool {
        operations.iter().all(|operation| self.allows(operation, target))
    }

    /// Whether any of `operations` is allowed on `target`.
    pub(crate) fn allows_any(&self, operations: &[&str], target: &str) -> bool {
        operations.iter().any(|operation| self.allows(operation, target))
    }
}

/// Every way in which the kernel may decide that is not settled: as believed, and with each point the other way.
pub(crate) fn readings(release: Release) -> Vec<(&'static str, Semantics)> {
    let believed = Semantics::of(release);
    let flip = |verdict| match verdict {
        Verdict::Allow => Verdict::Deny,
        Verdict::Deny => Verdict::Allow,
    };
    let with = |change: fn(&mut Semantics)| {
        let mut semantics = believed;
        change(&mut semantics);
        semantics
    };
    let mut readings = vec![
        ("as believed", believed),
        ("P1", with(|s| s.unfiltered_exact_first ^= true)),
        ("P4", with(|s| s.same_sandbox_by_text ^= true)),
        ("P5", with(|s| s.procargs_has_name ^= true)),
        ("P6", with(|s| s.local_is_a_host ^= true)),
        ("P7", with(|s| s.fold_case ^= true)),
        (
            "own addresses",
            with(|s| s.localhost_covers_own_addresses ^= true),
        ),
    ];
    let (mut p2, mut p3) = (believed, believed);
    p2.file_map_executable = flip(believed.file_map_executable);
    p3.file_write_setugid = flip(believed.file_write_setugid);
    readings.extend([("P2", p2), ("P3", p3)]);
    readings
}

/// A path as a grant.
pub(crate) fn path(text: &str) -> Utf8PathBuf {
    Utf8PathBuf::from(text)
}
