# Retained values: what is kept, who is told, what a worker that starts later has.
use v5.36;
use Test::More;
use CC::Console;
use CC::Proc;

my $BALANCE = 'local s = ipc.stats() return s.sent - s.received - s.stranger - s.lost - s.queued';

my $INIT = <<'LUA';
    t.config, t.told, t.phases = {}, {}, {}
    assert(ipc.receive("config", function(value, key)
        t.config[key] = value
        t.told[#t.told + 1] = key .. "=" .. tostring(value)
        t.phases[ngx.get_phase()] = true
    end))
    function t.all(values)
        local l = {}
        for i, v in ipairs(values) do l[i] = v.key .. "=" .. v.value end
        return table.concat(l, " ")
    end
    t.at_start = table.concat(t.told, " ")
    -- what cannot be done in init_worker is done as soon as the worker runs
    t.slow = {}
    assert(ipc.receive({ slow = function(value, key) ngx.sleep(0.001) t.slow[#t.slow + 1] = key .. "=" .. value end },
        { concurrent = t.beside }))
    t.sums = {}
    assert(ipc.receive("big", function(value, key) t.sums[key] = value and #value .. ":" .. ngx.md5(value) end))
LUA

for my $transport (qw(ring socket)) {
    subtest "$transport: set, tell, end" => sub { values_of($transport) };
    subtest "$transport: later workers"  => sub { later($transport) };
    subtest "$transport: many at once"   => sub { many($transport) };
    subtest "$transport: not told"       => sub { not_told($transport) };
    subtest "$transport: killed first"   => sub { ended_first($transport, 'KILL', qr/ipc: \d+ messages are lost: they waited in a worker that was killed/) };
    subtest "$transport: left first"     => sub { ended_first($transport, 'QUIT', qr/\d+ messages were lost with the leaving worker/) };
}
subtest 'bounds' => \&bounds;
subtest 'another zone' => \&zone;
done_testing;

sub start ($transport, %opt) {
    return CC::Console->start(workers => 3, init => $INIT, %opt,
        main => "cc_ipc_transport $transport; " . ($opt{main} // ''));
}

sub values_of ($transport) {
    my $c = start($transport);
    is $c->run(0, 'return ipc.retained("config", "a")'), "nil\tnil", 'nothing at first';
    is $c->run(0, 'return #ipc.retained("config")'), 0, 'at all';
    is $c->run(0, 'return ipc.retain("config", "a", "one")'), 'true', 'a value';
    is $c->run($_, 'return ipc.retained("config", "a")'), "one\t1", "worker $_ sees it" for 0 .. 2;
    is $c->until($_, 'return table.concat(t.told, " ")', 'a=one'), 'a=one', "worker $_ is told" for 0 .. 2;
    is $c->run(1, 'return ipc.retain("config", "b", 2)'), 'true', 'from another worker, a number';
    is $c->run(2, 'return ipc.retain("config", "", "")'), 'true', 'an empty key, an empty value';
    is $c->run(0, 'return ipc.retain("config", 7, "seven")'), 'true', 'a number as the key';
    is $c->run(0, 'return ipc.retain("config", "a", "three")'), 'true', 'the first one anew';
    is $c->run(2, 'return t.all(ipc.retained("config"))'), 'b=2 = 7=seven a=three', 'all of them, by when they were set';
    is $c->run(2, 'local l = {} for i, v in ipairs(ipc.retained("config")) do l[i] = v.sequence end return unpack(l)'),
        "2\t3\t4\t5", 'by their numbers';
    is $c->until($_, 'return t.config.a, t.config.b, t.config[""], t.config["7"]', "three\t2\t\tseven"), "three\t2\t\tseven",
        "worker $_ has them" for 0 .. 2;

    # -- names are apart; any bytes
    is $c->run(0, 'return ipc.retain("con", "figa", "other")'), 'true', 'another name';
    is $c->run(0, 'return ipc.retained("con", "figa"), #ipc.retained("con"), #ipc.retained("config")'), "other\t1\t4", 'is apart';
    is $c->run(0, 'local all = {} for i = 0, 255 do all[i] = string.char(i) end
        all = table.concat(all, "", 0, 255)
        local name, key = all:sub(1, 254), all:rep(4)
        assert(ipc.retain(name, key, all))
        return ipc.retained(name, key) == all, ipc.retained(name)[1].key == key'), "true\ttrue", 'any bytes are name, key and value';

    # -- the end of a value
    is $c->run(1, 'return ipc.retain("config", "a", nil)'), 'true', 'ended';
    is $c->until($_, 'return t.told[#t.told]', 'a=nil'), 'a=nil', "worker $_ is told" for 0 .. 2;
    is $c->run(0, 'return ipc.retained("config", "a")'), "nil\tnil", 'it is gone';
    is $c->run(0, 'return t.all(ipc.retained("config"))'), 'b=2 = 7=seven', 'the others are not';
    $c->each('t.told = {}');
    is $c->run(1, 'return ipc.retain("config", "a")'), 'true', 'ended again, by absence';
    is $c->run(1, 'return ipc.retain("config", "never", nil)'), 'true', 'one that never was';
    is $c->run(1, 'return ipc.retain("config", "a", "back")'), 'true', 'and back';
    is $c->until($_, 'return table.concat(t.told, " ")', 'a=back'), 'a=back', "worker $_ is told of that only" for 0 .. 2;
    is $c->run(0, 'return select(2, ipc.retained("config", "a"))'), 9, 'each change had a number';
    is $c->run(0, 'for _, v in ipairs(ipc.retained("config")) do assert(ipc.retain("config", v.key, nil)) end
        return #ipc.retained("config"), #ipc.retained("con")'), "0\t1", 'all ended';

    # -- large ones, from every worker
    for my $size (0, 1, 63 .. 65, 4095 .. 4097, 100_000, 500_000) {
        my $id = $size % 3;
        my $sum = $c->run($id, "local value = ('\\0b\\n\\255' .. $size):rep(math.ceil($size / 4)):sub(1, $size)
            assert(ipc.retain('big', 'v', value)) return #value .. ':' .. ngx.md5(value)");
        is $c->until($_, 'return t.sums.v', $sum), $sum, "worker $_ is told of $size bytes" for 0 .. 2;
        is $c->run(2, 'local v = ipc.retained("big", "v") return #v .. ":" .. ngx.md5(v)'), $sum, 'which are kept';
    }

    for my $case (
        [ 'retain()',              qr/bad argument #1 to 'retain' \(string expected, got nil\)/ ],
        [ 'retain("n")',           qr/bad argument #2 to 'retain' \(string expected, got nil\)/ ],
        [ 'retain("n", {}, "v")',  qr/bad argument #2 to 'retain' \(string expected, got table\)/ ],
        [ 'retain("n", "k", {})',  qr/bad argument #3 to 'retain' \(string expected, got table\)/ ],
        [ 'retain("n", "k", false)', qr/bad argument #3 to 'retain' \(string expected, got boolean\)/ ],
        [ 'retained()',            qr/bad argument #1 to 'retained' \(string expected, got nil\)/ ],
        [ 'retained("n", nil)',    qr/bad argument #2 to 'retained' \(string expected, got nil\)/ ],
    ) {
        like $c->raises(0, "ipc.$case->[0]"), qr/^test:1: @{[ $case->[1] ]}/, $case->[0];
    }
    is $c->until(0, $BALANCE, 0), 0, 'every message is accounted for';
    ok $c->s->quit(15), 'quits';
    $c->s->log_is_clean;
}

# Workers that start later: successors, new generations, those that register later.
sub later ($transport) {
    my $c = start($transport);
    my $s = $c->s;
    my $all = join ' ', map { "k$_=v$_" } 1 .. 50;
    $c->run(0, 'for i = 1, 50 do assert(ipc.retain("config", "k" .. i, "v" .. i)) end
        assert(ipc.retain("slow", "s", "t"))');
    is $c->run($_, 'return t.at_start'), '', "worker $_ started with nothing" for 0 .. 2;

    # the first request that the successor gets was waiting for it
    my $has = 'local n = 0 for i = 1, 50 do n = n + (t.config["k" .. i] == "v" .. i and 1 or 0) end return n, t.at_start';
    for my $round (1 .. 3) {
        $s->kill_worker(1, 'KILL', respawn => 0);
        is $c->run(1, $has), "50\t$all", 'a successor has all of them before its first request, in order';
    }
    is $c->run(1, 'return t.phases.init_worker, t.phases.timer'), "true\tnil", 'from init_worker, once';
    is $c->until(1, 'return table.concat(t.slow, " ")', 's=t'), 's=t', 'a handler that wants to sleep has it soon';

    # nobody is left who knew them
    my @pid = map { $c->pid($_) } 0 .. 2;
    kill KILL => @pid;
    $s->wait_for(sub { !grep { CC::Proc::alive($_) } @pid }, 'all to be dead');
    is $c->run($_, $has), "50\t$all", "worker $_, after the death of all" for 0 .. 2;

    ok $c->reload(workers => 5), 'reload, with more workers';
    is $c->run($_, $has), "50\t$all", "worker $_ has all of them" for 0 .. 4;
    is $c->run(4, 'return select(2, ipc.retained("config", "k50"))'), 50, 'with their numbers';
    is $c->run(4, 'assert(ipc.retain("config", "k51", "new")) return select(2, ipc.retained("config", "k51"))'), 52, 'which go on';
    is $c->until($_, 'return t.config.k51', 'new'), 'new', "worker $_ is told of new ones" for 0 .. 4;

    # -- in the middle of its life
    $c->run(2, 'function t.late(value, key) t.got[#t.got + 1] = ngx.get_phase() .. ":" .. key .. "=" .. value end
        ipc.receive("slow", t.late)');
    is $c->until(2, 'return table.concat(t.got, " ")', 'timer:s=t'), 'timer:s=t', 'a handler that is registered later';
    is $c->run(0, 'ipc.receive("config", nil) return ipc.retain("config", "k52", "x")'), 'true', 'one that is not any more';
    is $c->until(1, 'return t.config.k52', 'x'), 'x', 'harms nobody';
    is $c->run(0, 'return t.config.k52'), 'nil', 'and is not called';

    # -- generations
    my $old = $c->console(1);
    ok $c->reload(wait_old => 0), 'reload with a lingering worker';
    $old->until('return ngx.worker.exiting()', 'true');
    is $c->run(0, 'return ipc.retain("config", "from", "new")'), 'true', 'a new worker sets';
    $c->until(1, 'return t.config.from', 'new');
    is $old->run('return ipc.retained("config", "from")'), "new\t54", 'an old one can look';
    is $old->run('return t.config.from'), 'nil', 'but is not told';
    is $old->run('return ipc.retain("config", "from", "old")'), 'true', 'an old worker sets';
    is $c->until($_, 'return t.config.from', 'old'), 'old', "new worker $_ is told" for 0 .. 4;
    is $old->until('return t.config.from', 'old'), 'old', 'so is itself';
    $old->close;
    is $c->until(0, $BALANCE, 0), 0, 'every message is accounted for';
    ok $s->quit(15), 'quits';
    $s->log_is_clean(qr/exited on signal 9/);

    ok $s->start($c->options(workers => 2)), 'a new start';
    is $c->run(0, 'return #ipc.retained("config"), t.at_start'), "0\t", 'has nothing';
    ok $s->quit(15), 'quits';
}

# Setters of all workers, readers, deaths: what is seen is whole, what is left is one of what was set.
sub many ($transport) {
    my $c = start($transport, init => $INIT . <<'LUA');
        function t.whole(value)
            local one = value:match "^(%d:%d+ )"
            return one and value == one:rep(#value / #one)
        end
        function t.set(rounds)
            for i = 1, rounds do
                local one = ngx.worker.id() .. ":" .. i .. " "
                local ok, err = ipc.retain("wild", "k", one:rep(1 + i % 400))
                if not ok then assert(err == "busy" or err == "no room", err) end
                if i % 100 == 0 then ngx.sleep(0.001) end
            end
        end
        assert(ipc.receive("wild", function(value, key)
            t.wild = value
            if not t.whole(value) then t.broken = value end
        end))
LUA
    my $s = $c->s;
    my @line = map { $c->console($_) } 0 .. 2;
    $_->ask('t.set(5000) return "done"') for @line;
    my $torn = $c->run(0, 'local torn = 0
        for i = 1, 20000 do
            local value = ipc.retained("wild", "k")
            if value and not t.whole(value) then torn = torn + 1 end
            if i % 1000 == 0 then ngx.sleep(0.001) end
        end return torn');
    is $torn, 0, 'a reader sees whole values only';
    is $_->answer, 'done', 'a setter' for @line;
    my $value = $c->run(0, 'return ipc.retained("wild", "k"):match "^%S+"');
    like $value, qr/^[012]:5000$/, "what is left is one that was set last ($value)";
    is $c->until($_, 'return t.wild:match "^%S+"', $value), $value, "worker $_ was told of it in the end" for 0 .. 2;
    is $c->run($_, 'return t.broken'), 'nil', "and of whole ones all the time ($_)" for 0 .. 2;

    # -- killed while they set
    for my $round (1 .. 4) {
        my $wild = $c->console(1);
        $wild->ask('t.set(100000)');
        my $before = $c->run(0, 'return select(2, ipc.retained("wild", "k"))');
        $c->until(0, "return select(2, ipc.retained('wild', 'k')) > $before + 100", 'true');
        $s->kill_worker(1);
        $wild->close;
        is $c->run(2, 'for i = 1, 100 do assert(ipc.retain("wild", "k", "2:" .. i .. " ")) end return ipc.retained("wild", "k")')
            =~ s/\t.*//r, '2:100 ', 'a setter was killed, the others set on';
        is $c->run(1, 'return t.whole(ipc.retained("wild", "k"))'), 'true', 'its successor sees a whole one';
    }
    is $c->until($_, 'return t.wild', '2:100 '), '2:100 ', "worker $_ has the last one" for 0 .. 2;
    $_->close for @line;
    ok $s->quit(15), 'quits';
    $s->log_is_clean(qr/exited on signal 9/);
}

# A worker that does not hear: the value is what it is, whoever was told.
sub not_told ($transport) {
    my $c = start($transport, main => 'cc_ipc_queue 256k; cc_ipc_max_message 128k;');
    my $s = $c->s;
    my $pid = $c->pid(1);
    $s->kill_worker(1, 'STOP');
    $c->run(0, 'for _, v in ipairs { "x", "y", "z" } do assert(ipc.retain("config", "k", v)) end');
    $s->signal(CONT => $pid);
    is $c->until(1, 'return table.concat(t.told, " ")', 'k=z k=z k=z'), 'k=z k=z k=z', 'a notice says that it has changed, the value is the latest';

    $s->kill_worker(1, 'STOP');
    # a notice carries the key: a long one fills the queue sooner
    my $key = 'local key = ("k"):rep(1000) ';
    my ($ok, $err, $list) = split /\t/, $c->run(0, $key . 'local ok, err, list
        for i = 1, 1e6 do
            ok, err, list = ipc.retain("config", key, i)
            if err then t.last = i break end
            if i % 100 == 0 then ngx.sleep(0.001) end
        end
        return ok, err, #list .. ":" .. list[1].id .. ":" .. list[1].generation .. ":" .. list[1].err');
    is "$ok $err $list", 'true full 1:1:1:full', 'kept, though one could not be told';
    my $last = $c->run(0, 'return t.last');
    is $c->until(2, $key . 'return t.config[key]', $last), $last, 'the others were';
    is $c->run(2, $key . 'return ipc.retained("config", key)') =~ s/\t.*//r, $last, 'and it is there';
    my $late = 'local late = ("l"):rep(1000) ';
    is $c->run(0, $late . 'return (select(2, ipc.retain("config", late, 1)))'), 'full', 'nor of another key';
    $s->signal(CONT => $pid);
    is $c->until(1, $key . 'return t.config[key]', $last), $last, 'earlier notices bring the last value, too';
    is $c->until(1, $late . 'return t.config[late]', 1), 1, 'it is told of the key for which there was no room, when there is';
    is $c->until(0, $BALANCE, 0), 0, 'every message is accounted for';
    ok $s->quit(15), 'quits';
    $s->log_is_clean;
}

# Who sets a value is killed while its notices still wait in it: the others hear of the value all the same.
# Who sets a value ends before the notice has gone out.
sub ended_first ($transport, $signal, $lost) {
    my $c = start($transport);
    my $s = $c->s;
    is $c->run(0, 'return ipc.retain("config", "ends", 1), ipc.retain("config", "stays", 1)'), "true\ttrue", 'two values';
    is $c->until($_, 'return t.config.ends, t.config.stays', "1\t1"), "1\t1", "worker $_ is told" for 1, 2;
    my ($receiver, $setter) = ($c->pid(1), $c->pid(0));
    $s->kill_worker(1, 'STOP');
    cmp_ok $c->run(0, 'repeat local ok = ipc.send_worker(1, "unknown", ("x"):rep(100000)) until not ok or ipc.stats().queued > 0
        return ipc.stats().queued'), '>', 0, 'whatever is sent to a stopped one waits';
    is $c->run(0, 'return ipc.retain("config", "ends", nil), ipc.retain("config", "is new", 2), #("x")'), "true\ttrue\t1", 'notices, too';
    my $goes = $c->pid(0);
    kill $signal => $goes;
    ok $s->wait_for(sub { $s->error_log =~ /worker process $goes exited/ }, 'the setter to end'), "$signal";
    $s->signal(CONT => $receiver);
    my ($state, $want) = ('return t.config.ends, t.config.stays, t.config["is new"]', "nil\t1\t2");
    is $c->until(1, $state, $want), $want, 'the other one has them';
    is $c->run(1, 'return table.concat(t.told, " ", 3)'), 'ends=nil is new=2', 'was told what it did not know, and nothing else';
    is $c->until(2, $state, $want), $want, 'so has who was told before';
    is $c->until(0, $state, $want), $want, 'and the successor';
    ok $s->wait_log(qr/\[notice\].*cc: $lost/), 'the log tells what waited in the one that has ended';
    ok $s->quit(15), 'quits';
    return;
}

sub bounds () {
    my $c = CC::Console->start(workers => 2, init => $INIT, main => 'cc_ipc_retain 64k;');
    is $c->run(0, 'return ipc.retain("config", ("k"):rep(1024), "v")'), 'true', 'the longest key';
    is $c->run(0, 'return ipc.retain("config", ("k"):rep(1025), "v")'), "nil\tkey too long", 'one byte more';
    is $c->run(0, 'return ipc.retain(("n"):rep(254), "k", "v")'), 'true', 'the longest name';
    my $name = "nil\talert name length cannot exceed 254, was 255";
    is $c->run(0, 'return ipc.retain(("n"):rep(255), "k", "v")'), $name, 'one byte more';
    is $c->run(0, "return ipc.$_"), $name, $_ for 'retained(("n"):rep(255), "k")', 'retained(("n"):rep(255))';
    is $c->run(0, 'return ipc.retain("config", "k", ("v"):rep(65536))'), "nil\tmessage too long", 'longer than all the room';
    is $c->run(0, 'return ipc.retain("config", "k", ("v"):rep(20000))'), 'true', 'a third of it';
    is $c->run(0, 'local n, err = 0, nil
        repeat local ok ok, err = ipc.retain("fill", n, ("f"):rep(1000)) if ok then n = n + 1 end until not ok
        t.n = n return n > 20, err'), "true\tno room", 'until there is no room';
    is $c->run(1, 'return #ipc.retained("fill")') - $c->run(0, 'return t.n'), 0, 'what was accepted is there';
    is $c->run(1, 'return ipc.retain("config", "k", ("w"):rep(20000))'), "nil\tno room", 'nor for a value that replaces another';
    is $c->run(0, 'return (ipc.retained("config", "k")) == ("v"):rep(20000)'), 'true', 'which stays';
    is $c->run(1, 'for i = 0, 9 do assert(ipc.retain("fill", i, nil)) end return ipc.retain("config", "small", "v")'), 'true', 'some ended: room again';
    is $c->run(0, 'for _, v in ipairs(ipc.retained("fill")) do assert(ipc.retain("fill", v.key, nil)) end
        for i = 1, 1000 do assert(ipc.retain("config", "k", ("x"):rep(8000))) end return "still room"'), 'still room', 'nothing leaks';
    ok $c->s->quit(15), 'quits';
    $c->s->log_is_clean;

    $c = CC::Console->start(workers => 2, init => $INIT, main => 'cc_ipc_retain 40m;');
    my $sum = $c->run(0, 'local v = ("0123456789abcdef"):rep(1048576) assert(ipc.retain("big", "v", v)) return #v .. ":" .. ngx.md5(v)');
    is $c->until(1, 'return t.sums.v', $sum), $sum, '16 MiB';
    $c->s->kill_worker(1, 'KILL', respawn => 0);
    is $c->run(1, 'return t.sums.v'), $sum, 'for a successor, too';
    ok $c->s->quit(15), 'quits';
    $c->s->log_is_clean(qr/exited on signal 9/);
}

sub zone () {
    my $new = qr/\[notice\].*cc: shared zone is new: old workers and new ones do not see each other/;
    my $c = CC::Console->start(workers => 2, init => $INIT, main => 'cc_zone 2m; cc_ipc_retain 256k;');
    my $s = $c->s;
    for my $case (
        [ 'cc_zone 2m; cc_ipc_retain 256k;', 'v', 'the same' ],
        [ 'cc_zone 2m; cc_ipc_retain 512k;', '', 'more in the same zone' ],
        [ 'cc_zone 2m; cc_ipc_retain 512k;', 'v', 'the same' ],
        [ 'cc_zone 2m; cc_ipc_retain 64k;',  '', 'less' ],
        [ 'cc_zone 2m;',                     '', 'all of it' ],
        [ 'cc_zone 3m;',                     '', 'another zone' ],
        [ 'cc_ipc_retain 256k;',             '', 'no zone named' ],
        [ 'cc_ipc_retain 512k;',             '', 'another size of it' ],
        [ '',                                '', 'the defaults' ],
        [ 'cc_ipc_spin off;',                'v', 'something else' ],
    ) {
        my ($main, $kept, $what) = @$case;
        $c->run(0, 'assert(ipc.retain("config", "k", "v"))');
        my $from = $s->log_size;
        ok $c->reload(main => $main), "$what: reload";
        is $c->run($_, 'return t.config.k or ""'), $kept, "$what: " . ($kept ? 'kept' : 'a new start') for 0, 1;
        my $log = $s->error_log($from);
        $kept ? unlike($log, $new, "$what: no word") : like($log, $new, "$what: as the log says");
        is $c->run(0, 'return ipc.retain("config", "l", "w")'), 'true', "$what: and on";
        is $c->until(1, 'return t.config.l', 'w'), 'w', "$what: they hear each other";
    }
    my $pid = $c->pid(0);
    ok $s->reload_fails($c->options(main => 'cc_zone 2m; cc_ipc_retain 4m;')), 'one that does not fit';
    is $c->run(0, 'return ngx.worker.pid(), t.config.k'), "$pid\tv", 'changes nothing';
    ok $s->quit(15), 'quits';
    $s->log_is_clean(qr/\[emerg\].*too small/);
}
