//! Reads what nginx-sys found out about the nginx headers and compiles the C shim with the same
//! include paths and definitions.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "nginx")]
    nginx::build();
}

#[cfg(feature = "nginx")]
mod nginx {
    use std::env;

    pub fn build() {
        println!("cargo::rerun-if-changed=src/ngx/shim.c");
        let mut shim = cc::Build::new();
        let include = env::var_os("DEP_NGINX_INCLUDE").unwrap_or_default();
        shim.file("src/ngx/shim.c").includes(env::split_paths(&include));
        for define in env::var("DEP_NGINX_CFLAGS").unwrap_or_default().split_whitespace() {
            shim.flag(define);
        }
        // a Lua error may unwind through the shim's frames
        shim.flag("-fexceptions").warnings(true).extra_warnings(false).compile("cc_shim");
    }
}
