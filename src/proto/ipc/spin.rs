//! Whether a worker that has run out of messages looks on for a while before it sleeps. Waking a
//! sleeper costs several microseconds across cores, so between two workers that talk to and fro a
//! short look pays; anywhere else it burns a core that somebody needs. So it lasts as long as it
//! has paid lately. Who spins lets others run first where there are not cores for all.

/// Idle spells between two tries of a spin that had stopped paying.
const RETRY: u32 = 64;
/// What one look takes at most where others run in between, in ns.
const LOOK: u64 = 2000;

/// The value of `cc_ipc_spin` in microseconds: `off`, `0`, `20us` or `1ms`.
pub fn parse(word: &str) -> Option<usize> {
    match word {
        "off" | "0" => Some(0),
        _ => match (word.strip_suffix("us"), word.strip_suffix("ms")) {
            (Some(micros), _) => micros.parse().ok(),
            (None, Some(millis)) => millis.parse::<usize>().ok()?.checked_mul(1000),
            (None, None) => None,
        },
    }
}

/// What one worker has learned. Times in nanoseconds.
#[derive(Debug)]
pub struct Spin {
    limit: u64,
    /// How long the next spell may last.
    budget: u64,
    /// What is left of the spell under way, and when that was.
    spell: Option<(u64, u64)>,
    skipped: u32,
}

impl Spin {
    /// Of at most `limit` a spell; 0 is never.
    pub fn new(limit: u64) -> Spin {
        Spin { limit, budget: limit, spell: None, skipped: 0 }
    }

    /// There is nothing to do at `now`: look again (true), or sleep. Where others ran in between
    /// (`crowded`), their time is not counted: it was not burnt, and it says nothing about whether
    /// looking on pays.
    pub fn look_again(&mut self, now: u64, crowded: bool) -> bool {
        match self.spell {
            Some((left, seen)) => {
                let most = if crowded { LOOK } else { u64::MAX };
                let spent = now.saturating_sub(seen).min(most);
                if spent < left {
                    self.spell = Some((left - spent, now));
                    return true;
                }
                self.budget /= 2;
                if self.budget < self.limit / 8 {
                    self.budget = 0;
                }
                self.spell = None;
            }
            None if self.limit == 0 => {}
            None if self.budget > 0 => self.spell = Some((self.budget, now)),
            None => {
                self.skipped += 1;
                if self.skipped >= RETRY {
                    self.skipped = 0;
                    self.spell = Some((self.limit / 4, now));
                }
            }
        }
        self.spell.is_some()
    }

    /// Whether looking on has paid lately.
    #[inline]
    pub fn pays(&self) -> bool {
        self.budget > 0
    }

    /// A look before any spell has found something.
    #[inline]
    pub fn paid(&mut self) {
        self.budget = self.limit;
    }

    /// Whether a spell is under way.
    pub fn spinning(&self) -> bool {
        self.spell.is_some()
    }

    /// Something has come.
    pub fn found(&mut self) {
        if self.spell.take().is_some() {
            self.budget = (self.budget * 2).max(self.limit / 4).min(self.limit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_is_a_short_time() {
        let words = ["off", "0", "20us", "1ms", "20", "us", "-1us", "x"];
        let parsed = words.map(parse);
        assert_eq!(parsed, [Some(0), Some(0), Some(20), Some(1000), None, None, None, None]);
    }

    #[test]
    fn a_spin_that_pays_goes_on_and_one_that_does_not_ends() {
        let mut spin = Spin::new(800);
        assert!(spin.look_again(0, false) && spin.look_again(799, false));
        spin.found();
        assert!(spin.look_again(1000, false) && spin.look_again(1799, false));
        let mut now = 10_000;
        let mut spells = 0;
        while spin.look_again(now, false) || spells < 5 {
            now += 10;
            spells += u32::from(spin.spell.is_none());
        }
        assert_eq!(spin.budget, 0);
    }

    #[test]
    fn what_others_take_is_not_counted() {
        let mut spin = Spin::new(8 * LOOK);
        assert!((0..8).all(|look| spin.look_again(look * 1_000_000, true)));
        assert!(!spin.look_again(8_000_000, true));
    }

    #[test]
    fn it_tries_again_now_and_then() {
        let mut spin = Spin { budget: 0, ..Spin::new(800) };
        let tries = (0..RETRY).filter(|_| spin.look_again(0, false)).count();
        assert_eq!(tries, 1);
        spin.found();
        assert_eq!(spin.budget, 200);
    }

    #[test]
    fn never_without_a_limit() {
        assert!((0..1000).all(|now| !Spin::new(0).look_again(now, false)));
    }
}
