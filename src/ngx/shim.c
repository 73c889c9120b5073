/*
 * What Rust cannot do: values of enum macros, nginx's atomic steps, and Lua loaders, which may raise. A raise unwinds
 * frames, so it happens here and nowhere else.
 */

#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <dlfcn.h>


const ngx_int_t   cc_read_event = NGX_READ_EVENT;
const ngx_int_t   cc_write_event = NGX_WRITE_EVENT;
const ngx_uint_t  cc_clear_event = NGX_CLEAR_EVENT;


ngx_atomic_uint_t
cc_next_connection(void)
{
    return ngx_atomic_fetch_add(ngx_connection_counter, 1);
}


/* found at run time: whether there are any is not part of the signature that a module must share */
void
cc_count_accepted(void)
{
    static const char   *names[] = { "ngx_stat_accepted", "ngx_stat_handled", "ngx_stat_active" };
    static ngx_atomic_t  **counters[3];
    static unsigned      looked;

    unsigned  i;

    for (i = 0; i < 3; i++) {
        if (!looked) {
            counters[i] = dlsym(RTLD_DEFAULT, names[i]);
        }

        if (counters[i] != NULL) {
            (void) ngx_atomic_fetch_add(*counters[i], 1);
        }
    }

    looked = 1;
}


/* found at run time: the Lua module may be absent, and may be loaded after this one */
typedef struct lua_State  lua_State;
typedef int (*lua_cfunction)(lua_State *L);
typedef int (*loadbuffer_pt)(lua_State *L, const char *s, size_t n, const char *chunk);
typedef void (*insert_pt)(lua_State *L, int index);
typedef void (*call_pt)(lua_State *L, int nargs, int nresults);
typedef int (*error_pt)(lua_State *L);

typedef struct {
    const char  *chunk;
    const char  *source;
    size_t       size;
} cc_lua_package_t;

#define CC_LUA_PACKAGES  32

static cc_lua_package_t  cc_lua_packages[CC_LUA_PACKAGES];


static int
cc_lua_load(lua_State *L, unsigned n)
{
    cc_lua_package_t  *p = &cc_lua_packages[n];

    /* a package is loaded once in a VM, so the look-ups are not kept: a later configuration may
     * bring another Lua library */
    loadbuffer_pt  loadbuffer = (loadbuffer_pt) dlsym(RTLD_DEFAULT, "luaL_loadbuffer");
    insert_pt      insert = (insert_pt) dlsym(RTLD_DEFAULT, "lua_insert");
    call_pt        call = (call_pt) dlsym(RTLD_DEFAULT, "lua_call");
    error_pt       error = (error_pt) dlsym(RTLD_DEFAULT, "lua_error");

    if (loadbuffer == NULL || insert == NULL || call == NULL || error == NULL) {
        return 0;
    }

    if (loadbuffer(L, p->source, p->size, p->chunk) != 0) {
        return error(L);
    }

    /* the chunk takes the package's name, as from any loader */
    insert(L, 1);
    call(L, 1, 1);

    return 1;
}


#define cc_loader(n)                                                          \
    static int cc_load_##n(lua_State *L) { return cc_lua_load(L, n); }

cc_loader(0)
cc_loader(1)
cc_loader(2)
cc_loader(3)
cc_loader(4)
cc_loader(5)
cc_loader(6)
cc_loader(7)
cc_loader(8)
cc_loader(9)
cc_loader(10)
cc_loader(11)
cc_loader(12)
cc_loader(13)
cc_loader(14)
cc_loader(15)
cc_loader(16)
cc_loader(17)
cc_loader(18)
cc_loader(19)
cc_loader(20)
cc_loader(21)
cc_loader(22)
cc_loader(23)
cc_loader(24)
cc_loader(25)
cc_loader(26)
cc_loader(27)
cc_loader(28)
cc_loader(29)
cc_loader(30)
cc_loader(31)

static const lua_cfunction  cc_loaders[] = {
    cc_load_0, cc_load_1, cc_load_2, cc_load_3,
    cc_load_4, cc_load_5, cc_load_6, cc_load_7,
    cc_load_8, cc_load_9, cc_load_10, cc_load_11,
    cc_load_12, cc_load_13, cc_load_14, cc_load_15,
    cc_load_16, cc_load_17, cc_load_18, cc_load_19,
    cc_load_20, cc_load_21, cc_load_22, cc_load_23,
    cc_load_24, cc_load_25, cc_load_26, cc_load_27,
    cc_load_28, cc_load_29, cc_load_30, cc_load_31
};


/* makes package n load this source, which must outlive every Lua VM */
lua_cfunction
cc_lua_package(unsigned n, const char *chunk, const char *source, size_t size)
{
    if (n >= CC_LUA_PACKAGES) {
        return NULL;
    }

    cc_lua_packages[n].chunk = chunk;
    cc_lua_packages[n].source = source;
    cc_lua_packages[n].size = size;

    return cc_loaders[n];
}
