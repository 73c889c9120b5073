//! Carries over what nginx-sys found in the nginx headers (as `ngx_feature` and `ngx_os` cfgs), compiles
//! the C shim against the same headers, and refuses headers that do not fit the nginx binary.
//! Without the `nginx` feature it does nothing and needs neither headers nor a C compiler.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "nginx")]
    if let Err(refusal) = nginx::build() {
        for line in refusal.lines() {
            println!("cargo::error={line}");
        }
    }
}

#[cfg(feature = "nginx")]
mod nginx {
    use std::env;
    use std::fs;
    use std::path::{Path, PathBuf};

    const SHIM: &str = "src/ngx/shim.c";

    /// What the headers or the binary say about themselves; a module is loaded only where both agree.
    struct Identity {
        version: Option<String>,
        signature: Option<String>,
    }

    pub fn build() -> Result<(), String> {
        println!("cargo::rerun-if-changed={SHIM}");
        println!("cargo::rerun-if-env-changed=NGINX_BINARY");
        print_cfgs();

        let cc = compiler();
        check_binary(&cc)?;

        let mut shim = cc.clone();
        // a Lua error unwinds through the shim's frames
        shim.file(SHIM).flag("-fexceptions").warnings(true).extra_warnings(false);
        shim.try_compile("cc_shim").map_err(|err| format!("{SHIM} does not compile: {err}"))
    }

    /// The same names that nginx-sys and ngx use for conditional code.
    fn print_cfgs() {
        for (name, found, known) in [
            ("ngx_feature", "DEP_NGINX_FEATURES", "DEP_NGINX_FEATURES_CHECK"),
            ("ngx_os", "DEP_NGINX_OS", "DEP_NGINX_OS_CHECK"),
        ] {
            println!("cargo::rerun-if-env-changed={found}");
            let known = env::var(known).unwrap_or_default();
            println!("cargo::rustc-check-cfg=cfg({name}, values({known}))");
            let found = env::var(found).unwrap_or_default();
            for value in found.split(',').map(str::trim).filter(|value| !value.is_empty()) {
                println!("cargo::rustc-cfg={name}=\"{value}\"");
            }
        }
    }

    /// A compiler that sees nginx's headers the way nginx-sys does.
    fn compiler() -> cc::Build {
        println!("cargo::rerun-if-env-changed=DEP_NGINX_INCLUDE");
        let include = env::var_os("DEP_NGINX_INCLUDE").unwrap_or_default();
        let mut cc = cc::Build::new();
        cc.includes(env::split_paths(&include));
        for flag in definitions().split_whitespace() {
            cc.flag(flag);
        }
        cc
    }

    /// nginx-sys 0.5.0 prints this one in cargo's older syntax, under which it arrives as
    /// `METADATA=cflags=...`.
    fn definitions() -> String {
        env::var("DEP_NGINX_CFLAGS")
            .or_else(|_| env::var("DEP_NGINX_METADATA").map(|v| v.replacen("cflags=", "", 1)))
            .unwrap_or_default()
    }

    fn check_binary(cc: &cc::Build) -> Result<(), String> {
        let Some(path) = env::var_os("NGINX_BINARY").map(PathBuf::from) else {
            return Ok(());
        };
        println!("cargo::rerun-if-changed={}", path.display());

        let binary = of_binary(&path)?;
        let headers = of_headers(cc)?;
        if binary.signature.is_none() {
            println!(
                "cargo::warning={} holds no module signature (a wrapper script?), so nothing says \
                 whether the headers fit it",
                path.display()
            );
        }
        refuse_unless_equal("version", &path, &binary.version, &headers.version)?;
        refuse_unless_equal("module signature", &path, &binary.signature, &headers.signature)
    }

    fn refuse_unless_equal(
        what: &str,
        path: &Path,
        binary: &Option<String>,
        headers: &Option<String>,
    ) -> Result<(), String> {
        match (binary, headers) {
            (Some(binary), Some(headers)) if binary != headers => {
                let remedy = if what == "version" {
                    "Build with the source tree of that binary (make build NGINX_SOURCE=DIR), or for \
                     the nginx of these headers (make build NGINX=PATH)."
                } else {
                    "The headers were configured with other options than the binary. Let `make build` \
                     configure them, with NGINX= and NGINX_SOURCE= of one and the same nginx; a patched \
                     nginx needs its patched source tree."
                };
                Err(format!(
                    "the nginx headers do not fit the nginx binary: another {what}\n\
                     binary:  {binary}  ({})\n\
                     headers: {headers}  ({})\n\
                     {remedy}",
                    path.display(),
                    env::var("DEP_NGINX_BUILD_DIR").unwrap_or_default(),
                ))
            }
            _ => Ok(()),
        }
    }

    fn of_headers(cc: &cc::Build) -> Result<Identity, String> {
        let file = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("identity.c");
        let text = "#include <ngx_config.h>\n#include <ngx_core.h>\n\
                    CC_VERSION NGINX_VER\nCC_SIGNATURE NGX_MODULE_SIGNATURE\n";
        fs::write(&file, text).map_err(|err| format!("{}: {err}", file.display()))?;
        let expanded = cc
            .clone()
            .file(&file)
            .try_expand()
            .map_err(|err| format!("the preprocessor fails on nginx's headers: {err}"))?;
        let expanded = String::from_utf8_lossy(&expanded);
        Ok(Identity {
            version: literal_after(&expanded, "CC_VERSION"),
            signature: literal_after(&expanded, "CC_SIGNATURE"),
        })
    }

    /// The adjacent string literals after `word`, joined as the compiler would.
    fn literal_after(text: &str, word: &str) -> Option<String> {
        let rest = text.split(word).nth(1)?;
        let rest = rest.split("CC_").next()?;
        // line markers hold quoted file names
        let code = rest.lines().filter(|line| !line.starts_with('#'));
        let joined: String = code.flat_map(|line| line.split('"').skip(1).step_by(2)).collect();
        (!joined.is_empty()).then_some(joined)
    }

    /// Reads the file instead of running it: it may be built for another machine.
    fn of_binary(path: &Path) -> Result<Identity, String> {
        let bytes = fs::read(path).map_err(|err| format!("{}: {err}", path.display()))?;
        Ok(Identity { version: version_in(&bytes), signature: signature_in(&bytes) })
    }

    /// From the text that `nginx -v` prints.
    fn version_in(bytes: &[u8]) -> Option<String> {
        const INTRO: &[u8] = b"nginx version: ";
        let at = bytes.windows(INTRO.len()).position(|window| window == INTRO)?;
        let rest = bytes.get(at + INTRO.len()..)?;
        let word = rest.split(|byte| !byte.is_ascii_graphic()).next()?;
        Some(String::from_utf8_lossy(word).into_owned()).filter(|word| !word.is_empty())
    }

    /// Three sizes and a row of bits: `8,4,8,0011...`, the same in every module that is linked in.
    fn signature_in(bytes: &[u8]) -> Option<String> {
        const SHORTEST: usize = "8,4,8,".len() + 20;
        bytes
            .split(|byte| !matches!(byte, b'0'..=b'9' | b','))
            .filter(|run| run.len() >= SHORTEST)
            .find(|run| {
                let parts: Vec<&[u8]> = run.split(|byte| *byte == b',').collect();
                matches!(&parts[..], [a, b, c, bits]
                    if [a, b, c].iter().all(|size| matches!(size[..], [b'4' | b'8']))
                        && bits.iter().all(|bit| matches!(bit, b'0' | b'1')))
            })
            .map(|run| String::from_utf8_lossy(run).into_owned())
    }
}
