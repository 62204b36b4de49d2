use super::*;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use crate::provision::receipt::{Receipt, State, undo};
use crate::provision::step::Step;

struct Folder {
    top: Utf8PathBuf,
    _keep: tempfile::TempDir,
}

fn folder() -> Folder {
    let keep = tempfile::tempdir().unwrap();
    let top = Utf8PathBuf::from_path_buf(keep.path().canonicalize().unwrap()).unwrap();
    Folder { top, _keep: keep }
}

fn place(path: Utf8PathBuf, mode: Option<u32>) -> Place {
    Place {
        path,
        owner: None,
        group: None,
        mode,
    }
}

fn config() -> Config {
    crate::config::defaults().unwrap().config
}

/// Takes a step; the undo of what was there before.
fn taken(action: Action) -> Undo {
    let before = before(&action).unwrap();
    perform(&Host::system(), &config(), &action).unwrap();
    undo(&Receipt {
        number: 1,
        item: String::new(),
        step: Step { action, undo: None },
        before,
        state: State::Done,
    })
}

fn mode(path: &Utf8Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn a_folder_is_made_and_taken_back_while_it_is_empty() {
    let folder = folder();
    let path = folder.top.join("a/b");
    let undo = taken(Action::Folder(place(path.clone(), Some(0o750))));
    assert_eq!(mode(&path), 0o750);
    fs::write(path.join("kept"), "").unwrap();
    assert!(matches!(
        revert(&Host::system(), &undo),
        Err(PerformError::Changed { .. })
    ));
    fs::remove_file(path.join("kept")).unwrap();
    revert(&Host::system(), &undo).unwrap();
    assert!(!path.exists());
    revert(&Host::system(), &undo).unwrap();
}

#[test]
fn a_folder_that_was_there_gets_its_mode_back() {
    let folder = folder();
    let path = folder.top.join("a");
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    let undo = taken(Action::Folder(place(path.clone(), Some(0o755))));
    assert_eq!(mode(&path), 0o755);
    revert(&Host::system(), &undo).unwrap();
    assert_eq!(mode(&path), 0o700);
}

#[test]
fn a_file_is_written_and_what_it_held_comes_back() {
    let folder = folder();
    let path = folder.top.join("file");
    let write = |content: &str| Action::File {
        place: place(path.clone(), None),
        content: Some(content.to_owned()),
    };
    let gone = taken(write("first"));
    assert_eq!(
        (fs::read_to_string(&path).unwrap(), mode(&path)),
        ("first".to_owned(), 0o644)
    );
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let back = taken(write("second"));
    assert_eq!(
        (fs::read_to_string(&path).unwrap(), mode(&path)),
        ("second".to_owned(), 0o600)
    );
    // Whoever made it first takes away nothing that came later.
    assert!(matches!(
        revert(&Host::system(), &gone),
        Err(PerformError::Changed { .. })
    ));
    revert(&Host::system(), &back).unwrap();
    assert_eq!(
        (fs::read_to_string(&path).unwrap(), mode(&path)),
        ("first".to_owned(), 0o600)
    );
    revert(&Host::system(), &gone).unwrap();
    assert!(!path.exists());
}

#[test]
fn what_is_too_long_to_keep_is_not_pretended_to_come_back() {
    let folder = folder();
    let path = folder.top.join("file");
    fs::write(&path, "x".repeat(CONTENT_MAX_BYTE + 1)).unwrap();
    let undo = taken(Action::File {
        place: place(path, None),
        content: Some("short".to_owned()),
    });
    assert!(matches!(
        revert(&Host::system(), &undo),
        Err(PerformError::Impossible(_))
    ));
}

#[test]
fn a_link_in_the_place_of_a_file_or_folder_is_not_followed() {
    let folder = folder();
    let (target, link) = (folder.top.join("target"), folder.top.join("link"));
    fs::create_dir(&target).unwrap();
    fs::set_permissions(&target, fs::Permissions::from_mode(0o700)).unwrap();
    symlink(&target, &link).unwrap();
    let open = Action::Folder(place(link.clone(), Some(0o777)));
    assert!(perform(&Host::system(), &config(), &open).is_err());
    assert_eq!(mode(&target), 0o700);
    let file = folder.top.join("file");
    fs::write(&file, "old").unwrap();
    let other = folder.top.join("other");
    symlink(&file, &other).unwrap();
    let write = Action::File {
        place: place(other.clone(), None),
        content: Some("new".to_owned()),
    };
    perform(&Host::system(), &config(), &write).unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "old");
    assert_eq!(fs::read_to_string(&other).unwrap(), "new");
}

#[test]
fn a_program_that_fails_or_is_not_there_is_told() {
    let run = |program: &str, args: &[&str]| {
        perform(
            &Host::system(),
            &config(),
            &Action::Run(Tool::at(program.into(), args)),
        )
    };
    run("/bin/sh", &["-c", "exit 0"]).unwrap();
    let error = run("/bin/sh", &["-c", "echo no room >&2; exit 100"]).unwrap_err();
    assert!(error.to_string().contains("no room"), "{error}");
    let error = run("/no/such/tool", &[]).unwrap_err();
    assert!(error.to_string().contains("/no/such/tool"), "{error}");
}

#[test]
fn an_owner_that_is_nobody_is_told_by_name() {
    let folder = folder();
    let place = Place {
        owner: Some("nobody-of-that-name".to_owned()),
        ..place(folder.top.join("a"), None)
    };
    let error = perform(&Host::system(), &config(), &Action::Folder(place)).unwrap_err();
    assert!(error.to_string().contains("nobody-of-that-name"), "{error}");
}

#[test]
fn nothing_is_made_where_somebody_else_could_lead_it_astray() {
    let folder = folder();
    let open = folder.top.join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    let inside = open.join("deep/inside");
    for action in [
        Action::Folder(place(inside.clone(), None)),
        Action::File {
            place: place(inside.clone(), None),
            content: Some("text".to_owned()),
        },
    ] {
        let error = perform(&Host::system(), &config(), &action).unwrap_err();
        assert!(matches!(error, PerformError::Above(_)), "{error}");
        assert!(!open.join("deep").exists());
    }
    // The same in a folder that is only ours.
    fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
    perform(
        &Host::system(),
        &config(),
        &Action::Folder(place(inside.clone(), None)),
    )
    .unwrap();
    assert!(inside.is_dir());
}
