//! What the system can do: ephemerd finds that out by itself.

use super::{Asked, Found, Name, Want, unclear};
use crate::host::Os;
use crate::provision::context::Context;
use crate::provision::kind::command::said;
use crate::provision::question::{Ability, Answer, Question, shortened};
use crate::provision::step::Fix;

fn ability(name: Name) -> Ability {
    match name {
        Name::Landlock => Ability::Landlock,
        Name::Namespaces => Ability::Namespaces,
        _ => Ability::PacketFilter,
    }
}

pub(super) fn questions(name: Name) -> Vec<Question> {
    vec![Question::Ability(ability(name))]
}

pub(super) fn found(name: Name, asked: &Asked<'_>) -> Result<Found, String> {
    match (name, asked.get(&Question::Ability(ability(name)))) {
        (Name::Landlock, Answer::Text(text)) => match text.trim().parse() {
            Ok(abi) => Ok(Found {
                is: Some(Want::AtLeast(abi)),
                shown: format!("ABI {abi}"),
            }),
            Err(_) => Err(format!("`{}` is no ABI", shortened(&text))),
        },
        (Name::Landlock, Answer::Missing) => Ok(Found::neither("no Landlock")),
        (_, Answer::Text(text)) if !text.trim().is_empty() => Ok(Found::switch(true, text)),
        (_, Answer::Missing) => Ok(Found::switch(false, "none")),
        (_, other) => Err(said(&other)),
    }
}

pub(super) fn fix(name: Name, context: &Context) -> Fix {
    Fix::ByHand(
        match (name, context.os()) {
            (Name::Landlock, _) => "boot Linux 6.12 or later with `landlock` in the kernel parameter `lsm=`",
            (Name::Namespaces, _) => {
                "boot a kernel with CONFIG_NAMESPACES and its kinds, or allow user namespaces"
            }
            (Name::PacketFilter, Os::Linux) => "install nftables and iproute2",
            (Name::PacketFilter, Os::MacOs) => "`ephemerd egress status` tells more",
            _ => return unclear(),
        }
        .to_owned(),
    )
}
