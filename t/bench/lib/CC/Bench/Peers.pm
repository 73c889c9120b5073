package CC::Bench::Peers;

# Who competes. A peer is a name, the bus its Lua goes through, and what its
# nginx needs; one that cannot run here is left out, with the reason.

use v5.36;
use CC::Modules;
use CC::Server;

# Ours in all its variants: directives of the main block. A variant is left
# out when this version refuses one of them, so the list may run ahead.
my @OURS = (
    [ 'ours'             => '' ],
    [ 'ours (no spin)'   => 'cc_ipc_spin off;' ],
    [ 'ours (sockets)'   => 'cc_ipc_transport socket;' ],
);

sub all () {
    return (
        (map { +{ name => $_->[0], kind => 'ours', bus => 'ipc', main => $_->[1] } } @OURS),
        { name => 'ngx_lua_ipc', kind => 'lua_ipc', bus => 'ipc' },
        { name => 'list (busy)', kind => 'list', bus => 'list', options => 'interval = 0',
            note => 'ngx.shared list, receivers poll without a pause' },
        { name => 'list (1 ms)', kind => 'list', bus => 'list', options => 'interval = 1',
            note => 'ngx.shared list, receivers poll each millisecond' },
        { name => 'events (1 ms)', kind => 'events', bus => 'events',
            note => 'in the way of lua-resty-worker-events, polled each millisecond' },
    );
}

# Sets {modules} of those that can run; ($those, { name => reason }).
sub available (@peers) {
    my (@can, %why);
    for my $peer (@peers) {
        my $reason = prepare($peer);
        $reason ? ($why{ $peer->{name} } = $reason) : push @can, $peer;
    }
    return (\@can, \%why);
}

sub prepare ($peer) {
    my @plain = CC::Modules::pick(module => 0, stream => 0);
    if ($peer->{kind} eq 'lua_ipc') {
        my $so = $ENV{NGX_LUA_IPC} or return 'NGX_LUA_IPC=/path/to/its.so is not given';
        -f $so or return 'the file that NGX_LUA_IPC names is not there';
        # before lua, whose VM it wants to prepare
        $peer->{modules} = [ @plain, $so ];
    }
    elsif ($peer->{kind} eq 'ours') {
        $peer->{modules} = eval { [ CC::Modules::pick(module => 1, stream => 0) ] }
            or return 'the module is not built';
    }
    else {
        $peer->{modules} = \@plain;
    }
    my $trial = CC::Server->new(modules => $peer->{modules}, ports => 1,
        main => $peer->{main} // '', server => '');
    my ($code, $out) = $trial->try_conf;
    return if $code == 0;
    my ($line) = $out =~ /\[emerg\]\s*(?:\d+#\d+: )?(.*?)(?: in \S+)?$/m;
    return 'nginx refuses it: ' . ($line // "exit code $code");
}

1;
