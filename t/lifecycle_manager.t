# resty.worker.manager: the two calls, and what their callbacks are told, as the original's document
# has it (M1 to M6).
use v5.36;
use Test::More;
use CC::Console;
use CC::Wait qw(SLOW);

# Each call is a line in the log: "manager: NAME id n_prev n_mine n_next."
my $MANAGER = <<'LUA';
    local function note(name)
        return function(id, prev, mine, next)
            ngx.log(ngx.NOTICE, "manager: ", name, " ", id, " ", tostring(prev), " ", tostring(mine), " ",
                    tostring(next), ".")
        end
    end
LUA

sub http ($more = '', $exit = '') {
    return "lua_shared_dict my_shm 1m; $exit
        init_by_lua_block { $MANAGER
            assert(require('resty.worker.manager').on_init_by_lua({ shm = 'my_shm', interval = 10, failed = 5 },
                note 'master_start', note 'master_exit'))
            $more
        }";
}

my $WORKER = $MANAGER . q{
    assert(require("resty.worker.manager").on_init_worker_by_lua(note "worker_start", note "worker_exit"))
};

sub called ($s, $from = 0) { [ $s->error_log($from) =~ /manager: (.*?)\./g ] }

subtest 'start, reload, crash, quit' => sub {
    my $c = CC::Console->start(workers => 3, http => http(), init => $WORKER);
    my $s = $c->s;
    my @pid = map { $c->pid($_) } 0 .. 2;
    my @calls = @{ called($s) };
    is shift @calls, 'master_start 1 nil 0 nil', 'M3 a fresh start';
    is_deeply [ map { [ split ' ' ]->[3] } @calls ], [ 1, 2, 3 ], 'M1 workers start one after the other';
    is_deeply [ sort @calls ], [ sort map { "worker_start 1-$pid[$_] nil " . ($calls[0] =~ /-$pid[$_] / ? 1 : $calls[1] =~ /-$pid[$_] / ? 2 : 3) . ' nil' } 0 .. 2 ],
        'M2 ids, no previous and no next';

    # -- a crash: more than there are seats tells the successor
    my $from = $s->log_size;
    my $heir = $s->kill_worker(1);
    $s->wait_log(qr/manager: worker_start 1-$heir/, $from);
    is_deeply called($s, $from), ["worker_start 1-$heir nil 4 nil"], 'M4 a respawned worker';
    $pid[1] = $heir;

    # -- reload, nobody lingers
    $from = $s->log_size;
    ok $c->reload, 'reload';
    my @new = map { $c->pid($_) } 0 .. 2;
    my @all = @{ called($s, $from) };
    is $all[0], 'master_start 2 3 0 nil', 'M3 a reload: the old workers run';
    is_deeply [ grep { /worker_start/ } @all ], [ map { /^worker_start/ ? $_ : () } @all ], 'starts';
    SKIP: {
        skip 'nginx gives new workers 100 ms before it tells the old ones, and here they need longer', 3 if SLOW > 1;
        is scalar(grep { /^worker_start 2-\d+ 3 [123] nil$/ } @all), 3, 'M1 new workers: three old ones run, they come one by one';
        is_deeply [ map { /^worker_exit 1-(?:\d+) nil (\d) 3$/ ? $1 : () } @all ], [ 3, 2, 1 ], 'M3 old workers leave, one by one, for three new ones';
        is $all[-1], 'master_exit 1 nil 0 3', 'M6 the last one calls for the master';
    }

    # -- reload with one that lingers
    my $line = $c->console(2);
    my $lingers = $line->pid;
    ok $c->reload(wait_old => 0), 'reload with a lingering worker';
    $line->until('return ngx.worker.exiting()', 'true');
    $s->wait_log(qr/manager: master_exit 2 /, $from);
    $from = $s->log_size;
    $heir = $s->kill_worker(0);
    $s->wait_log(qr/manager: worker_start 3-$heir/, $from);
    is_deeply called($s, $from), ["worker_start 3-$heir 1 4 nil"], 'one old worker still runs';
    $line->close;
    $s->wait_for(sub { !CC::Proc::alive($lingers) }, 'it leaves');
    $from = $s->log_size;
    $heir = $s->kill_worker(0);
    $s->wait_log(qr/manager: worker_start 3-$heir/, $from);
    is_deeply called($s, $from), ["worker_start 3-$heir 0 4 nil"], 'none does any longer';
    $from = $s->log_size;
    $s->reload;
    is called($s, $from)->[0], 'master_start 4 3 0 nil', 'the next reload';

    # -- a test and a signal start nothing
    $from = $s->log_size;
    my ($code, $output) = $s->try_conf;
    is $code, 0, 'nginx -t' or diag $output;
    unlike $output, qr/manager:/, 'calls nobody';
    is_deeply called($s, $from), [], 'and changes nothing';
    is $c->run(0, 'return require("ngx.cc.lifecycle").counters().reloads.count'), 3, 'nor counts';

    # -- stop
    $from = $s->log_size;
    ok $s->quit, 'quit';
    @all = @{ called($s, $from) };
    is_deeply [ map { /^worker_exit 4-\d+ 0 (\d) nil$/ ? $1 : () } @all ], [ 3, 2, 1 ], 'M3 workers leave, nothing is next';
    is $all[-1], 'master_exit 4 0 0 nil', 'M6 the last one calls for the master';
    is scalar(@all), 4, 'and nobody else calls';
    $s->log_is_clean(qr/exited on signal 9/);
};

subtest 'terminated' => sub {
    my $c = CC::Console->start(workers => 2, init => $WORKER, http =>
        http('', 'exit_worker_by_lua_block { require("ngx.cc.lifecycle").exit_worker() }'));
    my $s = $c->s;
    my $from = $s->log_size;
    ok $s->stop, 'stop';
    my @all = @{ called($s, $from) };
    is_deeply [ map { s/1-\d+/N/r } @all ], [ 'worker_exit N nil 2 nil', 'worker_exit N nil 1 nil', 'master_exit 1 nil 0 nil' ],
        'with exit_worker_by_lua, exits are told there, too';
    $s->log_is_clean;
};

subtest 'one after the other, whatever happens' => sub {
    my $slow = $MANAGER . q{
        local dict = ngx.shared.my_shm
        local function alone(name, seconds)
            return function(id, prev, mine, next)
                if dict:incr("inside", 1, 0) ~= 1 then
                    ngx.log(ngx.ERR, "not alone in ", name)
                end
                ngx.update_time()
                local till = ngx.now() + seconds
                while ngx.now() < till do ngx.update_time() end
                if dict:get("die") == name and ngx.worker.id() == 1 then
                    dict:delete("die")
                    dict:set("inside", 0)
                    ngx.log(ngx.NOTICE, "dies in ", name)
                    local ffi = require "ffi"
                    ffi.cdef "int kill(int pid, int sig);"
                    ffi.C.kill(ngx.worker.pid(), 9)
                end
                dict:incr("inside", -1)
                note(name)(id, prev, mine, next)
                if dict:get("fail") == name then error("fails in " .. name) end
                if dict:get("yield") == name then ngx.sleep(0.01) note("slept")(id) end
            end
        end
        local master = ngx.get_phase() == "init"
        local manager = require "resty.worker.manager"
        if master then
            assert(manager.on_init_by_lua({ shm = "my_shm" }, alone("master_start", 0.01), alone("master_exit", 0.01)))
        else
            assert(manager.on_init_worker_by_lua(alone("worker_start", 0.02), alone("worker_exit", 0.02)))
        end
    };
    my $c = CC::Console->start(workers => 4, init => $slow . 't.d = ngx.shared.my_shm',
        http => "lua_shared_dict my_shm 1m; init_by_lua_block { $slow }");
    my $s = $c->s;
    is scalar(grep { /^worker_start/ } @{ called($s) }), 4, 'four start';
    ok $c->reload, 'reload' for 1 .. 2;

    # -- a worker dies in its callback, holding the lock
    for my $where (qw(worker_start worker_exit)) {
        my $from = $s->log_size;
        $c->run(0, "t.d:set('die', '$where')");
        if ($where eq 'worker_start') {
            $s->kill_worker(1, 'KILL', respawn => 0);
        }
        else {
            ok $c->reload(wait_old => 0), 'reload';
        }
        ok $s->wait_log(qr/dies in $where/, $from), "dies in $where";
        $s->wait_for(sub { !grep { !defined } $s->workers }, 'all to be there');
        $c->until($_, 'return 1', 1) for 0 .. 3;
        ok $c->reload, 'the next reload waits for nobody';
        # whoever dies in the last callback of a generation leaves nobody to call for the master
        my $ends = grep { /^master_exit/ } @{ called($s, $from) };
        ok $where eq 'worker_start' ? $ends == 1 : $ends == 1 || $ends == 2, "$ends generations end";
    }

    # -- one that fails, one that yields
    for my $name (qw(worker_start worker_exit master_start master_exit)) {
        $c->run(0, "t.d:set('fail', '$name')");
        my $from = $s->log_size;
        ok $c->reload, "reload with a failing $name";
        ok $s->wait_log(qr/\[error\].*worker manager: the callback for .* failed: .*fails in $name/, $from), 'it is in the log';
        $c->until($_, 'return 1', 1) for 0 .. 3;
        $c->run(0, "t.d:delete('fail') t.d:set('yield', '$name')");
        $from = $s->log_size;
        ok $c->reload, "reload with a yielding $name";
        my $may = $name =~ /exit/;
        ok $s->wait_log($may ? qr/manager: slept/ : qr/worker manager: the callback for .* failed: .*(API disabled|yield|no co ctx|no request)/, $from),
            $may ? 'it may wait' : 'waiting is a failure there';
        $c->run(0, "t.d:delete('yield')");
    }
    unlike $s->error_log, qr/not alone/, 'never two at a time';
    ok $s->quit, 'quit';
    $s->log_is_clean(qr/exited on signal 9|callback for|fails in|API disabled|stack traceback|^\s/);
};

subtest 'refused' => sub {
    my $try = sub ($init, $worker = '', $shm = 1) {
        my $s = CC::Console->new(workers => 1, init => $worker || 't.x = 1',
            http => ($shm ? 'lua_shared_dict my_shm 1m; ' : '') . "init_by_lua_block { local m = require 'resty.worker.manager' $init }")->s;
        my ($code, $output) = $s->try_start;
        my $log = $output . $s->error_log;
        $s->stop if $code == 0;
        return $log;
    };
    like $try->('m.on_init_by_lua({ shm = "other" })'), qr/unknown shm `other'/, 'M5 an unknown shm';
    like $try->('m.on_init_by_lua({ shm = "my_shm" }) m.on_init_by_lua({ shm = "my_shm" })'),
        qr/Already initialized, only call once/, 'M5 twice';
    like $try->('', 'require("resty.worker.manager").on_init_worker_by_lua()'), qr/You must first call 'on_init_by_lua' to initialize/,
        'M5 without the first call';
    like $try->('m.on_init_worker_by_lua()'), qr/This must be called in the `init_worker_by_lua` phase/, 'M5 in the wrong phase';
    like $try->('m.on_init_by_lua({})', 'local m = require("resty.worker.manager") assert(m.on_init_worker_by_lua()) m.on_init_worker_by_lua()'),
        qr/This function can only be called once/, 'M5 the second twice';
    unlike $try->('assert(m.on_init_by_lua())', 'assert(require("resty.worker.manager").on_init_worker_by_lua())', 0), qr/\[error\]|\[emerg\]/,
        'neither options nor callbacks are needed';
};

subtest 'a single process, and helpers' => sub {
    my $c = CC::Console->start(workers => 1, master_process => 'off', http => http(), init => $WORKER);
    my $s = $c->s;
    ok $s->wait_log(qr/manager: master_start 1 nil 0 nil\.(?s:.*)manager: worker_start 1-\d+ nil 1 nil\./, 0), 'master_process off';
    ok $s->stop, 'stop';
    $c = CC::Console->start(workers => 2, init => $WORKER, http => http() .
        ' proxy_cache_path %PREFIX%/cache keys_zone=k:1m loader_sleep=10ms;');
    $s = $c->s;
    is scalar(@{ called($s) }), 3, 'cache manager and loader are no workers';
    ok $c->reload, 'reload';
    ok $s->quit, 'quit';
    $s->log_is_clean;
};

done_testing;
