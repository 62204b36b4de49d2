//! Programs: where they are, as whom they run, and what they say.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use nix::unistd::{AccessFlags, access};

use super::failed;
use crate::host::Os;
use crate::host::command::{CommandError, CommandSpec, run_as, run_here};
use crate::host::files::way;
use crate::provision::question::{Answer, Ran, Tool, View};
use crate::slot::Account;

/// The folders to look for programs in: those named, or this process's own.
fn folders(path: &[Utf8PathBuf]) -> Vec<Utf8PathBuf> {
    if path.is_empty() {
        let own = std::env::var("PATH").unwrap_or_default();
        own.split(':')
            .filter(|folder| folder.starts_with('/'))
            .map(Utf8PathBuf::from)
            .collect()
    } else {
        path.to_vec()
    }
}

/// The first program of that name that can be started.
pub(super) fn find(name: &Utf8Path, path: &[Utf8PathBuf]) -> Answer {
    if name.is_absolute() {
        return startable(name);
    }
    let mut best = Answer::Missing;
    for folder in folders(path) {
        match startable(&folder.join(name)) {
            Answer::At(found) => return Answer::At(found),
            Answer::Missing => {}
            other => best = other,
        }
    }
    best
}

/// Whether a program can be started from `path`. Landlock lets access(2) say yes to what it forbids, so a program that
/// everybody may read is opened too.
fn startable(path: &Utf8Path) -> Answer {
    let metadata = match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => metadata,
        Ok(_) => return Answer::Missing,
        Err(error) => return failed(&error),
    };
    if let Err(errno) = access(path.as_std_path(), AccessFlags::X_OK) {
        return failed(&errno.into());
    }
    match File::open(path) {
        Err(error) if metadata.mode() & 0o004 != 0 => failed(&error),
        Ok(_) | Err(_) => Answer::At(path.to_owned()),
    }
}

/// Why a program cannot be run as a tool says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// There is none.
    #[error("there is no `{0}`\nhint: install it first")]
    Missing(Utf8PathBuf),
    /// It may not be started.
    #[error("`{0}` cannot be started: permission denied")]
    Denied(Utf8PathBuf),
    /// Its owner is nobody.
    #[error("{0}")]
    Owner(String),
}

/// How a tool is run, and as whom, where that is not as whoever runs it.
pub(in crate::host::provision) fn prepared(
    tool: &Tool,
) -> Result<(CommandSpec, Option<Account>), AnswerError> {
    let Tool {
        program,
        path,
        args,
        as_owner,
        passes_on,
        env,
        timeout_ms,
    } = tool;
    let program = match find(program, path) {
        Answer::At(program) => program,
        Answer::Denied => return Err(AnswerError::Denied(program.clone())),
        _ => return Err(AnswerError::Missing(program.clone())),
    };
    let mut spec = CommandSpec {
        program,
        args: args.clone(),
        stdin: None,
        home: None,
        env: env.clone(),
        timeout: Duration::from_millis(*timeout_ms),
    };
    // Everybody else can only be who they are.
    if !nix::unistd::geteuid().is_root() {
        return Ok((spec, None));
    }
    let code = [
        Some(&spec.program),
        passes_on.as_ref().filter(|path| path.exists()),
    ];
    let controller = controller(code.into_iter().flatten()).map_err(AnswerError::Owner)?;
    match controller {
        Some(uid) => {
            let (account, home) = account(uid).map_err(AnswerError::Owner)?;
            spec.home = Some(home);
            Ok((spec, Some(account)))
        }
        None if *as_owner => Err(AnswerError::Owner(format!(
            "`{}` belongs to root, and is not to be run as root",
            spec.program
        ))),
        None => Ok((spec, None)),
    }
}

/// The groups whose members are root as soon as they like: root's own, and `admin` of macOS, which may use sudo(8).
const ROOT_LIKE: &[u32] = match Os::host() {
    Os::Linux => &[0],
    Os::MacOs => &[0, 80],
};

/// The one account besides root that could put something else at one of `paths`, if there is one: root runs what lies
/// there as that account. Everything on the way is looked at, so that whoever could change an answer of this function is
/// the answer.
fn controller<'a>(paths: impl Iterator<Item = &'a Utf8PathBuf>) -> Result<Option<u32>, String> {
    let mut found: Option<u32> = None;
    for path in paths {
        let way = way(path).map_err(|error| format!("`{path}`: {error}"))?;
        for (entry, metadata) in way.entries {
            let (mode, uid) = (metadata.mode(), metadata.uid());
            let is_group_root = uid != 0 || ROOT_LIKE.contains(&metadata.gid());
            let is_open = mode & 0o002 != 0 || (mode & 0o020 != 0 && !is_group_root);
            // In a folder with the sticky bit everybody can change only what is their own.
            if is_open && mode & 0o1000 == 0 && !metadata.is_symlink() {
                return Err(format!(
                    "`{entry}` can be changed by others, so that root runs nothing there"
                ));
            }
            match found {
                _ if uid == 0 => {}
                Some(other) if other != uid => {
                    return Err(format!(
                        "`{path}` is in the hands of the accounts {other} and {uid}"
                    ));
                }
                Some(_) | None => found = Some(uid),
            }
        }
    }
    Ok(found)
}

/// An account and its home.
fn account(uid: u32) -> Result<(Account, Utf8PathBuf), String> {
    let user = users::get_user_by_uid(uid).ok_or_else(|| format!("there is no account with uid {uid}"))?;
    let home = users::os::unix::UserExt::home_dir(&user).to_owned();
    let home =
        Utf8PathBuf::from_path_buf(home).map_err(|home| format!("`{}` is not UTF-8", home.display()))?;
    let account = Account {
        name: user.name().to_string_lossy().into_owned(),
        uid,
        gid: user.primary_group_id(),
    };
    Ok((account, home))
}

pub(super) fn run_tool(view: View, tool: &Tool) -> Answer {
    let (spec, account) = match prepared(tool) {
        Ok(found) => found,
        Err(AnswerError::Missing(_)) => return Answer::Missing,
        Err(AnswerError::Denied(_)) => return Answer::Denied,
        Err(AnswerError::Owner(why)) => return Answer::Failed(why),
    };
    let ran = match view {
        View::Job => run_here(&spec),
        View::Host => run_as(&spec, account.as_ref()),
    };
    match ran {
        Ok(output) => Answer::Ran(Ran {
            code: output.status.code(),
            stdout: output.stdout,
            stderr: output.stderr,
        }),
        Err(CommandError::TimedOut { .. }) => Answer::TimedOut,
        Err(CommandError::Start { source, .. }) => failed(&source),
        Err(error) => Answer::Failed(crate::chain(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    use super::super::tests::{ask, folder, program};
    use crate::provision::question::Question;

    #[test]
    fn the_first_program_that_can_be_started_is_found() {
        let (_keep, top) = folder();
        for name in ["a", "b", "c"] {
            fs::create_dir(top.join(name)).unwrap();
        }
        fs::write(top.join("a/tool"), "no program").unwrap();
        fs::create_dir(top.join("b/tool")).unwrap();
        let path: Vec<_> = ["a", "b", "c"].iter().map(|name| top.join(name)).collect();
        let found = |name: &str| {
            ask(Question::Find {
                name: name.into(),
                path: path.clone(),
            })
        };
        assert_eq!(found("tool"), Answer::Denied);
        program(&top.join("c/tool"), "");
        assert_eq!(found("tool"), Answer::At(top.join("c/tool")));
        assert_eq!(found("other"), Answer::Missing);
    }

    #[test]
    fn a_tool_says_what_it_says_or_that_it_took_too_long() {
        let (_keep, top) = folder();
        program(&top.join("tool"), "echo out $1; echo err >&2; exit 3");
        let ran = ask(Question::Run(Tool::at(&top.join("tool"), &["x"])));
        let expected = Ran {
            code: Some(3),
            stdout: "out x\n".to_owned(),
            stderr: "err\n".to_owned(),
        };
        assert_eq!(ran, Answer::Ran(expected));
        program(&top.join("slow"), "sleep 1000");
        let slow = Tool {
            timeout_ms: 200,
            ..Tool::at(&top.join("slow"), &[])
        };
        assert_eq!(ask(Question::Run(slow)), Answer::TimedOut);
        assert_eq!(
            ask(Question::Run(Tool::at(&top.join("none"), &[]))),
            Answer::Missing
        );
    }

    #[test]
    fn root_runs_what_is_in_somebodys_hands_as_that_somebody() {
        let (_keep, top) = folder();
        fs::set_permissions(&top, fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(top.join("bin")).unwrap();
        let (tool, link) = (top.join("bin/tool"), top.join("bin/link"));
        program(&tool, "id -u; echo $HOME");
        std::os::unix::fs::symlink("/usr/bin/id", &link).unwrap();
        let said = |path: &Utf8Path, args: &[&str]| ask(Question::Run(Tool::at(path, args)));
        let printed = |answer: Answer| match answer {
            Answer::Ran(ran) => ran.stdout,
            other => panic!("{other:?}"),
        };
        let own = nix::unistd::geteuid();
        assert_eq!(
            printed(said(&tool, &[])).lines().next(),
            Some(own.to_string().as_str())
        );
        if !own.is_root() {
            return;
        }
        let nobody = users::get_user_by_name("nobody").unwrap();
        let give = |path: &Utf8Path, uid: u32| {
            nix::unistd::chown(path.as_std_path(), Some(uid.into()), None).unwrap()
        };
        give(&tool, nobody.uid());
        let home = users::os::unix::UserExt::home_dir(&nobody).display().to_string();
        assert_eq!(printed(said(&tool, &[])), format!("{}\n{home}\n", nobody.uid()));
        // Whoever has the folder could put something else there, also instead of a link to a program of root's.
        give(&tool, 0);
        give(&top.join("bin"), nobody.uid());
        assert_eq!(
            printed(said(&tool, &[])).lines().next(),
            Some(nobody.uid().to_string().as_str())
        );
        assert_eq!(printed(said(&link, &["-u"])).trim(), nobody.uid().to_string());
        // So could whoever has a folder that a link only leads through.
        let outer = top.join("outer");
        std::os::unix::fs::symlink(&link, &outer).unwrap();
        assert_eq!(printed(said(&outer, &["-u"])).trim(), nobody.uid().to_string());
        // Nobody knows as whom to run what two could have put there, or everybody.
        give(&tool, 1);
        assert!(matches!(said(&tool, &[]), Answer::Failed(why) if why.contains("in the hands of")));
        give(&tool, 0);
        give(&top.join("bin"), 0);
        fs::set_permissions(top.join("bin"), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(said(&tool, &[]), Answer::Failed(why) if why.contains("can be changed by others")));
        fs::set_permissions(top.join("bin"), fs::Permissions::from_mode(0o755)).unwrap();
        let never = Tool {
            as_owner: true,
            ..Tool::at(&tool, &[])
        };
        assert!(
            matches!(ask(Question::Run(never)), Answer::Failed(why) if why.contains("not to be run as root"))
        );
    }
}
