//! Which files of a repository are scanned.

use std::fs;
use std::io;

use camino::{Utf8Path, Utf8PathBuf};
use walkdir::WalkDir;

use super::ScanError;

/// The text of `path`, or, if that is the folder of a repository, of its workflows and its local actions by path.
///
/// # Errors
/// Says which file could not be read, or that there is none.
pub fn collect(path: &Utf8Path) -> Result<Vec<(Utf8PathBuf, String)>, ScanError> {
    if !path.is_dir() {
        return Ok(vec![read(path.to_owned())?]);
    }
    let github = path.join(".github");
    let is_yaml = |file: &Utf8Path| matches!(file.extension(), Some("yml" | "yaml"));
    let mut files = below(&github.join("workflows"), 1)?;
    files.retain(|file| is_yaml(file));
    let mut actions = below(&github.join("actions"), usize::MAX)?;
    actions.retain(|file| is_yaml(file) && file.file_stem() == Some("action"));
    files.extend(actions);
    if files.is_empty() {
        return Err(ScanError::NoWorkflows {
            path: path.to_owned(),
        });
    }
    files.into_iter().map(read).collect()
}

fn read(path: Utf8PathBuf) -> Result<(Utf8PathBuf, String), ScanError> {
    match fs::read_to_string(&path) {
        Ok(text) => Ok((path, text)),
        Err(source) => Err(ScanError::Read { path, source }),
    }
}

/// Regular files up to `depth` levels below `folder` by path; none if there is no such folder.
fn below(folder: &Utf8Path, depth: usize) -> Result<Vec<Utf8PathBuf>, ScanError> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let failed = |source: io::Error| ScanError::Read {
        path: folder.to_owned(),
        source,
    };
    let mut files = Vec::new();
    for entry in WalkDir::new(folder).max_depth(depth).sort_by_file_name() {
        let entry = entry.map_err(|error| failed(error.into()))?;
        if entry.file_type().is_file() {
            let path = Utf8PathBuf::from_path_buf(entry.into_path());
            files.push(path.map_err(|_| failed(io::ErrorKind::InvalidFilename.into()))?);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_its_workflows_and_local_actions() {
        let repository = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(repository.path()).unwrap();
        for file in [
            "workflows/b.yaml",
            "workflows/a.yml",
            "workflows/README.md",
            "workflows/old/c.yml",
            "actions/x/action.yml",
            "actions/x/y/action.yaml",
            "actions/x/data.yml",
            "dependabot.yml",
        ] {
            let path = root.join(".github").join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
        let texts: Vec<_> = collect(root).unwrap().into_iter().map(|(_, text)| text).collect();
        assert_eq!(
            texts,
            [
                "workflows/a.yml",
                "workflows/b.yaml",
                "actions/x/action.yml",
                "actions/x/y/action.yaml"
            ]
        );
    }

    #[test]
    fn a_file_is_itself_and_what_is_missing_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(folder.path()).unwrap();
        let file = root.join("any.txt");
        fs::write(&file, "x").unwrap();
        assert_eq!(collect(&file).unwrap(), [(file, "x".to_owned())]);
        let missing = collect(&root.join("none.yml")).unwrap_err().to_string();
        assert!(missing.starts_with("could not read"), "{missing}");
        let empty = collect(root).unwrap_err().to_string();
        assert!(empty.contains("has no workflows\nhint: "), "{empty}");
    }
}
