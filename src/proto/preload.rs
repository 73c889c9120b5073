//! What the words of `cc_lua_preload` mean.

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
    /// From the directive's words; the first that is not one of `known` where there is one.
    pub fn parse(words: Vec<String>, known: &[&str]) -> Result<Preload, String> {
        match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            ["all"] => Ok(Preload::All),
            ["off"] => Ok(Preload::Off),
            names => match names.iter().find(|name| !known.contains(name)) {
                Some(unknown) => Err((*unknown).to_owned()),
                None => Ok(Preload::Only(words)),
            },
        }
    }

    /// Whether the package of that name is among them.
    pub fn has(&self, package: &str) -> bool {
        match self {
            Preload::All => true,
            Preload::Off => false,
            Preload::Only(names) => names.iter().any(|name| name == package),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_choose_packages() {
        let parse = |words: &[&str]| {
            let words = words.iter().map(|word| (*word).to_owned()).collect();
            Preload::parse(words, &["ngx.ipc", "ngx.worker"])
        };
        assert_eq!(parse(&["off"]), Ok(Preload::Off));
        assert_eq!(parse(&["all"]), Ok(Preload::All));
        let one = parse(&["ngx.ipc"]).unwrap();
        assert!(one.has("ngx.ipc") && !one.has("ngx.worker"));
        assert_eq!(parse(&["ngx.ipc", "all"]), Err("all".into()));
        assert_eq!(parse(&["ngx.ip"]), Err("ngx.ip".into()));
    }
}
