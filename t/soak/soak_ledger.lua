-- What a worker notes of a soak: a file mapped into memory, which a kill -9 leaves as it was, and the
-- orders it gets, another one. t/soak/Soak/Ledger.pm reads the ledgers, t/soak/Soak/Node.pm writes
-- the orders.

local ffi = require "ffi"

local C = ffi.C

ffi.cdef [[
typedef struct { uint32_t kind, a, b, spare; uint64_t count, first, last; } soak_row_t;
typedef struct {
    uint32_t pid, generation, id, rows;
    uint64_t handled, answered, unnamed, refused, expected, acted;
    uint64_t looked, looks, sent, received, stranger, lost, full, late, unhandled, queued,
             queued_bytes, calls, workers, others, kept, heard, starts, exits, crashes, values;
    uint64_t spare[6];
    soak_row_t row[4096];
} soak_ledger_t;
typedef struct { uint32_t quiet, rate, modest, touch, mixed, spare[3]; } soak_control_t;
int soak_open(const char *path, int flags, ...) __asm__("open");
int soak_truncate(int fd, long length) __asm__("ftruncate");
void *soak_map(void *at, size_t length, int prot, int flags, int fd, long offset) __asm__("mmap");
int soak_close(int fd) __asm__("close");
int soak_mkdir(const char *path, unsigned mode) __asm__("mkdir");
int soak_parent(void) __asm__("getppid");
]]

local ROWS, ALERTS = 4096, 20

local _M = {}

local rows = {}             -- kind:a:b -> row
local alerts = 0

-- What cannot be: t/soak/Soak/Log.pm fails the soak for each.
function _M.alert(...)
    alerts = alerts + 1
    if alerts <= ALERTS then
        ngx.log(ngx.ALERT, "soak: ", ...)
    end
end

local function map(path, ctype, write)
    local O_RDONLY, O_RDWR_CREAT_EXCL, PROT_READ, PROT_WRITE, MAP_SHARED = 0, 2 + 64 + 128, 1, 2, 1
    local fd = C.soak_open(path, write and O_RDWR_CREAT_EXCL or O_RDONLY, ffi.cast("int", 420))
    assert(fd >= 0, "cannot open " .. path)
    local size = ffi.sizeof(ctype)
    if write then
        assert(C.soak_truncate(fd, size) == 0)
    end
    local at = C.soak_map(nil, size, write and PROT_READ + PROT_WRITE or PROT_READ, MAP_SHARED, fd, 0)
    C.soak_close(fd)
    assert(ffi.cast("intptr_t", at) ~= -1, "cannot map " .. path)
    return ffi.cast(ffi.typeof("$ *", ffi.typeof(ctype)), at)
end

-- In each worker, once, with the prefix of its nginx: the ledger of this process in its master's
-- folder, and the orders.
function _M.open(prefix)
    local folder = prefix .. "/ledgers." .. C.soak_parent()
    C.soak_mkdir(folder, 493)
    local me = { pid = ngx.worker.pid(), generation = require "ngx.ipc".generation(), id = ngx.worker.id() }
    _M.control = map(prefix .. "/control", "soak_control_t")
    local ledger = map(folder .. "/" .. me.pid, "soak_ledger_t", true)
    ledger.generation, ledger.id = me.generation, me.id
    ledger.pid = me.pid     -- last: without it nobody reads the rest
    _M.ledger, _M.me = ledger, me
    return me
end

function _M.row(kind, a, b)
    local key = kind .. ":" .. a .. ":" .. b
    local row = rows[key]
    if not row then
        local ledger = _M.ledger
        if ledger.rows >= ROWS then
            error("the ledger is full")
        end
        row = ledger.row[ledger.rows]
        row.kind, row.a, row.b = kind, a, b
        ledger.rows = ledger.rows + 1
        rows[key] = row
    end
    return row
end

return _M
