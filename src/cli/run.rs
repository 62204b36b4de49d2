//! `ephemerd run`: the daemon.

use std::io::IsTerminal;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{ConfigError, Listen, Loaded, Log, LogFormat, parse};
use crate::control::server;
use crate::daemon::Daemon;
use crate::daemon::gate::Gate;
use crate::daemon::github::Source;
use crate::daemon::listen::Listener;
use crate::daemon::reload::Reading;
use crate::daemon::resume::DaemonMemo;
use crate::daemon::start::{Started, join};
use crate::daemon::vm::Guests;
use crate::host::command::halves::accept_signals;
use crate::host::logfile::LogFile;
use crate::host::{Host, Os, os};
use crate::latest::Latest;
use crate::vm::plan::Plan;
use crate::warden::News;
use crate::warden::client::Warden;
use crate::warden::supervise::{Orders, SuperviseError, supervise};
use crate::workspace;

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Log to this file instead of standard error; whoever rotates it needs to tell nobody
    #[arg(long, value_name = "FILE")]
    log_file: Option<Utf8PathBuf>,
}

/// Runs the daemon until it is told to stop by `SIGTERM` or `SIGINT`: this process is its warden, which starts its
/// dispatcher.
///
/// # Errors
/// The daemon cannot start; then nothing is left behind.
pub fn run(
    args: &RunArgs,
    host: &Host,
    loaded: Loaded,
    config_file: Option<&Utf8Path>,
) -> anyhow::Result<ExitCode> {
    let log = match &args.log_file {
        None => {
            log_to_stderr(&loaded.config.log);
            None
        }
        Some(path) => {
            let file = LogFile::open(path).with_context(|| format!("could not open the log `{path}`"))?;
            log_to(&loaded.config.log, false, file.clone());
            Some(file)
        }
    };
    let program = super::own_program()?;
    // The dispatcher starts in another folder.
    let config_file = config_file.map(camino::absolute_utf8).transpose()?;
    let named = config_file
        .iter()
        .flat_map(|path| ["--config".to_owned(), path.to_string()]);
    let orders = Orders {
        program: &program,
        args: named.chain(["__dispatch".to_owned()]).collect(),
        config_file: config_file.clone(),
        read_from: Some(super::config_file(config_file.as_deref(), host)).filter(|file| file.exists()),
        log,
    };
    match supervise(host, &loaded.config, orders) {
        Ok(code) => Ok(code.into()),
        // As it is where no daemon is started.
        Err(SuperviseError::Start(error)) => Err((*error).into()),
        Err(error) => Err(error.into()),
    }
}

/// Is the dispatcher of a daemon, whose warden has started this process.
///
/// # Errors
/// It cannot start, or cannot go on.
pub fn dispatch(
    host: &Host,
    load: impl FnOnce() -> Result<Loaded, ConfigError>,
    config_file: Utf8PathBuf,
) -> anyhow::Result<ExitCode> {
    // It was executed by a descriptor's number.
    os::call_self(c"ephemerd")?;
    os::close_memory().context("could not close the dispatcher's memory to others")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let ended = runtime.block_on(serve(host, load, config_file));
    // A runner's archive that is being fetched is not waited for.
    runtime.shutdown_background();
    ended
}

async fn serve(
    host: &Host,
    load: impl FnOnce() -> Result<Loaded, ConfigError>,
    config_file: Utf8PathBuf,
) -> anyhow::Result<ExitCode> {
    // From here on a signal waits until it can be obeyed, instead of ending us half started.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hangup = signal(SignalKind::hangup())?;
    accept_signals()?;
    let (warden, hello, descriptors) = Warden::join()?;
    let warden = Arc::new(warden);
    let memo = warden.recall::<DaemonMemo>(None).await?.map(|left| left.memo);
    // What was in force when the last one was killed still is: the privileged half goes by it.
    let loaded = match &memo {
        Some(DaemonMemo { config, .. }) => parse(&config.text, &config.file)?,
        None => load()?,
    };
    log_to_stderr(&loaded.config.log);
    let reading = Reading::new(host, config_file.clone(), loaded.clone());
    let config = loaded.config;
    let program = super::own_program()?;
    let control = config.control.clone();
    let (ground, killed) = (&hello.ground, hello.killed);
    let mut beat = ground.watchdog.map(tokio::time::interval);
    let own = workspace::of_dispatcher(&config.host.data_dir);
    let fence = match (&ground.dispatcher, host.os) {
        (None, _) => "as whoever started it, behind nothing".to_owned(),
        (Some(account), Os::Linux) => {
            let is_whole = os::fence_dispatcher(&own).context("could not fence the dispatcher in")?;
            let landlock = if is_whole {
                "Landlock"
            } else {
                "as much of Landlock as this kernel has"
            };
            format!("as {}, without a capability, behind {landlock}", account.name)
        }
        (Some(account), Os::MacOs) => {
            let proof = host.fence_proof();
            // Where even that fails, it is the modes and not the sandbox.
            let seen = std::fs::metadata(&proof);
            seen.with_context(|| format!("could not look at `{proof}`"))?;
            match std::fs::File::open(&proof) {
                Err(error) if error.raw_os_error() == Some(os::SANDBOX_DENIAL as i32) => {}
                Err(error) => return Err(error).with_context(|| format!("could not look at `{proof}`")),
                Ok(_) => anyhow::bail!(
                    "the dispatcher's sandbox does not apply: it can read `{proof}`\nhint: `ephemerd profile verify` tries sandboxes of this host"
                ),
            }
            format!("as {}, behind Seatbelt", account.name)
        }
    };
    info!("the dispatcher runs {fence}");
    let mut descriptors = descriptors.into_iter();
    let listener = door(descriptors.next())?.context("the warden has opened no control socket")?;
    let page_door = match &control.listen {
        Some(Listen::Unix(_)) => door(descriptors.next())?,
        Some(Listen::Tcp(_)) | None => None,
    };
    let changes = descriptors.collect();
    let Started {
        pipeline,
        room,
        only_guests,
        slots,
        recovered,
        taken_up,
        notes,
        manifests,
        locks: _locks,
    } = {
        let joining = join(
            host,
            config,
            config_file,
            (&program, Arc::clone(&warden)),
            (*hello, changes),
        );
        tokio::pin!(joining);
        // What an earlier dispatcher has left may take long to be torn down, and the service manager waits for none.
        loop {
            tokio::select! {
                started = &mut joining => break started?,
                () = next(&mut beat) => warden.tell(News::Lives),
            }
        }
    };
    for what in recovered {
        warn!(what, "recovered");
    }
    for note in notes {
        warn!("{note}");
    }
    if let Some(why) = &only_guests {
        warn!("no native job can run here, only guests: {why}");
    }
    let planner = pipeline.planner();
    let native = &planner.config().native;
    let guests = room.map(|room| {
        let total = crate::host::total_memory_byte();
        let plan = Plan::new(total, native.slots, native.limits.memory_byte, &room.config);
        Guests {
            room,
            plan: Latest::new(plan),
        }
    });
    let gate = Gate::new(host, planner.config(), manifests, planner.data_dir().to_owned());
    if let Some(why) = gate.why_shut(None).await {
        warn!("no job is let through: {why}");
    }
    let secrets = pipeline.warden.secrets().await?;
    let source = Source::open(
        host,
        planner.config(),
        (planner.data_dir(), pipeline.root),
        &secrets,
    )?;
    let daemon = Daemon::new(
        pipeline,
        slots,
        gate,
        (program, source, reading),
        (guests, only_guests),
    )?;
    drop(planner);
    daemon.runs_behind(fence);
    daemon.begin(memo.as_ref(), killed);
    daemon.take_up(taken_up);
    let page = match &control.listen {
        Some(listen) => Some(listen_for_page(listen, page_door).await?),
        None => None,
    };
    let showing = Arc::clone(&daemon);
    let mut showing = tokio::spawn(async move {
        match page {
            Some((listener, place)) => showing.serve_page(listener, place).await,
            None => std::future::pending().await,
        }
    });
    let keeping = Arc::clone(&daemon);
    let mut keeping = tokio::spawn(async move { keeping.keep_egress().await });
    let rechecking = Arc::clone(&daemon);
    let mut rechecking = tokio::spawn(async move { rechecking.recheck().await });
    let serving = Arc::clone(&daemon);
    let mut serving = tokio::spawn(async move { serving.serve_github().await });
    let looking = Arc::clone(&daemon);
    let mut looking = tokio::spawn(async move { looking.watch_floors().await });
    let fetching = Arc::clone(&daemon);
    let mut fetching = tokio::spawn(async move { fetching.fetch_images().await });
    let housekeeping = Arc::clone(&daemon);
    let mut housekeeping = tokio::spawn(async move { housekeeping.housekeep().await });
    info!(socket = %control.socket, "ready");
    daemon.tell_service(News::Ready);
    // In the loop that everything hangs on: one that does not turn any more is noticed.
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    tokio::spawn(server::serve(Arc::clone(&daemon), stream));
                }
                // Out of descriptors, most likely; those of finished connections come back.
                Err(error) => warn!(%error, "could not accept a control connection"),
            },
            () = daemon.lost() => anyhow::bail!(
                "the warden has ended, and every job with it\nhint: start the daemon again: it tears down what is left first"
            ),
            ended = &mut rechecking => anyhow::bail!("the host is no longer looked at: {ended:?}"),
            ended = &mut serving => anyhow::bail!("GitHub is no longer asked: {ended:?}"),
            ended = &mut looking => anyhow::bail!("nobody looks any more whether there is room: {ended:?}"),
            ended = &mut fetching => anyhow::bail!("images of guests are no longer fetched: {ended:?}"),
            ended = &mut showing => anyhow::bail!("the status page is no longer served: {ended:?}"),
            ended = &mut housekeeping => anyhow::bail!("nothing is pruned any more: {ended:?}"),
            ended = &mut keeping => anyhow::bail!("the egress filter is no longer watched: {ended:?}"),
            () = next(&mut beat) => daemon.tell_service(News::Lives),
            _ = hangup.recv() => drop(tokio::spawn(Arc::clone(&daemon).reload_on_signal())),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    info!("stopping");
    // Upon which nobody finds the sockets any more.
    daemon.tell_service(News::Stops);
    drop(listener);
    tokio::select! {
        () = daemon.stop() => {}
        _ = terminate.recv() => warn!("told to stop again: jobs are killed, the next start scrubs them"),
        _ = interrupt.recv() => warn!("told to stop again: jobs are killed, the next start scrubs them"),
    }
    rechecking.abort();
    fetching.abort();
    looking.abort();
    showing.abort();
    housekeeping.abort();
    serving.abort();
    daemon.leave_github().await;
    // To the last job's end; the rules stay.
    keeping.abort();
    Ok(ExitCode::SUCCESS)
}

/// Listens for those who look at the page, before anything is said to be ready.
async fn listen_for_page(listen: &Listen, door: Option<UnixListener>) -> anyhow::Result<(Listener, Listen)> {
    let failed = || format!("could not listen on `{listen}`");
    let listener = Listener::bind(listen, door).await.with_context(failed)?;
    let place = listener.place(listen).with_context(failed)?;
    info!(at = %place, "the status page and the metrics are served");
    Ok((listener, place))
}

/// A socket that the warden has opened.
fn door(opened: Option<OwnedFd>) -> std::io::Result<Option<UnixListener>> {
    let listener = opened.map(|door| {
        let door = std::os::unix::net::UnixListener::from(door);
        door.set_nonblocking(true)?;
        UnixListener::from_std(door)
    });
    listener.transpose()
}

/// The next beat; never, where nobody waits for one.
async fn next(beat: &mut Option<tokio::time::Interval>) {
    match beat {
        Some(beat) => drop(beat.tick().await),
        None => std::future::pending().await,
    }
}

/// Sends the log to standard error as `[log]` says.
fn log_to_stderr(log: &Log) {
    log_to(log, std::io::stderr().is_terminal(), std::io::stderr);
}

/// Sends the log somewhere as `[log]` says, in colours where somebody looks.
fn log_to<W>(log: &Log, colours: bool, writer: W)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let level = format!("{:?}", log.level).to_lowercase();
    let logger = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(level))
        .with_ansi(colours)
        .with_writer(writer);
    match log.format {
        LogFormat::Text => logger.init(),
        LogFormat::Json => logger.json().init(),
    }
}
