//! SPEAKS. The embedded Lua packages.
