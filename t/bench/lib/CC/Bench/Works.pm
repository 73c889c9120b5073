package CC::Bench::Works;

# What is measured: for each work its cases, and what to show of the
# answers. lua/works/ says exactly what each of them does.
#
#   cases    name, args of the request, workers, kinds of peers that take part
#   metrics  key of the answer, label, format, and whether to show it only if
#            it is not 0
#   against  peers whose ratio to ours is worth a column
#   ratios   pairs of others whose ratio is
#   lua      its file, where another work's name is that
#   peers    who takes part, where these are not the buses
#   note     what stands below the table
#   by       how it is run where a request alone does not do it

use v5.36;
use CC::Bench::Balance ();
use CC::Bench::Cluster ();
use CC::Bench::Status ();

# Polling without a pause by more workers than cores measures the scheduler.
my $ALL       = [qw(ours lua_ipc list events)];
my $UNICAST   = [qw(ours lua_ipc list list_busy events floor)];
my $EVENT_BUS = [qw(ours lua_ipc)];

my $RATE = sub ($unit) { [ rate => $unit, 'count' ] };
my @COST = ([ cores => 'cores', 'plain' ], [ full => 'full/s', 'count', 'if any' ]);

sub size_name ($size) {
    return $size >= 1048576 ? $size / 1048576 . ' MB' : $size >= 1024 ? $size / 1024 . ' KB' : "$size B";
}

sub flood ($quick) {
    my @sizes = $quick ? (10, 10240) : (10, 1024, 10240, 1048576);
    return {
        name => 'flood', title => 'One-way flood, one worker to another', workers => 2,
        metrics => [ $RATE->('msg/s'), @COST ],
        against => [ 'ngx_lua_ipc', 'list (busy)', 'bare ring (Rust)' ],
        ratios  => [ [ 'our ring (Rust)', 'bare ring (Rust)' ] ],
        cases   => [ map {
            my $size = $_;
            map { +{
                name => size_name($size) . " $_", kinds => $UNICAST,
                args => { size => $size, content => $_ },
                # the floor's messages are always unique
                floor => $_ eq 'unique' && $size != 1024 && $size <= 10240 ? 'flood' : undef,
            } } qw(constant unique)
        } @sizes ],
    };
}

sub pingpong ($quick) {
    return {
        name => 'pingpong', title => 'Round trip, one in flight', workers => 2,
        metrics => [ [ p50 => 'p50 us', 'plain' ], [ p99 => 'p99 us', 'plain' ],
            [ p999 => 'p99.9 us', 'plain' ], [ cores => 'cores', 'plain' ] ],
        against => [ 'ngx_lua_ipc', 'bare ring (Rust)' ],
        cases   => [ map { +{ name => size_name($_), args => { size => $_ }, kinds => $UNICAST,
            floor => 'pingpong' } } $quick ? 10 : (10, 10240) ],
    };
}

sub broadcast ($quick) {
    return {
        name => 'broadcast', title => 'Broadcast to 4 workers, the sender among them', workers => 4,
        metrics => [ $RATE->('deliveries/s'), @COST ],
        cases   => [ map {
            my $size = $_;
            map { +{ name => size_name($size) . " $_", kinds => $ALL,
                args => { size => $size, content => $_ } } } qw(constant unique)
        } 10, 10240 ],
    };
}

sub rounds ($quick) {
    return {
        name => 'rounds', title => "The seed's benchmark: a broadcast, then 50 K rounds with all others",
        metrics => [ $RATE->('alerts/s') ], rounds => 3,
        cases   => [ map {
            my $size = $_;
            map { +{ name => "$_ workers, " . size_name($size), workers => $_,
                args => { size => $size, enough => $quick ? 5_000 : 50_000, cap => $quick ? 0.3 : 1 },
                warm => { enough => 5_000, cap => 0.3 },
                kinds => $_ > 20 ? $EVENT_BUS : $ALL } } $quick ? (2, 4) : (2, 4, 10, 20, 50, 100)
        } 10, 10240 ],
    };
}

sub call ($quick) {
    return {
        name => 'call', title => 'Call with reply', workers => 2,
        metrics => [ $RATE->('calls/s'), [ p50 => 'p50 us', 'plain' ], [ p99 => 'p99 us', 'plain' ],
            [ cores => 'cores', 'plain' ] ],
        cases => [ map { +{ name => "10 B, $_ at once", args => { size => 10, threads => $_ },
            kinds => ['ours'] } } 1, 16 ],
    };
}

sub gather ($quick) {
    return {
        name => 'gather', title => 'Request -> all 4 workers answered', workers => 4, by => 'load',
        metrics => [ $RATE->('req/s'), [ p50 => 'p50 us', 'plain' ], [ p99 => 'p99 us', 'plain' ] ],
        rounds  => 3,
        cases   => [ map { +{ name => "c = $_", connections => $_, args => {}, kinds => $ALL } }
            $quick ? 8 : (1, 8, 32) ],
    };
}

sub balance ($quick) {
    return {
        name => 'balance', title => 'A proxied request: whom it goes to', workers => 1, by => 'proxied',
        peers   => \&CC::Bench::Balance::peers,
        metrics => [ $RATE->('req/s'), [ us => 'us of the processor per request', 'plain' ],
            [ p50 => 'p50 us', 'plain' ], [ p99 => 'p99 us', 'plain' ] ],
        against => [ CC::Bench::Balance::others() ],
        cases   => [ map { +{ name => "c = $_", connections => $_, args => {}, kinds => [qw(ours balance)] } }
            $quick ? 8 : (8, 32) ],
    };
}

my @REQUESTS = ($RATE->('req/s'), [ us => 'us of all processors per request', 'plain' ],
    [ p50 => 'p50 us', 'plain' ], [ p99 => 'p99 us', 'plain' ]);

sub connections ($quick) {
    return [ map { +{ name => "c = $_", connections => $_, args => {}, kinds => [qw(ours cluster)] } }
        $quick ? 8 : (1, 8, 32) ];
}

sub cluster ($quick) {
    return {
        name => 'cluster', title => 'A cast: request -> all 4 workers have answered one', workers => 4, by => 'cluster',
        peers   => \&CC::Bench::Cluster::casts, against => [], ratios => [ CC::Bench::Cluster::cast_ratios() ],
        metrics => \@REQUESTS, cases => connections($quick),
        note    => 'To reach in req/s: cast over the rings 0.5 x `return 200` and, at c = 1 / 8 / 32, 7 / 14 / 17 x capture_multi; '
            . 'cast over HTTP 2.5 x capture_multi, 1.3 x the same over kept connections; route.cc 2 x and 1.1 x.',
    };
}

sub hub ($quick) {
    return {
        name => 'hub', title => 'A request that has to go to the router', workers => 4, by => 'cluster',
        peers   => \&CC::Bench::Cluster::hubs, against => [ 'proxy_pass, kept' ],
        metrics => \@REQUESTS, cases => connections($quick),
        note    => 'To reach: a p50 under 1.5 x that of one hop by proxy_pass over kept connections.',
    };
}

sub status ($quick) {
    return {
        name => 'status', title => 'A scrape of cc_status', by => 'status',
        peers   => \&CC::Bench::Status::peers, against => [], rounds => 3,
        metrics => [ [ us => "us of the worker's time per request", 'plain' ],
            [ rare => 'the same, with 50 a second', 'plain' ], [ p50 => 'p50 us', 'plain' ], [ bytes => 'bytes', 'count' ] ],
        cases   => [ map {
            my $workers = $_;
            map { +{ name => "$workers workers, $_", workers => $workers, format => $_, args => {}, kinds => ['ours'] } }
                CC::Bench::Status::formats()
        } $quick ? 4 : (4, 64) ],
        note    => 'To reach with 64 workers: under 1000 us of the worker\'s time, in every format.',
    };
}

# lua/works/flood.lua with requests beside it.
sub flooded ($quick) {
    return {
        name => 'flooded', title => 'Requests to a worker that is flooded', workers => 2,
        by => 'flooded', lua => 'flood', rounds => $quick ? 1 : 3, against => [],
        metrics => [ [ idle => 'p99 us idle', 'plain' ], [ busy => 'p99 us beside a busy process', 'plain' ],
            [ p99 => 'p99 us flooded', 'plain' ], [ times => 'flooded / idle', 'plain' ], [ beside => 'flooded / busy', 'plain' ], [ http => 'req/s flooded', 'count' ],
            [ rate => 'msg/s meanwhile', 'count' ] ],
        cases => [ map {
            my $size = $_;
            my @clients = ([ 'a request each ms', pause => 0.001 ], [ 'c = 8', connections => 8 ]);
            map { my ($clients, @how) = @$_; +{ name => size_name($size) . ", $clients", @how, kinds => ['ours'],
                args => { size => $size, content => 'unique' } } } $quick ? $clients[0] : @clients
        } 10, 10240 ],
    };
}

sub stopped ($quick) {
    return {
        name => 'stopped', title => "A stopped receiver, and the sender's memory", workers => 2,
        by => 'stopped', rounds => 1, against => [],
        metrics => [ [ accepted => 'accepted MB', 'plain' ], [ grown => 'sender grew by MB', 'plain' ],
            [ kept => 'of that kept MB, 1 s after it went on', 'plain' ],
            [ shared => 'touched of shared memory, MB', 'plain' ],
            [ lost => 'accepted but lost', 'count' ], [ said => 'refused with', 'text' ] ],
        cases => [ { name => '10 KB', args => { size => 10240, megabytes => $quick ? 64 : 256 },
            kinds => $quick ? $EVENT_BUS : $ALL } ],
    };
}

sub reload ($quick) {
    return {
        name => 'reload', title => 'Reloads under load, a sender and a receiver in each generation',
        workers => 2, by => 'reload', rounds => $quick ? 1 : 2, against => [],
        metrics => [ [ accepted => 'accepted', 'count' ], [ lost => 'of these lost', 'count' ], [ told => 'and counted by the bus itself', 'count' ],
            [ bad => 'torn or out of order', 'count' ], [ refused => 'refused', 'count', 'if any' ] ],
        cases => [ { name => $quick ? '1 reload' : '3 reloads', reloads => $quick ? 1 : 3,
            args => {}, kinds => $quick ? $EVENT_BUS : $ALL } ],
    };
}

sub names () { qw(flood pingpong broadcast rounds call gather cluster hub flooded balance status stopped reload) }

# Works by name, or all.
sub list ($quick, @names) {
    my %work = map { $_->{name} => $_ } map { $_->($quick) }
        \&flood, \&pingpong, \&broadcast, \&rounds, \&call, \&gather, \&cluster, \&hub,
        \&flooded, \&balance, \&status, \&stopped, \&reload;
    return map { $work{$_} // die "no work '$_'; there are: @{[ names() ]}\n" }
        @names ? @names : names();
}

1;
