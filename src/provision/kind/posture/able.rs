//! What the system can do: ephemerd finds that out by itself.

use super::{Asked, Found, Want};
use crate::host::Os;
use crate::provision::context::Context;
use crate::provision::kind::command::said;
use crate::provision::question::{Ability, Answer, Question, shortened};
use crate::provision::step::Fix;

pub(super) fn questions(ability: Ability) -> Vec<Question> {
    vec![Question::Ability(ability)]
}

pub(super) fn found(ability: Ability, asked: &Asked<'_>) -> Result<Found, String> {
    match (ability, asked.get(&Question::Ability(ability))) {
        (Ability::Landlock, Answer::Text(text)) => match text.trim().parse() {
            Ok(abi) => Ok(Found {
                is: Some(Want::AtLeast(abi)),
                shown: format!("ABI {abi}"),
            }),
            Err(_) => Err(format!("`{}` is no ABI", shortened(&text))),
        },
        (Ability::Landlock, Answer::Missing) => Ok(Found::neither("no Landlock")),
        (_, Answer::Text(text)) if !text.trim().is_empty() => Ok(Found::switch(true, text)),
        (_, Answer::Missing) => Ok(Found::switch(false, "none")),
        (_, other) => Err(said(&other)),
    }
}

pub(super) fn fix(ability: Ability, context: &Context) -> Fix {
    Fix::ByHand(
        match (ability, context.os()) {
            (Ability::Landlock, _) => {
                "boot Linux 6.12 or later with `landlock` in the kernel parameter `lsm=`"
            }
            (Ability::Namespaces, _) => {
                "boot a kernel with CONFIG_NAMESPACES and its kinds, or allow user namespaces"
            }
            (Ability::PacketFilter, Os::Linux) => "install nftables and iproute2",
            (Ability::PacketFilter, Os::MacOs) => "`ephemerd egress status` tells more",
        }
        .to_owned(),
    )
}
