//! A directive that stands before one of nginx's own, edits its parameters and then runs it.
//!
//! The table is a NGX_CONF_MODULE: ngx_conf_handler offers it the directive in every block whose
//! context bit fits, http{}, stream{} and mail{} alike, and no module's ctx_index moves. What runs
//! afterwards is looked up in the cycle, so nothing is linked against ngx_stream_module.

use std::ffi::{CStr, c_char, c_void};
use std::ptr;

use ngx::ffi;

use crate::ngx::conf::{Conf, ConfError, ConfResult, failed, literal};
use crate::ngx::guard::guard;

/// The [`Conf::block`] of http{}.
pub const HTTP: usize = ffi::NGX_HTTP_MODULE as usize;

/// The directive.
pub trait Before: 'static {
    /// Its name, NUL-terminated.
    const NAME: &'static str;

    /// Where it may stand; the same bits are server{} in http{}, stream{} and mail{}.
    const CONTEXT: u32 = ffi::NGX_HTTP_SRV_CONF;

    /// Runs for each occurrence, and runs nginx's own by [`Conf::delegate`].
    fn set(cf: &mut Conf<'_>) -> ConfResult;
}

/// The command table of a module with the one directive `D`.
pub const fn commands<D: Before>() -> [ffi::ngx_command_t; 2] {
    let mut command = ffi::ngx_command_t::empty();
    command.name = literal(D::NAME);
    command.type_ = (D::CONTEXT | ffi::NGX_CONF_1MORE) as ffi::ngx_uint_t;
    command.set = Some(set::<D>);
    [command, ffi::ngx_command_t::empty()]
}

/// The exported table of such a module.
pub const fn table(commands: *mut ffi::ngx_command_t) -> ffi::ngx_module_t {
    ffi::ngx_module_t {
        // ngx_conf_handler indexes the block's confs by it, unset it would be -1
        ctx_index: 0,
        commands,
        type_: ffi::NGX_CONF_MODULE as ffi::ngx_uint_t,
        ..ffi::ngx_module_t::default()
    }
}

unsafe extern "C" fn set<D: Before>(
    cf: *mut ffi::ngx_conf_t,
    _: *mut ffi::ngx_command_t,
    // by ctx_index 0 some other module's: not ours to look at
    _: *mut c_void,
) -> *mut c_char {
    guard("configuration", failed(), || {
        // SAFETY: ngx_conf_handler passes its conf, with the directive's words in args.
        let mut cf = unsafe { Conf::from_raw(cf) };
        let result = D::set(&mut cf);
        cf.answer(result)
    })
}

impl Conf<'_> {
    /// The type of the block's modules: tells http{} from stream{} and others.
    pub fn block(&self) -> usize {
        // SAFETY: from_raw's contract.
        unsafe { (*self.as_raw()).module_type }
    }

    /// Whether the directive stands in http{}.
    pub fn in_http(&self) -> bool {
        self.block() == HTTP
    }

    /// Takes word `index` out.
    pub fn remove_arg(&mut self, index: usize) {
        // SAFETY: args is a live array of ngx_str_t while the directive is handled
        // (ngx_conf_handler), and nothing else refers to its elements now.
        let Some(args) = (unsafe { (*self.as_raw()).args.as_mut() }) else { return };
        let words = args.elts.cast::<ffi::ngx_str_t>();
        if index < args.nelts {
            // SAFETY: both ranges lie within the nelts words of the array.
            unsafe {
                ptr::copy(words.add(index + 1), words.add(index), args.nelts - index - 1);
            }
            args.nelts -= 1;
        }
    }

    /// Adds a word behind the last.
    pub fn push_arg(&mut self, word: &'static CStr) -> ConfResult {
        // SAFETY: as in remove_arg; ngx_array_push returns room for one more word or null.
        let slot =
            unsafe { ffi::ngx_array_push((*self.as_raw()).args).cast::<ffi::ngx_str_t>().as_mut() };
        let slot = slot.ok_or(ConfError::Logged)?;
        // nginx compares parameters with strcmp and does not keep this one
        *slot = ffi::ngx_str_t { len: word.count_bytes(), data: word.as_ptr().cast_mut().cast() };
        Ok(())
    }

    /// Takes the last word off.
    pub fn pop_arg(&mut self) {
        self.remove_arg(self.args().count().saturating_sub(1));
    }

    /// Puts `text` in the place of word `index`.
    pub fn replace_arg(&mut self, index: usize, text: &str) -> ConfResult {
        let Ok(copy) = std::ffi::CString::new(text) else { return Err(ConfError::Logged) };
        let bytes = copy.as_bytes_with_nul();
        // SAFETY: the conf's pool lives as long as the cycle; the copy fits the room asked for.
        let data = unsafe {
            let data = ffi::ngx_pnalloc((*self.as_raw()).pool, bytes.len()).cast::<u8>();
            if data.is_null() {
                return Err(ConfError::Logged);
            }
            ptr::copy_nonoverlapping(bytes.as_ptr(), data, bytes.len());
            data
        };
        // SAFETY: as in remove_arg.
        let Some(args) = (unsafe { (*self.as_raw()).args.as_mut() }) else { return Ok(()) };
        if index < args.nelts {
            // SAFETY: index was checked.
            let word = unsafe { &mut *args.elts.cast::<ffi::ngx_str_t>().add(index) };
            *word = ffi::ngx_str_t { len: text.len(), data };
        }
        Ok(())
    }

    /// Runs the directive of the same name that the block's own modules have.
    pub fn delegate(&mut self) -> ConfResult {
        let cf = self.as_raw();
        let Some((module, command)) = self.own_command() else {
            return Err(ConfError::Directive(c"is not allowed here"));
        };
        // SAFETY: what ngx_conf_handler does for a command that is neither NGX_DIRECT_CONF nor
        // NGX_MAIN_CONF: ctx is the block's ngx_http_conf_ctx_t (or stream's, mail's), the
        // command's conf the offset of one array of confs in it, ctx_index the place there.
        let answer = unsafe {
            let confs = (*cf).ctx.byte_add((*command).conf).cast::<*mut *mut c_void>().read();
            let conf = if confs.is_null() { ptr::null_mut() } else { *confs.add(module.ctx_index) };
            match (*command).set {
                Some(set) => set(cf, command, conf),
                None => failed(),
            }
        };
        if answer.is_null() {
            Ok(())
        } else if answer == failed() {
            Err(ConfError::Logged)
        } else {
            // SAFETY: handlers return string literals of their module; ngx_conf_handler prints it
            // right after us, while the module is loaded.
            Err(ConfError::Directive(unsafe { CStr::from_ptr(answer) }))
        }
    }

    /// Runs `name TEXT` as if it stood in the directive's place.
    pub(crate) fn delegate_to(&mut self, name: &'static CStr, text: &'static CStr) -> ConfResult {
        let word = |text: &'static CStr| ffi::ngx_str_t {
            len: text.count_bytes(),
            data: text.as_ptr().cast_mut().cast(),
        };
        let cf = self.as_raw();
        // SAFETY: the conf's pool lives as long as the cycle, and so do the words, which are
        // static; handlers may keep pointers to them and to the array.
        unsafe {
            let words = ffi::ngx_array_create((*cf).pool, 2, size_of::<ffi::ngx_str_t>());
            let Some(array) = words.as_mut() else { return Err(ConfError::Logged) };
            let elements = array.elts.cast::<ffi::ngx_str_t>();
            elements.write(word(name));
            elements.add(1).write(word(text));
            array.nelts = 2;
            let own = std::mem::replace(&mut (*cf).args, words);
            let result = self.delegate();
            (*cf).args = own;
            result
        }
    }

    /// The command that ngx_conf_handler would have found without us.
    fn own_command(&self) -> Option<(&ffi::ngx_module_t, *mut ffi::ngx_command_t)> {
        let name = self.arg(0)?;
        // SAFETY: from_raw's contract.
        let (context, has_ctx) =
            unsafe { ((*self.as_raw()).cmd_type, !(*self.as_raw()).ctx.is_null()) };
        if !has_ctx {
            return None;
        }
        self.cycle().modules().filter(|module| module.type_ == self.block()).find_map(|module| {
            let mut command = module.commands;
            loop {
                // SAFETY: commands is null or ends with an entry whose name is empty.
                let entry = unsafe { command.as_ref() }.filter(|entry| entry.name.len > 0)?;
                if entry.name.as_bytes() == name && entry.type_ & context != 0 {
                    return Some((module, command));
                }
                // SAFETY: the last entry was not reached.
                command = unsafe { command.add(1) };
            }
        })
    }
}
