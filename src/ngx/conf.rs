//! Configuration time: a safe view of `ngx_conf_t`, directive tables whose handlers are safe Rust,
//! and errors in nginx's own wording, with file and line.

use std::borrow::Cow;
use std::ffi::{CStr, OsString, c_char, c_void};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::marker::PhantomData;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::ptr;

use ngx::ffi;

use crate::ngx::cycle::Cycle;
use crate::ngx::guard::guard;
use crate::ngx::log::Level;

pub use ffi::{
    NGX_CONF_1MORE, NGX_CONF_ANY, NGX_CONF_FLAG, NGX_CONF_NOARGS, NGX_CONF_TAKE1, NGX_CONF_TAKE2,
    NGX_CONF_TAKE3, NGX_DIRECT_CONF, NGX_HTTP_LOC_CONF, NGX_HTTP_MAIN_CONF, NGX_HTTP_SRV_CONF,
    NGX_HTTP_UPS_CONF, NGX_MAIN_CONF,
};

/// Why a directive was refused.
#[derive(Debug, PartialEq, Eq)]
pub enum ConfError {
    /// Ends nginx's sentence: `"cc_zone" directive <text> in file:line`.
    Directive(&'static CStr),
    /// A sentence of its own; nginx adds ` in file:line`.
    Message(String),
    /// A delegate has logged it already.
    Logged,
}

/// What a directive's handler answers.
pub type ConfResult = Result<(), ConfError>;

impl From<String> for ConfError {
    fn from(message: String) -> Self {
        ConfError::Message(message)
    }
}

/// A place in the configuration, as nginx prints it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Line {
    /// The file's path.
    pub file: String,
    /// The line in it, from 1.
    pub number: usize,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.number)
    }
}

/// `ngx_conf_t` for as long as one callback runs.
pub struct Conf<'a> {
    raw: *mut ffi::ngx_conf_t,
    scope: PhantomData<&'a mut ffi::ngx_conf_t>,
}

impl<'a> Conf<'a> {
    /// # Safety
    /// `raw` is the `ngx_conf_t` that nginx handed to the running callback.
    pub(crate) unsafe fn from_raw(raw: *mut ffi::ngx_conf_t) -> Self {
        Conf { raw, scope: PhantomData }
    }

    pub(crate) fn as_raw(&self) -> *mut ffi::ngx_conf_t {
        self.raw
    }

    fn get(&self) -> &ffi::ngx_conf_t {
        // SAFETY: from_raw's contract; ngx_conf_parse's conf outlives its callbacks.
        unsafe { &*self.raw }
    }

    /// The cycle being configured.
    pub fn cycle(&self) -> Cycle<'a> {
        // SAFETY: ngx_init_cycle sets conf.cycle before the first directive.
        unsafe { Cycle::from_raw(self.get().cycle) }
    }

    /// The directive's words, its name first.
    pub fn args(&self) -> impl Iterator<Item = &[u8]> {
        // SAFETY: args is an array of ngx_str_t for as long as the directive is handled; between
        // directives (preconfiguration) nginx leaves it null.
        let words: &[ffi::ngx_str_t] = match unsafe { self.get().args.as_ref() } {
            // SAFETY: as above.
            Some(args) => unsafe { args.as_slice() },
            None => &[],
        };
        words.iter().map(ffi::ngx_str_t::as_bytes)
    }

    /// Word `index`; 0 is the directive's name.
    pub fn arg(&self, index: usize) -> Option<&[u8]> {
        self.args().nth(index)
    }

    /// Where the directive stands.
    pub fn line(&self) -> Line {
        // SAFETY: conf_file is null or a valid ngx_conf_file_t (null for `-g` only between tokens).
        match unsafe { self.get().conf_file.as_ref() } {
            Some(file) => Line {
                file: String::from_utf8_lossy(file.file.name.as_bytes()).into_owned(),
                number: file.line,
            },
            None => Line::default(),
        }
    }

    /// Logs `message` at `level`, with file and line where there are any.
    pub fn log(&self, level: Level, message: fmt::Arguments<'_>) {
        // SAFETY: raw is valid, the format string takes exactly a length and a pointer.
        unsafe {
            let text = message.to_string();
            ffi::ngx_conf_log_error(
                level as ffi::ngx_uint_t,
                self.raw,
                0,
                c"%*s".as_ptr(),
                text.len(),
                text.as_ptr(),
            );
        }
    }

    /// Logs what is wrong at a place that was read before.
    pub fn wrong(&self, line: &Line, why: &str) -> ConfError {
        self.cycle().log(Level::Emerg, format_args!("{why} in {line}"));
        ConfError::Logged
    }

    /// `word` as nginx's size (`64k`, `32m`), in bytes.
    pub fn size(word: &[u8]) -> Option<usize> {
        let mut text = borrowed(word);
        // SAFETY: ngx_parse_size reads text.len bytes of text.data.
        usize::try_from(unsafe { ffi::ngx_parse_size(&mut text) }).ok()
    }

    /// `word` as nginx's time (`200ms`, `2s`), in milliseconds.
    pub fn milliseconds(word: &[u8]) -> Option<usize> {
        let mut text = borrowed(word);
        // SAFETY: ngx_parse_time reads text.len bytes of text.data.
        usize::try_from(unsafe { ffi::ngx_parse_time(&mut text, 0) }).ok()
    }

    /// What is in the file `name`, which is taken from the configuration's folder, and the file's
    /// mode.
    pub fn file(&self, name: &[u8]) -> Result<(Vec<u8>, u32), ConfError> {
        let mut text = borrowed(name);
        let copy = [name, b"\0"].concat();
        text.data = copy.as_ptr().cast_mut();
        // SAFETY: ngx_conf_full_name reads the name, NUL behind it, and puts another into the
        // cycle's pool where it is not absolute.
        let path = unsafe {
            if ffi::ngx_conf_full_name(self.cycle().as_raw(), &mut text, 1) != 0 {
                return Err(ConfError::Logged);
            }
            OsString::from_vec(text.as_bytes().to_vec())
        };
        let read = || {
            let mut file = File::open(&path)?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            // of the very file that was read
            Ok((bytes, file.metadata()?.permissions().mode() & 0o7777))
        };
        read().map_err(|error: std::io::Error| {
            let why = match error.raw_os_error() {
                Some(errno) => format!("{errno}: {}", nix::errno::Errno::from_raw(errno).desc()),
                None => error.to_string(),
            };
            let path = Path::new(&path).display();
            format!("open() \"{path}\" failed ({why})").into()
        })
    }

    pub(crate) fn answer(&self, result: ConfResult) -> *mut c_char {
        match result {
            Ok(()) => ptr::null_mut(),
            Err(ConfError::Directive(text)) => text.as_ptr().cast_mut(),
            Err(ConfError::Message(text)) => {
                self.log(Level::Emerg, format_args!("{text}"));
                failed()
            }
            Err(ConfError::Logged) => failed(),
        }
    }
}

/// `bytes` as an `ngx_str_t` that must not outlive them.
pub(crate) fn borrowed(bytes: &[u8]) -> ffi::ngx_str_t {
    ffi::ngx_str_t { len: bytes.len(), data: bytes.as_ptr().cast_mut() }
}

/// `bytes` for a message: what is not UTF-8 is shown as the replacement character.
pub fn shown(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// NGX_CONF_ERROR, `(void *) -1`.
pub(crate) fn failed() -> *mut c_char {
    ptr::without_provenance_mut(usize::MAX)
}

/// The body of every directive's C handler. `C` is the conf that nginx passes for the module.
///
/// # Safety
/// `cf` and `conf` are what `ngx_conf_handler` passed, and the module's conf is a `C`.
pub(crate) unsafe fn set<C>(
    cf: *mut ffi::ngx_conf_t,
    conf: *mut c_void,
    handler: fn(&mut Conf<'_>, &mut C) -> ConfResult,
) -> *mut c_char {
    // SAFETY: the caller's contract.
    let mut cf = unsafe { Conf::from_raw(cf) };
    // SAFETY: the caller's contract; configuration is single-threaded and nothing else holds it.
    let Some(conf) = (unsafe { conf.cast::<C>().as_mut() }) else { return failed() };
    guard("configuration", failed(), || {
        let result = handler(&mut cf, conf);
        cf.answer(result)
    })
}

/// A directive table:
/// `directives!(static mut NAME: [N] = { "name" (Conf: type, offset) => handler, ... })`, where Conf is
/// what the module keeps at that offset.
macro_rules! directives {
    ($vis:vis static mut $table:ident: [$n:expr] = { $( $name:literal ($conf:ty: $type:expr, $offset:expr) => $handler:expr ),* $(,)? }) => {
        $vis static mut $table: [::ngx::ffi::ngx_command_t; $n + 1] = [
            $( {
                #[allow(unsafe_code)]
                unsafe extern "C" fn set(
                    cf: *mut ::ngx::ffi::ngx_conf_t,
                    _: *mut ::ngx::ffi::ngx_command_t,
                    conf: *mut ::std::ffi::c_void,
                ) -> *mut ::std::ffi::c_char {
                    // SAFETY: ngx_conf_handler passes the conf that the module's create_conf made.
                    unsafe { $crate::ngx::conf::set::<$conf>(cf, conf, $handler) }
                }
                ::ngx::ffi::ngx_command_t {
                    name: $crate::ngx::conf::literal(concat!($name, "\0")),
                    type_: ($type) as ::ngx::ffi::ngx_uint_t,
                    set: Some(set),
                    conf: $offset,
                    offset: 0,
                    post: ::std::ptr::null_mut(),
                }
            }, )*
            ::ngx::ffi::ngx_command_t::empty(),
        ];
    };
}
pub(crate) use directives;

/// A literal that ends in NUL as `ngx_str_t`, for static tables: nginx compares names by strcmp.
pub(crate) const fn literal(text: &'static str) -> ffi::ngx_str_t {
    ffi::ngx_str_t { len: text.len() - 1, data: text.as_ptr().cast_mut() }
}
