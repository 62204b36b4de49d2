//! What a system says of one account: the files of Linux, the directory services of macOS.

use camino::Utf8PathBuf;

use crate::host::Os;
use crate::host::accounts::mac::{NO_MEMBER, NO_RECORD, POWERFUL, attributes, observed};
use crate::host::accounts::{AccountsError, Observed};
use crate::provision::context::Context;
use crate::provision::kind::command::said;
use crate::provision::question::{Answer, Answers, Entry, Question, Ran, Tool, View, shortened};

/// An account.
#[derive(Debug)]
pub(super) enum Seen {
    /// There is none of this name.
    Nothing,
    /// There is.
    Record(Box<Record>),
}

/// What there is of an account.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) name: String,
    /// The account, whole or in part, and everything beside it.
    pub(super) observed: Observed,
    /// Whether the login window leaves it out, and what its record says of that; nothing on Linux.
    pub(super) hidden: Option<String>,
    /// The groups of administrators that the tools of macOS say it is in.
    pub(super) powerful: Vec<String>,
    /// The attributes of a password that its record has (macOS).
    pub(super) credentials: Vec<String>,
    /// Why the system knows it by other ids, if it does (macOS).
    pub(super) mismatch: Option<String>,
    /// What is at the places where homes are looked for.
    homes: Vec<(Utf8PathBuf, Answer)>,
}

/// What is at a home.
pub(super) enum Home {
    Nothing,
    There(Entry),
}

impl Record {
    /// What is at its home.
    pub(super) fn home(&self, path: &Utf8PathBuf) -> Result<Home, String> {
        match self
            .homes
            .iter()
            .find(|(home, _)| home == path)
            .map(|(_, answer)| answer)
        {
            Some(Answer::Entry(entry)) => Ok(Home::There(entry.clone())),
            Some(Answer::Missing) => Ok(Home::Nothing),
            Some(other) => Err(said(other)),
            None => Err(format!("its home `{path}` is not where homes are looked for")),
        }
    }
}

/// Where homes are looked for: questions are asked before any record is read.
fn homes(name: &str, os: Os) -> Vec<Utf8PathBuf> {
    match os {
        // useradd(8) makes the first; ours get the second.
        Os::Linux => vec![
            format!("/home/{name}").into(),
            "/nonexistent".into(),
            "/root".into(),
        ],
        Os::MacOs => vec![
            format!("/Users/{name}").into(),
            "/var/empty".into(),
            "/var/root".into(),
        ],
    }
}

fn look(path: &Utf8PathBuf) -> Question {
    Question::Look {
        path: path.clone(),
        digest: false,
    }
}

/// What is asked of macOS.
struct Mac {
    record: Question,
    uids: Question,
    gids: Question,
    members: Question,
    id: Question,
    powerful: [(&'static str, Question); 2],
}

impl Mac {
    fn of(name: &str, context: &Context) -> Self {
        let tools = &context.host.mac;
        let dscl = |args: &[&str]| Question::Run(Tool::at(&tools.dscl, args));
        Self {
            record: dscl(&["-plist", ".", "-read", &format!("/Users/{name}")]),
            uids: dscl(&[".", "-list", "/Users", "UniqueID"]),
            gids: dscl(&[".", "-list", "/Groups", "PrimaryGroupID"]),
            members: dscl(&[".", "-list", "/Groups", "GroupMembership"]),
            id: Question::Run(Tool::at(&tools.id, &["-u", name])),
            powerful: POWERFUL.map(|group| {
                let args = ["-o", "checkmember", "-m", name, group];
                (group, Question::Run(Tool::at(&tools.dseditgroup, &args)))
            }),
        }
    }

    fn all(self) -> Vec<Question> {
        let Self {
            record,
            uids,
            gids,
            members,
            id,
            powerful,
        } = self;
        let mut all = vec![record, uids, gids, members, id];
        all.extend(powerful.map(|(_, question)| question));
        all
    }
}

/// What is asked about the account.
pub(super) fn questions(name: &str, context: &Context) -> Vec<Question> {
    let host = &context.host;
    let mut all = match context.os() {
        Os::Linux => [&host.passwd, &host.group, &host.shadow]
            .map(|file| Question::Read(file.clone()))
            .to_vec(),
        Os::MacOs => Mac::of(name, context).all(),
    };
    all.extend(homes(name, context.os()).iter().map(look));
    all
}

/// What the answers say of the account, or why nobody can tell.
pub(super) fn see(name: &str, context: &Context, answers: &Answers) -> Result<Seen, String> {
    let ask = |question: &Question| answers.get(View::Host, question);
    let homes = homes(name, context.os()).into_iter().map(|path| {
        let answer = ask(&look(&path));
        (path, answer)
    });
    let homes = homes.collect();
    match context.os() {
        Os::Linux => linux(name, context, &ask, homes),
        Os::MacOs => mac(name, context, &ask, homes),
    }
}

type Ask<'a> = &'a dyn Fn(&Question) -> Answer;

fn linux(
    name: &str,
    context: &Context,
    ask: Ask<'_>,
    homes: Vec<(Utf8PathBuf, Answer)>,
) -> Result<Seen, String> {
    let text = |path: &Utf8PathBuf| match ask(&Question::Read(path.clone())) {
        Answer::Text(text) => Ok(text),
        other => Err(format!("{path}: {}", said(&other))),
    };
    let (passwd, group) = (text(&context.host.passwd)?, text(&context.host.group)?);
    // Whether it matters that it cannot be read depends on what is wanted.
    let shadow = text(&context.host.shadow).ok();
    let observed = Observed::parse(&passwd, &group, shadow.as_deref()).map_err(|error| first_line(&error))?;
    if observed.users.is_empty() {
        return Err(format!("{} names no account", context.host.passwd));
    }
    if observed.user(name).is_none() {
        return Ok(Seen::Nothing);
    }
    Ok(Seen::Record(Box::new(Record {
        name: name.to_owned(),
        observed,
        hidden: None,
        powerful: vec![],
        credentials: vec![],
        mismatch: None,
        homes,
    })))
}

fn first_line(error: &AccountsError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

fn mac(
    name: &str,
    context: &Context,
    ask: Ask<'_>,
    homes: Vec<(Utf8PathBuf, Answer)>,
) -> Result<Seen, String> {
    let Mac {
        record,
        uids,
        gids,
        members,
        id,
        powerful,
    } = Mac::of(name, context);
    let ran = |question: &Question| match ask(question) {
        Answer::Ran(ran) => Ok(ran),
        other => Err(said(&other)),
    };
    let printed = |question: &Question| {
        ran(question).and_then(|ran| match ran.code {
            Some(0) if !ran.stdout.trim().is_empty() => Ok(ran.stdout),
            Some(0) => Err("dscl lists nothing".to_owned()),
            _ => Err(ran.ending()),
        })
    };
    let record = ran(&record)?;
    let text = match record.code {
        Some(NO_RECORD) => return Ok(Seen::Nothing),
        Some(0) => record.stdout,
        _ => return Err(record.ending()),
    };
    let (uids, gids, members) = (printed(&uids)?, printed(&gids)?, printed(&members)?);
    let observed = observed(name, &text, &uids, [&gids, &members]).map_err(|error| first_line(&error))?;
    // No Mac is without administrators: a list without any is none.
    if observed.groups.iter().all(|group| group.members.is_empty()) {
        return Err("dscl lists no members".to_owned());
    }
    let attributes = attributes(&text).ok_or("its record makes no sense")?;
    let mut found = Record {
        name: name.to_owned(),
        hidden: Some(attributes.get("IsHidden").cloned().flatten().unwrap_or_default()),
        credentials: ["ShadowHashData", "AuthenticationAuthority", "Password"]
            .into_iter()
            .filter(|key| match attributes.get(*key) {
                Some(value) => *key != "Password" || value.as_deref() != Some("*"),
                None => false,
            })
            .map(str::to_owned)
            .collect(),
        powerful: vec![],
        mismatch: None,
        observed,
        homes,
    };
    if let Some(user) = found.observed.user(name) {
        found.mismatch = mismatch(user.uid, &ran(&id)?)?;
    }
    for (group, question) in powerful {
        if is_member(&ran(&question)?)? {
            found.powerful.push(group.to_owned());
        }
    }
    Ok(Seen::Record(Box::new(found)))
}

/// How what id(1) says differs from the record: it does where a record is incomplete, or where two have one name.
fn mismatch(uid: u32, ran: &Ran) -> Result<Option<String>, String> {
    let told = ran.stdout.trim();
    match (ran.code, told.parse::<u32>()) {
        (Some(0), Ok(known)) if known == uid => Ok(None),
        (Some(0), Ok(known)) => Ok(Some(format!("has uid {uid}, and the system says {known}"))),
        (Some(0), Err(_)) => Err(format!("id says `{}`", shortened(told))),
        (Some(1), _) => Ok(Some(format!("has uid {uid}, and the system does not know it"))),
        _ => Err(ran.ending()),
    }
}

/// What `dseditgroup -o checkmember` says: both its words and its exit code must.
fn is_member(ran: &Ran) -> Result<bool, String> {
    match (ran.code, ran.stdout.split_whitespace().next()) {
        (Some(0), Some("yes")) => Ok(true),
        (Some(NO_MEMBER), Some("no")) => Ok(false),
        _ => Err(format!("dseditgroup: {}", ran.ending())),
    }
}
