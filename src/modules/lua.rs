//! `cc_lua_preload`: which of our Lua packages `require` finds without a `lua_package_path`.

use std::collections::BTreeMap;

use crate::lua::PACKAGES;
use crate::ngx::conf::{Conf, ConfError, ConfResult, shown};
use crate::ngx::lua;
use crate::proto::preload::Preload;

/// The directive's handler.
pub fn directive(cf: &mut Conf<'_>, preload: &mut Option<Preload>) -> ConfResult {
    if preload.is_some() {
        return Err(ConfError::Directive(c"is duplicate"));
    }
    if cf.cycle().has_http() {
        return Err(ConfError::Directive(c"must stand before \"http\""));
    }
    let words = cf.args().skip(1).map(|word| shown(word).into_owned()).collect();
    let known: Vec<&str> = PACKAGES.iter().map(|(name, _)| *name).collect();
    let parsed = Preload::parse(words, &known);
    *preload = Some(parsed.map_err(|word| format!("unknown Lua package \"{word}\""))?);
    Ok(())
}

/// Preloads what was chosen, where the Lua module is loaded. From the http module's
/// preconfiguration: later, init_by_lua would be over.
pub fn preload(cf: &Conf<'_>, preload: Option<&Preload>) -> ConfResult {
    let preload = preload.unwrap_or(&Preload::All);
    let mut chosen = BTreeMap::new();
    for (_, package) in PACKAGES.iter().filter(|(name, _)| preload.has(name)) {
        chosen.insert(package.name, package);
    }
    lua::preload(cf, chosen.into_values())?;
    Ok(())
}
