//! Every lint, by its code. A code keeps its meaning for good; one that is given up is not used again.

/// What a lint is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    /// Its code: `SB`, the chapter, and a number. `docs/lints/CODE.md` is its page.
    pub id: &'static str,
    /// What is wrong, as a heading.
    pub title: &'static str,
}

macro_rules! codes {
    ($($name:ident $id:literal $title:literal,)*) => {
        $(pub(super) const $name: Code = Code { id: $id, title: $title };)*

        /// Every lint, in the order of the codes.
        pub const ALL: &[Code] = &[$($name),*];
    };
}

codes! {
    OWN_DEFAULT "SB101" "operation that is allowed whatever the default is",
    UNFILTERED_LAST "SB102" "rule without a filter behind rules with one",
    SHADOWED "SB103" "rule for a family that a rule for a member goes before",
    MIXED_FILTERS "SB104" "filters that look like \"and\" and are \"or\"",
    DEAD "SB105" "rule that never decides",
    MISPLACED "SB106" "filter for something that an operation does not have",
    UNRESOLVED "SB201" "path through a link",
    RELATIVE "SB202" "path that is not absolute",
    DOTS "SB203" "path that is not in its plain form",
    TRAILING_SLASH "SB204" "path with a slash at its end",
    MOVABLE "SB205" "deny that moving a folder gets around",
    WIDER_WRITE "SB206" "folder to read inside a folder to write",
    LOCAL_OUTBOUND "SB301" "near end of an outgoing connection",
    SOCKET_AS_FILE "SB302" "socket that is denied as a file only",
    UNFILTERED_ALLOW "SB401" "allow without a filter",
    KERNEL_NAMES "SB402" "names of the kernel that give processes away",
    PROCESS_INFO "SB403" "looking into other processes",
    NO_SANDBOX "SB404" "program that runs outside of the sandbox",
    SYSCTL_WRITE "SB405" "`sysctl-write` that allows reading as well",
    DROPPED "SB501" "operation that is ignored",
    TOO_NEW "SB502" "name that older releases do not know",
    TEMPLATE "SB503" "text that was to be replaced",
    NOT_ASCII "SB504" "text that is not plain ASCII",
    TOO_LONG "SB505" "rule near the limit of its length",
    SKIPPED_IMPORT "SB506" "import that was not followed",
    UNTAGGED "SB507" "deny without the message that others have",
    NO_EFFECT "SB508" "modifier without effect",
    LATER_VERSION "SB509" "version of the language whose own rules are not known",
}
