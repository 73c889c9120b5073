//! `cc_lua_preload`: which of our Lua packages `require` finds without a `lua_package_path`.

use crate::lua::PACKAGES;
use crate::ngx::conf::{Conf, ConfError, ConfResult, shown};
use crate::ngx::lua::{self, Package};

/// Which packages are preloaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Preload {
    /// Each of them.
    #[default]
    All,
    /// None.
    Off,
    /// Those named.
    Only(Vec<String>),
}

impl Preload {
    /// From the directive's words; the word that is not a package's name where one is not.
    pub fn parse<'w>(words: impl Iterator<Item = &'w str>) -> Result<Preload, String> {
        let words: Vec<String> = words.map(str::to_owned).collect();
        match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["all"] => Ok(Preload::All),
            ["off"] => Ok(Preload::Off),
            names => {
                match names.iter().find(|name| !PACKAGES.iter().any(|(known, _)| known == *name)) {
                    Some(unknown) => Err((*unknown).to_owned()),
                    None => Ok(Preload::Only(words)),
                }
            }
        }
    }

    /// The packages to preload.
    pub fn packages(&self) -> impl Iterator<Item = &'static Package> {
        PACKAGES
            .iter()
            .filter(move |(name, _)| match self {
                Preload::All => true,
                Preload::Off => false,
                Preload::Only(names) => names.iter().any(|n| n == name),
            })
            .map(|(_, package)| package)
    }
}

/// The directive's handler.
pub fn directive(cf: &mut Conf<'_>, preload: &mut Option<Preload>) -> ConfResult {
    if preload.is_some() {
        return Err(ConfError::Directive(c"is duplicate"));
    }
    if cf.cycle().has_http() {
        return Err(ConfError::Directive(c"must stand before \"http\""));
    }
    let words: Vec<String> = cf.args().skip(1).map(|word| shown(word).into_owned()).collect();
    let parsed = Preload::parse(words.iter().map(String::as_str));
    *preload = Some(parsed.map_err(|word| format!("unknown Lua package \"{word}\""))?);
    Ok(())
}

/// Preloads what was chosen, where the Lua module is loaded. From the http module's
/// preconfiguration: later, init_by_lua would be over.
pub fn preload(cf: &Conf<'_>, preload: Option<&Preload>) -> ConfResult {
    lua::preload(cf, preload.unwrap_or(&Preload::All).packages())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_choose_packages() {
        let names = |words: &[&str]| {
            Preload::parse(words.iter().copied())
                .map(|p| p.packages().map(|p| p.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&["off"]), Ok(vec![]));
        assert_eq!(names(&["all"]).unwrap().len(), PACKAGES.len());
        assert_eq!(names(&["ngx.ipc"]), Ok(vec![c"ngx.ipc"]));
        assert_eq!(names(&["ngx.ipc", "all"]), Err("all".into()));
        assert_eq!(names(&["ngx.ip"]), Err("ngx.ip".into()));
    }
}
