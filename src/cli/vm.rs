//! `ephemerd vm`: whether guests fit, whether their backends are ready, and their images.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::Format;
use crate::config::Loaded;
use crate::host::Host;
use crate::host::total_memory_byte;
use crate::vm::image;
use crate::vm::plan::Plan;
use crate::vm::room::Room;

/// Arguments of `vm`.
#[derive(Debug, Args)]
pub struct VmArgs {
    /// What is asked.
    #[command(subcommand)]
    command: VmCommand,
}

#[derive(Debug, Subcommand)]
enum VmCommand {
    /// Tell how many guests fit beside the native slots, with the arithmetic.
    Plan {
        /// How to answer.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Tell of each backend whether its tool and its image are there; the exit code is 1 when one is not.
    Check,
    /// Fetch a backend's image, after looking whether there is room for it.
    Pull {
        /// The backend; the only one when there is one.
        backend: Option<String>,
    },
}

/// Answers.
///
/// # Errors
/// No backend is configured, or one cannot be asked.
pub fn run(args: &VmArgs, host: &Host, loaded: Loaded) -> anyhow::Result<ExitCode> {
    let config = loaded.config;
    anyhow::ensure!(
        config.has_vm_backend(),
        "no VM backend is configured\nhint: name one below `[vm.backends]`, for example `qemu = {{ preset = \"qemu\" }}`"
    );
    let native = &config.native;
    let plan = Plan::new(
        total_memory_byte(),
        native.slots,
        native.limits.memory_byte,
        &config.vm,
    );
    if let VmCommand::Plan { format } = &args.command {
        match format {
            Format::Text => print!("{}", plan.text()),
            Format::Json => println!("{}", serde_json::to_string_pretty(&plan)?),
        }
        return Ok(ExitCode::SUCCESS);
    }
    let program = super::own_program()?;
    let room = Room::open(host, &config, &program, None).map_err(anyhow::Error::msg)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    match &args.command {
        VmCommand::Plan { .. } => Ok(ExitCode::SUCCESS),
        VmCommand::Check => {
            let mut all = true;
            for (name, backend) in &room.config.backends {
                let missing = runtime.block_on(image::missing(&room, backend, None)).err();
                let fits = plan.refusal(backend.memory_byte);
                match missing.or(fits) {
                    None => println!("{name}: ready"),
                    Some(why) => {
                        all = false;
                        println!("{name}: {why}");
                    }
                }
            }
            Ok(ExitCode::from(u8::from(!all)))
        }
        VmCommand::Pull { backend } => {
            let named = backend.as_ref().or(room.config.backend.as_ref());
            let only = room
                .config
                .backends
                .keys()
                .next()
                .filter(|_| room.config.backends.len() == 1);
            let name = named
                .or(only)
                .ok_or_else(|| anyhow::anyhow!("several backends are configured\nhint: name one"))?;
            let backend = room
                .config
                .backends
                .get(name)
                .ok_or_else(|| anyhow::anyhow!("the backend `{name}` is not configured"))?;
            runtime
                .block_on(image::pull(&room, backend))
                .map_err(anyhow::Error::msg)?;
            println!("{name}: the image is here");
            Ok(ExitCode::SUCCESS)
        }
    }
}
