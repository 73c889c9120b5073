//! What init_by_lua may know and do: it runs in the master while a configuration is read, before
//! there is a zone for it. It sees the old configuration's, and changes nothing there but the lock for callbacks.

use parking_lot::Mutex;

use super::{alive, pid, running};
use crate::modules::core::Core;
use crate::ngx::cycle::{self, Cycle, Process};
use crate::ngx::module::core_conf;
use crate::ngx::process;
use crate::proto::ipc::{Generation, Pid};
use crate::shm::lifecycle::{Handle, Life};

/// Longest that the master waits for a worker's callback, in ms. It reads no signals meanwhile.
pub const WAIT: usize = 5000;

/// The old configuration's lives as the master sees them.
type See = Handle<'static, fn(Pid) -> bool>;

/// What is known of the load that is going on.
#[derive(Clone, Copy)]
pub struct Loading {
    /// This is for a test or a signal: nothing comes of it.
    pub idle: bool,
    /// The generation that it will be, if it comes into force.
    pub generation: Generation,
    /// There is a generation before it.
    old: Option<(&'static Life, Generation)>,
    reload: bool,
}

static LOADING: Mutex<Option<Loading>> = Mutex::new(None);

/// A configuration is read.
pub fn begin(cycle: Cycle<'_>) {
    let conf = cycle.old().and_then(core_conf::<Core>).map(|conf| &conf.ipc);
    let old = conf.and_then(|conf| Some((conf.life()?, conf.generation()?)));
    let last = old.map_or(0, |(_, Generation(last))| last);
    *LOADING.lock() = Some(Loading {
        idle: cycle::testing() || cycle::process() == Process::Other,
        generation: Generation(last + 1),
        old,
        reload: cycle.old().is_some(),
    });
}

/// It is in force; or whatever was read is over.
pub fn done() {
    *LOADING.lock() = None;
}

/// The load that is going on in this process.
pub fn current() -> Option<Loading> {
    *LOADING.lock()
}

impl Loading {
    /// How many workers of the generation before run; None where there was none.
    pub fn previous(&self) -> Option<usize> {
        let running = self.old.map(|(life, generation)| running(life, generation).len());
        running.or(self.reload.then_some(0))
    }

    fn handle(&self) -> Option<(&'static Life, See)> {
        let (life, _) = self.old?;
        Some((life, life.attach(pid()?, alive as fn(Pid) -> bool)))
    }

    /// Takes the lock for callbacks, where there is anybody to lock out. False: somebody has it all
    /// the time.
    pub fn hold(&self) -> bool {
        self.handle().is_none_or(|(life, handle)| super::wait_for(life, &handle, WAIT))
    }

    /// Gives it back.
    pub fn let_go(&self) {
        if let Some((life, _)) = self.handle().filter(|(_, handle)| handle.let_go()) {
            process::wake(life.callback_word());
        }
    }
}
