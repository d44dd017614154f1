//! The program's entry: it reads the arguments and the configuration, and runs the guardian, the daemon, or one of the
//! small commands. Errors are printed here, once.
//!
//! The same program has three roles. An operator starts it as the guardian; the guardian starts it as the daemon; and
//! for some runs the daemon starts it as a launch, which then becomes the run's command.
//!
//! Not here: the work of these roles; see `worker::process` and `reactor`.
//!
//! Invariant: a wrong argument or configuration ends the program before it changes anything.

#![deny(unsafe_code)]
#![warn(
    clippy::disallowed_methods,
    clippy::exit,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unreachable,
    clippy::unwrap_used
)]

use lexopt::{Arg, ValueExt};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use wing_crontab::core::io::ExitReason;
use wing_crontab::model::config::Config;
use wing_crontab::worker::process::{
    CANNOT_START, DaemonLink, LAUNCH, NOT_LAUNCHED, REFUSED, UNDER_GUARDIAN, adopt, guard, launch,
};
use wing_crontab::worker::{clock, process};
use wing_crontab::{config, logging, next, reactor, token};

const HELP: &str = "\
wing-crontab: a distributed crontab, exact to the second

  wing-crontab [--config PATH]                 run (Ctrl-C or SIGTERM ends it; SIGHUP reads the jobs
                                               again, and SIGUSR1 opens log_file again)
  wing-crontab [--config PATH] --check-config  read the configuration, print it or its mistakes, and exit
  wing-crontab next 'CRONSET' [-n COUNT] [--from TIME] [--tz ZONE]
                                               print the next times of a schedule
  wing-crontab token new NAME --level read|operate|admin
                                               make a token for the HTTP API
  wing-crontab --version | --help

Without --config: config/app.toml under the working directory, else beside the executable.
";

fn main() -> ExitCode {
    let all: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let Some((_, arguments)) = all.split_first().filter(|(first, _)| *first == LAUNCH) {
        let _ = print(&format!("[{}]\n", launch(arguments)));
        return ExitCode::from(NOT_LAUNCHED);
    }
    match run(all) {
        Ok(code) => ExitCode::from(code),
        Err(message) => {
            eprintln!("wing-crontab: {}", message.replace('\n', "\nwing-crontab: "));
            ExitCode::from(CANNOT_START as u8)
        }
    }
}

#[derive(Default)]
struct Arguments {
    config: Option<PathBuf>,
    check_config: bool,
    /// None: this process is not a daemon.
    link: Option<DaemonLink>,
}

fn run(all: Vec<OsString>) -> Result<u8, String> {
    let mut parser = lexopt::Parser::from_args(all.clone());
    let mut arguments = Arguments::default();
    let usage = |error: lexopt::Error| format!("{error}; see wing-crontab --help");
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Arg::Long("config") => arguments.config = Some(parser.value().map_err(usage)?.into()),
            Arg::Long("check-config") => arguments.check_config = true,
            Arg::Long("help") | Arg::Short('h') => return print(HELP),
            Arg::Long("version") | Arg::Short('V') => {
                return print(&format!("wing-crontab {}\n", env!("CARGO_PKG_VERSION")));
            }
            Arg::Long("under-guardian") => {
                let descriptors = parser.value().and_then(|value| value.string()).map_err(usage)?;
                arguments.link = Some(adopt(&descriptors)?);
            }
            Arg::Value(word) if word == "next" => {
                let times = next::run(parser, clock::now().wall.second(), &environment)?;
                times.notes.iter().for_each(|note| eprintln!("wing-crontab: {note}"));
                return print(&times.lines);
            }
            Arg::Value(word) if word == "token" => {
                let made = token::run(parser, process::random)?;
                eprintln!("wing-crontab: {}", made.note);
                return print(&made.lines);
            }
            other => return Err(usage(other.unexpected())),
        }
    }
    let (config, warnings) = load(&arguments)?;
    if arguments.check_config {
        warnings.iter().for_each(|warning| eprintln!("wing-crontab: warning: {warning}"));
        return print(&config::summary(&config));
    }
    process::require_proc()?;
    let secrets = process::take_secrets();
    logging::start(&config)?;
    process::hide_environment();
    process::end_inheritance();
    process::survive_signals();
    match arguments.link {
        Some(link) => daemon(&config, &warnings, link),
        None => {
            let (data_dir, has_cgroups) = (config.data_dir.clone(), config.run_cgroup);
            // The guardian needs nothing else of the configuration, and is to stay small.
            drop(config);
            guard(&data_dir, all, secrets, has_cgroups).map(|code| code as u8)
        }
    }
}

/// The configuration, and warnings about it.
fn load(arguments: &Arguments) -> Result<(Config, Vec<String>), String> {
    let path = config::find(arguments.config.clone())?;
    let config = config::load(&path, environment)?;
    let warnings = config::warnings(&config, &path, clock::now().wall);
    Ok((config, warnings))
}

#[expect(clippy::disallowed_methods, reason = "the one place where the environment is read")]
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn daemon(config: &Config, warnings: &[String], link: DaemonLink) -> Result<u8, String> {
    // Without one of its threads the daemon would wait for ever for answers. So a panic ends all of it, and the
    // guardian starts it again.
    std::panic::set_hook(Box::new(|panic| {
        log::error!("{panic}");
        process::die();
    }));
    log::info!("wing-crontab {} as {}", env!("CARGO_PKG_VERSION"), config.bind_address);
    config.zones.told.iter().for_each(|line| log::info!("{line}"));
    log::info!("{}", config::access::summary(&config.access));
    warnings.iter().for_each(|warning| log::warn!("{warning}"));
    match reactor::run(config, link)? {
        ExitReason::Clean => Ok(0),
        ExitReason::Orphaned => Ok(1),
        ExitReason::Fatal(reason) => {
            log::error!("{reason}");
            Ok(REFUSED as u8)
        }
    }
}

/// Prints to stdout. It is no error where the reader has closed the pipe (`| head`).
fn print(text: &str) -> Result<u8, String> {
    use std::io::Write;
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(0)
}

/// The parser needs the hidden option as a literal (above), so this checks that both are the same.
const _: () = assert!(matches!(UNDER_GUARDIAN.as_bytes(), b"--under-guardian"));
