//! The stage of the probes for macOS: a workspace, and a sibling's that is open to every account, so that only the
//! sandbox can be in the way. Dropping it removes everything.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Stdio};
use std::time::SystemTime;

use camino::{Utf8Path, Utf8PathBuf};

use super::Outside;
use crate::job::JobId;
use crate::probe::ProbeError;

/// In the environment of the sibling's process, to be looked for.
pub(super) const MARK: &str = "EPHEMERD_PROBE_SECRET";

/// What there is to attack.
#[derive(Debug)]
pub struct Stage {
    outside: Outside,
    made: Vec<Utf8PathBuf>,
    listener: Option<UnixListener>,
    sibling: Option<Child>,
}

impl Stage {
    /// Sets a stage in `data_dir`.
    ///
    /// # Errors
    /// Something could not be set up; what was set up until then is removed.
    pub fn set(data_dir: &Utf8Path) -> Result<Self, ProbeError> {
        let chance = || {
            getrandom::u32().map_err(|error| ProbeError::Stage {
                what: "a name".into(),
                source: io::Error::other(error.to_string()),
            })
        };
        let native = data_dir.join("native");
        let root = |chance| native.join(JobId::new(SystemTime::UNIX_EPOCH, chance).to_string());
        let mut stage = Self {
            outside: Outside {
                workspace: root(chance()?),
                sibling: root(chance()?),
                sibling_pid: 0,
                state_files: vec![data_dir.join("state-of-probe")],
                control_socket: None,
                online: false,
                own_port: 0,
            },
            made: Vec::new(),
            listener: None,
            sibling: None,
        };
        stage.make(&native).map_err(|source| ProbeError::Stage {
            what: "a sibling".into(),
            source,
        })?;
        Ok(stage)
    }

    /// What a probe run needs to be told.
    pub fn outside(&self) -> &Outside {
        &self.outside
    }

    /// The same, to be adapted to a real job.
    pub fn outside_mut(&mut self) -> &mut Outside {
        &mut self.outside
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the sibling must be a process that nothing confines"
    )]
    fn make(&mut self, native: &Utf8Path) -> io::Result<()> {
        if !native.exists() {
            self.folder(native)?;
        }
        for root in [self.outside.workspace.clone(), self.outside.sibling.clone()] {
            self.folder(&root)?;
            for name in ["home", "tmp", "work"] {
                self.folder(&root.join(name))?;
            }
        }
        let files = [
            vec![self.outside.sibling.join("home/secret")],
            self.outside.state_files.clone(),
        ];
        for path in files.into_iter().flatten() {
            self.made.push(path.clone());
            fs::write(&path, "secret")?;
            fs::set_permissions(&path, Permissions::from_mode(0o666))?;
        }
        let socket = self.outside.sibling.join("tmp/sock");
        self.listener = Some(UnixListener::bind(&socket)?);
        self.made.push(socket.clone());
        fs::set_permissions(&socket, Permissions::from_mode(0o666))?;
        // It ends with its input, when we do.
        let sibling = Command::new("/bin/cat")
            .env(MARK, "secret")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        self.outside.sibling_pid = sibling.id().cast_signed();
        self.sibling = Some(sibling);
        Ok(())
    }

    /// Makes a folder that any account may use.
    fn folder(&mut self, path: &Utf8Path) -> io::Result<()> {
        fs::create_dir(path)?;
        self.made.push(path.to_owned());
        fs::set_permissions(path, Permissions::from_mode(0o777))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(mut sibling) = self.sibling.take() {
            // It may have ended; either way it is reaped.
            let _ = sibling.kill().and(sibling.wait().map(drop));
        }
        for path in self.made.iter().rev() {
            // What a broken sandbox let a job leave inside keeps a folder here, where the next start sweeps it.
            let _ = fs::remove_file(path).or_else(|_| fs::remove_dir(path));
        }
    }
}
