//! The works of the floor, message for message those of lua/works/flood.lua and pingpong.lua: each
//! message is new and carries its number at the head, each 4 KB and at the end.

use std::io;
use std::time::{Duration, Instant};

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

use crate::link::{LONGEST, Link};

/// Seconds that a run may take.
const PATIENCE: u32 = 60;
const STAMP: usize = 8;
const APART: usize = 4096;
/// Number of the message that ends a flood.
const LAST: u64 = u64::MAX;
/// Width of a bucket of the histogram, and how many there are.
const NANOS: u128 = 50;
const BUCKETS: usize = 200_000;

/// Where a message of this size has its number.
fn stamps(size: usize) -> Vec<usize> {
    let mut at: Vec<usize> = (0..=size.saturating_sub(2 * STAMP)).step_by(APART).collect();
    if size >= 2 * STAMP {
        at.push(size - STAMP);
    }
    at
}

fn stamp(message: &mut [u8], stamps: &[usize], number: u64) {
    for at in stamps {
        if let Some(place) = message.get_mut(*at..*at + STAMP) {
            place.copy_from_slice(&number.to_ne_bytes());
        }
    }
}

fn fits(message: &[u8], stamps: &[usize], number: u64) -> bool {
    stamps.iter().all(|at| message.get(*at..*at + STAMP) == Some(number.to_ne_bytes().as_slice()))
}

/// Runs `other` in a process of its own and `here` in this one; an error of either is the result.
fn both<T>(
    other: impl FnOnce() -> io::Result<()>,
    here: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    // SAFETY: this program has one thread, so the child may do anything.
    match unsafe { fork() }? {
        ForkResult::Child => {
            // SAFETY: takes no pointers. Who waits for a parent that is gone would do so for ever.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            let code = match other() {
                Ok(()) => 0,
                Err(_) => 1,
            };
            std::process::exit(code);
        }
        ForkResult::Parent { child } => {
            // SAFETY: takes no pointers. The end, should the other one leave us waiting.
            unsafe { libc::alarm(PATIENCE) };
            let result = here()?;
            match waitpid(child, None)? {
                WaitStatus::Exited(_, 0) => Ok(result),
                status => Err(io::Error::other(format!("the other process: {status:?}"))),
            }
        }
    }
}

/// Messages per second from here to there, counted when all of them were received and looked at.
pub fn flood<L: Link>(here: L, there: L, size: usize, seconds: f64) -> io::Result<()> {
    let at = stamps(size);
    let (mut here, mut there) = (here, there);
    let receiver = || {
        let mut buffer = vec![0; LONGEST];
        let (mut count, mut bad) = (0u64, 0u64);
        loop {
            let length = there.receive(&mut buffer)?;
            let message = buffer.get(..length).unwrap_or_default();
            if fits(message, &at, LAST) {
                break;
            }
            count += 1;
            if length != size || !fits(message, &at, count) {
                bad += 1;
            }
        }
        there.send(&[count.to_ne_bytes(), bad.to_ne_bytes()].concat())
    };
    let sender = || {
        let mut message = vec![b'u'; size];
        let began = Instant::now();
        let limit = Duration::from_secs_f64(seconds);
        // a look at the clock costs as much as a small message
        let batch = if size < 1024 { 1024 } else { 64 };
        let mut count = 0;
        while began.elapsed() < limit {
            for _ in 0..batch {
                count += 1;
                stamp(&mut message, &at, count);
                here.send(&message)?;
            }
        }
        stamp(&mut message, &at, LAST);
        here.send(&message)?;
        let mut answer = vec![0; LONGEST];
        let length = here.receive(&mut answer)?;
        let took = began.elapsed();
        let right = [count.to_ne_bytes(), 0u64.to_ne_bytes()].concat();
        if answer.get(..length) != Some(&right) {
            return Err(io::Error::other("messages were lost or not what they should be"));
        }
        Ok(count as f64 / took.as_secs_f64())
    };
    println!("rate {:.0}", both(receiver, sender)?);
    Ok(())
}

/// Percentiles of the time of one message there and back.
pub fn pingpong<L: Link>(here: L, there: L, size: usize, seconds: f64) -> io::Result<()> {
    let at = stamps(size);
    let (mut here, mut there) = (here, there);
    let receiver = || {
        let mut buffer = vec![0; LONGEST];
        loop {
            let length = there.receive(&mut buffer)?;
            let message = buffer.get(..length).unwrap_or_default();
            there.send(message)?;
            if fits(message, &at, LAST) {
                return Ok(());
            }
        }
    };
    let sender = || {
        let mut message = vec![b'u'; size];
        let mut answer = vec![0; LONGEST];
        let mut histogram = vec![0u64; BUCKETS];
        let (mut count, mut turn) = (0u64, Instant::now());
        let limit = turn + Duration::from_secs_f64(seconds);
        while turn < limit {
            count += 1;
            stamp(&mut message, &at, count);
            here.send(&message)?;
            let length = here.receive(&mut answer)?;
            let now = Instant::now();
            if length != size || !fits(&answer, &at, count) {
                return Err(io::Error::other("an answer was not what it should be"));
            }
            let bucket = ((now - turn).as_nanos() / NANOS) as usize;
            if let Some(bucket) = histogram.get_mut(bucket.min(BUCKETS - 1)) {
                *bucket += 1;
            }
            turn = now;
        }
        stamp(&mut message, &at, LAST);
        here.send(&message)?;
        here.receive(&mut answer)?;
        Ok((histogram, count))
    };
    let (histogram, count) = both(receiver, sender)?;
    for (name, share) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)] {
        println!("{name} {:.3}", percentile(&histogram, count as f64 * share));
    }
    Ok(())
}

/// In us, the middle of the bucket in which the `rank`th sample is.
fn percentile(histogram: &[u64], rank: f64) -> f64 {
    let mut below = 0;
    let bucket = histogram.iter().position(|count| {
        below += count;
        below as f64 >= rank
    });
    (bucket.unwrap_or(BUCKETS) as f64 + 0.5) * NANOS as f64 / 1000.0
}
