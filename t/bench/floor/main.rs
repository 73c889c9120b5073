//! The floor: what two processes of this machine can do without nginx and Lua, over a bare ring in
//! shared memory, the module's own ring and a socket. `floor list` names the transports; `floor TRANSPORT WORK SIZE
//! SECONDS` runs one work over one of them and prints `key value` lines, as the Lua works do.

// shared memory and fork are what this program is about
#![allow(unsafe_code)]

mod link;
mod ours;
mod ring;
mod socket;
mod works;

use std::env;
use std::io;
use std::process::ExitCode;

use link::Link;

/// How one transport is named on the command line and in the tables, and how a work is run over it.
struct Transport {
    key: &'static str,
    title: &'static str,
    run: fn(&Job) -> io::Result<()>,
}

/// One row here and one file with a `Link` is all that another transport needs.
const TRANSPORTS: &[Transport] = &[
    Transport { key: "ring", title: "bare ring (Rust)", run: run::<ring::Awake> },
    Transport { key: "ours", title: "our ring (Rust)", run: run::<ours::Ours> },
    Transport { key: "bell", title: "ring with bell (Rust)", run: run::<ring::Sleepy> },
    Transport { key: "socket", title: "bare socket (Rust)", run: run::<socket::Socket> },
];

/// What the command line asks for.
pub struct Job {
    work: String,
    size: usize,
    seconds: f64,
}

fn run<L: Link>(job: &Job) -> io::Result<()> {
    let (here, there) = L::pair()?;
    match job.work.as_str() {
        "flood" => works::flood(here, there, job.size, job.seconds),
        "pingpong" => works::pingpong(here, there, job.size, job.seconds),
        other => Err(io::Error::other(format!("no work is called {other}"))),
    }
}

fn job(args: &[String]) -> Option<(&'static Transport, Job)> {
    let [key, work, size, seconds] = args else { return None };
    let transport = TRANSPORTS.iter().find(|transport| transport.key == key)?;
    let size = size.parse().ok().filter(|size| (8..=link::LONGEST).contains(size))?;
    Some((transport, Job { work: work.clone(), size, seconds: seconds.parse().ok()? }))
}

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    if args == ["list"] {
        for transport in TRANSPORTS {
            println!("{}\t{}", transport.key, transport.title);
        }
        return ExitCode::SUCCESS;
    }
    let Some((transport, job)) = job(&args) else {
        eprintln!("floor list | floor TRANSPORT flood|pingpong SIZE SECONDS");
        return ExitCode::from(2);
    };
    match (transport.run)(&job) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error {error}");
            ExitCode::FAILURE
        }
    }
}
