# Readiness, its reasons, the counters, workers that cannot start, and what each has seen.
use v5.36;
use Test::More;
use CC::Console;

my $LIFE = 't.life = require "ngx.cc.lifecycle" ';

subtest 'ready' => sub {
    my $c = CC::Console->start(workers => 3, init => $LIFE . q{
        ipc.receive("warm", function(data) t.life.ready(data == "yes", data) end)
        if ngx.worker.id() == 1 then assert(t.life.ready(false, "warming its cache")) end
    });
    my $s = $c->s;
    is $c->until($_, 'return t.life.ready()', "false\tworker 1 is not ready: warming its cache"),
        "false\tworker 1 is not ready: warming its cache", "worker $_ knows who is not, and why" for 0 .. 2;
    is $c->run(0, 'return t.life.workers()[2].ready, t.life.workers()[2].reason'), "false\twarming its cache", 'workers, too';
    $c->run(0, 'assert(ipc.send_worker(1, "warm", "yes"))');
    is $c->until(2, 'return t.life.ready()', "true\tnil"), "true\tnil", 'then it is';
    $c->run(2, 'assert(t.life.ready(false))');
    is $c->run(0, 'return t.life.ready()'), "false\tworker 2 is not ready", 'without a reason';
    $c->run(2, 'assert(t.life.ready(false, ("x"):rep(100)))');
    is $c->run(0, 'return #select(2, t.life.ready())'), length('worker 2 is not ready: ') + 64, 'a long reason is cut';
    $c->run(2, 'assert(t.life.ready(true))');
    is $c->run(0, 'return t.life.ready()'), "true\tnil", 'ready again';
    is $c->run(0, 'local w = t.life.workers()[3] return w.id, w.state, w.ready, w.why, w.deaths, w.pid, w.generation'),
        join("\t", 2, 'live', 'true', 'start', 0, $s->worker_pid(2), 1), 'all of a worker';

    # -- a respawned one says it anew
    $s->kill_worker(1);
    is $c->until(0, 'return t.life.ready()', qr/warming/), "false\tworker 1 is not ready: warming its cache", 'a successor begins anew';
    ok $s->quit, 'quits';
    $s->log_is_clean(qr/exited on signal 9/);
};

subtest 'a worker that dies in init_worker, again and again' => sub {
    my $s = CC::Server->new(module => 1, lua => 1, workers => 3, http => q{
        lua_shared_dict d 1m;
        init_worker_by_lua_block {
            if ngx.worker.id() == 1 and (ngx.shared.d:incr("n", 1, 0) or 0) <= 5 then
                local ffi = require "ffi"
                ffi.cdef "int kill(int pid, int sig);"
                ffi.C.kill(ngx.worker.pid(), 9)
            end
        }
        server { listen 127.0.0.1:%PORT%; location / { content_by_lua_block {
            local life = require "ngx.cc.lifecycle"
            local c, w = life.counters(), life.workers()[2]
            ngx.print(tostring(life.ready()), " ", c.crashes.count, " ", c.respawns.count, " ", c.respawns_signal.count,
                " ", tostring(w and w.deaths), " ", tostring(w and w.state))
        } } }
    })->start;
    $s->wait_for(sub { $s->get($s->port)->body =~ /^true/ }, 'it comes up');
    is $s->get($s->port)->body, 'true 5 5 5 0 live', 'counted, and forgotten once it is ready';
    ok $s->quit, 'quits';
};

subtest 'nginx gives a worker up' => sub {
    my $s = CC::Server->new(module => 1, lua => 1, workers => 3, http => q{
        lua_shared_dict d 1m;
        init_worker_by_lua_block {
            if ngx.worker.id() == 1 and (ngx.shared.d:incr("n", 1, 0) or 0) > 1 then
                os.exit(2)
            end
        }
        server { listen 127.0.0.1:%PORT%; location / { content_by_lua_block {
            local life = require "ngx.cc.lifecycle"
            local ready, why = life.ready()
            local c, w = life.counters(), life.workers()[2]
            ngx.print(tostring(ready), "; ", tostring(why), "; ", c.crashes.count, " ", c.given_up.count, " ",
                tostring(w and w.state), " ", tostring(w and w.code))
        } } }
    })->start;
    $s->wait_for(sub { $s->get($s->port)->body =~ /^true/ }, 'all are up');
    my $pid = $s->worker_pid(1);
    kill KILL => $pid;
    ok $s->wait_log(qr/exited with fatal code 2 and cannot be respawned/), 'nginx gives it up';
    my $want = 'false; worker 1 ended with exit code 2: nginx does not start it again; 2 1 given up 2';
    $s->wait_for(sub { $s->get($s->port)->body eq $want }, 'it is known');
    is $s->get($s->port)->body, $want, 'the status says so';
    # a reload starts a new one, which fails in the same way
    $s->quit;
};

subtest 'a master that does nothing' => sub {
    my $c = CC::Console->start(workers => 2, init => $LIFE);
    my $s = $c->s;
    $c->until(0, 'return t.life.ready()', "true\tnil");
    kill STOP => $s->master_pid;
    kill KILL => $s->worker_pid(1);
    is $c->until(0, 'return t.life.ready()', "false\tworker 1 was ended by signal 9"), "false\tworker 1 was ended by signal 9",
        'the end of a process that nobody has reaped is known, with its signal';
    kill CONT => $s->master_pid;
    is $c->until(0, 'return t.life.ready()', "true\tnil"), "true\tnil", 'a successor';
    ok $s->quit, 'quits';
};

subtest 'counters over workers, reloads and a single process' => sub {
    my $c = CC::Console->start(workers => 2, init => $LIFE);
    my $s = $c->s;
    my $numbers = sub { $c->run(shift, 'local c = t.life.counters() return c.starts.count, c.reloads.count,
        c.worker_starts.count, c.worker_exits.count, c.crashes.count, c.respawns.count') };
    is $numbers->(0), join("\t", 1, 0, 2, 0, 0, 0), 'at the start';
    $s->kill_worker(1);
    ok $c->reload, 'reload';
    $c->until(0, 'return t.life.counters().worker_exits.count', 2);
    is $numbers->($_), join("\t", 1, 1, 5, 2, 1, 1), "worker $_" for 0, 1;
    is $c->run(0, 'local c = t.life.counters() local now = ngx.time() + 1
        return c.starts.time <= c.crashes.time and c.crashes.time <= c.reloads.time and c.reloads.time <= now and c.upgrades.time'),
        'nil', 'each has its time, or none';
    ok $c->reload(main => 'cc_zone 4m;'), 'another zone';
    $c->until(0, 'return t.life.counters().worker_starts.count', 2);
    is $numbers->(0), join("\t", 0, 1, 2, 0, 0, 0), 'it begins anew, with a reload';
    ok $s->quit, 'quits';

    $s = CC::Server->new(module => 1, lua => 1, workers => 1, master_process => 'off', server => q{
        location / { content_by_lua_block {
            local life = require "ngx.cc.lifecycle"
            local c = life.counters()
            ngx.print(tostring(life.ready()), " ", tostring(life.is_leader()), " ", life.reason(), " ", #life.workers(), " ",
                c.worker_starts.count, " ", c.worker_exits.count, " ", c.reloads.count)
        } }
    })->start;
    is $s->get($s->port)->body, 'true true start 1 1 0 0', 'master_process off: ready, leads, alone';
    $s->signal('HUP');
    # after its reload a single process takes no requests any more, with this module or without
    ok $s->wait_log(qr/worker 0 of generation 2 enters/), 'a reload: the same process takes the new seat';
    ok $s->stop, 'stops';
    $s->log_is_clean(qr/epoll_ctl/);
};

subtest 'what each has seen' => sub {
    my $c = CC::Console->start(workers => 3, init => $LIFE . q{
        t.v = {}
        if ngx.worker.id() ~= 2 then
            ipc.receive("conf", function(value, key)
                if t.slow then while t.slow do ngx.sleep(0.01) end end
                t.v[key] = value
            end)
        end
    });
    my $s = $c->s;
    my $SEEN = 'local last, list = t.life.seen("conf") local o = {}
        for _, w in ipairs(list) do o[#o + 1] = w.id .. "=" .. w.sequence end return last .. ": " .. table.concat(o, " ")';
    is $c->run(0, $SEEN), '0: ', 'nothing is retained';
    $c->run(0, 'assert(ipc.retain("conf", "a", "1")) assert(ipc.retain("conf", "b", "2"))');
    is $c->until(2, $SEEN, '2: 0=2 1=2'), '2: 0=2 1=2', 'all are up to date';
    # -- a stale one
    $c->run(1, 't.slow = true');
    $c->run(0, 'assert(ipc.retain("other", "x", "1")) assert(ipc.retain("conf", "a", "3"))');
    is $c->until(2, $SEEN, '4: 0=4 1=2'), '4: 0=4 1=2', 'one stays behind, and is found';
    $c->run(1, 't.slow = nil');
    is $c->until(2, $SEEN, '4: 0=4 1=4'), '4: 0=4 1=4', 'it catches up';
    # -- one that starts later, a value that ends
    $s->kill_worker(1);
    is $c->until(0, $SEEN, '4: 0=4 1=4'), '4: 0=4 1=4', 'a successor has seen what was retained';
    $c->run(0, 'assert(ipc.retain("conf", "b", nil))');
    is $c->until(0, $SEEN, '5: 0=5 1=5'), '5: 0=5 1=5', 'the end of a value counts, too';
    $s->kill_worker(1);
    is $c->until(0, $SEEN, '5: 0=5 1=5'), '5: 0=5 1=5', 'also for who starts after it';
    ok $c->reload, 'reload';
    is $c->until(0, $SEEN, '5: 0=5 1=5'), '5: 0=5 1=5', 'and in new workers';
    ok $s->quit, 'quits';
    $s->log_is_clean(qr/exited on signal 9/);
};

done_testing;
