/* What Rust cannot do: Lua loaders that raise, values of enum macros, asserts on layouts. */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

const ngx_uint_t  cc_read_event = NGX_READ_EVENT;
