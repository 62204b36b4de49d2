//! A place of one test's own: a folder with a configuration, a data folder below it, and an account family.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use camino::{Utf8Path, Utf8PathBuf};
use ephemerd::control::client::{ControlError, ask};
use ephemerd::control::{Answer, Ask};
use ephemerd::github::admission::hook::Place;
use ephemerd::host::Host;

use super::{Family, PROGRAM, command, processes_of, wait_for};

/// The place. Dropping it checks that nothing was left behind in it.
#[derive(Debug)]
pub(crate) struct Site {
    /// The folder of everything else.
    pub(crate) top: Utf8PathBuf,
    /// The configuration file.
    pub(crate) config: Utf8PathBuf,
    /// Where the daemon's state lives.
    pub(crate) data_dir: Utf8PathBuf,
    /// Who runs the jobs.
    pub(crate) family: Family,
    _keep: tempfile::TempDir,
}

impl Site {
    /// A place whose configuration trusts `acme/*` and `other/*`, with `more` after that.
    pub(crate) fn new(more: &str) -> Self {
        Self::of(Family::take(), more)
    }

    /// A place of a certain family's.
    pub(crate) fn of(family: Family, more: &str) -> Self {
        // Where real ones are; below /tmp, jobs would see the way to their folders in a /tmp of their own.
        let keep = tempfile::Builder::new()
            .prefix("epht-")
            .tempdir_in("/var/lib")
            .unwrap();
        // Jobs' accounts pass through to their workspaces.
        fs::set_permissions(keep.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let top = Utf8PathBuf::from_path_buf(keep.path().canonicalize().unwrap()).unwrap();
        let site = Self {
            config: top.join("ephemerd.toml"),
            data_dir: top.join("data"),
            top,
            family,
            _keep: keep,
        };
        site.configure(more);
        site
    }

    /// Writes the configuration anew. `more` may begin with a line `manifest = "…"`, which goes where it belongs.
    pub(crate) fn configure(&self, more: &str) {
        // What a host must have is asked by the tests that say so, and not again by every daemon.
        let named = more
            .strip_prefix("manifest = ")
            .and_then(|rest| rest.split_once('\n'));
        let (manifest, more) = named.unwrap_or(("\"none\"", more));
        let trust = "\"acme/*\" = \"native\"\n\"other/*\" = \"native\"\n";
        // What is on the host's own `PATH` besides is not these tests' business, unless they say so.
        let none = "[native]\nhomebrew = \"none\"\n";
        let more = match more {
            more if more.contains("homebrew") => more.to_owned(),
            more if more.contains("[native]\n") => more.replacen("[native]\n", none, 1),
            more => format!("{none}{more}"),
        };
        // Tests share this host's network; those about a packet filter have one of their own and say so.
        let offline = if more.contains("[egress]") {
            ""
        } else {
            "\n[egress]\nmode = \"offline\"\n"
        };
        // How full this host's disk is, is not their business either.
        let text = format!(
            "[host]\nmin_free_disk = \"64MiB\"\ndata_dir = {data_dir:?}\naccount = {account:?}\nmanifest = {manifest}\n[trust]\ndefault = \"refuse\"\n[trust.repos]\n{trust}{more}{offline}",
            data_dir = self.data_dir,
            account = self.family.name,
        );
        fs::write(&self.config, text).unwrap();
    }

    /// A file that jobs may be granted, with the program's bytes and without its place below somebody's home.
    pub(crate) fn copy(&self, program: &Utf8Path, name: &str) -> Utf8PathBuf {
        let bin = self.top.join("bin");
        fs::create_dir_all(&bin).unwrap();
        let copy = bin.join(name);
        fs::copy(program, &copy).unwrap();
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
        copy
    }

    /// `ephemerd --config …` with these arguments, not started yet.
    pub(crate) fn ephemerd(&self, args: &[&str]) -> Command {
        let mut command = command(PROGRAM);
        command.arg("--config").arg(&self.config).args(args);
        command
    }

    /// Runs `ephemerd` with these arguments to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.ephemerd(args).output().unwrap()
    }

    /// Where the daemon of this place listens.
    pub(crate) fn socket(&self) -> Utf8PathBuf {
        self.data_dir.join("run/ephemerd.sock")
    }

    /// Asks the daemon without a program in between.
    pub(crate) fn ask(&self, question: &Ask) -> Result<Answer, ControlError> {
        ask(&self.socket(), question).map(|(answer, _)| answer)
    }

    /// Names of the workspaces that exist.
    pub(crate) fn workspaces(&self) -> Vec<String> {
        let Ok(entries) = self.data_dir.join("native").read_dir_utf8() else {
            return vec![];
        };
        entries
            .map(|entry| entry.unwrap().file_name().to_owned())
            .collect()
    }

    /// The entrances of slots that exist, by which hooks of GitHub jobs report.
    pub(crate) fn entrances(&self) -> Vec<Utf8PathBuf> {
        let slots = 1..=self.family.slots;
        let data_dir = self
            .data_dir
            .canonicalize_utf8()
            .unwrap_or_else(|_| self.data_dir.clone());
        let folders = slots.map(|slot| {
            let place = Place::new(&Host::system().run, &data_dir, slot).unwrap();
            place.folder().to_owned()
        });
        folders.filter(|folder| folder.exists()).collect()
    }

    /// Fails when a workspace, an entrance, a process of an account or a mount is still there.
    #[track_caller]
    pub(crate) fn assert_clean(&self) {
        assert_eq!(self.workspaces(), Vec::<String>::new(), "workspaces");
        // A job is over before its entrance is gone.
        wait_for("no entrance of a slot", || {
            self.entrances().is_empty().then_some(())
        });
        for uid in self.family.uids() {
            assert_eq!(processes_of(uid), Vec::<i32>::new(), "processes of uid {uid}");
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        // The file system of the test's own is not a job's.
        let is_own = |line: &&str| {
            line.split(' ')
                .nth(4)
                .is_some_and(|point| point.ends_with("/epht-full"))
        };
        let below = mounts
            .lines()
            .filter(|line| line.contains(self.top.as_str()) && !is_own(line));
        assert_eq!(below.collect::<Vec<_>>(), Vec::<&str>::new(), "mounts");
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // A test that has failed already must not fail twice, which would abort.
        if !std::thread::panicking() {
            self.assert_clean();
        }
    }
}
